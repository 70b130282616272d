"""From `edge ca revoke` to the end of every connection of who is revoked, while others are served 300 requests a second.

A round gives the service billing a certificate, opens one connection of each kind, and revokes it:

- idle: an upstream connection that waits in the pool;
- in flight: a request whose answer has not begun;
- streaming: an answer of which the client has a part;
- websocket: towards the upstream;
- client: of the services listener, as billing;
- joined: an answer of which the client has a part, through another gateway, which joined this one by a token and hears of
  revocations over the network.

What is measured is the moment at which billing itself sees each of them end. Meanwhile orders has callers over HTTP/1.1 and
HTTP/2, a WebSocket and a connection to the services listener, which must outlive all rounds. Three workers; in the end the
log must name each connection that was cut under way, with the reason.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from http.client import HTTPSConnection, IncompleteRead
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256

from edge.cli.authority import reach
from pki import desk
from pki.io_keys import Passphrases
from tests.e2e.load import Load
from tests.e2e.test_join import DOORS, home_of, invited
from tests.e2e.upstream import OK, Upstream
from tests.e2e.websocket_parties import Caller, WebsocketsService, by_wsproto
from tests.e2e.whole_gateway import (
    EDGE_YAML,
    Gateway,
    Variant,
    eventually,
    issue,
    issue_while_serving,
    knock,
    make,
    records,
    requests_in_log,
    serving,
)
from tests.wire.speaker import SPEAKERS

WITHIN_S = 1.0
"""What is promised, for the 99th percentile of each kind."""
KINDS = ("idle", "in flight", "streaming", "websocket", "client", "joined")
_WORKERS = 3
_CALLERS = 4
"""Over each protocol."""
_EVERY_S = _CALLERS * len(SPEAKERS) / 300
_PATIENCE_S = 60
SERVICES = """\
services:
  orders: {may_serve: ["/orders/**", "/orders-socket"], methods: [GET]}
  billing: {may_serve: ["/billing/**", "/billing-socket"], methods: [GET]}
"""
POLICY = """\
@id("anybody")
permit (principal is Edge::Anonymous, action in Edge::Action::"read", resource);
"""
ROUTE = """\
  - name: {name}
    match: {{path: "{path}", methods: [GET]}}
    upstream: {{service: {service}, endpoints: ["127.0.0.1:{port}"], timeout_s: 60}}
    public: {{reason: a campaign without tokens}}
