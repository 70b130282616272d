"""HTTP/1.1 towards an upstream: one connection, one exchange at a time, on httptools (llhttp).

`UpstreamConnection` writes the head it is given and turns what comes back into calls on a `Receiver`. It knows nothing of
the downstream. Laws:

- An answer is passed on only while it is unambiguous. Whatever llhttp refuses, bytes after the end of an answer, a body
  where none may be, or an unrequested 101 is an `UpstreamProtocolError`, and the connection is never used again. What one
  read holds is passed on when all of it was judged, and what begins and is not whole with what comes next, or a moment
  later: what is broken or short from the start is a 502, not half an answer.
- The connection goes back to the pool only after a complete answer to a completely sent request that both sides agree to
  keep alive. `should_keep_alive()` of httptools is right only inside the callback, so it is read there.
- llhttp cannot be told that an answer has no body (HEAD), so after such a head the parser is replaced.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

import httptools

from edge.errors import UpstreamError, UpstreamProtocolError, UpstreamUnreachable
from edge.forward.answer_faults import MAX_FIELDS, MAX_HEAD_BYTES, fault_in_bounds, fault_in_interim
from edge.forward.answers import AnswerHead, Receiver, recall, remember
from edge.forward.io_dial import widen
from edge.forward.websocket import Offer
from edge.model.http import RawField
from edge.writes import Writes

if TYPE_CHECKING:
    from edge.forward.io_pool import Pinned

NARROW_BYTES = 524_288
"""Read in small pieces on each connection, before large ones: more than finds room on its way to a client that takes nothing
(each side's kernel, and ours)."""

HELD_S = 0.005
"""How long the beginning of an answer waits for more of it, or for the end of the connection, before it is passed on."""

_MANY_HEADS = 64
"""That were met for the first time, one after the other. As each second begins, all are: they say the date."""

_NO_BODY_STATUS = frozenset((204, 304))


class UpstreamConnection(asyncio.Protocol):
    """One pinned connection. Created by the pool, which proves the peer's identity before anybody may `start` on it."""

    def __init__(
        self,
        on_idle: Callable[[UpstreamConnection], None],
        on_gone: Callable[[UpstreamConnection], None],
        writes: Writes,
        call_later: Callable[[float, Callable[[], None]], asyncio.TimerHandle],
    ) -> None:
        """`writes` sends what is asked, with what others ask meanwhile; `call_later` is the loop's."""
        self._writes = writes
        self._call_later = call_later
        self._on_idle = on_idle
        self._on_gone = on_gone
        self.transport: asyncio.Transport | None = None
        self.receiver: Receiver | None = None
        self.pinned: Pinned | None = None
        """What the pool knows of it; the pool's."""
        self.is_reused = False
        """Whether an exchange already ended well on it: then a failure before any answer may be the upstream's idle close."""
        self.is_closed = False
        self.offer: Offer | None = None
        """What is asked for instead of an answer; whatever comes, the connection is of no other use then."""
        self._parser = httptools.HttpResponseParser(self)
        self._fields: list[RawField] = []
        self._content: list[bytes] = []
        """Not passed on yet."""
        self._head_bytes = 0
        self.status = 0
        """Of the answer, once its head came."""
        self.answer_ended = False
        """The answer is whole."""
        self.failure: UpstreamError | None = None
        """Why the exchange ended otherwise, when that is the upstream's doing."""
        self._is_head_method = False
        self._request_sent = False
        self._answer_started = False
        self._keep_alive = False
        self._in_trailers = False
        self._is_closed_properly = False
        self._is_plain = False
        """Whether the answer's first bytes are the usual ones; else its version is asked for."""
        self._error: UpstreamError | None = None

    # -- towards the upstream -------------------------------------------------------------------

    def start(self, receiver: Receiver, raw_head: bytes, *, is_head_method: bool, is_complete: bool) -> None:
        """Send a head (with whatever body is already there) and deliver the answer to `receiver`."""
        assert self.transport is not None
        self.receiver = receiver
        self._is_head_method = is_head_method
        self._request_sent = is_complete
        self._answer_started = self.answer_ended = False
        self.status = self._head_bytes = 0
        self._writes.write(self.transport, raw_head)

    def send(self, raw_body: bytes, *, is_complete: bool) -> None:
        """More of the request body, already framed."""
        if self.transport is not None and not self.is_closed:
            if raw_body:
                self._writes.write_now(self.transport, raw_body)
            self._request_sent = is_complete

    def pause_reading(self) -> None:
        if self.transport is not None and not self.is_closed:
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        if self.transport is not None and not self.is_closed:
            self.transport.resume_reading()

    def abort(self) -> None:
        """Give up the exchange and the connection."""
        self.receiver = None
        self._close()

    @property
    def answer_started(self) -> bool:
        """Whether one byte of an answer came."""
        return self._head_bytes > 0

    # -- asyncio --------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        if self.receiver is None:
            self._close()  # bytes nobody asked for: response smuggling, or a 408 before an idle close
            return
        is_head = not self._answer_started
        if is_head:
            if not self._head_bytes and self._begin_answer(data):
                return
            self._head_bytes += len(data)
        elif self._narrow_bytes > 0:
            self._count_taken(len(data))
        try:
            self._parser.feed_data(data)
            if is_head and self._head_bytes > MAX_HEAD_BYTES and not self._answer_started:
                self._error = self._error or UpstreamProtocolError("upstream-head-size")
        except httptools.HttpParserUpgrade as exc:
            if self._error is None and self.status == 101 and self.offer is not None:
                self.receiver = None  # it is told by the offer, and this is the last it hears
                self.offer.when_taken(self._fields, data[exc.args[0] :])
                return
            self._error = self._error or UpstreamProtocolError("upstream-upgrade")
        except httptools.HttpParserError as exc:
            self._error = self._error or UpstreamProtocolError("upstream-syntax", type(exc).__name__)
        if self._error is not None:
            self.fail(self._error)
            return
        if self._is_head_only() and self.answer_ended:
            self._parser = httptools.HttpResponseParser(self)
        self._pass_on(data, is_head=is_head)

    def _pass_on(self, data: bytes, *, is_head: bool) -> None:
        """What this read held, unless an answer began in it that is not whole."""
        if is_head and self._head is not None and not self.answer_ended:
            self._held = self._call_later(HELD_S, self._tell)
            return
        receiver = self.receiver
        self._tell()
        if receiver is not None and self.answer_ended:
            is_one_read = is_head and self._head_bytes == len(data)
            if is_one_read and self._is_looked_up and self._is_plain and self._keep_alive:
                remember(data, self.status, self._fields)
            self._finish(receiver)

    def _tell(self) -> None:
        """Pass on what reads held, if anybody still wants it; each of these calls may end the exchange."""
        receiver, head, content = self.receiver, self._head, self._content
        if self._held is not None:
            self._held.cancel()
            self._held = None
        if receiver is None:
            return
        if head is not None:
            self._head = None
            receiver.on_upstream_head(*head[:3], has_body=head[3])
        if content:
            self._content = []
            if self.receiver is receiver:
                receiver.on_upstream_body(content[0] if len(content) == 1 else b"".join(content))
        if self.answer_ended and self.receiver is receiver:
            receiver.on_upstream_end()
        if self.receiver is receiver:
            receiver.on_upstream_flush()

    def _begin_answer(self, data: bytes) -> bool:
        """Look at the first bytes of an answer. True: they were all of it, behind a head that was met before, and it was
        delivered. The parser stands between two answers then, and stays there."""
        strange_heads = self._strange_heads
        # Of an upstream whose heads never come twice only some are looked up.
        self._is_looked_up = strange_heads < _MANY_HEADS or not strange_heads % _MANY_HEADS
        if self._is_looked_up and not self._is_head_method and self.offer is None:
            head = recall(data)
            if head is not None:
                self._strange_heads = 0
                self._deliver(head, data)
                return True
        self._strange_heads = strange_heads + 1
        self._is_plain = data.startswith(b"HTTP/1.1 ")
        if not self._is_plain and data[:1] != b"H":  # llhttp passes over empty lines, and takes RTSP and ICE
            self._error = UpstreamProtocolError("upstream-syntax")
        return False

    def _deliver(self, head: AnswerHead, data: bytes) -> None:
        """What the parser would, with its callbacks; each of these calls may end the exchange."""
        receiver = self.receiver
        assert receiver is not None
        self._head_bytes = len(data)
        self.status = head.status
        self._answer_started = self._keep_alive = True
        receiver.on_upstream_head(head.status, head.fields, head.content_length, has_body=True)
        if self.receiver is receiver:
            receiver.on_upstream_body(data[head.end :])
        if self.receiver is receiver:
            self.answer_ended = True
            receiver.on_upstream_end()
        if self.receiver is receiver:
            receiver.on_upstream_flush()
            self._finish(receiver)

    def _count_taken(self, count: int) -> None:
        """Of answers that do not come in one read: whose client takes so much of one is given it in larger pieces."""
        self._narrow_bytes -= count
        if self._narrow_bytes <= 0 and self.transport is not None:
            widen(self.transport)

    def eof_received(self) -> bool:
        self._is_closed_properly = True  # the TLS loops call this for close_notify only, never for a bare FIN
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        receiver = self.receiver
        self.is_closed = True
        self.transport = None  # this object and its parser refer to each other, and its TLS holds far more than they do
        # RFC 9112 §9.8: without the closing alert anybody on the network may have ended the answer.
        is_end = self._is_delimited_by_close and not self.answer_ended and self._is_closed_properly
        if receiver is not None and is_end:
            self.answer_ended = True
        elif receiver is not None:
            self.receiver = None
            self.failure = UpstreamUnreachable("upstream-closed", str(exc or ""))
            if self.answer_started:
                self.failure = UpstreamProtocolError("upstream-truncated")
        self._on_gone(self)
        if receiver is not None and self.failure is not None:
            receiver.on_upstream_failed(self.failure)
        elif receiver is not None:
            self._tell()
            self.receiver = None

    def pause_writing(self) -> None:
        if self.receiver is not None:
            self.receiver.on_upstream_paused(is_paused=True)

    def resume_writing(self) -> None:
        if self.receiver is not None:
            self.receiver.on_upstream_paused(is_paused=False)

    # -- llhttp ---------------------------------------------------------------------------------

    _head: tuple[int, list[RawField], int | None, bool] | None = None
    """Status, fields, length and whether there is a body, of a final answer that began and was not passed on."""
    _held: asyncio.TimerHandle | None = None
    _is_delimited_by_close = False
    _narrow_bytes = NARROW_BYTES
    _strange_heads = 0
    """Since the last one that was met before."""
    _is_looked_up = False

    def on_message_begin(self) -> None:
        if self.answer_ended:
            self._error = UpstreamProtocolError("upstream-surplus")
        self._fields = []
        self._in_trailers = False
        self._is_delimited_by_close = False

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_trailers:
            return  # trailers are not merged into fields (attacks C5); they are for gRPC, which comes with its own room
        self._fields.append((name.lower(), value.rstrip(b" \t")))

    def on_headers_complete(self) -> None:
        self._in_trailers = True
        if self._error is not None or self.receiver is None:
            return
        status = self._parser.get_status_code()
        self.status = status
        if not self._is_plain and self._parser.get_http_version() not in ("1.0", "1.1"):
            self._error = UpstreamProtocolError("upstream-version")  # llhttp takes 0.9 and 2.0 for one of ours
            return
        if status < 200:
            self._is_plain = False  # what comes next brings a status line of its own
            self._error = fault_in_interim(status, self._fields) or (self._judge_switch() if status == 101 else None)
            return
        if status > 599 or len(self._fields) > MAX_FIELDS or self._head_bytes > MAX_HEAD_BYTES:
            self._error = fault_in_bounds(status, self._fields)
            if self._error is not None:
                return
        content_length: int | None = None
        is_chunked = False
        for name, value in self._fields:
            if name == b"content-length":
                content_length = int(value) if value.isdigit() else None
            elif name == b"transfer-encoding":
                if is_chunked or value.lower() != b"chunked" or self._parser.get_http_version() != "1.1":
                    self._error = UpstreamProtocolError("upstream-transfer-encoding")
                    return
                is_chunked = True
        has_body = not (self._is_head_method or status in _NO_BODY_STATUS or content_length == 0)
        self._keep_alive = self._parser.should_keep_alive()
        if has_body and content_length is None and not is_chunked:
            self._is_delimited_by_close = True
            self._keep_alive = False
        if self.offer is not None and not self._is_refusal(status):
            return
        self._answer_started = True
        self._head = status, self._fields, content_length, has_body
        if self._is_head_only():
            self.answer_ended = True
            self._keep_alive = self._is_head_keep_alive()

    def _is_refusal(self, status: int) -> bool:
        """Of an offer: an answer that says no passes, one that says yes without switching is an error (CVE-2024-23326)."""
        self._request_sent = False  # either way the connection ends, as it would have with a 101
        if status < 300:
            self._error = UpstreamProtocolError("upstream-not-switched")
        return status >= 300

    def _judge_switch(self) -> UpstreamProtocolError | None:
        """Whether a 101 is what was asked for (attacks C3)."""
        if self.offer is None:
            return UpstreamProtocolError("upstream-upgrade")
        try:
            self.offer.require(self._fields, self._parser.get_http_version())
        except UpstreamProtocolError as exc:
            return exc
        return None

    def _is_head_keep_alive(self) -> bool:
        # llhttp counts a missing length of a HEAD answer as "until close"; here the fields alone decide.
        tokens = b",".join(value for name, value in self._fields if name == b"connection").lower()
        return b"close" not in tokens and self._parser.get_http_version() == "1.1"

    def _is_head_only(self) -> bool:
        return self._is_head_method or self.status in _NO_BODY_STATUS

    def on_body(self, body: bytes) -> None:
        if self.answer_ended:
            self._error = UpstreamProtocolError("upstream-surplus")
        elif self.receiver is not None and self._error is None:
            self._content.append(body)

    def on_message_complete(self) -> None:
        if self.status < 200 or self.answer_ended or self._error is not None:
            return  # an interim answer, or a head-only one that already ended
        self.answer_ended = True
        self._keep_alive = self._parser.should_keep_alive()

    # -- endings --------------------------------------------------------------------------------

    def _finish(self, receiver: Receiver) -> None:
        if self.receiver is receiver:
            self.receiver = None
        # An answer that came before the whole request was sent leaves the upstream's reading position unknown.
        if self._keep_alive and self._request_sent and not self.is_closed:
            self.is_reused = True
            self._on_idle(self)
        else:
            self._close()

    def fail(self, error: UpstreamError) -> None:
        """The connection ends at once, and the exchange on it with this."""
        self.failure = error
        receiver = self.receiver
        if receiver is not None and self.answer_ended:
            self._tell()  # the answer is whole; what came behind it ends the connection, not the answer
            receiver = None
        self.receiver = None
        self._close()
        if receiver is not None:
            receiver.on_upstream_failed(error)

    def _close(self) -> None:
        self.is_closed = True
        if self.transport is not None:
            self.transport.abort()
