"""WebSockets through a whole gateway, over HTTP/1.1: bytes on both ends, and what the log says of each."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress

import pytest

from tests.campaigns.websocket import campaign
from tests.wire.h2_client import Fields, H2Client
from tests.wire.rig import GET
from tests.wire.websocket_rig import (
    BINARY,
    CLOSE,
    CONT,
    KEY,
    MASK,
    PING,
    PONG,
    TEXT,
    Got,
    Pair,
    SocketRig,
    StreamEnd,
    accept_of,
    accepting,
    close,
    extended_connect,
    frame,
    handshake,
    sent,
)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SocketRig]:
    rig = SocketRig(tmp_path_factory.mktemp("websocket") / "edge")
    yield rig
    rig.close()


@pytest.fixture
def rig(running: SocketRig, request: pytest.FixtureRequest) -> Iterator[SocketRig]:
    running.over = getattr(request, "param", "h1")
    yield running
    running.clear()


OVER_BOTH = pytest.mark.parametrize("rig", ["h1", "h2"], indirect=True)


def ended(rig: SocketRig, pair: Pair, code: int, reason: str | None, rule: str | None = None) -> None:
    """Both connections are over, and the one leaf says how."""
    assert pair.client.is_ended()
    assert pair.upstream.is_ended()
    leaf = rig.record(pair.decision)
    assert (leaf["http.response.status_code"], leaf["http.version"]) == (
        rig.switched,
        "2" if rig.over == "h2" else "1.1",
    )
    assert leaf["websocket.close_code"] == code
    assert (leaf.get("event.reason"), leaf.get("rule.id")) == (reason, rule)
    assert leaf["event.outcome"] == ("success" if reason is None else "failure")
    assert sum(each["event.id"] == pair.decision for each in rig.leaves()) == 1


# -- the handshake -----------------------------------------------------------------------------------


def test_a_client_gets_a_101_for_its_own_key(rig: SocketRig) -> None:
    _, answer = rig.ask(handshake(Connection="keep-alive, Upgrade"))
    assert answer.status == 101
    assert answer.fields["sec-websocket-accept"] == accept_of(KEY).decode()
    assert (answer.fields["upgrade"], answer.fields["connection"]) == ("websocket", "upgrade")
    assert "sec-websocket-extensions" not in answer.fields
    assert not {"content-length", "transfer-encoding"} & set(answer.fields)
    assert {"strict-transport-security", "date", "x-request-id"} <= set(answer.fields)


def test_the_upstream_sees_a_handshake_of_ours_and_the_fields_of_any_request(rig: SocketRig) -> None:
    raw = handshake(
        Connection="Upgrade, X-Secret",
        X_Secret="1",
        X_Kept="2",
        Sec_WebSocket_Extensions="permessage-deflate; client_max_window_bits",
        X_Auth_Subject="root",
        Authorization="Bearer not-a-token",
        Cookie="a=b",
    )
    rig.open(raw)
    (head,) = rig.sockets.heads
    assert head.startswith(b"GET /orders/socket HTTP/1.1\r\nhost: localhost\r\n")
    assert b"connection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: " in head
    assert KEY not in head
    for absent in (b"extensions", b"x-secret", b"x-auth-subject", b"authorization"):
        assert absent not in head
    for present in (b"x-kept: 2\r\n", b"cookie: a=b\r\n", b"x-request-id: ", b"forwarded: ", b"traceparent: "):
        assert present in head


def test_fields_of_the_upstream_s_101_are_those_of_any_answer(rig: SocketRig) -> None:
    rig.sockets.answer = lambda head: accepting(head).replace(
        b"\r\n\r\n", b"\r\nserver: leak\r\nset-cookie: a=b\r\n\r\n"
    )
    _, answer = rig.ask(handshake())
    assert (answer.status, answer.fields["set-cookie"]) == (101, "a=b")
    assert "server" not in answer.fields


@pytest.mark.parametrize("chosen", [None, b"v2", b"chat"])
def test_the_subprotocol_is_the_upstream_s_choice_of_the_offered(rig: SocketRig, chosen: bytes | None) -> None:
    line = b"\r\nsec-websocket-protocol: %b\r\n\r\n" % chosen if chosen else b"\r\n\r\n"
    rig.sockets.answer = lambda head: accepting(head).replace(b"\r\n\r\n", line)
    _, answer = rig.ask(handshake(Sec_WebSocket_Protocol="v2, chat"))
    assert answer.fields.get("sec-websocket-protocol") == (chosen.decode() if chosen else None)
    assert b"sec-websocket-protocol: v2, chat\r\n" in rig.sockets.heads[0]


REFUSALS: dict[str, tuple[bytes, int, str, str]] = {
    "a post": (handshake(method="POST"), 400, "malformed-request", "websocket-request"),
    "a head": (handshake(method="HEAD"), 400, "malformed-request", "websocket-request"),
    "http 1.0": (handshake().replace(b"HTTP/1.1", b"HTTP/1.0"), 400, "malformed-request", "websocket-request"),
    "a body": (handshake(Content_Length="2") + b"ab", 400, "malformed-request", "upgrade-with-body"),
    "chunks": (handshake(Transfer_Encoding="chunked") + b"0\r\n\r\n", 400, "malformed-request", "upgrade-with-body"),
    "no connection": (handshake(Connection=None), 400, "malformed-request", "websocket-connection"),
    "another connection": (handshake(Connection="close"), 400, "malformed-request", "websocket-connection"),
    "no key": (handshake(Sec_WebSocket_Key=None), 400, "malformed-request", "websocket-key"),
    "a short key": (handshake(Sec_WebSocket_Key="AAAA"), 400, "malformed-request", "websocket-key"),
    "two keys": (handshake(sec_websocket_key="AAAA"), 400, "malformed-request", "field-repeated"),
    "no version": (handshake(Sec_WebSocket_Version=None), 400, "malformed-request", "websocket-version"),
    "an old version": (handshake(Sec_WebSocket_Version="8"), 426, "websocket-version", "websocket-version"),
    "a version of several": (handshake(Sec_WebSocket_Version="13, 8"), 426, "websocket-version", "websocket-version"),
    "a subprotocol twice": (handshake(Sec_WebSocket_Protocol="a, a"), 400, "malformed-request", "websocket-protocol"),
    "a page of another site": (handshake(Origin="https://evil.example"), 403, "forbidden", "foreign-origin"),
    "a page without origin": (handshake(Origin="null"), 403, "forbidden", "foreign-origin"),
    "a route that says no": (handshake("/small/x"), 403, "forbidden", "websocket-off"),
    "a route without get": (handshake("/slashes/x"), 405, "method-not-allowed", "method-not-allowed"),
    "no route": (handshake("/elsewhere"), 404, "no-route", "no-route"),
    "another host": (handshake(Host="elsewhere"), 421, "misdirected", "host-not-served"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_what_is_no_handshake_is_refused_and_the_connection_closes_C3(rig: SocketRig, case: str) -> None:
    raw, status, reason, rule = REFUSALS[case]
    client, answer = rig.ask(raw + GET)  # frames or requests: what follows a refused handshake is not read
    if not raw.startswith(b"HEAD"):
        assert answer.reason == reason
    assert (answer.status, "close" in answer.fields["connection"]) == (status, True)
    assert client.is_ended()
    assert rig.sockets.heads == []
    leaf = rig.record(answer.fields["x-request-id"])
    assert (leaf["event.reason"], leaf["rule.id"], leaf["http.response.status_code"]) == (reason, rule, status)


OVER_HTTP2: dict[str, tuple[Fields, int, str, str]] = {
    "no version": (extended_connect(handshake(Sec_WebSocket_Version=None)), 400, "malformed-request",
                   "websocket-version"),
    "an old version": (extended_connect(handshake(Sec_WebSocket_Version="8")), 426, "websocket-version",
                       "websocket-version"),
    "a length": (extended_connect(handshake(Content_Length="0")), 400, "malformed-request", "websocket-request"),
    "a subprotocol twice": (extended_connect(handshake(Sec_WebSocket_Protocol="a, a")), 400, "malformed-request",
                            "websocket-protocol"),
    "a page of another site": (extended_connect(handshake(Origin="https://evil.example")), 403, "forbidden",
                               "foreign-origin"),
    "a route that says no": (extended_connect(handshake("/small/x")), 403, "forbidden", "websocket-off"),
    "a route without get": (extended_connect(handshake("/slashes/x")), 405, "method-not-allowed", "method-not-allowed"),
    "another host": (extended_connect(handshake(Host="elsewhere")), 421, "misdirected", "host-not-served"),
    "an upgrade": ([*extended_connect(handshake()), (b"upgrade", b"websocket")], 400, "malformed-request",
                   "connection-field"),
    "a get": ([(b":method", b"GET"), *extended_connect(handshake())[1:]], 400, "malformed-request", "pseudo-field"),
    "two protocols": ([(b":protocol", b"h2c"), *extended_connect(handshake())], 400, "malformed-request",
                      "pseudo-field"),
    "a protocol behind fields": ([*extended_connect(handshake())[:1], *extended_connect(handshake())[2:],
                                  (b":protocol", b"websocket")], 400, "malformed-request", "pseudo-field"),
    "no path": ([field for field in extended_connect(handshake()) if field[0] != b":path"], 400, "malformed-request",
                "pseudo-field"),
    "another scheme": ([(b":scheme", b"http") if field[0] == b":scheme" else field
                        for field in extended_connect(handshake())], 400, "malformed-request", "scheme"),
}  # fmt: skip


@pytest.mark.parametrize("case", OVER_HTTP2)
def test_over_http2_it_is_refused_and_the_connection_lives_C2_C3(rig: SocketRig, case: str) -> None:
    head, status, reason, rule = OVER_HTTP2[case]
    with H2Client(rig.gateway) as client:
        answer = client.answer(client.head(head, is_end=False))
        assert (answer.status, answer.reason) == (status, reason)
        rig.sockets.answer = lambda _: b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
        assert client.ask().status == 200
    assert len(rig.sockets.heads) == 1
    leaf = rig.record(answer.fields["x-request-id"])
    assert (leaf["event.reason"], leaf["rule.id"], leaf.get("http.version", "2")) == (reason, rule, "2")


def test_over_http2_a_stream_that_has_ended_is_no_websocket(rig: SocketRig) -> None:
    with H2Client(rig.gateway) as client:
        answer = client.answer(client.head(extended_connect(handshake()), is_end=True))
    assert (answer.status, answer.reason) == (400, "malformed-request")
    assert rig.sockets.heads == []


def test_over_http2_it_is_offered_and_shares_its_connection(rig: SocketRig) -> None:
    rig.over = "h2"
    pair = rig.open()
    client = pair.client
    assert isinstance(client, StreamEnd)
    assert client.h2.connection.remote_settings.enable_connect_protocol == 1
    other = client.h2.head(extended_connect(handshake("/orders/other")), is_end=False)
    rig.sockets.ends.get(timeout=15).send(frame(TEXT, b"other"))
    pair.upstream.send(frame(TEXT, b"one"))
    assert client.frame().payload == b"one"
    while not client.h2.bodies.get(other):
        client.h2.pump()
    client.end()
    assert pair.upstream.is_ended()


def test_over_http2_the_end_of_the_stream_is_the_end_of_the_connection(rig: SocketRig) -> None:
    rig.over = "h2"
    pair = rig.open()
    client = pair.client
    assert isinstance(client, StreamEnd)
    client.h2.connection.end_stream(client.stream)
    client.h2.flush()
    assert pair.upstream.is_ended()
    leaf = rig.record(pair.decision)
    assert (leaf["event.reason"], leaf["websocket.close_code"]) == ("client-gone", 1006)


def test_a_426_says_which_version_is_spoken(rig: SocketRig) -> None:
    _, answer = rig.ask(handshake(Sec_WebSocket_Version="12"))
    assert (answer.fields["sec-websocket-version"], answer.fields["upgrade"]) == ("13", "websocket")
    assert answer.fields["connection"] == "upgrade, close"


@pytest.mark.parametrize("origin", ["https://localhost", "https://localhost:443", "https://app.example.com",
                                    "http://localhost:3000"])  # fmt: skip
def test_pages_of_the_host_and_of_listed_origins_may_open_one(rig: SocketRig, origin: str) -> None:
    rig.open(handshake(Origin=origin))


@pytest.mark.parametrize("upgrade", ["h2c", "TLS/1.0", "websocket2"])
def test_an_upgrade_to_something_else_is_ignored_C3(rig: SocketRig, upgrade: str) -> None:
    rig.sockets.answer = lambda _: b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
    _, answer = rig.ask(handshake(Upgrade=upgrade))
    assert (answer.status, answer.body) == (200, b"ok")
    assert b"upgrade" not in rig.sockets.heads[0].lower()
    assert b"sec-websocket" not in rig.sockets.heads[0]


UPSTREAMS: dict[str, tuple[bytes, bytes, str]] = {
    "another accept": (b"sec-websocket-accept: ", b"sec-websocket-accept: A", "upstream-websocket-accept"),
    "no accept": (b"sec-websocket-accept: ", b"x: ", "upstream-websocket-accept"),
    "an extension": (b"upgrade: w", b"sec-websocket-extensions: permessage-deflate\r\nupgrade: w",
                     "upstream-websocket-extension"),
    "a subprotocol": (b"upgrade: w", b"sec-websocket-protocol: chat\r\nupgrade: w", "upstream-websocket-protocol"),
    "another protocol": (b"upgrade: websocket", b"upgrade: h2c", "upstream-upgrade"),
    "no upgrade": (b"upgrade: websocket\r\n", b"", "upstream-upgrade"),
    "a 200 in place of it": (b"101", b"200", "upstream-not-switched"),
    "a 204": (b"101", b"204", "upstream-not-switched"),
    "http 1.0": (b"HTTP/1.1 101", b"HTTP/1.0 101", "upstream-upgrade"),
}  # fmt: skip


@pytest.mark.parametrize("case", UPSTREAMS)
def test_an_upstream_that_does_not_switch_by_the_book_is_a_502_and_dropped_C3(rig: SocketRig, case: str) -> None:
    before, after, rule = UPSTREAMS[case]
    rig.sockets.answer = lambda head: accepting(head).replace(before, after)
    client, answer = rig.ask(handshake())
    assert (answer.status, answer.reason) == (502, "upstream-protocol")
    assert client.is_ended()
    assert rig.sockets.ends.get(timeout=15).is_ended()
    assert rig.record(answer.fields["x-request-id"])["rule.id"] == rule


@pytest.mark.parametrize("status", [401, 404, 503])
def test_an_upstream_s_refusal_reaches_the_client_and_both_connections_close(rig: SocketRig, status: int) -> None:
    rig.sockets.answer = lambda _: b"HTTP/1.1 %d No\r\ncontent-length: 2\r\n\r\nno" % status
    client, answer = rig.ask(handshake() + sent(TEXT, b"early"))
    assert (answer.status, answer.body, answer.fields["connection"]) == (status, b"no", "close")
    assert client.is_ended()
    assert rig.sockets.ends.get(timeout=15).is_ended()


def test_a_silent_upstream_is_a_504(rig: SocketRig) -> None:
    rig.sockets.answer = lambda _: b""
    _, answer = rig.ask(handshake("/quick/x"))
    assert (answer.status, answer.reason) == (504, "upstream-timeout")


# -- frames ------------------------------------------------------------------------------------------


@OVER_BOTH
def test_frames_pass_both_ways_masked_upstream_and_bare_downstream(rig: SocketRig) -> None:
    pair = rig.open()
    for opcode, payload in ((TEXT, "grün".encode()), (BINARY, bytes(300)), (PING, b"p"), (PONG, b""), (TEXT, b"")):
        pair.client.send(sent(opcode, payload))
        assert pair.upstream.frame() == Got(opcode, payload, fin=True, masked=True)
        pair.upstream.send(frame(opcode, payload))
        assert pair.client.frame() == Got(opcode, payload, fin=True, masked=False)


@OVER_BOTH
def test_fragments_with_a_ping_between_stay_what_they_are(rig: SocketRig) -> None:
    pair = rig.open()
    pair.client.send(sent(TEXT, b"\xc3", fin=False) + sent(PING, b"!") + sent(CONT, b"\xbc", fin=False) + sent(CONT))
    got = [pair.upstream.frame() for _ in range(4)]
    assert [(each.opcode, each.payload, each.fin) for each in got] == [
        (TEXT, b"\xc3", False), (PING, b"!", True), (CONT, b"\xbc", False), (CONT, b"", True),
    ]  # fmt: skip


@OVER_BOTH
def test_frames_that_do_not_wait_for_the_101_are_held_for_it_C3(rig: SocketRig) -> None:
    pair = rig.open(handshake() + sent(TEXT, b"early") + sent(PING, b"bird"))
    assert (pair.upstream.frame().payload, pair.upstream.frame().payload) == (b"early", b"bird")


@OVER_BOTH
def test_frames_that_come_with_the_upstream_s_101_reach_the_client(rig: SocketRig) -> None:
    rig.sockets.answer = lambda head: accepting(head) + frame(TEXT, b"hello")
    assert rig.open().client.frame().payload == b"hello"


@OVER_BOTH
def test_large_messages_pass_in_pieces_both_ways(rig: SocketRig) -> None:
    pair = rig.open()
    payload = bytes(range(256)) * 4096
    pair.client.send(sent(BINARY, payload))
    assert pair.upstream.message() == payload
    pair.upstream.send(frame(BINARY, payload))
    assert pair.client.message() == payload


@OVER_BOTH
def test_a_dribble_does_not_become_a_frame_a_byte(rig: SocketRig) -> None:
    pair = rig.open()
    for byte in sent(TEXT, b"slowly"):
        pair.client.send(bytes([byte]))
    assert pair.upstream.frame() == Got(TEXT, b"slowly", fin=True, masked=True)


def test_thousands_of_small_messages_pass_whole_and_in_order_and_others_have_their_turns_C4(rig: SocketRig) -> None:
    pair, other = rig.open(), rig.open()
    words = [b"%d" % number for number in range(3000)]
    pair.client.send(b"".join(sent(TEXT, word) for word in words) + sent(CLOSE, close(1000)))
    other.client.send(sent(TEXT, b"hello"))
    assert other.upstream.frame().payload == b"hello"
    assert [pair.upstream.frame().payload for _ in words] == words
    assert pair.upstream.closed() == (1000, b"")
    other.upstream.send(b"".join(frame(TEXT, word) for word in words))
    assert [other.client.frame().payload for _ in words] == words


WRONG: dict[str, tuple[bytes, int, str]] = {
    "unmasked": (frame(TEXT, b"x"), 1002, "frame-mask"),
    "compressed without being asked": (frame(TEXT, b"x", mask=MASK, rsv=4), 1002, "frame-reserved-bits"),
    "an unknown opcode": (sent(3), 1002, "frame-opcode"),
    "an unknown control": (sent(11), 1002, "frame-opcode"),
    "a ping in fragments": (sent(PING, fin=False), 1002, "frame-control-fragmented"),
    "a long ping": (sent(PING, bytes(126)), 1002, "frame-control-length"),
    "nothing to continue": (sent(CONT, b"x"), 1002, "frame-continuation"),
    "two messages at once": (sent(TEXT, b"x", fin=False) + sent(TEXT, b"y"), 1002, "frame-continuation"),
    "no text": (sent(TEXT, b"\xff"), 1007, "text-not-utf8"),
    "half a character": (sent(TEXT, b"\xc3"), 1007, "text-not-utf8"),
    "a close of one byte": (sent(CLOSE, b"\x03"), 1002, "close-code"),
    "a close with 1005": (sent(CLOSE, close(1005)), 1002, "close-code"),
    "a reason that is no text": (sent(CLOSE, close(1000, b"\xff")), 1007, "close-reason-not-utf8"),
    "an HTTP request": (GET, 1002, "frame-reserved-bits"),
}


@OVER_BOTH
@pytest.mark.parametrize("case", WRONG)
def test_what_a_client_breaks_does_not_reach_the_upstream(rig: SocketRig, case: str) -> None:
    raw, code, rule = WRONG[case]
    pair = rig.open()
    pair.client.send(raw + sent(TEXT, b"behind it"))
    assert pair.client.closed() == (code, b"protocol violation")
    got = pair.upstream.frame()
    if got.opcode == TEXT:  # the good part before
        got = pair.upstream.frame()
    assert (got.opcode, got.payload) == (CLOSE, close(1001, b"protocol violation"))
    ended(rig, pair, code, "websocket-violation", rule)


WRONG_UPSTREAM: dict[str, tuple[bytes, int, str]] = {
    "masked": (frame(TEXT, b"x", mask=MASK), 1002, "frame-mask"),
    "compressed": (frame(TEXT, b"x", rsv=4), 1002, "frame-reserved-bits"),
    "no text": (frame(TEXT, b"\xff"), 1007, "text-not-utf8"),
    "a close with 1006": (frame(CLOSE, close(1006)), 1002, "close-code"),
    "more than fits": (b"\x82\x7f" + (1 << 40).to_bytes(8, "big"), 1009, "message-size"),
    "HTTP": (b"HTTP/1.1 400 Bad Request\r\n\r\n", 1002, "frame-reserved-bits"),
}


@OVER_BOTH
@pytest.mark.parametrize("case", WRONG_UPSTREAM)
def test_what_an_upstream_breaks_does_not_reach_the_client(rig: SocketRig, case: str) -> None:
    raw, code, rule = WRONG_UPSTREAM[case]
    pair = rig.open()
    pair.upstream.send(frame(TEXT, b"good") + raw)
    assert pair.client.frame().payload == b"good"
    assert pair.client.closed() == (1011, b"upstream lost")
    assert pair.upstream.closed() == (code, b"protocol violation")
    ended(rig, pair, 1011, "upstream-protocol", rule)


# -- bounds ------------------------------------------------------------------------------------------


@OVER_BOTH
@pytest.mark.parametrize(
    ("raw", "code", "rule"),
    [
        (sent(BINARY, bytes(1001)), 1009, "message-size"),
        (sent(BINARY, bytes(600), fin=False) + sent(CONT, bytes(401)), 1009, "message-size"),
        (sent(BINARY, b"", fin=False) + sent(CONT, b"", fin=False) * 4, 1009, "message-frames"),
        (sent(PING) * 6, 1008, "control-rate"),
        (sent(PONG) * 6, 1008, "control-rate"),
    ],
)
def test_what_is_too_much_of_a_client_ends_it(rig: SocketRig, raw: bytes, code: int, rule: str) -> None:
    pair = rig.open(handshake("/quick/x"))
    pair.client.send(raw)
    assert pair.client.closed() == (code, b"protocol violation")
    while (got := pair.upstream.frame()).opcode != CLOSE:
        pass
    assert got.payload[:2] == close(1001)
    ended(rig, pair, code, "websocket-violation", rule)


@OVER_BOTH
def test_what_is_just_enough_passes(rig: SocketRig) -> None:
    pair = rig.open(handshake("/quick/x"))
    pair.client.send(sent(BINARY, bytes(1000)) + sent(PING) * 5)
    assert pair.upstream.frame().payload == bytes(1000)
    assert [pair.upstream.frame().opcode for _ in range(5)] == [PING] * 5


@OVER_BOTH
def test_a_flood_of_an_upstream_ends_it_too(rig: SocketRig) -> None:
    pair = rig.open(handshake("/quick/x"))
    pair.upstream.send(frame(PONG) * 6)
    while (got := pair.client.frame()).opcode != CLOSE:
        assert got.opcode == PONG
    assert got.payload == close(1011, b"upstream lost")
    assert pair.upstream.closed()[0] == 1008
    ended(rig, pair, 1011, "upstream-protocol", "control-rate")


@OVER_BOTH
def test_silence_ends_it(rig: SocketRig) -> None:
    pair = rig.open(handshake("/quick/x"))
    assert pair.client.closed() == (1001, b"idle")
    assert pair.upstream.closed() == (1001, b"idle")
    ended(rig, pair, 1001, "idle")


@OVER_BOTH
def test_pings_of_either_side_keep_it(rig: SocketRig) -> None:
    pair = rig.open(handshake("/quick/x"))
    began = time.monotonic()
    while time.monotonic() < began + 1.0:
        pair.upstream.send(frame(PING))
        assert pair.client.frame().opcode == PING
        assert pair.client.is_quiet(0.25)


# -- the end -----------------------------------------------------------------------------------------


@OVER_BOTH
@pytest.mark.parametrize(
    ("payload", "code"),
    [(b"", 1005), (close(1000), 1000), (close(1001, b"bye"), 1001), (close(4999, "grün".encode()), 4999)],
)
@pytest.mark.parametrize("first", ["client", "upstream"])
def test_codes_and_reasons_of_a_close_pass_both_ways(rig: SocketRig, first: str, payload: bytes, code: int) -> None:
    pair = rig.open()
    answer = close(3001, b"as you like")
    if first == "client":
        pair.client.send(sent(CLOSE, payload))
        assert pair.upstream.frame() == Got(CLOSE, payload, fin=True, masked=True)
        pair.upstream.send(frame(CLOSE, answer))
        assert pair.client.frame() == Got(CLOSE, answer, fin=True, masked=False)
    else:
        pair.upstream.send(frame(CLOSE, payload))
        assert pair.client.frame() == Got(CLOSE, payload, fin=True, masked=False)
        pair.client.send(sent(CLOSE, answer))
        assert pair.upstream.frame() == Got(CLOSE, answer, fin=True, masked=True)
    ended(rig, pair, code, None)


@OVER_BOTH
def test_what_an_upstream_still_says_behind_a_client_s_close_passes(rig: SocketRig) -> None:
    pair = rig.open()
    pair.client.send(sent(CLOSE, close(1000)) + sent(TEXT, b"too late"))
    assert pair.upstream.frame().opcode == CLOSE
    pair.upstream.send(frame(TEXT, b"the rest") + frame(CLOSE, close(1000)))
    assert (pair.client.frame().payload, pair.client.closed()[0]) == (b"the rest", 1000)
    ended(rig, pair, 1000, None)


@OVER_BOTH
def test_a_client_that_vanishes_is_no_close_to_the_upstream(rig: SocketRig) -> None:
    pair = rig.open()
    pair.client.end()
    assert pair.upstream.is_ended()
    leaf = rig.record(pair.decision)
    assert (leaf["event.reason"], leaf["websocket.close_code"]) == ("client-gone", 1006)


@OVER_BOTH
@pytest.mark.parametrize("proper", [True, False])
def test_an_upstream_that_vanishes_is_1011_to_the_client(rig: SocketRig, proper: bool) -> None:
    pair = rig.open()
    if proper:
        with suppress(OSError):
            pair.upstream.tls.unwrap()  # close_notify, and no Close before it
    pair.upstream.end()
    assert pair.client.closed() == (1011, b"upstream lost")
    assert pair.client.is_ended()
    leaf = rig.record(pair.decision)
    assert (leaf["event.reason"], leaf["rule.id"], leaf["websocket.close_code"]) == (
        "upstream-protocol",
        "upstream-truncated",
        1011,
    )


@OVER_BOTH
def test_an_upstream_that_leaves_without_answering_a_close_is_answered_for(rig: SocketRig) -> None:
    pair = rig.open()
    pair.client.send(sent(CLOSE, close(4000, b"bye")))
    assert pair.upstream.closed() == (4000, b"bye")
    pair.upstream.end()
    assert pair.client.closed() == (4000, b"bye")
    assert rig.record(pair.decision)["websocket.close_code"] == 4000


@OVER_BOTH
def test_bytes_and_time_are_in_the_leaf(rig: SocketRig) -> None:
    pair = rig.open()
    pair.client.send(sent(BINARY, bytes(1000)))
    pair.upstream.message()
    pair.upstream.send(frame(BINARY, bytes(50)))
    pair.client.message()
    pair.client.end()
    leaf = rig.record(pair.decision)
    assert (leaf["http.request.body.bytes"], leaf["http.response.body.bytes"]) == (1008, 52)
    assert (leaf["service.target.name"], leaf["http.request.method"]) == ("orders", "GET")


@OVER_BOTH
def test_neither_side_is_read_while_the_other_does_not_take(rig: SocketRig) -> None:
    pair = rig.open()
    message = frame(BINARY, bytes(60_000))
    pair.upstream.tls.settimeout(1.0)
    with pytest.raises(TimeoutError):  # the client reads nothing: the upstream gets stuck before it has sent 60 MB
        pair.upstream.send(message * 1000)
    pair.client.end()
    assert pair.upstream.is_ended()


def test_random_frames_pass_whole_or_not_at_all(rig: SocketRig) -> None:
    assert campaign(rig, 8, seed=1).total() == 8


def test_an_ordinary_request_on_a_new_connection_is_untouched(rig: SocketRig) -> None:
    rig.sockets.answer = lambda _: b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
    _, answer = rig.ask(GET)
    assert (answer.status, answer.body) == (200, b"ok")
