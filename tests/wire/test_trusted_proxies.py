"""Who asks through a proxy, on real sockets: 127.0.0.1 and 127.0.1.0/24 are listed as ours, the rest of 127.0.0.0/8 is not.

Held to it is all that knows a caller by address: the upstream's head, the log, a policy, a limit, the budget of failed
checks and that of connections (attacks B5).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from tests.e2e.whole_gateway import eventually
from tests.wire.h2_client import Fields, H2Client
from tests.wire.judge import MALFORMED, judged
from tests.wire.rig import Answer, Client, Rig

STRANGER = "127.0.0.2"
POLICY = """
@id("not-from-there")
forbid (principal, action, resource) when { context.conn.ip.isInRange(ip("198.51.100.0/24")) };
"""
LIMITS = """\
limits:
  - {name: each, match: {route: limited}, key: [ip], rate: 2/hour, strategy: fixed-window, on_store_failure: closed}
"""
ROUTE = """
  - name: limited
    match: {{path: /orders/limited, methods: [GET]}}
    upstream: {{service: orders, endpoints: ["127.0.0.1:{port}"], timeout_s: 2}}
    public: {{reason: a test without tokens}}
  - name: closed
    match: {{path: /orders/closed, methods: [GET]}}
    upstream: {{service: orders, endpoints: ["127.0.0.1:{port}"], timeout_s: 2}}
    auth: [jwt]
