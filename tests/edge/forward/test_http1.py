"""Answers of an upstream: whole, byte by byte, smuggled, short, surplus. A transcript test on a socket that is a list."""

from __future__ import annotations

import socket

import pytest

from edge.errors import UpstreamProtocolError, UpstreamUnreachable
from edge.forward.answer_faults import MAX_FIELDS, MAX_HEAD_BYTES
from edge.forward.http1 import NARROW_BYTES
from edge.forward.io_dial import RECEIVE_BYTES
from tests.edge.forward.transcript import Case, Wire

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-A: b \r\n\r\nhello"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-Trailer: evil\r\n\r\n"


@pytest.mark.parametrize("raw", [OK, CHUNKED])
@pytest.mark.parametrize("pieces", [1, 7, 10_000])
def test_an_answer_arrives_however_it_is_cut(raw: bytes, pieces: int) -> None:
    case = Case().receive(raw, pieces=pieces)
    assert (case.kinds[0], case.heard.body, case.kinds[-1]) == ("head", b"hello", "end")
    assert case.idle == [case.connection]
    assert not case.wire.aborted


def test_names_are_lower_case_and_values_trimmed() -> None:
    assert Case().receive(OK).heard.fields == [(b"content-length", b"5"), (b"x-a", b"b")]


def test_trailers_are_not_merged_into_fields_C5() -> None:
    assert b"x-trailer" not in dict(Case().receive(CHUNKED).heard.fields)


def test_a_head_answer_ends_with_its_head_and_the_connection_lives() -> None:
    case = Case(is_head=True).receive(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n")
    assert case.heard.events == [("head", 200, 5, False), ("end",)]
    assert case.idle == [case.connection]
    case.start()
    case.receive(OK)
    assert case.heard.body == b"hello"


def test_a_body_after_a_head_answer_ends_the_connection_and_is_not_passed_on_C3() -> None:
    case = Case(is_head=True).receive(OK)
    assert case.heard.events == [("head", 200, 5, False), ("end",)]
    assert case.heard.end_is_flushed
    assert case.wire.aborted
    assert case.idle == []


def test_bytes_after_the_answer_are_not_kept_for_the_next_request_C3() -> None:
    case = Case().receive(OK + b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
    assert case.heard.end_is_flushed
    assert b"evil" not in case.heard.body
    assert case.wire.aborted
    assert case.idle == []


def test_bytes_on_an_idle_connection_end_it_C3() -> None:
    case = Case().receive(OK)
    case.receive(b"HTTP/1.1 200 OK\r\n")
    assert case.wire.aborted


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\n",
        b"HTTP/1.1 200 OK\nContent-Length: 5\n\nhello",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: a\x00b\r\n\r\n",
        b"HTTP/9.9 200 OK\r\n\r\n",
        b"hello",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\nhello",
    ],
)
def test_ambiguous_answers_are_not_passed_on_C1(raw: bytes) -> None:
    case = Case().receive(raw)
    assert case.failure[0] is UpstreamProtocolError
    assert case.wire.aborted


