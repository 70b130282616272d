"""Who may register, how often and how much; nobody is believed before he was dialled. Store and dials are simulated."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from edge.control.inside import Asked
from edge.errors import UpstreamIdentityRejected
from edge.model.identity import Peer
from edge.registry.admission import DRAIN_S, MAX_INSTANCES, Refused
from edge.serve import registrar as registrar_module
from edge.serve.registrar import Registrar
from tests.edge.forward.pools import Dialling
from tests.edge.registry.conftest import ENTRY
from tests.edge.serve.registries import Worker, World

SUBJECT = "spiffe://mesh.internal/svc/orders"
HELD, OTHER = ((b"\xab" * 32, 0x1F),), ((b"\xab" * 32, 0x20),)


def asked(
    instance: str = "one",
    subject: str = SUBJECT,
    certificates: tuple[tuple[bytes, int], ...] = HELD,
    ip: str = "10.1.2.3",
) -> Asked:
    peer = Peer(ip, 1, ip, sni=None, tls_version="TLSv1.3", tls_cipher="", spiffe_id=subject, certificates=certificates)
    return Asked("orders", instance, subject, peer)


class Desk:
    """A worker that takes registrations; `dialled` are the addresses that were called back."""

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self.pool = Dialling()
        self.dialled: list[tuple[str, int]] = []
        self.then: Callable[[], Coroutine[Any, Any, None]] = _nothing
        self.pool.reach = self._reached
        self.registrar = Registrar(worker.registry, self.pool)

    async def _reached(self, address: tuple[str, int]) -> None:
        self.dialled.append(address)
        await self.then()

    async def put(self, who: Asked, body: bytes = b'{"address": ":9101"}') -> str:
        outcome = await self.registrar.register(who, body)
        return outcome.rule if isinstance(outcome, Refused) else "granted"


async def _nothing() -> None: ...


def play(world: World, run: Callable[[Desk], Coroutine[Any, Any, None]]) -> None:
    async def whole() -> None:
        desk = Desk(world.worker("a"))
        await desk.worker.registry.start()
        await run(desk)

    asyncio.run(whole())


def test_a_service_registers_itself_and_is_dialled_back_E3(world: World) -> None:
    async def run(desk: Desk) -> None:
        assert await desk.put(asked(subject="spiffe://mesh.internal/svc/billing")) == "not-yours"
        assert await desk.put(asked("A_b")) == "instance-name"
        assert (desk.dialled, desk.worker.names()) == ([], [])
        assert await desk.put(asked()) == "granted"
        assert (desk.dialled, desk.worker.names()) == ([("10.1.2.3", 9101)], ["one"])

    play(world, run)


def test_who_does_not_prove_it_is_not_listed_E3(world: World) -> None:
    async def run(desk: Desk) -> None:
        async def forged() -> None:
            raise UpstreamIdentityRejected("chain-untrusted")

        desk.then = forged
        assert await desk.put(asked()) == "identity"
        assert desk.worker.names() == []

    play(world, run)


def test_a_tombstone_lasts_as_long_as_anything_that_it_cancels_P50(world: World) -> None:
    async def run(desk: Desk) -> None:
        assert await desk.put(asked(), b'{"address": ":9101", "ttl_s": 60}') == "granted"
        first = desk.worker.registry.ledger.find("orders", "one")
        assert await desk.put(asked(), b'{"address": ":9101", "ttl_s": 1}') == "granted"
        assert await desk.registrar.leave(asked()) == DRAIN_S
        gone = desk.worker.registry.ledger.find("orders", "one")
        assert first is not None
        assert gone is not None
        assert (gone.entry.gone, gone.entry.expires_ms >= first.entry.expires_ms) == (True, True)

    play(world, run)


def test_another_certificate_waits_or_comes_from_the_same_address_P49(world: World) -> None:
    async def run(desk: Desk) -> None:
        assert await desk.put(asked()) == "granted"
        other = asked(certificates=OTHER, ip="10.1.2.4")
        assert await desk.put(other) == "instance-taken"
        left = await desk.registrar.leave(other)
        assert isinstance(left, Refused)
        assert left.rule == "instance-taken"
        assert await desk.put(asked(certificates=OTHER)) == "granted"
        assert len(desk.dialled) == 2

    play(world, run)


def test_what_changes_while_it_is_dialled_is_not_overwritten_P49(world: World) -> None:
    async def run(desk: Desk) -> None:
        async def meanwhile() -> None:
            desk.then = _nothing
            world.store.put(b"orders/one", world.sealed(world.entry("b", host="10.9.9.9"), by="b"))

        desk.then = meanwhile
        assert await desk.put(asked()) == "overtaken"
        (found,) = desk.worker.roster.instances("orders")
        assert found.address == ("10.9.9.9", 9101)

    play(world, run)


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST", "localhost."])
def test_every_address_of_a_name_is_judged_E4_P51(world: World, host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def run(desk: Desk) -> None:
        assert await desk.put(asked(), b'{"address": "%b:9101"}' % host.encode()) == "address-foreign"
        assert (desk.dialled, desk.worker.names()) == ([], [])

    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (ip, 0)) for ip in ("127.0.0.1", "192.168.0.1")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    play(world, run)


async def until_too_many(desk: Desk, *bodies: bytes) -> int:
    """How many are granted before one is not."""
    for count in range(2000):
        told = await desk.put(asked(), bodies[count % len(bodies)])
        if told != "granted":
            assert told == "too-many"
            return count
    raise AssertionError("never")


def test_a_flood_of_changes_or_of_heartbeats_is_cut_off_E3(world: World) -> None:
    async def run(desk: Desk) -> None:
        assert await desk.put(asked()) == "granted"
        turning = [b'{"address": ":9101", "ttl_s": %d}' % ttl_s for ttl_s in (60, 30)]
        assert await until_too_many(desk, *turning) >= 1000
        weights = [b'{"address": ":9101", "weight": %d}' % weight for weight in (2, 3)]
        assert 100 < await until_too_many(desk, *weights) < 1000
        assert len(desk.dialled) < 1000

    play(world, run)


def test_a_service_has_so_many_instances_E3(world: World) -> None:
    async def run(desk: Desk) -> None:
        for at in range(MAX_INSTANCES):
            await desk.worker.registry.write(world.entry(instance=f"x{at}", sequence=time.time_ns() + at))
        assert await desk.put(asked()) == "too-many"
        assert await desk.put(asked("x7", certificates=ENTRY.certificates)) == "granted"  # who is known may go on
        assert desk.dialled == []

    play(world, run)


def test_addresses_that_never_answer_keep_others_waiting_and_not_for_ever_E3(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def run(desk: Desk) -> None:
        never = asyncio.Event()

        async def hang() -> None:
            await never.wait()

        desk.then = hang
        waiting = [asyncio.create_task(desk.put(asked(f"x{at}"))) for at in range(17)]
        done, open_still = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        assert ([each.result() for each in done], len(open_still), len(desk.dialled)) == (["too-many"], 16, 16)
        never.set()
        assert set(await asyncio.gather(*open_still)) == {"granted"}

    monkeypatch.setattr(registrar_module, "_TURN_S", 0.05)
    play(world, run)
