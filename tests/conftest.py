"""What holds for every test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.e2e import forked

TESTS = Path(__file__).parent
WAITING = ("e2e", "wire")
"""Directories whose tests wait for other processes and for deadlines; all others compute."""

# A busy machine is slow at making examples too; that says nothing about the code.
settings.register_profile("any-machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any-machine")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that wait and files that compute take turns, so that processes that share two cores keep both busy. What waits
    begins first, and ends before the last of what computes: that is short."""
    files = list(dict.fromkeys(item.path for item in items))
    waiting = [each for each in files if each.relative_to(TESTS).parts[0] in WAITING]
    computing = [each for each in files if each not in waiting]
    places = {each: 0.9 * number / len(waiting) for number, each in enumerate(waiting)}
    places |= {each: (number + 0.5) / len(computing) for number, each in enumerate(computing)}
    items.sort(key=lambda item: places[item.path])


@pytest.fixture(scope="session", autouse=True)
def commands_at_hand() -> Iterator[None]:
    """Gateways and commands of the tests are forks of a process that has loaded them."""
    with forked.at_hand():
        yield