def test_an_unrequested_upgrade_is_an_error_C3() -> None:
    case = Case().receive(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n")
    assert case.failure == (UpstreamProtocolError, "upstream-upgrade")


@pytest.mark.parametrize("framing", ["Content-Length: 2", "content-length: 0", "Transfer-Encoding: chunked"])
@pytest.mark.parametrize("status", [100, 103, 199])
@pytest.mark.parametrize("is_head", [False, True])
def test_an_interim_answer_that_announces_a_body_is_an_error_and_no_byte_of_it_passes_C3(
    framing: str, status: int, is_head: bool
) -> None:
    """Found by fuzzing: the parser reads the body, and it came out before any head."""
    interim = f"HTTP/1.1 {status} X\r\n{framing}\r\n\r\n".encode()
    for pieces in (1, 10_000):
        case = Case(is_head=is_head).receive(interim + b"2\r\nHI\r\n0\r\n\r\n" + OK, pieces=pieces)
        assert (case.kinds, case.failure) == (["failed"], (UpstreamProtocolError, "upstream-interim-framing"))
        assert case.wire.aborted


def test_interim_answers_are_passed_over() -> None:
    case = Case().receive(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + OK)
    assert [e for e in case.heard.events if e[0] == "head"] == [("head", 200, 5, True)]


@pytest.mark.parametrize(
    ("line", "rule"),
    [
        (b"HTTP/2.0 200 OK", "upstream-version"),
        (b"HTTP/0.9 200 OK", "upstream-version"),
        (b"HTTP/2.0 103 Early Hints", "upstream-version"),
        (b"HTTP/1.1 000 Nothing", "upstream-status"),
        (b"HTTP/1.1 099 Less", "upstream-status"),
        (b"HTTP/1.1 600 More", "upstream-status"),
        (b"HTTP/1.1 999 Most", "upstream-status"),
    ],
)
@pytest.mark.parametrize("before", [b"", b"HTTP/1.1 103 Early Hints\r\n\r\n"])
@pytest.mark.parametrize("pieces", [1, 10_000])
def test_status_lines_of_no_http_are_not_passed_on_C1(line: bytes, rule: str, before: bytes, pieces: int) -> None:
    case = Case().receive(before + line + b"\r\nContent-Length: 5\r\n\r\nhello", pieces=pieces)
    assert case.failure == (UpstreamProtocolError, rule)
    assert case.wire.aborted


@pytest.mark.parametrize(
    "raw", [b"RTSP/1.0 200 OK\r\n", b"ICE/1.0 200 OK\r\n", b"\r\nHTTP/1.1 200 OK\r\n", b"\nHTTP/1.1 200 OK\r\n"]
)
@pytest.mark.parametrize("pieces", [1, 10_000])
def test_what_does_not_begin_as_an_answer_is_none_C3(raw: bytes, pieces: int) -> None:
    """An empty line before an answer is the rest of another one, or of something that is no HTTP."""
    case = Case().receive(raw + b"Content-Length: 5\r\n\r\nhello", pieces=pieces)
    assert (case.failure, case.heard.body) == ((UpstreamProtocolError, "upstream-syntax"), b"")
    assert case.wire.aborted


def test_an_answer_of_too_many_fields_is_not_passed_on() -> None:
    assert Case().receive(OK.replace(b"X-A: b", b"\r\n".join([b"X-A: b"] * (MAX_FIELDS - 1)))).heard.body == b"hello"
    case = Case().receive(OK.replace(b"X-A: b", b"\r\n".join([b"X-A: b"] * MAX_FIELDS)))
    assert case.failure == (UpstreamProtocolError, "upstream-field-count")


def test_an_endless_head_is_cut() -> None:
    case = Case().receive(
        b"HTTP/1.1 200 OK\r\n" + b"X-A: %b\r\n" % (b"a" * 8000) * (MAX_HEAD_BYTES // 8000 + 1) + b"\r\n"
    )
    assert case.failure == (UpstreamProtocolError, "upstream-head-size")


@pytest.mark.parametrize("size", [MAX_HEAD_BYTES - 100, MAX_HEAD_BYTES])
def test_a_head_that_came_whole_with_its_answer_is_measured_too(size: int) -> None:
    case = Case().receive(b"HTTP/1.1 200 OK\r\nX-A: %b\r\nContent-Length: 100\r\n\r\n" % (b"a" * size) + bytes(100))
    if size < MAX_HEAD_BYTES:
        assert case.heard.body == bytes(100)
    else:
        assert (case.failure, case.kinds) == ((UpstreamProtocolError, "upstream-head-size"), ["failed"])


def test_a_body_until_close_is_complete_when_the_closing_alert_came() -> None:
    case = Case().receive(b"HTTP/1.1 200 OK\r\n\r\nhello")
    case.connection.eof_received()
    case.connection.connection_lost(None)
    assert (case.heard.body, case.kinds[-1], case.idle) == (b"hello", "end", [])


@pytest.mark.parametrize("exc", [None, ConnectionResetError()])
def test_a_body_until_close_is_not_complete_without_it(exc: Exception | None) -> None:
    case = Case().receive(b"HTTP/1.1 200 OK\r\n\r\nhello")
    case.connection.connection_lost(exc)
    assert case.failure == (UpstreamProtocolError, "upstream-truncated")


def test_an_answer_that_broke_in_its_head_has_begun_and_is_not_asked_for_again() -> None:
    case = Case().receive(b"HTTP/1.1 200 OK\r\nX-A")
    assert case.connection.answer_started
    case.connection.connection_lost(None)
    assert case.failure == (UpstreamProtocolError, "upstream-truncated")


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
    ],
)
def test_only_one_chunked_of_http11_frames_an_answer_C1(head: bytes) -> None:
    case = Case().receive(head + b"5\r\nhello\r\n0\r\n\r\n")
    assert case.failure[0] is UpstreamProtocolError


def test_a_short_answer_is_told() -> None:
    case = Case().receive(OK[:-1])
    case.connection.connection_lost(None)
    assert case.failure == (UpstreamProtocolError, "upstream-truncated")


