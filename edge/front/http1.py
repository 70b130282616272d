"""HTTP/1.1 for the public: bytes ⇄ the line. llhttp is the only HTTP/1.1 parser these bytes ever meet.

One `Http1` per connection. Laws:

- A head is fed to the parser only when its end is in the buffer, and a message is fed to its last byte and not beyond, so
  that where one request ends and the next begins is decided once (attacks C1). Pipelined bytes wait until the answer
  before them is out.
- What llhttp lets pass and an edge must not (research: http-hardening) is refused here by the raw request line, and in
  `parse` by field.
- After an answer that leaves the reading position in doubt the connection closes; nothing is resynchronised.
- Nothing new is begun for a client that does not take what it was answered before (attacks C4).
- What one read holds may cost far more than a request: it is worked off in turns, and others have theirs in between.
"""

from __future__ import annotations

import asyncio
from functools import partial

from edge.accept.peer import alpn_of
from edge.errors import EdgeError, MalformedRequest, RuledError
from edge.exchange import Exchange
from edge.forward.fields import forget_peer
from edge.front.front import Front
from edge.front.http1_answer import Answering
from edge.front.message import Message
from edge.front.websocket import take_over
from edge.front.wire import fault_in_head, fault_in_part, reset, taken_bytes, untaken_bytes
from edge.model.http import Request
from edge.parse.request import build
from edge.parse.websocket import requested
from edge.upgrade import Upgrade

MAX_PIPELINED_BYTES = 65_536
"""Bytes held of requests behind the one being answered; then the socket is not read."""
HEADS_AT_ONCE = 6
"""Of pipelined requests that are answered at once, because they are refused; then others have their turn."""
_EMPTY_LINE = b"\r\n"
"""RFC 9112 §2.2: one before a request line is ignored; a flood of them is not."""
HELD_BYTES = 16_384
"""Of an answer that the client does not take; then the upstream is not read. One read more comes on top."""