"""
CACERTS = b"GET /.well-known/est/cacerts HTTP/1.1\r\nHost: edge.internal\r\n\r\n"
_STREAM, _HELD, _IDLE, _JOINED = b"/billing/stream", b"/billing/held", b"/billing/idle", b"/billing/joined"
_TARGETS = {_STREAM: "streaming", _HELD: "in flight", _IDLE: "idle", _JOINED: "joined"}


@dataclass
class Outcome:
    """Seconds from the command to the end, by kind, and what the others met."""

    rounds: int
    cut_s: dict[str, list[float]] = field(default_factory=lambda: {kind: [] for kind in KINDS})
    requests: int = 0
    per_s: float = 0
    slowest_s: float = 0

    def p99_s(self, kind: str) -> float:
        return percentile(self.cut_s[kind], 99)

    def __str__(self) -> str:
        lines = [
            f"{kind:<10} p50 {percentile(cut_s, 50) * 1000:5.0f} ms  p99 {percentile(cut_s, 99) * 1000:5.0f} ms"
            for kind, cut_s in self.cut_s.items()
        ]
        others = (
            f"others: {self.requests} requests, {self.per_s:.0f}/s, 0 failed, slowest {self.slowest_s * 1000:.0f} ms"
        )
        return "\n".join([*lines, others])


def percentile(values: list[float], of_100: int) -> float:
    """The least value that so many of 100 do not exceed."""
    return sorted(values)[-(-len(values) * of_100 // 100) - 1]


@dataclass
class Service:
    """One identity: what it serves, and a WebSocket endpoint of the same name."""

    name: str
    requests: Upstream
    sockets: WebsocketsService

    @classmethod
    def start(cls, directory: Path, name: str) -> Service:
        return cls(name, Upstream(directory / name), WebsocketsService(directory / name))

    def present(self, identity: Path) -> None:
        self.requests.present(identity)
        self.sockets.present(identity)

    def routes(self) -> str:
        rows = [
            (self.name, f"/{self.name}/**", self.requests.port),
            (f"{self.name}-socket", f"/{self.name}-socket", self.sockets.port),
        ]
        return "".join(ROUTE.format(name=name, path=path, service=self.name, port=port) for name, path, port in rows)

    def close(self) -> None:
        self.requests.close()
        self.sockets.close()


@dataclass
class Opened:
    """One connection of each kind, all of them proven to work."""

    streaming: HTTPSConnection
    held: HTTPSConnection
    joined: HTTPSConnection
    caller: Caller
    client: ssl.SSLSocket


@contextmanager
def calling(gateway: Gateway, name: str) -> Iterator[Caller]:
    """A WebSocket to the service."""
    bundle = gateway.directory / "state" / "identity" / "public" / "bundle.pem"
    url = f"wss://localhost:{gateway.public}/{name}-socket"
    with by_wsproto(url, ssl.create_default_context(cafile=bundle), ()) as caller:
        echo(caller)
        yield caller


def echo(caller: Caller) -> None:
    caller.send("still")
    assert caller.receive() == "still"


def is_answered(client: ssl.SSLSocket) -> bool:
    """Whether the services listener tells whom to trust."""
    client.sendall(CACERTS)
    return client.recv(1 << 16).startswith(b"HTTP/1.1 200 ")


@contextmanager
def opened(gateway: Gateway, other: Gateway, billing: Service) -> Iterator[Opened]:
    """In this order: what is busy cannot be taken for what comes after, so each has a connection to the upstream."""
    with ExitStack() as stack:
        streaming, held = (stack.enter_context(closing(gateway.connect(_PATIENCE_S))) for _ in range(2))
        streaming.request("GET", _STREAM.decode())
        billing.requests.wait_for(_STREAM, _PATIENCE_S)
        held.request("GET", _HELD.decode())
        billing.requests.wait_for(_HELD, _PATIENCE_S)
        joined = stack.enter_context(closing(other.connect(_PATIENCE_S)))
        eventually(lambda: is_known(other, billing), _PATIENCE_S)
        joined.request("GET", _JOINED.decode())
        billing.requests.wait_for(_JOINED, _PATIENCE_S)
        caller = stack.enter_context(calling(gateway, billing.name))
        client = stack.enter_context(knock(gateway, gateway.directory / billing.name))
        assert is_answered(client)
        assert gateway.get(_IDLE.decode(), _PATIENCE_S) == (200, "ok")
        yield Opened(streaming, held, joined, caller, client)


def is_known(other: Gateway, billing: Service) -> bool:
    """Whether a gateway that joined has heard of the certificate that billing has since a moment ago."""
    pem = (other.directory.parent / "edge" / billing.name / "cert.pem").read_bytes()
    digest = x509.load_pem_x509_certificate(pem).fingerprint(SHA256()).hex()
    return (other.directory / "state" / "status" / "issued" / digest).exists()


def ended_s(billing: Service) -> dict[str, float]:
    """When billing saw each of its requests' connections end."""
    ends = [billing.requests.ends.get(timeout=_PATIENCE_S) for _ in _TARGETS]
    return {_TARGETS[target]: when_s for target, when_s in ends}


def socket_ended_s(billing: Service) -> float:
    assert billing.sockets.ends.get(timeout=_PATIENCE_S)[0] == 1006  # not even a Close came
    return time.monotonic()


def client_ended_s(client: ssl.SSLSocket) -> float:
    try:
        assert client.recv(1) == b""
    except OSError:
        pass
    return time.monotonic()


def revoked_once(gateway: Gateway, other: Gateway, billing: Service, watchers: ThreadPoolExecutor) -> dict[str, float]:
    """One round; seconds by kind."""
    issue_while_serving(gateway.directory, billing.name)
    billing.present(gateway.directory / billing.name)
    state = gateway.directory / "state"
    with opened(gateway, other, billing) as those:
        answer = those.streaming.getresponse()
        elsewhere = those.joined.getresponse()
        assert (answer.read(5), elsewhere.read(5)) == (b"first", b"first")
        requests = watchers.submit(ended_s, billing)
        socket, client = watchers.submit(socket_ended_s, billing), watchers.submit(client_ended_s, those.client)
        began_s = time.monotonic()
        with reach(state, Passphrases(state / "ca", environ={}), {}) as asks:
            done = asks(desk.Revoke("svc", billing.name, None, "keyCompromise", "campaign"))
        assert isinstance(done, desk.Revoked)
        assert done.serials
        when_s = requests.result() | {"websocket": socket.result(), "client": client.result()}
        # What those who asked are told.
        for cut in (answer, elsewhere):
            try:
                cut.read()
                raise AssertionError("an answer that was cut looks whole")
            except IncompleteRead:
                pass
        assert those.held.getresponse().status == 502
        assert those.caller.closed() == (1001, "reconnect")
    billing.requests.clear()
    return {kind: when_s[kind] - began_s for kind in KINDS}


