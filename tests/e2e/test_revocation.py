"""A revocation while everything runs: who is cut, who is not, and what the log says; over real sockets, a whole gateway."""

from __future__ import annotations

import json
import shutil
import socket
import ssl
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http.client import HTTPSConnection, IncompleteRead
from pathlib import Path

import pytest

from pki.io_authority import Authority
from pki.io_files import write_private
from pki.io_keys import Passphrases
from pki.io_status import Publisher
from pki.tlog.io_reader import LogReader
from tests.e2e.test_ca import ca
from tests.e2e.upstream import OK, Upstream
from tests.e2e.websocket_parties import CALLERS, WebsocketsService
from tests.e2e.whole_gateway import EDGE_YAML, Gateway, Variant, eventually, issue, make, run, serving

SERVICES = """\
services:
  orders: {may_serve: ["/orders/**", "/socket"], methods: [GET]}
  stock: {may_serve: ["/stock/**"], methods: [GET]}
"""
POLICY = """\
@id("anybody")
permit (principal is Edge::Anonymous, action in Edge::Action::"read", resource);
"""
ROUTE = """\
  - name: {name}
    match: {{path: "{path}", methods: [GET]}}
    upstream: {{service: {service}, endpoints: ["127.0.0.1:{port}"], timeout_s: 20}}
    public: {{reason: a test without tokens}}
"""
DOOR = 'listeners:\n  services: {bind: "127.0.0.1:0"}\n'


@dataclass
class World:
    """A gateway that hosts its CA, two services and a third that speaks WebSocket as orders."""

    directory: Path
    orders: Upstream
    stock: Upstream
    sockets: WebsocketsService
    clients: ExitStack
    """Closes what a test opened."""

    def knock(self, gateway: Gateway, name: str) -> ssl.SSLSocket:
        """A connection to the services listener, as that service."""
        identity = self.directory / name
        context = ssl.create_default_context(cafile=identity / "bundle.pem")
        context.load_cert_chain(identity / "chain.pem", identity / "key.pem")
        raw = socket.create_connection(("127.0.0.1", gateway.ports["services"]), 10)
        return self.clients.enter_context(context.wrap_socket(raw, server_hostname="edge.internal"))

    def begin(self, gateway: Gateway, path: str) -> HTTPSConnection:
        """A request on a connection of its own."""
        connection = self.clients.enter_context(closing(gateway.connect(20)))
        connection.request("GET", path)
        return connection

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
    sockets = WebsocketsService(directory / "orders")
    rows = [
        ("orders", "/orders/**", "orders", orders.port),
        ("stock", "/stock/**", "stock", stock.port),
        ("socket", "/socket", "orders", sockets.port),
    ]
    entries = "".join(ROUTE.format(name=name, path=path, service=to, port=port) for name, path, to, port in rows)
    (directory / "policies" / "routes.yaml").write_text(f"routes:\n{entries}")
    with ExitStack() as clients:
        yield World(directory, orders, stock, sockets, clients)
    for each in (orders, stock, sockets):
        each.close()


def cacerts(door: ssl.SSLSocket) -> bytes:
    """What the listener answers; nothing when it has hung up."""
    try:
        door.sendall(b"GET /.well-known/est/cacerts HTTP/1.1\r\nHost: edge.internal\r\n\r\n")
        return door.recv(65_536)
    except OSError:
        return b""


def test_P24_P30_who_is_revoked_is_cut_everywhere_and_nobody_else(world: World) -> None:
    orders, stock = world.orders, world.stock
    orders.by_target[b"/orders/stream"] = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nfirstWAITlast"
    orders.by_target[b"/orders/held"] = b"WAIT" + OK
    orders.go_on.clear()
    with serving(world.directory) as gateway:
        assert gateway.get("/orders/idle") == (200, "ok")
        answer = world.clients.enter_context(world.begin(gateway, "/orders/stream").getresponse())
        held = world.begin(gateway, "/orders/held")
        orders.wait_for(b"/orders/held")
        assert answer.read(5) == b"first"
        other = world.begin(gateway, "/stock/1")
        assert other.getresponse().read() == b"ok"
        revoked, kept = world.knock(gateway, "orders"), world.knock(gateway, "stock")
        assert cacerts(revoked).startswith(b"HTTP/1.1 200 ")
        assert cacerts(kept).startswith(b"HTTP/1.1 200 ")
        bundle = world.directory / "state" / "identity" / "public" / "bundle.pem"
        url = f"wss://localhost:{gateway.public}/socket"
        with CALLERS["websockets"](url, ssl.create_default_context(cafile=bundle), ()) as caller:
            caller.send("still")
            assert caller.receive() == "still"
            orders.clear()
            before = stock.connections
            assert ca(world.directory, "revoke", "orders").returncode == 0
            # Of what was open: the WebSocket, the answers under way, idle connections, the client of the other listener.
            assert caller.closed() == (1001, "reconnect")
            assert world.sockets.ends.get(timeout=10)[0] == 1006  # not even a Close came
        with pytest.raises(IncompleteRead):
            answer.read()
        assert held.getresponse().status == 502
        eventually(lambda: orders.open_connections == 0, 10)
        revoked.settimeout(10)
        assert cacerts(revoked) == b""
        # Of what comes after: no connection reaches a request, in either direction.
        assert gateway.get("/orders/new") == (502, "upstream-identity")
        late = world.knock(gateway, "orders")
        assert cacerts(late) == b""
        assert orders.seen == b""
        # Nobody else notices.
        other.request("GET", "/stock/2")
        assert other.getresponse().read() == b"ok"
        assert stock.connections == before
        assert cacerts(kept).startswith(b"HTTP/1.1 200 ")
        # Each is on record with its reason: what was under way, what came later, and both clients of the other listener.
        why = {"event.reason": "upstream-identity", "rule.id": "revoked"}
        world.logged(why | {"route.name": "orders", "http.response.status_code": 200})
        world.logged(why | {"route.name": "orders", "http.response.status_code": 502}, times=2)
        world.logged(why | {"route.name": "socket", "websocket.close_code": 1001})
        world.logged({"http.response.status_code": 495, "rule.id": "revoked"}, times=2)


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
    for secret in (world.directory / "state" / "ca").glob("*.passphrase"):
        secret.unlink()
    with serving(world.directory) as gateway:
        gateway.line("authority closed")
        assert not (world.status / "heartbeat.json").exists()
        assert gateway.get("/stock/1") == (200, "ok")