SHORT = [OK[:-1], OK[: OK.index(b"hello")], CHUNKED[:-20], CHUNKED[: CHUNKED.index(b"5\r\n")]]


@pytest.mark.parametrize("raw", SHORT)
def test_of_an_answer_that_is_short_from_the_start_nothing_is_passed_on(raw: bytes) -> None:
    case = Case(is_held=True).receive(raw)
    assert case.kinds == []
    case.connection.connection_lost(None)
    assert case.heard.events == [("failed", UpstreamProtocolError, "upstream-truncated")]
    case.clock.pass_by()
    assert case.kinds == ["failed"]


@pytest.mark.parametrize("raw", SHORT)
def test_the_beginning_of_an_answer_is_passed_on_a_moment_later(raw: bytes) -> None:
    case = Case(is_held=True).receive(raw)
    case.clock.pass_by()
    assert case.kinds == ["head", "body"][: 2 if b"hell" in raw else 1]


def test_what_comes_next_takes_the_beginning_along_once() -> None:
    case = Case(is_held=True).receive(OK[:-3]).receive(OK[-3:-1])
    assert (case.heard.events, case.clock.due) == ([("head", 200, 5, True), ("body", b"hell")], [])
    case.receive(OK[-1:])
    assert (case.kinds, case.heard.body, case.idle) == (["head", "body", "body", "end"], b"hello", [case.connection])
    assert case.clock.cancelled == 1


def test_nobody_hears_the_beginning_of_an_answer_that_was_given_up() -> None:
    case = Case(is_held=True).receive(OK[:-1])
    case.connection.abort()
    case.clock.pass_by()
    assert case.kinds == []


def test_what_ends_with_the_connection_is_whole_then() -> None:
    case = Case(is_held=True).receive(b"HTTP/1.1 200 OK\r\n\r\nhello")
    case.connection.eof_received()
    case.connection.connection_lost(None)
    assert case.heard.events == [("head", 200, None, True), ("body", b"hello"), ("end",)]
    assert case.connection.failure is None


def test_a_close_before_the_answer_is_unreachable() -> None:
    case = Case()
    case.connection.connection_lost(None)
    assert case.failure == (UpstreamUnreachable, "upstream-closed")
    assert case.gone == [case.connection]


@pytest.mark.parametrize("status", [b"204 No Content", b"304 Not Modified"])
def test_answers_without_body_end_with_their_head(status: bytes) -> None:
    case = Case().receive(b"HTTP/1.1 " + status + b"\r\n\r\n")
    assert case.kinds == ["head", "end"]
    assert case.idle == [case.connection]


@pytest.mark.parametrize("raw", [OK.replace(b"X-A: b", b"Connection: close"), OK.replace(b"HTTP/1.1", b"HTTP/1.0")])
def test_a_connection_that_will_close_is_not_kept(raw: bytes) -> None:
    case = Case().receive(raw)
    assert case.heard.body == b"hello"
    assert case.idle == []


def test_an_answer_before_the_whole_request_ends_the_connection() -> None:
    case = Case(is_complete=False).receive(OK)
    assert case.kinds[-1] == "end"
    assert case.idle == []
    assert case.wire.aborted


def test_pauses_reach_the_receiver_and_the_socket() -> None:
    case = Case()
    case.connection.pause_writing()
    case.connection.resume_writing()
    assert case.heard.events == [("paused", True), ("paused", False)]
    case.connection.pause_reading()
    assert not case.wire.reading
    case.connection.resume_reading()
    assert case.wire.reading


def test_an_aborted_exchange_hears_nothing_more() -> None:
    case = Case()
    case.connection.abort()
    case.connection.connection_lost(None)
    assert case.heard.events == []


def test_a_connection_that_is_gone_holds_its_transport_no_longer() -> None:
    """It and its parser refer to each other; without the collector, what TLS holds for the transport is free at once."""
    case = Case().receive(OK)
    case.connection.connection_lost(None)
    assert case.connection.transport is None
    case.connection.abort()
    assert not case.wire.aborted


def test_only_a_connection_whose_clients_take_long_answers_takes_in_more_at_once_C4() -> None:
    """What a client does not take is held several times over, in pieces of one read."""
    case = Case()
    with socket.socket() as raw:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16_384)
        case.wire = Wire(extra={"socket": raw})
        case.connection.connection_made(case.wire)
        case.receive(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (2 * NARROW_BYTES))
        case.receive(bytes(NARROW_BYTES - 1), pieces=64)
        assert raw.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) == 2 * 16_384
        case.receive(b"x")
        assert raw.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) == 2 * RECEIVE_BYTES