class Http1(Answering):
    """One downstream connection; the `Downstream` of its exchanges."""

    __slots__ = (
        "_consuming", "_deadline_s", "_exchange", "_in_body", "_is_body_paused", "_is_closing", "_is_read_paused",
        "_is_reading_head", "_is_turn_due", "_is_write_paused", "_message", "_pending", "_taken_bytes",
        "_write_deadline_s",
    )  # fmt: skip

    def __init__(self, front: Front) -> None:
        super().__init__(front)
        self._message = Message()
        self._exchange: Exchange | None = None
        self._pending = b""
        self._in_body = self._consuming = self._is_closing = self._is_reading_head = False
        self._is_read_paused = self._is_write_paused = self._is_body_paused = self._is_turn_due = False
        self._taken_bytes = 0
        self._deadline_s = 0.0
        self._write_deadline_s = 0.0

    # -- asyncio --------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]
        front = self._front
        self.peer = front.peer_of(transport)  # the gate has counted it
        if front.take_http2 is not None and alpn_of(transport) == "h2":
            front.take_http2(self._transport)  # with what it counts for; from here on this object is nobody's protocol
            return
        self._transport.set_write_buffer_limits(high=HELD_BYTES)
        front.connections.add(self)
        self._deadline_s = front.shared.loop.time() + front.deadlines.head_s

    def data_received(self, data: bytes) -> None:
        if self._pending:
            data, self._pending = self._pending + data, b""
            if self._is_turn_due:
                self._hold(data)
                return
        self._consume(data)

    def eof_received(self) -> bool:
        return False  # no TLS transport of asyncio can be half-closed; the loop would only complain about True

    def connection_lost(self, exc: Exception | None) -> None:
        self._is_closing = True
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.on_gone()
        self._message.release()
        self._front.shared.shed.close(self.peer.prefix)
        forget_peer(self.peer)
        self._front.forget(self)

    def pause_writing(self) -> None:
        self._is_write_paused = True
        self._await_reader()
        if self._exchange is not None:
            self._exchange.pause_answer(is_paused=True)

    def resume_writing(self) -> None:
        self._is_write_paused = False
        self._write_deadline_s = 0.0
        if self._exchange is not None:
            self._exchange.pause_answer(is_paused=False)
        elif not self._is_closing:
            self._go_on()

    def _await_reader(self) -> None:
        """From now on the client has to take what is written, or be cut."""
        front = self._front
        self._write_deadline_s = front.shared.loop.time() + front.deadlines.write_s
        self._taken_bytes = taken_bytes(self._transport)

    # -- reading --------------------------------------------------------------------------------

    def _consume(self, data: bytes) -> None:
        self._consuming = True
        heads_left = HEADS_AT_ONCE
        try:
            while data and not self._is_closing:
                if self._in_body:
                    data = self._feed_body(data)
                    if data and self._in_body:
                        self._hold(data)
                        return
                elif heads_left and self._exchange is None and not self._is_write_paused:
                    heads_left -= 1
                    data = self._feed_head(data)
                else:
                    self._hold(data)
                    return
        finally:
            self._consuming = False

    def _hold(self, data: bytes) -> None:
        """Pipelined: the answer before it is not out yet, or not taken; or it is the turn of others."""
        self._pending = data
        is_turn = self._in_body or (self._exchange is None and not self._is_write_paused)
        if is_turn and not self._is_turn_due:
            self._is_turn_due = True
            self._front.shared.loop.call_soon(self._take_turn)
        if len(data) > MAX_PIPELINED_BYTES:
            self._pause_reading()

    def _take_turn(self) -> None:
        self._is_turn_due = False
        if not self._in_body:
            self._go_on()
            return
        data, self._pending = self._pending, b""
        self._consume(data)
        if not (self._is_turn_due or self._is_body_paused):
            self._resume_reading()

    def _feed_head(self, data: bytes) -> bytes:
        ignored = b""
        if data.startswith(_EMPTY_LINE):
            ignored, data = _EMPTY_LINE, data[2:]
        end = data.find(b"\r\n\r\n") + 4
        if end < 4:
            self._wait_for_head(ignored, data)
            return b""
        head, rest = (data, b"") if end == len(data) else (data[:end], data[end:])
        known = self._front.heads.get(head)
        if known is not None:
            return self._again(known, rest)
        self._deadline_s = 0.0
        error = fault_in_head(head)
        if error is None:
            try:
                self._message.feed_head(head)
            except MalformedRequest as exc:
                error = exc
        return self._begin(error, head, rest)

    def _again(self, request: Request, rest: bytes) -> bytes:
        """The bytes of a head that was parsed before: HTTP/1.1, the connection is kept, a body has its length said."""
        front = self._front
        self._deadline_s = 0.0
        self._is_reading_head = False
        self._keep_alive = True
        self._protocol = "1.1"
        exchange = self._exchange = Exchange(front.gateway, front.shared, self, self.peer)
        if request.content_length:
            self._message.expect_body_of_known(request.content_length)
            rest = self._begin_body(exchange, request, rest)
        exchange.start(request)
        return rest

    def _wait_for_head(self, ignored: bytes, data: bytes) -> None:
        """Keep a part of a head, with the empty line before it; refuse at once what can no longer become a good one."""
        error = fault_in_part(data)
        if error is not None:
            self._begin(error, data, b"")
            return
        if data and not self._is_reading_head:
            self._is_reading_head = True
            self._deadline_s = self._front.shared.loop.time() + self._front.deadlines.head_s
        self._pending = ignored + data

    def _begin(self, error: EdgeError | None, head: bytes, rest: bytes) -> bytes:
        """A head is in: make the exchange, and the request if it is one. Gives back what is left of the bytes behind it."""
        front = self._front
        self._is_reading_head = False
        exchange = self._exchange = Exchange(front.gateway, front.shared, self, self.peer)
        message = self._message
        if error is None:
            self._keep_alive, self._protocol = message.keep_alive, message.protocol
            try:
                request, framing = build(message.method, message.target, message.protocol, tuple(message.fields))
                if request.has_body and message.is_complete:
                    raise MalformedRequest("framing-disagrees")  # llhttp saw no body where the fields announce one
                handshake = requested(request) if framing.has_upgrade else None
            except EdgeError as exc:
                error = exc
        if error is not None:
            self._keep_alive = False
            exchange.is_head_method = head.startswith(b"HEAD ")
            exchange.refuse(error)
            return b""
        if self._keep_alive and not (framing.has_upgrade or framing.expects_continue or request.chunked):
            front.heads.put(head, request)
        if not message.is_complete:
            message.expect_body(request.content_length)
            rest = self._begin_body(exchange, request, rest)
            if not self._in_body and not message.is_complete:
                return b""
        if handshake is not None:
            self._keep_alive = False  # a client that was refused may have sent frames already (attacks C3)
            switch = partial(take_over, front, self._transport, self.peer, handshake.raw_key, self._leave)
            exchange.upgrade = Upgrade(handshake, switch)
        exchange.start(request, wants_continue=framing.expects_continue)
        return rest

    def _begin_body(self, exchange: Exchange, request: Request, rest: bytes) -> bytes:
        """A body that came with its head is judged with it, and goes out with it."""
        exchange.request = request
        self._in_body = True
        self._deadline_s = self._front.shared.loop.time() + self._front.deadlines.body_s
        return self._feed_body(rest) if rest else rest

    def _leave(self) -> bytes:
        """Another protocol has the connection now, and the bytes that were held for it."""
        self._front.connections.discard(self)
        self._is_closing, self._exchange = True, None
        pending, self._pending = self._pending, b""
        return pending

    def _feed_body(self, data: bytes) -> bytes:
        """Feed up to the end of the message, pass its content on, and give back what follows it."""
        exchange = self._exchange
        try:
            body, rest = self._message.feed_body(data)
        except MalformedRequest as exc:
            self._in_body = self._keep_alive = False
            if exchange is not None:
                exchange.refuse(exc)
            return b""
        self._extend_deadline(len(body))
        if exchange is not None and body:
            exchange.on_body(body)
        if self._message.is_complete:
            self._in_body = False
            self._deadline_s = 0.0
            if exchange is not None:
                exchange.on_body_end()
            elif not self._is_closing:
                self._rest()  # the answer was out before the body was in
        return rest

    def _extend_deadline(self, count: int) -> None:
        """A body has to come, and at no less than a rate: a byte now and then would hold its upstream for ever."""
        deadlines = self._front.deadlines
        latest_s = self._front.shared.loop.time() + deadlines.body_s
        if self._deadline_s:  # else the upstream is being waited for
            self._deadline_s = min(latest_s, self._deadline_s + count / deadlines.least_bytes_per_s)

    def _pause_reading(self) -> None:
        if not self._is_read_paused and not self._transport.is_closing():
            self._is_read_paused = True
            self._transport.pause_reading()

    def _resume_reading(self) -> None:
        if self._is_read_paused and not self._transport.is_closing():
            self._is_read_paused = False
            self._transport.resume_reading()

    # -- the answer (Downstream) ----------------------------------------------------------------

    def flush(self) -> None:
        out = self._out
        if out:
            write = self._front.writes.write if self._is_answered else self._front.writes.write_now
            write(self._transport, out[0] if len(out) == 1 else b"".join(out))
            self._out = []
        if self._is_answered:
            self._is_answered = False
            self._exchange = None
            if not self._in_body or not self._keep_alive:
                self._rest()

    def pause_body(self, *, is_paused: bool) -> None:
        self._is_body_paused = is_paused
        if is_paused:
            self._pause_reading()
            self._deadline_s = 0.0  # what is awaited is not the client's to do
        else:
            if not self._is_turn_due:
                self._resume_reading()
            if self._in_body:
                self._deadline_s = self._front.shared.loop.time() + self._front.deadlines.body_s

    def cut(self) -> None:
        self._is_closing = True
        self._exchange = None
        reset(self._transport)

    # -- between requests -----------------------------------------------------------------------

    def _rest(self) -> None:
        """The answer is out: go on with what waits, rest, or close."""
        if not self._keep_alive or self._front.is_draining:
            self._close()
            return
        self._deadline_s = self._front.shared.loop.time() + self._front.deadlines.idle_s
        if not self._consuming:
            self._go_on()

    def _go_on(self) -> None:
        """Read what waits, unless the client has first to take what it was sent."""
        if self._is_write_paused or self._is_closing:
            return
        self._resume_reading()
        if self._pending:
            data, self._pending = self._pending, b""
            self._consume(data)

    def _close(self) -> None:
        """Say so (close_notify) behind what is written. Until the client has read it, or `linger_s` is over, the transport
        reads on and throws away: closing at once would reset the connection under an answer that was not read yet."""
        self._is_closing = True
        self._in_body = False
        self._pending = b""
        self._front.writes.settle(self._transport)
        self._await_reader()
        self._deadline_s = self._front.shared.loop.time() + self._front.deadlines.linger_s
        self._transport.close()

    def close_if_idle(self) -> None:
        """Drain: nothing under way and nothing half-read → close now; else after the answer."""
        self._keep_alive = False
        if self._exchange is None and self._pending in (b"", _EMPTY_LINE):
            self._close()

    def waiting_bytes(self) -> int:
        """Only of clients that let us wait; what is under way to the others is gone before it could be counted."""
        held = len(self._pending)
        return held + self._transport.get_write_buffer_size() if self._is_write_paused else held

    def check_deadline(self, now_s: float) -> None:
        if self._exchange is not None:
            self._exchange.check_deadline(now_s)
        if self._deadline_s and now_s > self._deadline_s:
            if self._is_closing:
                if not (untaken_bytes(self._transport) and self._is_taken_in_time(now_s)):
                    self.cut_late("deadline")
            elif self._is_resting and untaken_bytes(self._transport):
                self._deadline_s = now_s + self._front.deadlines.idle_s  # it rests when it has read its answer
                if not self._write_deadline_s:
                    self._await_reader()
            else:
                self.cut_late("deadline")
        elif self._write_deadline_s and now_s > self._write_deadline_s and not self._is_taken_in_time(now_s):
            if self._is_write_paused or untaken_bytes(self._transport):
                self.cut_late("deadline")
            else:
                self._write_deadline_s = 0.0

    @property
    def _is_resting(self) -> bool:
        """Between two requests."""
        return self._exchange is None and not self._is_reading_head and not self._in_body

    def _is_taken_in_time(self, now_s: float) -> bool:
        """Whether the client took its answer at the least rate or better since this was asked last."""
        if now_s <= self._write_deadline_s:
            return True
        deadlines = self._front.deadlines
        before, self._taken_bytes = self._taken_bytes, taken_bytes(self._transport)
        self._write_deadline_s = now_s + deadlines.write_s
        return self._taken_bytes - before >= deadlines.least_bytes_per_s * deadlines.write_s

    def cut_late(self, rule: str) -> None:
        if self._exchange is not None:
            self._exchange.on_gone(RuledError(rule))
        self.cut()
