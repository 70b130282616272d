"""Our handshake with an upstream: what goes out, what must come back, and what becomes of the connection."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from hashlib import sha1

import pytest

from edge.errors import UpstreamProtocolError
from edge.forward.http1 import UpstreamConnection
from edge.forward.websocket import Offer, UpstreamStream
from edge.model.http import RawField
from edge.writes import Writes
from tests.edge.forward.transcript import Clock, Listener
from tests.edge.forward.transcript import Wire as PlainWire

KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = b64encode(sha1(KEY + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
GOOD: tuple[RawField, ...] = (
    (b"upgrade", b"websocket"),
    (b"connection", b"Upgrade"),
    (b"sec-websocket-accept", ACCEPT),
)


def asking(*protocols: bytes) -> Offer:
    return Offer(KEY, protocols, lambda *_: None)


def test_the_accept_of_the_rfc() -> None:
    assert ACCEPT == b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


def test_the_offer_is_ours_and_names_no_extension() -> None:
    assert asking(b"chat", b"v2").fields == (
        b"connection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n"
        b"sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-protocol: chat, v2\r\n\r\n"
    )
    assert asking().fields.endswith(b"==\r\n\r\n")


@pytest.mark.parametrize("chosen", [None, b"chat", b"v2"])
def test_a_good_answer_may_choose_what_was_offered(chosen: bytes | None) -> None:
    offer = asking(b"chat", b"v2")
    offer.require([*GOOD, *([(b"sec-websocket-protocol", chosen)] if chosen else [])], "1.1")
    assert offer.protocol == chosen


def without(name: bytes, *more: RawField) -> list[RawField]:
    return [*(field for field in GOOD if field[0] != name), *more]


@pytest.mark.parametrize(
    ("fields", "rule"),
    [
        (without(b"upgrade"), "upstream-upgrade"),
        (without(b"upgrade", (b"upgrade", b"h2c")), "upstream-upgrade"),
        ([*GOOD, (b"upgrade", b"websocket")], "upstream-upgrade"),
        (without(b"connection"), "upstream-upgrade"),
        (without(b"connection", (b"connection", b"close")), "upstream-upgrade"),
        (without(b"sec-websocket-accept"), "upstream-websocket-accept"),
        (without(b"sec-websocket-accept", (b"sec-websocket-accept", KEY)), "upstream-websocket-accept"),
        (without(b"sec-websocket-accept", (b"sec-websocket-accept", ACCEPT.lower())), "upstream-websocket-accept"),
        ([*GOOD, (b"sec-websocket-accept", ACCEPT)], "upstream-websocket-accept"),
        ([*GOOD, (b"sec-websocket-extensions", b"permessage-deflate")], "upstream-websocket-extension"),
        ([*GOOD, (b"sec-websocket-extensions", b"")], "upstream-websocket-extension"),
        ([*GOOD, (b"sec-websocket-protocol", b"other")], "upstream-websocket-protocol"),
        ([*GOOD, (b"sec-websocket-protocol", b"CHAT")], "upstream-websocket-protocol"),
        ([*GOOD, (b"sec-websocket-protocol", b"chat, v2")], "upstream-websocket-protocol"),
        (
            [*GOOD, (b"sec-websocket-protocol", b"chat"), (b"sec-websocket-protocol", b"v2")],
            "upstream-websocket-protocol",
        ),
    ],
)
def test_an_answer_to_something_else_is_refused_C3(fields: list[RawField], rule: str) -> None:
    with pytest.raises(UpstreamProtocolError) as caught:
        asking(b"chat", b"v2").require(fields, "1.1")
    assert caught.value.rule == rule


def test_http_10_does_not_switch() -> None:
    with pytest.raises(UpstreamProtocolError):
        asking().require(GOOD, "1.0")


class Wire(PlainWire):
    """A transport that can change hands."""

    def __init__(self) -> None:
        super().__init__()
        self.protocol: asyncio.BaseProtocol | None = None
        self.closed = False

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.protocol = protocol

    def is_closing(self) -> bool:
        return self.closed or self.aborted

    def close(self) -> None:
        self.closed = True


class Case:
    """A connection on which a WebSocket was asked for."""

    def __init__(self) -> None:
        self.idle: list[UpstreamConnection] = []
        self.gone: list[UpstreamConnection] = []
        self.connection = UpstreamConnection(
            self.idle.append, self.gone.append, Writes(lambda end: end()), Clock().call_later
        )
        self.wire = Wire()
        self.connection.connection_made(self.wire)
        self.heard = Listener()
        self.connection.offer = Offer(KEY, (), lambda _, rest: self.heard.events.append(("switched", rest)))
        self.connection.start(self.heard, b"GET / HTTP/1.1\r\n\r\n", is_head_method=False, is_complete=True)

    def receive(self, raw: bytes) -> Case:
        self.connection.data_received(raw)
        return self


SWITCH = b"HTTP/1.1 101 Switching Protocols\r\n" + b"".join(b"%b: %b\r\n" % field for field in GOOD) + b"\r\n"


@pytest.mark.parametrize("rest", [b"", b"\x81\x02hi", b"HTTP/1.1 200 OK\r\n\r\n"])
def test_what_comes_behind_a_101_is_no_http(rest: bytes) -> None:
    assert Case().receive(SWITCH + rest).heard.events == [("switched", rest)]


def test_a_101_is_read_byte_by_byte_and_behind_interim_answers() -> None:
    case = Case()
    for byte in b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" + SWITCH:
        case.receive(bytes([byte]))
    assert case.heard.events == [("switched", b"")]


@pytest.mark.parametrize(
    ("raw", "rule"),
    [
        (SWITCH.replace(b"websocket", b"websockets", 1), "upstream-upgrade"),
        (SWITCH.replace(ACCEPT, KEY), "upstream-websocket-accept"),
        (b"HTTP/1.1 101 Switching Protocols\r\n\r\n", "upstream-upgrade"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", "upstream-not-switched"),
        (SWITCH.replace(b"101", b"200"), "upstream-not-switched"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", "upstream-not-switched"),
    ],
)
def test_what_is_no_switch_and_no_refusal_ends_the_connection_C3(raw: bytes, rule: str) -> None:
    case = Case().receive(raw)
    assert case.heard.events == [("failed", UpstreamProtocolError, rule)]
    assert case.wire.aborted


@pytest.mark.parametrize("status", [302, 401, 403, 404, 426, 503])
def test_a_refusal_passes_and_the_connection_is_not_used_again(status: int) -> None:
    case = Case().receive(b"HTTP/1.1 %d No\r\ncontent-length: 2\r\n\r\nno" % status)
    assert case.heard.events == [("head", status, 2, True), ("body", b"no"), ("end",)]
    assert case.idle == []
    assert case.wire.aborted


class Ear:
    """What a tunnel would hear."""

    def __init__(self) -> None:
        self.heard: list[object] = []

    def on_upstream_bytes(self, data: bytes) -> None:
        self.heard.append(data)

    def on_upstream_lost(self) -> None:
        self.heard.append("lost")

    def on_upstream_paused(self, *, is_paused: bool) -> None:
        self.heard.append(is_paused)


def opened() -> tuple[Case, Ear, UpstreamStream]:
    case, ear = Case().receive(SWITCH), Ear()
    return case, ear, UpstreamStream(case.connection, ear)


def test_behind_the_switch_the_transport_is_the_stream_s() -> None:
    case, ear, stream = opened()
    assert case.wire.protocol is stream
    stream.data_received(b"x")
    stream.pause_writing()
    stream.resume_writing()
    stream.connection_lost(None)
    assert ear.heard == [b"x", True, False, "lost"]
    assert case.gone == [case.connection]  # the pool forgets it


def test_a_pool_that_gives_the_connection_up_ends_the_stream() -> None:
    case, ear, stream = opened()
    case.connection.abort()
    stream.connection_lost(None)
    assert (case.wire.aborted, ear.heard) == (True, ["lost"])


@pytest.mark.parametrize("how", ["close", "abort"])
def test_whoever_ends_it_hears_no_more(how: str) -> None:
    case, ear, stream = opened()
    stream.close() if how == "close" else stream.abort()
    stream.data_received(b"x")
    stream.pause_writing()
    stream.resume_writing()
    stream.write(b"late")
    stream.pause_reading(is_paused=True)
    stream.connection_lost(None)
    assert (case.wire.closed, case.wire.aborted) == (how == "close", how == "abort")
    assert ear.heard == []
    assert stream.eof_received() is False
