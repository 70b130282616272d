"""How long a WebSocket may last: its token, the policy in force, the process. And that a limit counts it once."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from examples.issuer.minting import Minter, key_set_document, signing_key
from tests.e2e.whole_gateway import run
from tests.wire.websocket_rig import CLOSE, TEXT, Pair, SocketRig, close, frame, handshake, sent

ISSUER, AUDIENCE = "https://idp.example.com/", "https://api.example.com"
KEY = signing_key()
MINTER = Minter(KEY, ISSUER, AUDIENCE)
POLICY = """\
@id("orders-read")
permit (principal is Edge::User, action in Edge::Action::"read", resource in Edge::Service::"orders")
when { principal.scopes.contains("orders:read") };
"""
NOT_BOB = """\
@id("not-bob")
forbid (principal == Edge::User::"https://idp.example.com/#bob", action, resource);
"""
LIMITS = "limits:\n  - {name: opened, match: {route: quick}, key: [subject], rate: 2/hour}\n"


class Guarded(SocketRig):
    """With tokens, and a limit on what is opened; `strict`, so that the last word waits for the leaf."""

    def prepare(self, directory: Path) -> None:
        super().prepare(directory)
        (directory / "keys.json").write_bytes(key_set_document(KEY))
        edge = (directory / "edge.yaml").read_text().replace("paths: plain", "paths: plain, durability: strict")
        issuer = f'  - {{issuer: "{ISSUER}", audience: ["{AUDIENCE}"], algorithms: [ES256], jwks: keys.json}}\n'
        (directory / "edge.yaml").write_text(f"{edge}issuers:\n{issuer}")
        self.routes = directory / "policies" / "routes.yaml"
        guarded = self.routes.read_text().replace("public: {reason: a test without tokens}", "auth: [jwt]")
        self.routes.write_text(guarded)
        (directory / "policies" / "anybody.cedar").unlink()
        self.policy = directory / "policies" / "orders.cedar"
        self.policy.write_text(POLICY)
        (directory / "policies" / "limits.yaml").write_text(LIMITS)

    def reload(self) -> None:
        reloaded = run("reload", "-c", self.gateway.directory / "edge.yaml")
        assert reloaded.returncode == 0, reloaded.stderr

    def open_as(self, subject: str, path: str = "/orders/socket", **claims: object) -> Pair:
        token = MINTER.good(subject, ["orders:read"], **claims)
        return self.open(handshake(path, Authorization=f"Bearer {token}"))


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    rig = Guarded(tmp_path_factory.mktemp("life") / "edge")
    yield rig
    rig.sockets.close()
    rig.upstream.close()
    rig.gateway.kill()


@pytest.fixture(params=["h1", "h2"])
def rig(running: Guarded, request: pytest.FixtureRequest) -> Iterator[Guarded]:
    running.over = request.param
    yield running
    running.clear()


def is_alive(pair: Pair) -> bool:
    pair.client.send(sent(TEXT, b"?"))
    pair.upstream.send(frame(TEXT, b"!"))
    return (pair.upstream.frame().payload, pair.client.frame().payload) == (b"?", b"!")


def is_cut(rig: Guarded, pair: Pair, code: int, text: bytes, reason: str, rule: str | None = None) -> None:
    """Both sides hear why, and the leaf says it."""
    assert pair.client.closed() == (code, text)
    assert pair.upstream.closed() == (1001, text)
    assert pair.client.is_ended()
    leaf = rig.record(pair.decision)
    assert (leaf["event.reason"], leaf.get("rule.id"), leaf["websocket.close_code"]) == (reason, rule, code)


def test_the_upstream_sees_who_it_is_and_never_the_token(rig: Guarded) -> None:
    rig.open_as("alice")
    (head,) = rig.sockets.heads
    assert b"x-auth-subject: alice\r\n" in head
    assert b"x-auth-scopes: orders:read\r\n" in head
    assert b"authorization" not in head


@pytest.mark.parametrize(
    ("token", "status", "reason"),
    [
        (None, 401, "credential-missing"),
        (MINTER.expired("alice", ["orders:read"]), 401, "credential-rejected"),
        (MINTER.good("alice", []), 403, "forbidden"),
    ],
)
def test_without_a_permit_there_is_no_websocket(rig: Guarded, token: str | None, status: int, reason: str) -> None:
    _, answer = rig.ask(handshake(Authorization=f"Bearer {token}" if token else None))
    assert (answer.status, answer.reason) == (status, reason)
    assert rig.sockets.heads == []
    assert rig.record(answer.fields["x-request-id"])["event.reason"] == reason


def test_it_ends_when_its_token_does(rig: Guarded) -> None:
    ends = int(time.time()) + 2
    pair = rig.open_as("alice", exp=ends)
    other = rig.open_as("alice")
    assert is_alive(pair)
    is_cut(rig, pair, 1008, b"credential expired", "credential-expired")
    assert ends - 0.1 <= time.time()
    assert is_alive(other)


def test_a_limit_counts_the_handshake_and_no_frame(rig: Guarded) -> None:
    subject = f"carol-{rig.over}"
    for _ in range(2):
        pair = rig.open_as(subject, "/quick/socket")
        assert is_alive(pair)
        assert is_alive(pair)
    token = MINTER.good(subject, ["orders:read"])
    _, answer = rig.ask(handshake("/quick/socket", Authorization=f"Bearer {token}"))
    assert (answer.status, answer.reason) == (429, "quota-exceeded")


def test_a_reload_ends_what_it_would_not_let_begin_and_nothing_else(rig: Guarded) -> None:
    alice, bob = rig.open_as("alice"), rig.open_as("bob")
    rig.policy.write_text(POLICY + NOT_BOB)
    rig.reload()
    is_cut(rig, bob, 1008, b"no longer allowed", "policy-changed", "forbidden-by-policy")
    assert is_alive(alice)
    rig.policy.write_text(POLICY)
    rig.reload()
    assert is_alive(alice)


ORIGINS = '    origins: ["https://app.example.com", "http://localhost:3000"]\n'


@contextmanager
def changed(rig: Guarded, *changes: tuple[str, str]) -> Iterator[None]:
    """Other routes for a while."""
    routes = rig.routes.read_text()
    other = routes
    for before, after in changes:
        assert before in other
        other = other.replace(before, after, 1)
    try:
        rig.routes.write_text(other)
        rig.reload()
        yield
    finally:
        rig.routes.write_text(routes)
        rig.reload()


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ([(ORIGINS, "    websocket: false\n")], "websocket-off"),
        ([(ORIGINS, "")], "foreign-origin"),
        ([(ORIGINS, ""), ("/orders/**, methods: [GET, POST]", "/orders/**, methods: [POST]")], "method-not-allowed"),
    ],
)
def test_a_route_that_takes_it_no_more_ends_it(rig: Guarded, changes: list[tuple[str, str]], rule: str) -> None:
    token = MINTER.good("alice", ["orders:read"])
    pair = rig.open(handshake(Authorization=f"Bearer {token}", Origin="https://app.example.com"))
    with changed(rig, *changes):
        is_cut(rig, pair, 1008, b"no longer allowed", "policy-changed", rule)


def test_new_bounds_hold_for_what_is_open(rig: Guarded) -> None:
    pair = rig.open_as("alice")
    with changed(rig, ("auth: [jwt]", "auth: [jwt]\n    websocket: {max_message_bytes: 10}")):
        end = time.monotonic() + 10
        while True:  # who is open is reconsidered after the reload has answered
            pair.client.send(sent(TEXT, b"more than ten bytes"))
            if not pair.client.is_quiet(0.1):
                break
            assert time.monotonic() < end, "the old bounds hold"
        assert pair.client.closed() == (1009, b"protocol violation")


def test_the_leaf_is_there_before_the_last_byte(rig: Guarded) -> None:
    pair = rig.open_as("alice")
    pair.client.send(sent(CLOSE, close(1000)))
    pair.upstream.frame()
    pair.upstream.send(frame(CLOSE, close(1000)))
    assert pair.client.closed() == (1000, b"")
    assert rig.record(pair.decision, within_s=5)["event.outcome"] == "success"


def test_a_drain_tells_everybody_to_go(running: Guarded) -> None:
    pairs = []
    for running.over in ("h1", "h2"):
        pairs.append(running.open_as("alice"))
    began = time.monotonic()
    assert running.gateway.stop() == 0
    assert time.monotonic() - began < 10
    for pair in pairs:
        is_cut(running, pair, 1001, b"going away", "draining")
    running.clear()
