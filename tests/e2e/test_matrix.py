"""Every case over each pair of protocol, workers and store, and both shells of HTTP/2.

`scripts/campaign matrix` runs each case in every cell.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import pytest

from tests.e2e.trouble import ALL
from tests.e2e.world import (
    NO_REDIS,
    PLACES,
    SHELLS,
    Surroundings,
    World,
    is_possible,
    protocol_of,
    shell_of,
    surroundings,
    world,
)
from tests.wire.speaker import SPEAKERS


@pytest.fixture(scope="module")
def around(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Surroundings]:
    with surroundings(tmp_path_factory.mktemp("around")) as around:
        yield around


@pytest.fixture(scope="module", params=PLACES, ids=str)
def here(
    request: pytest.FixtureRequest, around: Surroundings, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    if not is_possible(request.param):
        pytest.skip(NO_REDIS)
    with world(request.param, shell_of(request.param), around, tmp_path_factory.mktemp("world")) as here:
        yield here


@pytest.mark.parametrize(("number", "name"), list(enumerate(ALL)), ids=ALL)
def test_case(here: World, number: int, name: str) -> None:
    speaker = SPEAKERS[protocol_of(here.place, number)](here.gateway)
    here.orders.clear()
    try:
        ALL[name](here, speaker)
    finally:
        speaker.close()


def test_the_sample_meets_every_pair() -> None:
    for number in range(len(ALL)):
        met = {(protocol_of(place, number), place.workers, place.store) for place in PLACES}
        assert {(protocol, workers) for protocol, workers, _ in met} == {(p, w) for p in SPEAKERS for w in (1, 3)}
        for store in ("embedded", "valkey", "redis"):
            assert {(protocol, store) for protocol in SPEAKERS} <= {(protocol, kind) for protocol, _, kind in met}
            assert {(workers, store) for workers in (1, 3)} <= {(workers, kind) for _, workers, kind in met}
    assert {(shell_of(place), place.workers) for place in PLACES} == set(product(SHELLS, (1, 3)))