def refused_afterwards(gateway: Gateway, billing: Service) -> None:
    """With what was revoked no connection reaches a request any more, in either direction."""
    assert gateway.get("/billing/new") == (502, "upstream-identity")
    with knock(gateway, gateway.directory / billing.name) as late:
        try:
            assert not is_answered(late)
        except OSError:
            pass
    assert billing.requests.seen == b""


def silent(other: Gateway, orders: Service) -> None:
    """The gateway with the authority is gone: after ten seconds the other one dials nobody new."""
    other.line("no fresh word of the authority", 60)
    orders.requests.clear()
    assert other.get("/orders/late") == (502, "upstream-identity")
    assert orders.requests.seen == b""


def campaign(directory: Path, rounds: int, *, goes_silent: bool = False) -> Outcome:
    """So many revocations, one after the other; in the end the gateway that joined may hear nothing any more."""
    edge = EDGE_YAML.replace("listeners:\n", DOORS)
    make(directory, Variant(edge=f"{edge}workers: {_WORKERS}\n", services=SERVICES, policy=POLICY))
    issue(directory, "billing")  # for its routes to have ports; each round brings another
    outcome = Outcome(rounds)
    with ExitStack() as stack:
        orders, billing = (
            stack.enter_context(closing(Service.start(directory, name))) for name in ("orders", "billing")
        )
        billing.requests.by_target = {
            _STREAM: b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nfirstWAITlast",
            _HELD: b"WAIT" + OK,
        }
        billing.requests.by_target[_JOINED] = billing.requests.by_target[_STREAM]
        billing.requests.go_on.clear()
        (directory / "policies" / "routes.yaml").write_text("routes:\n" + orders.routes() + billing.routes())
        gateway = stack.enter_context(serving(directory))
        joined = home_of(gateway, invited(gateway, "edge-b"), directory.parent / "joined")
        other = stack.enter_context(serving(joined))
        watchers = stack.enter_context(ThreadPoolExecutor(3))
        loads = [Load(gateway, _CALLERS, every_s=_EVERY_S, speaks=speaks) for speaks in SPEAKERS.values()]
        began_s = time.monotonic()
        with calling(gateway, "orders") as caller, knock(gateway, directory / "orders") as client:
            for _ in range(rounds):
                for kind, cut_s in revoked_once(gateway, other, billing, watchers).items():
                    outcome.cut_s[kind].append(cut_s)
                echo(caller)
                assert is_answered(client)
            refused_afterwards(gateway, billing)
        for load in loads:
            load.end()
        calls = [call for load in loads for call in load.calls]
        outcome.requests, outcome.per_s = len(calls), len(calls) / (time.monotonic() - began_s)
        outcome.slowest_s = max(call.ended_s - call.began_s for call in calls)
        assert [load.failures for load in loads] == [[], []]
        assert {call.status for call in calls} == {200}
        assert gateway.stop() == 0
        if goes_silent:
            silent(other, orders)
        assert other.stop() == 0
    judge(directory, rounds)
    return outcome


def judge(directory: Path, rounds: int) -> None:
    """What was under way, and each client, is on record with the reason, and nobody else is."""
    records(directory)
    cut = [leaf for leaf in requests_in_log(directory) if leaf.get("rule.id") == "revoked"]
    routes = [str(leaf.get("route.name")) for leaf in cut]
    assert {name: routes.count(name) for name in set(routes)} == {
        "billing": 2 * rounds + 1,  # and who came afterwards
        "billing-socket": rounds,
        "None": rounds + 1,
    }
    assert {leaf["event.reason"] for leaf in cut} == {"upstream-identity", "credential-rejected"}
