"""A revocation while everything runs: who is cut, who is not, and what the log says; over real sockets, a whole gateway."""

from __future__ import annotations

import json
import shutil
import ssl
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pki.io_authority import Authority
from pki.io_files import write_private
from pki.io_keys import Passphrases
from pki.io_status import Publisher
from pki.tlog.io_reader import LogReader
from tests.campaigns import revoke
from tests.e2e.test_ca import ca
from tests.e2e.upstream import Upstream
from tests.e2e.whole_gateway import EDGE_YAML, Gateway, Variant, eventually, issue, knock, make, run, serving

SERVICES = """\
services:
  orders: {may_serve: ["/orders/**"], methods: [GET]}
  stock: {may_serve: ["/stock/**"], methods: [GET]}
"""
POLICY = """\
@id("anybody")
permit (principal is Edge::Anonymous, action in Edge::Action::"read", resource);
"""
ROUTE = """\
  - name: {name}
    match: {{path: "/{name}/**", methods: [GET]}}
    upstream: {{service: {name}, endpoints: ["127.0.0.1:{port}"], timeout_s: 20}}
    public: {{reason: a test without tokens}}
"""
DOOR = 'listeners:\n  services: {bind: "127.0.0.1:0"}\n'


@dataclass
class World:
    """A gateway that hosts its CA, and two services."""

    directory: Path
    orders: Upstream
    stock: Upstream
    clients: ExitStack
    """Closes what a test opened."""

    def knock(self, gateway: Gateway, name: str) -> ssl.SSLSocket:
        """A connection to the services listener, as that service."""
        return self.clients.enter_context(knock(gateway, self.directory / name))

    def leaves(self) -> list[dict[str, object]]:
        return [json.loads(entry) for _, entry in LogReader(self.directory / "state" / "log").latest(10_000)]

    def logged(self, fields: dict[str, object], times: int = 1) -> None:
        """Wait for so many leaves with these fields."""
        eventually(lambda: sum(fields.items() <= leaf.items() for leaf in self.leaves()) >= times, 10)

    @property
    def status(self) -> Path:
        return self.directory / "state" / "status"


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    variant = Variant(edge=EDGE_YAML.replace("listeners:\n", DOOR), services=SERVICES, policy=POLICY)
    directory = make(tmp_path_factory.mktemp("template") / "edge", variant)
    issue(directory, "stock")
    return directory


@pytest.fixture
def world(template: Path, tmp_path: Path) -> Iterator[World]:
    directory = tmp_path / "edge"
    shutil.copytree(template, directory)
    orders, stock = Upstream(directory / "orders"), Upstream(directory / "stock")
    ports = {"orders": orders.port, "stock": stock.port}
    entries = "".join(ROUTE.format(name=name, port=port) for name, port in ports.items())
    (directory / "policies" / "routes.yaml").write_text(f"routes:\n{entries}")
    with ExitStack() as clients:
        yield World(directory, orders, stock, clients)
    for each in (orders, stock):
        each.close()


def cacerts(door: ssl.SSLSocket) -> bytes:
    """What the listener answers; nothing when it has hung up."""
    try:
        door.sendall(b"GET /.well-known/est/cacerts HTTP/1.1\r\nHost: edge.internal\r\n\r\n")
        return door.recv(65_536)
    except OSError:
        return b""


def test_P24_P30_who_is_revoked_is_cut_everywhere_and_nobody_else(tmp_path: Path) -> None:
    """Every kind of connection, while others ask; `scripts/campaign revoke` holds it against the second that is promised."""
    outcome = revoke.campaign(tmp_path / "edge", 1)
    assert {kind: len(cut_s) for kind, cut_s in outcome.cut_s.items()} == dict.fromkeys(revoke.KINDS, 1)


def test_P28_a_set_from_before_is_refused(world: World) -> None:
    published = world.status / "revocation.json"
    with serving(world.directory) as gateway:
        older = published.read_bytes()
        assert gateway.get("/orders/1") == (200, "ok")
        assert ca(world.directory, "revoke", "orders").returncode == 0
        assert gateway.get("/orders/2") == (502, "upstream-identity")
        world.orders.clear()
        write_private(published, older, replace=True)
        gateway.line("refused what is said to be the authority's word.*rollback")
        world.logged({"event.action": "identity.revocation", "event.reason": "rollback"})
        assert gateway.get("/orders/3") == (502, "upstream-identity")
        assert gateway.get("/stock/1") == (200, "ok")
        assert world.orders.seen == b""


def published(world: World, ca_directory: Path, now: datetime) -> None:
    """What an operator copies from where the CA is."""
    with Authority.open(ca_directory, Passphrases(ca_directory, environ={}), now=now) as authority:
        publisher = Publisher(authority, world.status)
        publisher.publish(now)
        publisher.beat(now)


def test_P26_P27_who_hears_the_authority_no_more_dials_nobody(world: World, tmp_path: Path) -> None:
    elsewhere = tmp_path / "ca"
    shutil.move(world.directory / "state" / "ca", elsewhere)
    published(world, elsewhere, datetime.now(UTC) - timedelta(seconds=60))
    with serving(world.directory) as gateway:
        gateway.line("no fresh word of the authority")
        assert gateway.get("/stock/1") == (502, "upstream-identity")
        assert world.stock.seen == b""
        world.logged({"route.name": "stock", "rule.id": "revocation-unknown"})
        door = world.knock(gateway, "stock")
        door.settimeout(10)
        assert cacerts(door) == b""
        assert run("status", "-c", world.directory / "edge.yaml").stdout.startswith("FAILING: revocation")
        published(world, elsewhere, datetime.now(UTC))
        gateway.line("revocation is known again")
        assert gateway.get("/stock/2") == (200, "ok")


def test_an_authority_without_its_passphrase_is_not_waited_for(world: World) -> None:
    published(world, world.directory / "state" / "ca", datetime.now(UTC) - timedelta(seconds=60))
    known = world.directory / "issuing.secret"
    (world.directory / "state" / "ca" / "issuing.passphrase").rename(known)
    (world.directory / "state" / "ca" / "root.passphrase").unlink()
    with serving(world.directory) as gateway:
        gateway.line("authority closed")
        assert not (world.status / "heartbeat.json").exists()
        assert gateway.get("/stock/1") == (200, "ok")
        # An operator's command says what is revoked, and no heartbeat: nobody would say the next.
        assert ca(world.directory, "revoke", "orders", "--passphrase-file", str(known)).returncode == 0
        gateway.line("revocation set.*entries=1")
        assert not (world.status / "heartbeat.json").exists()
        assert gateway.get("/orders/1") == (502, "upstream-identity")
        assert gateway.get("/stock/2") == (200, "ok")
