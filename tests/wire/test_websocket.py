"""WebSockets through a whole gateway, over HTTP/1.1 and HTTP/2: bytes on both ends, and what the log says of each."""

from __future__ import annotations

import time
from contextlib import suppress

import pytest

from tests.campaigns.websocket import campaign
from tests.wire.rig import GET
from tests.wire.websocket_over import OVER_BOTH, ended, rig, running
from tests.wire.websocket_rig import (
    BINARY,
    CLOSE,
    CONT,
    MASK,
    PING,
    PONG,
    TEXT,
    Got,
    SocketRig,
    accepting,
    close,
    frame,
    handshake,
    sent,
)

__all__ = ["rig", "running"]  # fixtures


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
