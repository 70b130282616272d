"""The forge of `tests/pki`."""

from __future__ import annotations

import pytest

from tests.pki.conftest import Forge


@pytest.fixture(scope="session")
def forge() -> Forge:
    return Forge()
