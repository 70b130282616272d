"""The shared registry as a worker reads it: what is believed, what is not, what follows. The store is simulated."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from edge.errors import StoreUnavailable
from edge.registry.entry import MAX_BYTES, Declared
from tests.edge.serve.registries import World


def test_what_one_gateway_admits_the_other_knows_at_its_next_look(world: World) -> None:
    async def play() -> None:
        a, b = world.worker("a"), world.worker("b")
        await a.registry.start()
        await b.registry.start()
        await a.registry.write(world.entry(routes=(Declared("/orders/**", ("GET",), ("localhost",)),)))
        assert (a.names(), b.names()) == (["one"], [])
        await b.registry.look()
        assert b.names() == ["one"]
        assert (a.swaps, b.swaps) == ([1], [1])
        (found,) = b.roster.instances("orders")
        assert (found.address, found.weight, found.is_draining) == (("10.1.2.3", 9101), 1, False)
        await b.registry.write(world.entry("b", gone=True))
        await a.registry.look()
        assert (a.names(), b.names(), a.swaps, b.swaps) == ([], [], [1, 0], [1, 0])
        assert (a.events(), b.events()) == ([("registry.heard-gone", None)], [])

    asyncio.run(play())


def test_a_worker_that_starts_later_reads_what_stands(world: World) -> None:
    async def play() -> None:
        await world.worker("a").registry.write(world.entry())
        late = world.worker("b")
        await late.registry.start()
        assert late.names() == ["one"]

    asyncio.run(play())


FORGED: dict[str, Callable[[World], tuple[bytes, bytes]]] = {
    "form": lambda world: (b"orders/one", b"x" * (MAX_BYTES + 1)),
    "moved": lambda world: (b"orders/two", world.sealed(world.entry())),
    "signer": lambda world: (b"orders/one", world.sealed(world.entry("orders"), by="orders")),
    "signature": lambda world: (b"orders/one", world.sealed(world.entry()).replace(b"10.1.2.3", b"10.6.6.6")),
    "future": lambda world: (b"orders/one", world.sealed(world.entry(expires_ms=time.time_ns() // 1_000_000 + 10**6))),
}


@pytest.mark.parametrize("rule", FORGED)
def test_what_is_forged_is_said_once_and_believed_never(world: World, rule: str) -> None:
    async def play() -> None:
        worker = world.worker("b")
        await worker.registry.start()
        name, raw = FORGED[rule](world)
        world.store.entries[name] = raw
        for _ in range(3):
            await worker.registry.walk()
            await worker.registry.look()
        assert worker.names() == []
        assert worker.events() == [("registry.forged", rule)]
        # What time or another configuration might turn is left; the rest is removed.
        assert bool(world.store.entries) == (rule in ("signer", "future"))

    asyncio.run(play())


def test_a_gateway_speaks_for_itself_only(world: World) -> None:
    async def play() -> None:
        worker = world.worker("b")
        await worker.registry.start()
        world.store.put(b"orders/one", world.sealed(world.entry("b"), by="a"))
        await worker.registry.look()
        assert (worker.names(), worker.events()) == ([], [("registry.forged", "signer")])

    asyncio.run(play())


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("host", "orders.internal"), ("host", ""), ("host", "127.1"), ("host", "fe80::1%eth0"),
        ("health_path", "/ok HTTP/1.1\r\nX-Auth-Subject: root\r\n\r\n"), ("health_path", "ok"), ("health_path", "/\u00fc"),
        ("since_ms", 1 << 62),
    ],
)  # fmt: skip
def test_E3_a_stolen_gateway_stops_no_other_by_what_it_signs(world: World, field: str, value: Any) -> None:
    async def play() -> None:
        raw = world.sealed(msgspec.structs.replace(world.entry(instance="bad"), **{field: value}))
        world.store.put(b"orders/bad", raw)
        world.store.put(b"orders/one", world.sealed(world.entry()))
        worker = world.worker("b")
        await worker.registry.start()
        assert (worker.names(), worker.events()) == (["one"], [("registry.forged", "form")])
        assert b"orders/bad" in world.store.entries  # a start removes nothing
        await worker.registry.walk()
        assert list(world.store.entries) == [b"orders/one"]

    asyncio.run(play())


@pytest.mark.parametrize(
    "route",
    [
        Declared("orders", ("GET",), ("localhost",)),
        Declared("/orders/{", ("GET",), ("localhost",)),
        Declared("/orders/../billing", ("GET",), ("localhost",)),
        Declared("/orders/%2f", ("GET",), ("localhost",)),
        Declared("/orders/" + "x" * 300, ("GET",), ("localhost",)),
        Declared("/orders/**", ("GET",), ()),
        Declared("/orders/**", ("BREW",), ("localhost",)),
        Declared("/**", ("GET",), ("localhost",)),
    ],
)
def test_E3_a_stolen_gateway_declares_nothing_outside_a_grant(world: World, route: Declared) -> None:
    async def play() -> None:
        good = Declared("/orders/{id}", ("GET",), ("localhost",))
        worker = world.worker("b")
        await worker.registry.start()
        world.store.put(b"orders/bad", world.sealed(world.entry(instance="bad", routes=(route,))))
        world.store.put(b"orders/one", world.sealed(world.entry(routes=(good,))))
        await worker.registry.look()
        assert [each.pattern.text for each in worker.registry.composed.routes] == ["/orders/{id}"]
        assert worker.registry.composed.reasons["orders", route.path].startswith("outside-grant: ")

    asyncio.run(play())


def test_what_is_taken_away_is_put_back_by_whoever_knows_it(world: World) -> None:
    async def play() -> None:
        a, b = world.worker("a"), world.worker("b")
        await b.registry.start()
        await a.registry.write(world.entry())
        await b.registry.look()
        raw = dict(world.store.entries)
        world.store.entries.clear()
        world.store.changes.clear()
        await b.registry.walk()
        await b.registry.walk()
        assert (world.store.entries, a.names(), b.names()) == (raw, ["one"], ["one"])
        assert b.events() == [("registry.forged", "missing")]

    asyncio.run(play())


def test_a_replay_is_removed_and_said_and_a_late_write_is_no_replay(world: World) -> None:
    async def play() -> None:
        worker = world.worker("b")
        await worker.registry.start()
        old, new = world.entry(sequence=time.time_ns() - 10), world.entry(gone=True)
        world.store.put(b"orders/one", world.sealed(new))
        world.store.put(b"orders/one", world.sealed(old))  # by another worker, which was late
        await worker.registry.look()
        assert (worker.names(), worker.events()) == ([], [])
        await worker.registry.walk()
        assert (worker.names(), worker.events()) == ([], [("registry.forged", "replayed")])
        assert world.store.entries == {}

    asyncio.run(play())


def test_where_loopback_is_not_allowed_another_machine_s_is_not_ours(world: World) -> None:
    async def play() -> None:
        worker = world.worker("b", may_loopback=False)
        await worker.registry.write(world.entry("b", host="127.0.0.1"))
        held = worker.registry.ledger.find("orders", "one")
        assert held is not None
        assert (worker.names(), worker.registry.why_not(held)) == ([], "address-loopback")

    asyncio.run(play())


def test_a_reload_that_takes_the_grant_takes_the_instance_and_gives_it_back(world: World) -> None:
    async def play() -> None:
        worker = world.worker("a")
        await worker.registry.write(world.entry(routes=(Declared("/orders/**", ("GET",), ("localhost",)),)))
        assert len(worker.registry.adopt(replace(world.views["a"], grants={})).routes) == 0
        held = worker.registry.ledger.find("orders", "one")
        assert held is not None
        assert (worker.names(), worker.registry.why_not(held)) == ([], "not-granted")
        assert len(worker.registry.adopt(world.views["a"]).routes) == 1
        assert worker.names() == ["one"]

    asyncio.run(play())


def test_a_lease_that_ends_is_told_and_its_routes_go(world: World) -> None:
    async def play() -> None:
        worker = world.worker("a")
        routes = (Declared("/orders/**", ("GET",), ("localhost",)),)
        await worker.registry.write(world.entry(expires_ms=time.time_ns() // 1_000_000 + 20, routes=routes))
        assert worker.swaps == [1]
        while worker.names():
            worker.registry.sweep()
            await asyncio.sleep(0.005)
        assert (worker.swaps, worker.events()) == ([1, 0], [("registry.expired", None)])

    asyncio.run(play())


def test_a_store_that_is_away_is_told_once_and_changes_nothing(world: World) -> None:
    async def play() -> None:
        worker = world.worker("a")
        await worker.registry.write(world.entry())
        world.store.is_down = True
        for _ in range(2):
            await worker.registry.look()
            await worker.registry.walk()
        assert worker.names() == ["one"]
        with pytest.raises(StoreUnavailable):
            await worker.registry.write(world.entry())
        world.store.is_down = False
        await worker.registry.look()
        assert worker.names() == ["one"]

    asyncio.run(play())


def test_a_flood_in_the_store_is_counted_beyond_a_few(world: World) -> None:
    async def play() -> None:
        worker = world.worker("a")
        await worker.registry.start()
        for at in range(200):
            world.store.changes.append(b"garbage %d" % at)
        await worker.registry.look()
        told = worker.events()
        assert told == [("registry.forged", "form")] * len(told)
        assert 20 <= len(told) <= 41  # a second may have ended meanwhile

    asyncio.run(play())