"""
ISSUERS = 'issuers: [{issuer: "https://idp.example.com", audience: [x], algorithms: [ES256], jwks: keys.json}]\n'
KEYS = """{"keys": [{"kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": "k",
 "x": "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4", "y": "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"}]}"""
TRUST = "trusted_proxies: [127.0.0.1, 127.0.1.0/24]\n"
SHED = "shed: {max_connections_per_prefix: 3, failed_checks_per_s: 1, failed_checks_burst: 2}\n"


class ProxiedRig(Rig):
    """A gateway behind proxies."""

    def prepare(self, directory: Path) -> None:
        routes = directory / "policies" / "routes.yaml"
        routes.write_text(routes.read_text() + ROUTE.format(port=self.upstream.port))
        (directory / "policies" / "limits.yaml").write_text(LIMITS)
        (directory / "keys.json").write_text(KEYS)
        policy = directory / "policies" / "anybody.cedar"
        policy.write_text(policy.read_text() + POLICY)
        edge = directory / "edge.yaml"
        edge.write_text(edge.read_text() + TRUST + SHED + ISSUERS)


@pytest.fixture(scope="module", params=["front", "hypercorn"])
def running(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    rig = ProxiedRig(tmp_path_factory.mktemp("proxied") / "edge", request.param)
    yield rig
    rig.close()


Ask = Callable[[str, str, Fields], Answer]
"""Of an address to connect from, a path and fields: what comes back."""


def over_http1(rig: Rig) -> Ask:
    def ask(source: str, path: str, fields: Fields) -> Answer:
        lines = b"".join(b"%b: %b\r\n" % field for field in fields)
        with Client(rig.gateway, source=source) as client:
            return client.send(b"GET %b HTTP/1.1\r\nHost: localhost\r\n%b\r\n" % (path.encode(), lines)).answer()

    return ask


def over_http2(rig: Rig) -> Ask:
    def ask(source: str, path: str, fields: Fields) -> Answer:
        with H2Client(rig.gateway, source=source) as client:
            return client.ask("GET", path, fields)

    return ask


@pytest.fixture(params=[over_http1, over_http2])
def ask(rig: Rig, request: pytest.FixtureRequest) -> Ask:
    found: Ask = request.param(rig)
    return found


def client_told(rig: Rig, answer: Answer) -> str:
    """For whom the upstream was told that it is asked; the log must say the same."""
    assert answer.status == 200, answer
    lines = rig.upstream.requests[-1].partition(b"\r\n\r\n")[0].decode().split("\r\n")
    (listed,) = (line.partition(": ")[2] for line in lines if line.startswith("x-forwarded-for: "))
    (pairs,) = (line.partition(": ")[2] for line in lines if line.startswith("forwarded: "))
    node = f'"[{listed}]"' if ":" in listed else listed
    assert pairs == f'for={node};host="localhost";proto=https'
    assert rig.record(answer.fields["x-request-id"])["source.ip"] == listed
    return listed


FOR = b"x-forwarded-for"
HANDSHAKE = (
    b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


@pytest.mark.parametrize(
    ("source", "fields", "client"),
    [
        ("127.0.0.1", [], "127.0.0.1"),
        ("127.0.0.1", [(FOR, b"192.0.2.7")], "192.0.2.7"),
        ("127.0.1.9", [(FOR, b"192.0.2.7")], "192.0.2.7"),
        ("127.0.0.1", [(FOR, b"6.6.6.6, 192.0.2.7, 127.0.1.3")], "192.0.2.7"),
        ("127.0.0.1", [(FOR, b"6.6.6.6"), (FOR, b"2001:DB8:0::7")], "2001:db8::7"),
        ("127.0.0.1", [(b"forwarded", b'for=6.6.6.6, for="[2001:db8::7]:80";proto=http')], "2001:db8::7"),
        ("127.0.0.1", [(b"x-real-ip", b"6.6.6.6"), (b"x-client-ip", b"6.6.6.6")], "127.0.0.1"),
        (STRANGER, [(FOR, b"6.6.6.6")], STRANGER),
        (STRANGER, [(FOR, b"6.6.6.6, 127.0.0.1"), (b"forwarded", b"for=127.0.0.1")], STRANGER),
        (STRANGER, [(FOR, b"nonsense"), (b"forwarded", b"for=")], STRANGER),
    ],
)
def test_the_client_is_who_a_trusted_proxy_names_and_nobody_else_is_believed_B5(
    rig: Rig, ask: Ask, source: str, fields: Fields, client: str
) -> None:
    assert client_told(rig, ask(source, "/orders/7", fields)) == client


@pytest.mark.parametrize(
    ("fields", "rule"),
    [
        ([(FOR, b"nonsense")], "forwarded-address"),
        ([(FOR, b"192.0.2.7, unknown")], "forwarded-address"),
        ([(b"forwarded", b'for="192.0.2.7')], "forwarded-syntax"),
        ([(b"forwarded", b"for=_hidden")], "forwarded-address"),
        ([(FOR, b"192.0.2.7"), (b"forwarded", b"for=192.0.2.8")], "forwarded-disagrees"),
    ],
)
def test_what_a_trusted_proxy_says_and_nobody_can_read_is_refused_B5(
    rig: Rig, ask: Ask, fields: Fields, rule: str
) -> None:
    judged(rig, ask("127.0.0.1", "/orders/7", fields), *MALFORMED, rule)


def test_callers_of_one_connection_are_told_apart_also_when_the_bytes_were_met_before(rig: Rig) -> None:
    with H2Client(rig.gateway) as proxy, H2Client(rig.gateway, source=STRANGER) as stranger:
        for client in ("192.0.2.7", "192.0.2.8", "192.0.2.7"):
            fields = [(FOR, client.encode())]
            assert client_told(rig, proxy.ask(fields=fields)) == client
            assert client_told(rig, stranger.ask(fields=fields)) == STRANGER
    raw = b"GET /orders/7 HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-For: 192.0.2.%d\r\n\r\n"
    with Client(rig.gateway) as proxy1, Client(rig.gateway, source=STRANGER) as stranger1:
        for number in (7, 8, 7):
            assert client_told(rig, proxy1.send(raw % number).answer()) == f"192.0.2.{number}"
            assert client_told(rig, stranger1.send(raw % number).answer()) == STRANGER


def test_a_policy_sees_the_client(rig: Rig, ask: Ask) -> None:
    judged(rig, ask("127.0.0.1", "/orders/7", [(FOR, b"198.51.100.9")]), 403, "forbidden")
    assert ask("127.0.0.1", "/orders/7", [(FOR, b"198.51.100.9, 192.0.2.7")]).status == 200
    assert ask(STRANGER, "/orders/7", [(FOR, b"198.51.100.9")]).status == 200


def test_a_limit_counts_by_the_client(rig: Rig) -> None:
    ask, first, second = over_http1(rig), b"203.0.113.1", b"203.0.113.2"
    assert [ask("127.0.0.1", "/orders/limited", [(FOR, first)]).status for _ in range(3)] == [200, 200, 429]
    assert ask("127.0.0.1", "/orders/limited", [(FOR, b"6.6.6.6, " + first)]).status == 429
    assert ask("127.0.0.1", "/orders/limited", [(FOR, second)]).status == 200
    assert [ask("127.0.0.3", "/orders/limited", [(FOR, second)]).status for _ in range(3)] == [200, 200, 429]


def test_failed_credentials_are_paid_for_by_the_client(rig: Rig) -> None:
    ask = over_http1(rig)

    def guess(client: bytes) -> int:
        return ask("127.0.0.1", "/orders/closed", [(FOR, client), (b"authorization", b"Bearer no.to.ken")]).status

    eventually(lambda: guess(b"192.0.2.66") == 429, 10)
    assert guess(b"192.0.2.67") == 401
    assert ask("127.0.0.1", "/orders/7", []).status == 200


def test_a_proxy_has_as_many_connections_as_it_likes(rig: Rig) -> None:
    with ExitStack() as stack:
        proxies = [stack.enter_context(Client(rig.gateway)) for _ in range(6)]
        strangers = [stack.enter_context(Client(rig.gateway, source="127.0.0.4")) for _ in range(3)]
        with pytest.raises((OSError, EOFError)), Client(rig.gateway, source="127.0.0.4") as one_more:
            one_more.send(b"GET /orders/7 HTTP/1.1\r\nHost: localhost\r\n\r\n").answer()
        for client in (*proxies, *strangers):
            assert client.send(b"GET /orders/7 HTTP/1.1\r\nHost: localhost\r\n\r\n").answer().status == 200


def test_a_websocket_is_its_client_s(rig: Rig) -> None:
    rig.upstream.answers = [b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n"]
    with Client(rig.gateway) as client:
        client.send(b"GET /orders/7 HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-For: 192.0.2.7\r\n" + HANDSHAKE)
        answer = client.answer()
    assert answer.status == 403
    assert b"\r\nupgrade: websocket\r\n" in rig.upstream.requests[-1].lower()
    assert b"\r\nx-forwarded-for: 192.0.2.7\r\n" in rig.upstream.requests[-1]
    assert rig.record(answer.fields["x-request-id"])["source.ip"] == "192.0.2.7"


def test_who_loses_our_trust_loses_it_on_open_connections_too(rig: Rig) -> None:
    path = rig.gateway.directory / "edge.yaml"
    text = path.read_text()
    with closing(H2Client(rig.gateway)) as client:

        def told() -> str:
            return client_told(rig, client.ask(fields=[(FOR, b"192.0.2.7")]))

        assert told() == "192.0.2.7"
        path.write_text(text.replace(TRUST, ""))
        try:
            eventually(lambda: told() == "127.0.0.1", 10)
        finally:
            path.write_text(text)
        eventually(lambda: told() == "192.0.2.7", 10)
