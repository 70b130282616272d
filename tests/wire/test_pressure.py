"""A worker that has too much: who is refused, who is cut, and what the log says of both.

What is measured in bytes here is so exact that nothing depends on time: each holder lets the worker keep just as much as it
keeps before it reads no more, and as many of them as fit are as much as it may have.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from examples.issuer.minting import Minter, key_set_document, signing_key
from tests.e2e.whole_gateway import eventually
from tests.wire.rig import HEAD, Answer, Client, Rig
from tests.wire.speaker import SPEAKERS, Speaker

ISSUER, AUDIENCE = "https://idp.example.com/", "https://api.example.com"
KEY = signing_key()
MINTER = Minter(KEY, ISSUER, AUDIENCE)
POLICY = """\
@id("users")
permit (principal is Edge::User, action in Edge::Action::"read", resource in Edge::Service::"orders");
"""
HELD = b"GET /orders/held HTTP/1.1\r\n" + HEAD + b"\r\n"
HELD_EACH = 65_536
"""Of what is sent behind a request under way; one byte more, and the connection is not read any more."""
HOLDERS = 16
PATIENCE_S = 60.0


class TightRig(Rig):
    """Little memory for who lets us wait, and little time for who has announced a body. `/quick` wants a token."""

    def prepare(self, directory: Path) -> None:
        (directory / "keys.json").write_bytes(key_set_document(KEY))
        with (directory / "edge.yaml").open("a") as edge_yaml:
            edge_yaml.write(
                f"shed: {{max_held_bytes: {HOLDERS * HELD_EACH}}}\ndeadlines: {{body_s: 1}}\nissuers:\n"
                f'  - {{issuer: "{ISSUER}", audience: ["{AUDIENCE}"], algorithms: [ES256], jwks: keys.json}}\n'
            )
        routes = directory / "policies" / "routes.yaml"
        text = routes.read_text().replace("timeout_s: 2}", f"timeout_s: {PATIENCE_S}}}")
        quick, public = text.index("name: quick"), "public: {reason: a test without tokens}"
        routes.write_text(text[:quick] + text[quick:].replace(public, "auth: [jwt]", 1))
        (directory / "policies" / "users.cedar").write_text(POLICY)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    rig = TightRig(tmp_path_factory.mktemp("wire") / "edge")
    rig.upstream.patience_s = PATIENCE_S
    rig.upstream.by_target[b"/orders/held"] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nWAITok"
    yield rig
    rig.close()


class Caller:
    """One who asks, with a token or without."""

    def __init__(self, speaker: Speaker, token: str | None = None) -> None:
        self._speaker = speaker
        self._fields = [] if token is None else [(b"authorization", b"Bearer " + token.encode())]

    def ask(self, path: bytes) -> Answer:
        return self._speaker.ask(path=path, fields=self._fields)

    def status(self, path: bytes) -> int:
        return self.ask(path).status


@contextmanager
def speaking(rig: Rig, version: str) -> Iterator[Speaker]:
    speaker = SPEAKERS[version](rig.gateway)
    try:
        yield speaker
    finally:
        speaker.close()


def calm(rig: Rig) -> None:
    """Wait until nobody is refused any more for what was before."""
    with speaking(rig, "1.1") as speaker:
        stranger = Caller(speaker)
        eventually(lambda: {stranger.status(b"/orders/7") for _ in range(8)} == {200}, 20)  # all of eight
    rig.upstream.clear()


@contextmanager
def crowd(rig: Rig) -> Iterator[list[Client]]:
    """Connections with a request under way, which all end behind the block."""
    calm(rig)
    with ExitStack() as stack:
        stack.callback(rig.upstream.go_on.set)
        rig.upstream.go_on.clear()
        yield [stack.enter_context(rig.client()).send(HELD) for _ in range(HOLDERS)]


def is_shed(rig: Rig, caller: Caller, path: bytes) -> None:
    """He is told when to come again, and the log has it. Asked in a second of its own: of strangers more than fifty in one
    are a sum in the log."""
    time.sleep(1.1 - time.time() % 1)
    answer = caller.ask(path)
    assert (answer.status, answer.reason, answer.fields["retry-after"]) == (503, "shedding", "1")
    leaf = rig.record(answer.fields["x-request-id"], 20)
    found = leaf["event.outcome"], leaf["event.reason"], leaf["rule.id"], leaf["http.response.status_code"]
    assert found == ("failure", "shedding", "overload", 503)


@pytest.mark.parametrize("version", SPEAKERS)
def test_strangers_are_refused_first_and_those_we_know_last_C4(rig: Rig, version: str) -> None:
    with ExitStack() as stack:
        speakers = [stack.enter_context(speaking(rig, version)) for _ in range(3)]
        token = MINTER.good("alice", ["orders:read"])
        stranger, known = Caller(speakers[0]), Caller(speakers[1], token)
        fresh = Caller(speakers[2], MINTER.good("bob", ["orders:read"]))
        holders = stack.enter_context(crowd(rig))
        eventually(lambda: rig.upstream.seen.count(b"GET /orders/held ") == HOLDERS, 20)
        assert (stranger.status(b"/orders/8"), known.status(b"/quick/8")) == (200, 200)

        for client in holders[: HOLDERS * 3 // 4]:
            client.send(bytes(HELD_EACH))
        eventually(lambda: stranger.status(b"/orders/late") == 503, 20)
        rig.upstream.clear()
        is_shed(rig, stranger, b"/orders/never")
        is_shed(rig, fresh, b"/quick/never")  # no signature is looked at in such times
        assert rig.upstream.seen == b""
        assert known.status(b"/quick/9") == 200

        for client in holders[HOLDERS * 3 // 4 :]:
            client.send(bytes(HELD_EACH))
        eventually(lambda: known.status(b"/quick/late") == 503, 20)
        rig.upstream.clear()
        is_shed(rig, known, b"/quick/never")
        is_shed(rig, stranger, b"/orders/never")
        assert rig.upstream.seen == b""
        assert not any(leaf.get("rule.id") == "held-bytes" for leaf in rig.leaves())  # it is not too much yet
        rig.upstream.go_on.set()
        eventually(lambda: fresh.status(b"/quick/9") == 200, 20)


def test_who_holds_most_is_cut_when_it_is_too_much_C4(rig: Rig) -> None:
    with crowd(rig) as holders:
        eventually(lambda: rig.upstream.seen.count(b"GET /orders/held ") == HOLDERS, 20)
        for client in holders[1:]:
            client.send(bytes(HELD_EACH))
        holders[0].send(bytes(2 * HELD_EACH))
        cut = rig.leaf_where({"rule.id": "held-bytes"})
        assert (cut["event.reason"], cut["http.response.status_code"]) == ("client-gone", 499)
        with pytest.raises((OSError, EOFError)):
            holders[0].read_until(b"ok")
    assert [leaf.get("rule.id") for leaf in rig.leaves()].count("held-bytes") == 1  # that was enough


@pytest.mark.parametrize("version", SPEAKERS)
def test_a_client_that_is_cut_by_its_deadline_is_recorded_so_C4(rig: Rig, version: str) -> None:
    calm(rig)
    with speaking(rig, version) as speaker:
        speaker.begin("POST", b"/orders/x", has_body=True)
        leaf = rig.leaf_where({"rule.id": "deadline", "http.version": version})
        assert (leaf["event.reason"], leaf["http.response.status_code"]) == ("client-gone", 499)
