"""A shared registry in memory: an authority with two gateways, a store that anybody can write to, and its readers."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from valkey.exceptions import NoScriptError, ValkeyError

from edge.audit.record import AuditSettings
from edge.registry.entry import Entry, seal
from edge.registry.grant import Grant
from edge.registry.io_store import RegistryStore
from edge.registry.roster import Roster
from edge.serve.registry import Registry
from edge.serve.registry_log import RegistryLog
from edge.serve.registry_trust import View
from edge.serve.report import Report
from pki.bundle import Bundle
from pki.io_authority import Authority
from pki.io_keys import Passphrases, make_ec
from pki.issue import IssueRequest
from pki.known_status import KnownStatus
from tests.edge.audit.desk import Desk
from tests.edge.config.test_registered import grant
from tests.edge.registry.conftest import ENTRY
from tests.pki.founding import found_authority


class Store:
    """What a Valkey does with the commands that are used."""

    def __init__(self) -> None:
        self.entries: dict[bytes, bytes] = {}
        self.changes: list[bytes] = []
        self.is_down = False
        self.knows_scripts = False
        self.answers: object = None
        """What it says to everything, if anything."""

    async def execute_command(self, *words: Any) -> Any:
        if self.is_down:
            raise ValkeyError("away")
        if self.answers is not None:
            return self.answers
        match words:
            case ("XREVRANGE", *_):
                return [(b"%d-0" % len(self.changes), {})] if self.changes else []
            case ("XREAD", "COUNT", count, "STREAMS", key, seen):
                first = int(bytes(seen).split(b"-")[0])
                found = [(b"%d-0" % at, {b"e": raw}) for at, raw in enumerate(self.changes, 1) if at > first]
                return [[key, found[:count]]] if found else None
            case ("HSCAN", _, _, "COUNT", _):
                return 0, dict(self.entries)
            case ("EVALSHA", *_) if not self.knows_scripts:
                raise NoScriptError("no")
            case ("EVAL" | "EVALSHA", _, 2, _, _, name, raw, _):
                self.knows_scripts = True
                self.put(name.encode(), raw)
                return b"1-0"
            case ("EVAL" | "EVALSHA", _, 1, _, name, raw):
                return self.entries.pop(name, None) if self.entries.get(name) == raw else 0
        raise AssertionError(words)

    def put(self, name: bytes, raw: bytes) -> None:
        self.entries[name] = raw
        self.changes.append(raw)

    async def aclose(self) -> None:
        pass


@dataclass
class Worker:
    """One worker's registry on a store, and what the access log has of it."""

    registry: Registry
    roster: Roster
    desk: Desk
    swaps: list[int]
    """How many declared routes there were, at each swap."""

    def events(self) -> list[tuple[object, object]]:
        return [(leaf["event.action"], leaf.get("event.reason")) for leaf in self.desk.leaves()]

    def names(self, service: str = "orders") -> list[str]:
        return [each.name for each in self.roster.instances(service)]


@dataclass
class World:
    """An authority with two gateways and a service, and a store that anybody can write to."""

    views: dict[str, View]
    store: Store
    directory: Path
    status: KnownStatus = field(default_factory=KnownStatus)
    workers: list[Worker] = field(default_factory=list)

    def worker(self, gateway: str, **changes: Any) -> Worker:
        directory = self.directory / f"worker-{len(self.workers)}"
        directory.mkdir()
        desk, roster, swaps = Desk(directory, AuditSettings("home.example/log")), Roster(), [0][:0]
        registry = Registry(
            RegistryStore(lambda: self.store, 1.0),
            roster,
            self.status,
            replace(self.views[gateway], **changes),
            RegistryLog(desk.recorder, Report("test")),
            lambda: swaps.append(len(registry.composed.routes)),
            tells_ends=True,
        )
        self.workers.append(Worker(registry, roster, desk, swaps))
        return self.workers[-1]

    def entry(self, gateway: str = "a", **changes: Any) -> Entry:
        now_ms = time.time_ns() // 1_000_000
        entry = msgspec.structs.replace(
            ENTRY,
            gateway=self.views[gateway].gateway_id,
            sequence=time.time_ns(),
            expires_ms=now_ms + 30_000,
            since_ms=now_ms,
            routes=(),
        )
        return msgspec.structs.replace(entry, **changes)

    def sealed(self, entry: Entry, by: str = "a") -> bytes:
        view = self.views[by]
        return seal(entry, view.key, view.leaf, view.trust_domain)


@pytest.fixture(scope="module")
def views(tmp_path_factory: pytest.TempPathFactory) -> dict[str, View]:
    """Of the gateways `a` and `b`; and one of the service `orders`, which has no right to be one."""
    state, now = tmp_path_factory.mktemp("state"), datetime.now(UTC)
    found_authority(state / "ca", now - timedelta(hours=1))
    found = {}
    with Authority.open(state / "ca", Passphrases(state / "ca", environ={}), now=now) as authority:
        bundle = Bundle.parse(authority.bundle_pem(roles=("gw", "svc")))
        roles: tuple[tuple[str, Literal["gw", "svc"]], ...] = (("a", "gw"), ("b", "gw"), ("orders", "svc"))
        for name, role in roles:
            key = make_ec("p256")
            issued = authority.issue(IssueRequest(role, name, key.public_key(), (f"{name}.internal",)), now)
            leaf = x509.load_pem_x509_certificate(issued.chain_pem).public_bytes(Encoding.DER)
            gateway_id = f"spiffe://mesh.internal/{role}/{name}"
            grants: dict[str, Grant] = {"orders": grant("orders")}
            found[name] = View("mesh.internal", bundle, grants, (), True, gateway_id, leaf, key, lambda *_: None)
    return found


@pytest.fixture
def world(views: dict[str, View], tmp_path: Path) -> Iterator[World]:
    world = World(views, Store(), tmp_path)
    yield world
    for worker in world.workers:
        worker.desk.close()
