"""A recorder, its clocks, and what tests have it write."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge.audit.drain import RingReader
from edge.audit.record import FIELDS, AuditSettings
from edge.audit.recorder import Recorder
from edge.audit.ring import Ring
from edge.model.decision import Admission, Permit, QuotaState
from edge.model.http import Request
from edge.model.identity import Peer, Principal
from edge.model.record import UpstreamFacts
from edge.model.route import PathPattern, Route, RouteMatch, Upstream, Wildcard

HASH = "5d" * 32
WALL = 1_795_253_841_363_643_000
ALICE = Principal(
    "jwt",
    "https://idp.example.com/",
    "alice@example.com",
    frozenset(["orders:read"]),
    frozenset(["staff"]),
    tenant="acme",
    client_id="app",
    jwt_kid="k1",
    jwt_id="token-17",
)
ROUTE = Route(
    "orders",
    PathPattern("/orders/**", ("orders", Wildcard.REST)),
    ("localhost",),
    ("GET",),
    Upstream("orders", "spiffe://mesh.internal/svc/orders"),
    ("jwt",),
)
UPSTREAM = UpstreamFacts("orders", "spiffe://mesh.internal/svc/orders", "5f3a", "127.0.0.1:9101", 300_000)
SECRET = b"Bearer eyJhbGciOi.secret.sig"

Leaf = dict[str, object]


class Desk:
    """A recorder on clocks that stand still unless moved, and the notary's view of what it wrote."""

    def __init__(self, directory: Path, settings: AuditSettings) -> None:
        self.wall, self.mono = WALL, 10**12
        self.ring = Ring.create(directory / "w.ring", "worker-0", slots=512)
        self.reader = RingReader.attach(directory / "w.ring", "worker-0")
        self.reader.beat(self.mono)
        self.recorder = Recorder(
            self.ring, settings, pseudonym_key=b"k" * 32, wall_ns=lambda: self.wall, mono_ns=lambda: self.mono
        )

    def leaves(self) -> list[Leaf]:
        raw = self.reader.read(512)
        self.reader.acknowledge(len(raw))
        found: list[Leaf] = [json.loads(leaf) for leaf in raw]
        for leaf, text in zip(found, raw, strict=True):
            assert set(leaf) <= set(FIELDS)
            assert text.isascii()
            assert text.decode().isprintable()
        return found

    def admit(self, principal: Principal = ALICE) -> int:
        return self.recorder.admit("id1", request(), peer(), admission(principal), HASH, WALL)

    def refuse(
        self, *, asked: Request | None = None, principal: Principal | None = None, reason: str = "no-route"
    ) -> int | None:
        return self.recorder.refuse(
            "id2",
            asked,
            peer(),
            principal=principal,
            match=None,
            status=404,
            reason=reason,
            rule="some-rule",
            bundle_hash=HASH,
            started_ns=WALL,
            duration_ns=5,
        )

    def close(self) -> None:
        self.reader.close()
        self.ring.close()


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(tmp_path, AuditSettings("home.example/log"))
    yield desk
    desk.close()


def peer(**changes: str) -> Peer:
    facts = {"ip": "192.0.2.7", "prefix": "192.0.2.7", "sni": "localhost", "tls_version": "TLSv1.3", "tls_cipher": "C"}
    facts |= changes
    return Peer(facts["ip"], 40112, facts["prefix"], facts["sni"], facts["tls_version"], facts["tls_cipher"])


def request(path: str = "/orders/7", method: str = "GET", host: str = "localhost") -> Request:
    fields = ((b"authorization", SECRET), (b"cookie", b"session=secret"))
    return Request(method, path, b"q=secret", True, host, host, fields, SECRET, None, False)


def admission(principal: Principal = ALICE, *limits: str, degraded: bool = False) -> Admission:
    quotas = tuple(QuotaState(limit, 100, 60, 99, 60) for limit in limits)
    return Admission(Permit(principal, RouteMatch(ROUTE, {"id": "7"}), ("orders-read",)), quotas, degraded)


def complete(desk: Desk, slot: int, *, reason: str | None = None, upstream: UpstreamFacts | None = UPSTREAM) -> int:
    return desk.recorder.complete(
        slot, status=200, reason=reason, bytes_in=3, bytes_out=1024, duration_ns=412, upstream=upstream
    )
