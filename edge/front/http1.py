"""HTTP/1.1 for the public: bytes ⇄ the line. llhttp is the only HTTP/1.1 parser these bytes ever meet.

One `Http1` per connection. Laws:

- A head is fed to the parser only when its end is in the buffer, and a message is fed to its last byte and not beyond, so
  that where one request ends and the next begins is decided once (attacks C1). Pipelined bytes wait until the answer
  before them is out.
- What llhttp lets pass and an edge must not (research: http-hardening) is refused here by the raw request line, and in
  `parse` by field.
- After an answer that leaves the reading position in doubt the connection closes; nothing is resynchronised.
"""

from __future__ import annotations

import asyncio

import httptools

from edge.accept.peer import peer_of
from edge.errors import EdgeError, HeadersTooLarge, MalformedRequest, UriTooLong
from edge.exchange import Exchange
from edge.forward.fields import forget_peer
from edge.front.front import Connection, Front
from edge.front.wire import CONTINUE, REQUEST_LINE, answer_head, request_line_error
from edge.model.http import RawField, Request
from edge.parse.request import MAX_TARGET_BYTES, METHODS, build

MAX_HEAD_BYTES = 32_768
MAX_PIPELINED_BYTES = 65_536
"""Bytes held of requests behind the one being answered; then the socket is not read."""
MAX_DISCARD_BYTES = 262_144
"""What is read and thrown away of a body that was refused, so that the client sees the answer before the close."""

_METHODS = {method.encode("ascii"): method for method in METHODS}


