"""One gateway for all tests of a file; each starts with an upstream that has seen nothing."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.wire.rig import Rig


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    rig = Rig(tmp_path_factory.mktemp("wire") / "edge")
    yield rig
    rig.close()


@pytest.fixture
def rig(running: Rig) -> Rig:
    running.upstream.clear()
    return running
