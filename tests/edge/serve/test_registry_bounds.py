"""What somebody who holds the store, or a gateway that was broken into, can make a reader of the shared registry do."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from edge.registry import ledger
from tests.edge.serve.registries import World


@pytest.mark.parametrize(
    ("said", "heard"),
    [
        ({"gone": True}, ["registry.heard-gone"]),
        ({"host": "10.1.2.4"}, ["registry.heard-moved"]),
        ({"holder": (("00", "1"),)}, ["registry.heard-moved"]),
        ({"weight": 7}, []),  # a heartbeat through another gateway is nothing to speak of
    ],
)
def test_what_another_gateway_ends_or_moves_is_in_each_gateway_s_own_log(
    world: World, said: dict[str, Any], heard: list[str]
) -> None:
    async def play() -> None:
        a, b = world.worker("a"), world.worker("b")
        await a.registry.start()
        await b.registry.start()
        await a.registry.write(world.entry())
        await b.registry.look()
        await b.registry.write(world.entry("b", **said))
        await a.registry.look()
        assert ([kind for kind, _ in a.events()], b.events()) == (heard, [])
        # The instance's own next proof, at any gateway, is newer than what was said of it.
        await a.registry.write(world.entry())
        await b.registry.look()
        assert (a.names(), b.names()) == (["one"], ["one"])

    asyncio.run(play())


def test_a_gateway_that_signs_without_end_fills_no_memory(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "MAX_EACH", 3)

    async def play() -> None:
        worker = world.worker("b")
        await worker.registry.start()
        for at in range(5):
            world.store.put(b"orders/i%d" % at, world.sealed(world.entry(instance=f"i{at}")))
        await worker.registry.look()
        await worker.registry.walk()
        assert worker.names() == ["i0", "i1", "i2"]
        assert worker.events() == [("registry.forged", "too-many")] * 2
        assert len(world.store.entries) == 5  # who has room takes it
        world.store.put(b"orders/i1", world.sealed(world.entry(instance="i1", gone=True)))
        await worker.registry.look()
        assert worker.names() == ["i0", "i2"]

    asyncio.run(play())


def test_an_answer_beyond_its_bounds_is_an_event_and_what_is_known_stands(world: World) -> None:
    async def play() -> None:
        worker = world.worker("a")
        await worker.registry.write(world.entry())
        world.store.answers = [b"orders/one", 5]
        for _ in range(3):
            await worker.registry.look()
            await worker.registry.walk()
        assert (worker.names(), worker.events()) == (["one"], [("registry.forged", "answer")])
        world.store.answers = None
        await worker.registry.look()
        assert worker.names() == ["one"]

    asyncio.run(play())