class Http1(Connection):
    """One downstream connection; the `Downstream` of its exchanges."""

    __slots__ = (
        "_body_left",
        "_consuming",
        "_deadline_s",
        "_discarded",
        "_exchange",
        "_fields",
        "_front",
        "_in_body",
        "_in_trailers",
        "_is_answered",
        "_is_chunked_answer",
        "_is_closing",
        "_is_complete",
        "_is_counted",
        "_is_read_paused",
        "_is_reading_head",
        "_keep_alive",
        "_method",
        "_out",
        "_parser",
        "_peer",
        "_pending",
        "_protocol",
        "_tail",
        "_target",
        "_transport",
    )

    def __init__(self, front: Front) -> None:
        self._front = front
        self._parser = httptools.HttpRequestParser(self)
        self._exchange: Exchange | None = None
        self._pending = b""
        self._fields: list[RawField] = []
        self._target = b""
        self._out: list[bytes] = []
        self._in_body = False
        self._is_complete = False
        self._in_trailers = False
        self._keep_alive = True
        self._is_closing = False
        self._is_chunked_answer = False
        self._consuming = False
        self._is_read_paused = False
        self._is_reading_head = False
        self._is_answered = False
        self._method = ""
        self._protocol = "1.1"
        self._tail = b""
        self._discarded = 0
        self._body_left = 0
        self._deadline_s = 0.0

    # -- asyncio --------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]
        self._peer = peer_of(transport)
        front = self._front
        front.connections.add(self)
        self._deadline_s = front.shared.loop.time() + front.deadlines.head_s
        self._is_counted = front.shared.shed.open(self._peer.prefix)
        if not self._is_counted:
            self._is_closing = True
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        if self._pending:
            data = self._pending + data
            self._pending = b""
        self._consume(data)

    def eof_received(self) -> bool:
        # Half-close: an exchange under way may still be answered; otherwise nothing more can come.
        return self._exchange is not None and not self._in_body

    def connection_lost(self, exc: Exception | None) -> None:
        self._is_closing = True
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.on_gone()
        if self._is_counted:
            self._front.shared.shed.close(self._peer.prefix)
        forget_peer(self._peer)
        self._front.forget(self)

    def pause_writing(self) -> None:
        if self._exchange is not None:
            self._exchange.pause_answer(is_paused=True)
        self._deadline_s = self._front.shared.loop.time() + self._front.deadlines.write_s

    def resume_writing(self) -> None:
        self._deadline_s = 0.0
        if self._exchange is not None:
            self._exchange.pause_answer(is_paused=False)

    # -- reading --------------------------------------------------------------------------------

    def _consume(self, data: bytes) -> None:
        self._consuming = True
        try:
            while data and not self._is_closing:
                if self._in_body:
                    data = self._feed_body(data)
                elif self._exchange is not None:
                    self._hold(data)
                    return
                else:
                    data = self._feed_head(data)
            if self._is_closing and data:
                self._discard(len(data))
        finally:
            self._consuming = False

    def _hold(self, data: bytes) -> None:
        """Pipelined: the answer before it is not out yet."""
        self._pending = data
        if len(data) > MAX_PIPELINED_BYTES:
            self._pause_reading()

    def _discard(self, count: int) -> None:
        self._discarded += count
        if self._discarded > MAX_DISCARD_BYTES:
            self._transport.abort()

    def _feed_head(self, data: bytes) -> bytes:
        if data.startswith(b"\r\n"):
            return data[2:]  # RFC 9112 §2.2: an empty line before a request line is ignored
        end = data.find(b"\r\n\r\n") + 4
        if end < 4:
            self._wait_for_head(data)
            return b""
        head, rest = (data, b"") if end == len(data) else (data[:end], data[end:])
        known = self._front.heads.get(head)
        if known is not None:
            self._again(known)
            return rest
        self._is_complete = self._in_trailers = False
        self._fields = []
        self._deadline_s = 0.0
        error: EdgeError | None = None
        if end > MAX_HEAD_BYTES:
            error = HeadersTooLarge("head-size")
        elif REQUEST_LINE.match(head) is None:
            error = request_line_error(head)
        else:
            try:
                self._parser.feed_data(head)
            except httptools.HttpParserUpgrade:
                # The wish is ignored (RFC 9110 §7.8), or refused with its body by parse; this parser is of no more use.
                self._parser = httptools.HttpRequestParser(self)
            except httptools.HttpParserError as exc:
                error = MalformedRequest("http1-syntax", type(exc).__name__)
        self._begin(error, head)
        return rest

    def _again(self, request: Request) -> None:
        """The bytes of a head that was parsed before: no body, HTTP/1.1, the connection is kept."""
        front = self._front
        self._deadline_s = 0.0
        self._is_reading_head = False
        self._is_complete = self._keep_alive = True
        self._protocol = "1.1"
        exchange = self._exchange = Exchange(front.gateway, front.shared, self, self._peer)
        exchange.start(request)

    def _wait_for_head(self, data: bytes) -> None:
        """Keep a part of a head; refuse at once what can no longer become a good one."""
        line_end = data.find(b"\n")
        error: EdgeError | None = None
        if line_end < 0 and len(data) > MAX_TARGET_BYTES + 32:
            error = UriTooLong("request-line")
        elif len(data) > MAX_HEAD_BYTES:
            error = HeadersTooLarge("head-size")
        elif line_end >= 0 and data.count(b"\n") != data.count(b"\r\n"):
            error = MalformedRequest("bare-line-feed")
        elif line_end > 0 and REQUEST_LINE.match(data) is None:
            error = request_line_error(data)
        if error is not None:
            self._begin(error, b"")
            return
        if not self._pending and not self._is_reading_head:
            self._is_reading_head = True
            self._deadline_s = self._front.shared.loop.time() + self._front.deadlines.head_s
        self._pending = data

    def _begin(self, error: EdgeError | None, head: bytes) -> None:
        """A head is in: make the exchange, and the request if it is one."""
        front = self._front
        self._is_reading_head = False
        exchange = self._exchange = Exchange(front.gateway, front.shared, self, self._peer)
        if error is None:
            try:
                request, framing = build(self._method, self._target, self._protocol, tuple(self._fields))
                if request.has_body and self._is_complete:
                    raise MalformedRequest("framing-disagrees")  # llhttp saw no body where the fields announce one
            except EdgeError as exc:
                error = exc
        if error is not None:
            self._keep_alive = False
            exchange.refuse(error)
            return
        self._in_body = not self._is_complete
        self._body_left = request.content_length or 0
        self._tail = b""
        if self._in_body:
            self._deadline_s = front.shared.loop.time() + front.deadlines.body_s
        elif self._keep_alive and not framing.has_upgrade:
            front.heads.put(head, request)
        exchange.start(request, wants_continue=framing.expects_continue)

    def _feed_body(self, data: bytes) -> bytes:
        """Feed up to the end of the message, and give back what follows it."""
        self._deadline_s = self._front.shared.loop.time() + self._front.deadlines.body_s
        try:
            if not self._body_left:
                return self._feed_chunks(data)
            piece, rest = (
                (data, b"") if len(data) <= self._body_left else (data[: self._body_left], data[self._body_left :])
            )
            self._body_left -= len(piece)
            self._parser.feed_data(piece)
            return rest
        except httptools.HttpParserError as exc:
            self._in_body = False
            self.must_close()
            if self._exchange is not None:
                self._exchange.refuse(MalformedRequest("http1-body-syntax", type(exc).__name__))
            return b""

    def _feed_chunks(self, data: bytes) -> bytes:
        """A chunked message ends in an empty line, so pieces that end in one are fed without ever overrunning it."""
        joined = self._tail + data
        offset = len(self._tail)
        start = search = 0
        while start < len(data):
            found = joined.find(b"\r\n\r\n", search)
            end = len(data) if found < 0 else found + 4 - offset
            search = found + 1
            self._parser.feed_data(data[start:end])
            start = end
            if not self._in_body:
                return data[start:]
        self._tail = joined[-3:]
        return b""

    def _pause_reading(self) -> None:
        if not self._is_read_paused and not self._transport.is_closing():
            self._is_read_paused = True
            self._transport.pause_reading()

    def _resume_reading(self) -> None:
        if self._is_read_paused and not self._transport.is_closing():
            self._is_read_paused = False
            self._transport.resume_reading()

    # -- llhttp ---------------------------------------------------------------------------------

    def on_url(self, url: bytes) -> None:
        self._target = url

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._in_trailers:  # a trailer must never become a header (attacks C5); trailers of requests are dropped
            self._fields.append((name.lower(), value.rstrip(b" \t")))

    def on_headers_complete(self) -> None:
        self._in_trailers = True
        parser = self._parser
        self._method = _METHODS.get(parser.get_method(), "")
        self._protocol = parser.get_http_version()
        # Only right inside the callback; HTTP/1.0 closes, because its keep-alive has no safe end of a message.
        self._keep_alive = parser.should_keep_alive() and self._protocol == "1.1"

    def on_body(self, body: bytes) -> None:
        if self._exchange is not None:
            self._exchange.on_body(body)

    def on_message_complete(self) -> None:
        self._is_complete = True
        if self._in_body:
            self._in_body = False
            self._deadline_s = 0.0
            if self._exchange is not None:
                self._exchange.on_body_end()
            elif not self._is_closing:
                self._rest()  # the answer was out before the body was in

    # -- the answer (Downstream) ----------------------------------------------------------------

    def send_head(self, status: int, fields: list[RawField], content_length: int | None, *, has_body: bool) -> None:
        front = self._front
        self._is_chunked_answer = has_body and content_length is None and self._protocol == "1.1"
        if (has_body and content_length is None and not self._is_chunked_answer) or front.is_draining:
            self._keep_alive = False
        self._out.append(
            answer_head(
                status,
                fields,
                content_length,
                front.date_line(),
                is_chunked=self._is_chunked_answer,
                is_closing=not self._keep_alive,
            )
        )

    def send_body(self, body: bytes) -> None:
        self._out.append(b"%x\r\n%b\r\n" % (len(body), body) if self._is_chunked_answer else body)

    def send_end(self) -> None:
        if self._is_chunked_answer:
            self._out.append(b"0\r\n\r\n")
        self._is_answered = True

    def flush(self) -> None:
        out = self._out
        if out:
            self._transport.write(out[0] if len(out) == 1 else b"".join(out))
            self._out = []
        if self._is_answered:
            self._is_answered = False
            self._exchange = None
            if not self._in_body or not self._keep_alive:
                self._rest()

    def send_continue(self) -> None:
        self._transport.write(CONTINUE)

    def pause_body(self, *, is_paused: bool) -> None:
        if is_paused:
            self._pause_reading()
        else:
            self._resume_reading()

    def must_close(self) -> None:
        self._keep_alive = False

    def cut(self) -> None:
        self._is_closing = True
        self._exchange = None
        self._transport.abort()

    # -- between requests -----------------------------------------------------------------------

    def _rest(self) -> None:
        """The answer is out: go on with what waits, rest, or close."""
        front = self._front
        now_s = front.shared.loop.time()
        if not self._keep_alive or front.is_draining:
            self._is_closing = True
            self._pending = b""
            if not self._in_body:
                self._transport.close()
                return
            # The client is still sending: closing now would reset the connection under the answer it has not read yet.
            self._in_body = False
            self._deadline_s = now_s + front.deadlines.linger_s
            self._resume_reading()
            return
        self._deadline_s = now_s + front.deadlines.idle_s
        if not self._consuming and self._pending:
            data, self._pending = self._pending, b""
            self._resume_reading()
            self._consume(data)

    def close_if_idle(self) -> None:
        """Drain: nothing under way and nothing half-read → close now; else after the answer."""
        self._keep_alive = False
        if self._exchange is None and not self._pending:
            self._is_closing = True
            self._transport.close()

    def check_deadline(self, now_s: float) -> None:
        if self._exchange is not None:
            self._exchange.check_deadline(now_s)
        if self._deadline_s and now_s > self._deadline_s:
            self.cut_late()

    def cut_late(self) -> None:
        """A deadline of the connection itself has passed."""
        exchange = self._exchange
        if exchange is not None:
            exchange.on_gone()
        self.cut()
