"""What holds for every test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from tests.e2e import forked

# A busy machine is slow at making examples too; that says nothing about the code.
settings.register_profile("any-machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any-machine")


@pytest.fixture(scope="session", autouse=True)
def commands_at_hand() -> Iterator[None]:
    """Gateways and commands of the tests are forks of a process that has loaded them."""
    with forked.at_hand():
        yield
