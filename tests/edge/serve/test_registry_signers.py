"""Whose word counts in the shared registry: a gateway's, by its certificate, who issued it, its dates and its record."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from edge.registry.entry import seal
from pki.bundle import Bundle
from pki.errors import SvidRejected
from pki.known_status import KnownStatus
from tests.edge.serve.registries import Worker, World
from tests.pki.conftest import Forge, Forged, Sketch

GATEWAY = "spiffe://mesh.internal/gw/edge"


class Told(KnownStatus):
    """What the authority says is revoked, as a test says it."""

    def __init__(self) -> None:
        super().__init__()
        self.named: frozenset[tuple[bytes, int]] | None = frozenset()

    @property
    def listed(self) -> frozenset[tuple[bytes, int]]:
        return self.named or frozenset()

    def revoked(self, now: datetime) -> frozenset[tuple[bytes, int]] | None:
        return self.named


class Mesh:
    """An authority with an intermediate for gateways and one for services, and a reader that believes it."""

    def __init__(self, world: World) -> None:
        self.now = datetime.now(UTC)
        self.world, self.forge, self.status = world, Forge(), Told()
        began = self.now - timedelta(hours=1)
        made = replace(self.forge.authority, cn="gw", unit="gw", path_length=0, not_before=began)
        self.gw = self.forge.make(made, self.forge.root)
        self.own = self.leaf(self.gw)
        self.issued: set[bytes] | None = None
        bundle = Bundle.parse(self.forge.root.pem + self.gw.pem + self.forge.issuer.pem)
        self.view = replace(world.views["a"], bundle=bundle, check_issued=self._check_issued)
        world.status = self.status

    def _check_issued(self, leaf_sha256: bytes, now: datetime) -> None:
        if self.issued is not None and leaf_sha256 not in self.issued:
            raise SvidRejected("not-in-issuance-record")

    def leaf(self, issuer: Forged, **changes: Any) -> Forged:
        began, end = self.now - timedelta(minutes=1), self.now + timedelta(hours=1)
        sketch = Sketch(uris=(GATEWAY,), dns=(), not_before=began, not_after=end)
        return self.forge.make(replace(sketch, **changes), issuer)

    def sealed(self, by: Forged, **changes: Any) -> bytes:
        entry = msgspec.structs.replace(self.world.entry(**changes), gateway=GATEWAY)
        return seal(entry, by.key, by.der, "mesh.internal")

    def reader(self) -> Worker:
        return self.world.worker("a", **{name: getattr(self.view, name) for name in ("bundle", "check_issued")})


def play(world: World, run: Callable[[Mesh, Worker], Coroutine[Any, Any, None]]) -> None:
    async def whole() -> None:
        mesh = Mesh(world)
        worker = mesh.reader()
        await worker.registry.start()
        await run(mesh, worker)

    asyncio.run(whole())


async def heard(worker: Worker, world: World, raw: bytes) -> tuple[list[str], object]:
    """Who is listed after somebody wrote it, and what was said about it last."""
    world.store.put(b"orders/one", raw)
    await worker.registry.look()
    told = worker.events()
    return worker.names(), told[-1][1] if told else None


def test_a_gateway_is_believed(world: World) -> None:
    async def run(mesh: Mesh, worker: Worker) -> None:
        assert await heard(worker, world, mesh.sealed(mesh.own)) == (["one"], None)

    play(world, run)


def test_a_gateway_s_name_from_the_services_intermediate_is_none_E3(world: World) -> None:
    async def run(mesh: Mesh, worker: Worker) -> None:
        raw = mesh.sealed(mesh.leaf(mesh.forge.issuer))
        assert await heard(worker, world, raw) == ([], "signer")

    play(world, run)


def test_a_gateway_that_is_in_no_record_is_none_E3(world: World) -> None:
    async def run(mesh: Mesh, worker: Worker) -> None:
        mesh.issued = set()
        assert await heard(worker, world, mesh.sealed(mesh.own)) == ([], "signer")

    play(world, run)


def test_a_gateway_that_is_revoked_says_nothing_more_and_what_it_said_is_over_P50(world: World) -> None:
    async def run(mesh: Mesh, worker: Worker) -> None:
        assert (await heard(worker, world, mesh.sealed(mesh.own)))[0] == ["one"]
        held = worker.registry.ledger.find("orders", "one")
        assert held is not None
        mesh.status.named = frozenset(held.certificates[-2:])
        assert await heard(worker, world, mesh.sealed(mesh.own, weight=2)) == ([], "signer")

    play(world, run)


def test_while_nobody_knows_who_is_revoked_nobody_new_is_believed_P26(world: World) -> None:
    async def run(mesh: Mesh, worker: Worker) -> None:
        mesh.status.named = None
        raw = mesh.sealed(mesh.own)
        assert await heard(worker, world, raw) == ([], None)
        mesh.status.named = frozenset()
        await worker.registry.walk()  # it was not forgotten
        assert worker.names() == ["one"]

    play(world, run)


def test_a_signature_from_after_its_certificate_s_end_is_none(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    class Later(datetime):
        """Forty seconds later, for who asks for the time."""

        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return datetime.now(tz) + timedelta(seconds=40)

    async def run(mesh: Mesh, worker: Worker) -> None:
        short = mesh.leaf(mesh.gw, not_after=mesh.now + timedelta(seconds=30))
        until_ms = time.time_ns() // 1_000_000 + 60_000
        assert (await heard(worker, world, mesh.sealed(short, expires_ms=until_ms)))[0] == ["one"]
        monkeypatch.setattr("edge.serve.registry.datetime", Later)
        names, rule = await heard(worker, world, mesh.sealed(short, expires_ms=until_ms, gone=True))
        assert (names, rule) == (["one"], "signer")

    play(world, run)


@pytest.mark.parametrize("changes", [{"sequence": (1 << 62)}, {"expires_ms": time.time_ns() // 1_000_000 + 3_600_000}])
def test_nobody_locks_an_instance_by_a_word_from_the_future_E3(world: World, changes: dict[str, int]) -> None:
    async def run(mesh: Mesh, worker: Worker) -> None:
        assert await heard(worker, world, mesh.sealed(mesh.own, gone=True, **changes)) == ([], "future")
        assert (await heard(worker, world, mesh.sealed(mesh.own)))[0] == ["one"]

    play(world, run)


def test_what_a_stranger_writes_names_no_service_in_the_log_E8(world: World) -> None:
    async def run(mesh: Mesh, worker: Worker) -> None:
        world.store.put(b"evil/one", mesh.sealed(mesh.leaf(mesh.forge.issuer), service="evil"))
        await worker.registry.look()
        (leaf,) = worker.desk.leaves()
        assert (leaf["event.reason"], leaf["service.name"]) == ("signer", "")

    play(world, run)


def test_what_is_over_is_removed_whoever_signed_it_and_nobody_is_blamed(world: World) -> None:
    async def run(mesh: Mesh, worker: Worker) -> None:
        world.store.entries[b"orders/one"] = mesh.sealed(mesh.own, expires_ms=1)
        await worker.registry.walk()
        assert (world.store.entries, worker.names(), worker.events()) == ({}, [], [])

    play(world, run)
