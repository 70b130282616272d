"""One gateway for all tests of a file; each starts with an upstream that has seen nothing."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.wire.rig import Rig
from tests.wire.speaker import SPEAKERS, Speaker


@pytest.fixture(scope="module")
def http2(request: pytest.FixtureRequest) -> str:
    """Which shell speaks HTTP/2; a file whose cases hold for both is parametrised with it."""
    return str(getattr(request, "param", "front"))


@pytest.fixture(scope="module")
def running(http2: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    rig = Rig(tmp_path_factory.mktemp("wire") / "edge", http2)
    yield rig
    rig.close()


@pytest.fixture
def rig(running: Rig) -> Rig:
    running.upstream.clear()
    return running


@pytest.fixture(params=SPEAKERS)
def speaker(rig: Rig, request: pytest.FixtureRequest) -> Iterator[Speaker]:
    """The same question over either protocol."""
    speaker = SPEAKERS[request.param](rig.gateway)
    yield speaker
    speaker.close()
