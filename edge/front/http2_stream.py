"""One HTTP/2 stream: a request with its body in windows, an answer in frames. The `Downstream` of its exchange.

What is held is bounded both ways: a body by the window, which opens again only as the exchange takes it; an answer by
`HELD_BYTES`, above which the upstream is not read.
"""

from __future__ import annotations

from edge.errors import EdgeError, HeadersTooLarge, MalformedRequest, RuledError
from edge.exchange import Exchange
from edge.front import frames
from edge.front.frames import Code
from edge.front.front import Front
from edge.front.http2_roles import Handler, Wire
from edge.front.http2_session import STREAM_WINDOW_BYTES
from edge.model.http import RawField, Request
from edge.model.identity import Peer

HELD_BYTES = 65_536
"""Of an answer that the client's windows do not let out; then the upstream is not read."""


class Stream:
    """One request and its answer."""

    # Defaults of the class, not assignments in __init__: most requests never touch most of them.
    send_left = 0
    receive_left = STREAM_WINDOW_BYTES
    is_request_ended = is_answered = False
    ending = Code.NO_ERROR
    """What the stream is reset with behind its answer; NO_ERROR: only if its request is not complete (RFC 9113 §8.1)."""
    is_over = False
    """Nothing is sent on it any more."""
    _handler: Handler | None = None
    _exchange: Exchange | None = None
    _request: Request | None = None
    _error: EdgeError | None = None
    _tunnel_head: list[RawField] | None = None
    _wants_continue = False
    _received_bytes = 0
    _inbox: list[bytes] | None = None
    """Of the body, not delivered yet."""
    _is_end_due = False
    _is_body_paused = False
    _untold = 0
    _block: bytes | None = None
    _is_bodyless = False
    _is_answer_ended = False
    _is_answer_paused = _is_full = _is_held_back = False
    _held_bytes = 0
    _body_deadline_s = 0.0
    _write_deadline_s = 0.0
    _taken_bytes = 0
    """Of the answer, by the client's windows."""
    _taken_bytes_before = _bytes_out_before = 0

    def __init__(self, wire: Wire, stream_id: int, whole: Request | None = None) -> None:
        """`whole`: a request without a body, which is all there is to come."""
        self._wire = wire
        self.stream_id = stream_id
        if whole is not None:
            self._request = whole
            self.is_request_ended = True
        self._pieces: list[bytes | memoryview] = []

    # -- the request ----------------------------------------------------------------------------

    def expect(self, request: Request, *, wants_continue: bool) -> None:
        """A head was read: what `begin` is to start."""
        self._request = request
        self._wants_continue = wants_continue
        if request.has_body:
            self._await_body()

    def expect_refusal(self, error: EdgeError, ending: Code, *, is_head_method: bool) -> None:
        """A head was read that is none; even then HEAD is answered without a body."""
        self._error = error
        self.ending = ending
        self._is_bodyless = is_head_method

    def expect_tunnel(self, head: list[RawField]) -> None:
        """A CONNECT was read: what `begin` is to give away."""
        self._tunnel_head = head

    def attach(self, handler: Handler) -> None:
        """Give the stream to a tunnel (RFC 8441): it gets all bytes, and answers by the methods of `Downstream`."""
        self._handler = handler

    @property
    def body_left(self) -> int | None:
        request = self._request
        if request is None or request.content_length is None:
            return None
        return request.content_length - self._received_bytes

    @property
    def peer(self) -> Peer:
        return self._wire.peer

    @property
    def front(self) -> Front:
        return self._wire.front

    def begin(self) -> None:
        """Start the exchange; what came of the body with the head goes out with it."""
        if self.is_over:
            return
        front = self._wire.front
        if self._tunnel_head is not None and front.take_tunnel is not None:
            head, self._tunnel_head = self._tunnel_head, None
            front.take_tunnel(self, head)
            return
        exchange = self._handler = self._exchange = Exchange(front.gateway, front.shared, self, self._wire.peer)
        request = self._request
        if self._error is not None or request is None:
            exchange.refuse(self._error or MalformedRequest("framing"))
            return
        if request.has_body:
            exchange.request = request
            self.deliver()
        exchange.start(request, wants_continue=self._wants_continue)

    def take(self, body: bytes, *, is_end: bool) -> None:
        self._received_bytes += len(body)
        self.is_request_ended = is_end
        left = self.body_left
        if left is not None and (left < 0 or (is_end and left)):
            self.give_back(len(body))
            self.fail(MalformedRequest("framing-disagrees"))
            return
        if body:
            if self._inbox is None:
                self._inbox = [body]
            else:
                self._inbox.append(body)
        self._is_end_due = is_end
        self._wire.received(self)

    def deliver(self) -> None:
        """What came of the body goes on, in one piece: a frame for each byte would be a write for each byte upstream."""
        handler = self._handler
        if handler is None:
            return
        while self._inbox and not self._is_body_paused:
            body, self._inbox = b"".join(self._inbox), None
            self.give_back(len(body))
            self._extend_deadline(len(body))
            handler.on_body(body)
        if self._is_end_due and not self._inbox:
            self._is_end_due = False
            self._body_deadline_s = 0.0
            if self._request is None or self._request.has_body:
                handler.on_body_end()

    def give_back(self, count: int) -> None:
        session = self._wire.session
        session.give_back(count)
        self._untold += count
        if self._untold >= STREAM_WINDOW_BYTES // 2 and not self.is_request_ended and not self.is_over:
            session.out.append(frames.window_update(self.stream_id, self._untold))
            self.receive_left += self._untold
            self._untold = 0
            self._wire.push(self)

    def fail(self, error: MalformedRequest) -> None:
        self.ending = Code.PROTOCOL_ERROR
        self._error = error
        self._drop_inbox()
        if self._exchange is not None:
            self._exchange.refuse(error)
        elif self._handler is not None:
            self.cut()

    def drop(self) -> None:
        """The stream is closed: by the client, or for what it did."""
        if self.is_over:
            return
        handler = self._handler
        self._leave()
        if handler is not None:
            handler.on_gone()

    def _leave(self) -> None:
        self.is_over = True
        self._handler = self._exchange = None
        self._pieces = []
        self._block = None
        self._body_deadline_s = 0.0
        self._drop_inbox()
        self._count_held(0)
        self._wire.let_go(self)

    def _drop_inbox(self) -> None:
        dropped, self._inbox, self._is_end_due = self._inbox, None, False
        if dropped:
            self._wire.session.give_back(sum(map(len, dropped)))

    # -- the answer (Downstream) ----------------------------------------------------------------

    def send_head(self, status: int, fields: list[RawField], content_length: int | None, *, has_body: bool) -> None:
        self._block = frames.answer_block(status, fields, content_length, self._wire.front.date_line()[6:-2])

    def send_body(self, body: bytes) -> None:
        if body and not self._is_bodyless:
            self._pieces.append(body)

    def send_end(self) -> None:
        self._is_answer_ended = True

    def flush(self) -> None:
        if self.is_over:
            return
        block, pieces = self._block, self._pieces
        # Most answers are whole when they come, and nothing of them or of their request is left behind them.
        is_whole = block is not None and len(pieces) == 1 and self._is_answer_ended and self.is_request_ended
        if (
            block is None
            or not is_whole
            or self._inbox
            or self.ending
            or not self._wire.send_whole(self, block, pieces[0])
        ):
            self._wire.push(self)
        else:
            self.is_over = True
            self._handler = self._exchange = None

    def send_continue(self) -> None:
        if not self.is_over:
            self._wire.session.head(self.stream_id, frames.CONTINUE_BLOCK, is_end=False)
            self._wire.push(self)

    def pause_body(self, *, is_paused: bool) -> None:
        self._is_body_paused = is_paused
        if is_paused:
            self._body_deadline_s = 0.0  # what is awaited is not the client's to do
        else:
            self.deliver()
            if self._handler is not None and not self._handler.is_body_complete and not self.is_over:
                self._await_body()

    def must_close(self) -> None:
        """Nothing: a stream carries one request, and ends with its answer."""

    def cut(self) -> None:
        if not self.is_over:
            session = self._wire.session
            if self.ending:
                self._wire.spend(session.reset(self.stream_id, self.ending))  # drops it
            else:
                session.cancel(self.stream_id, Code.INTERNAL_ERROR)
                self._leave()
            self._wire.push(self)

    # -- frames ---------------------------------------------------------------------------------

    def emit(self, most_bytes: int) -> bool:
        """Put into frames what the windows allow, at most so much; whether all that there is went out."""
        session, pieces = self._wire.session, self._pieces
        out = session.out
        if self._block is not None:
            block, self._block = self._block, None
            is_bare = self._is_answer_ended and not pieces
            session.head(self.stream_id, block, is_end=is_bare)
            if is_bare:
                self._finish()
                return True
        if len(pieces) > 1:
            pieces[:] = [b"".join(pieces)]
        while pieces:
            piece = pieces[0]
            size = len(piece)
            room = min(self.send_left, session.send_left, session.client_frame_bytes, most_bytes)
            if room < size:
                if room <= 0:
                    return False
                view = memoryview(piece)
                piece, pieces[0], size = view[:room], view[room:], room
            else:
                pieces.clear()
            is_last = self._is_answer_ended and not pieces
            out.append(frames.frame_head(frames.DATA, frames.END_STREAM if is_last else 0, self.stream_id, size))
            out.append(piece)
            self.send_left -= size
            session.send_left -= size
            self._taken_bytes += size
            most_bytes -= size
            if is_last:
                self._finish()
                return True
        if self._is_answer_ended:
            out.append(frames.frame_head(frames.DATA, frames.END_STREAM, self.stream_id, 0))
            self._finish()
        return True

    def _finish(self) -> None:
        self.is_over = True
        self._handler = self._exchange = None  # who refers to us: else both stay until the collector comes
        if self._held_bytes:
            self._count_held(0)
        if self._inbox:
            self._drop_inbox()
        self._body_deadline_s = self._write_deadline_s = 0.0
        self._wire.answered(self)

    def weigh(self) -> None:
        """After `emit`: let the upstream wait while too much is held, and go on when all of it is out."""
        held_bytes = sum(map(len, self._pieces))
        self._count_held(held_bytes)
        self._is_full = held_bytes > (0 if self._is_full else HELD_BYTES)
        self._pause_answer()

    def hold_back(self, *, is_held_back: bool) -> None:
        self._is_held_back = is_held_back
        self._pause_answer()

    def _pause_answer(self) -> None:
        is_paused = self._is_full or self._is_held_back
        if is_paused == self._is_answer_paused or self._handler is None or self._is_answer_ended or self.is_over:
            return
        self._is_answer_paused = is_paused
        self._handler.pause_answer(is_paused=is_paused)

    def _count_held(self, held_bytes: int) -> None:
        self._wire.held_bytes += held_bytes - self._held_bytes
        self._held_bytes = held_bytes

    # -- deadlines ------------------------------------------------------------------------------

    def _await_body(self) -> None:
        front = self._wire.front
        self._body_deadline_s = front.shared.loop.time() + front.deadlines.body_s

    def _extend_deadline(self, count: int) -> None:
        if self._body_deadline_s:
            deadlines = self._wire.front.deadlines
            latest_s = self._wire.front.shared.loop.time() + deadlines.body_s
            self._body_deadline_s = min(latest_s, self._body_deadline_s + count / deadlines.least_bytes_per_s)

    def check_deadline(self, now_s: float) -> None:
        """Cut what is past its deadline."""
        if self._handler is not None:
            self._handler.check_deadline(now_s)
        is_late = self._body_deadline_s and now_s > self._body_deadline_s
        if not self.is_over and (is_late or self._is_behind(now_s)):
            self.cut_late("deadline")

    def cut_late(self, rule: str) -> None:
        """The client had its time, or holds what others need."""
        if not self.is_over:
            self.ending = self.ending or Code.CANCEL
            if self._handler is not None:
                self._handler.on_gone(RuledError(rule))
            self.cut()

    def _is_behind(self, now_s: float) -> bool:
        """Whether the client lets out less of its answer than the least rate. While it is the connection that is slow, and
        not the window of this stream, the connection is looked at."""
        if not self._held_bytes and self._block is None:
            self._write_deadline_s = 0.0
            return False
        if self._write_deadline_s and now_s <= self._write_deadline_s:
            return False
        deadlines = self._wire.front.deadlines
        least_bytes = deadlines.least_bytes_per_s * deadlines.write_s
        is_first, self._write_deadline_s = not self._write_deadline_s, now_s + deadlines.write_s
        taken_bytes = self._taken_bytes - self._taken_bytes_before
        bytes_out = self._wire.bytes_out - self._bytes_out_before
        self._taken_bytes_before, self._bytes_out_before = self._taken_bytes, self._wire.bytes_out
        return not is_first and taken_bytes < least_bytes and (self.send_left <= 0 or bytes_out < least_bytes)


def ending_for(error: EdgeError) -> Code:
    """What a head that `parse.http2` refused does to its stream: malformed is an error of the stream (RFC 9113 §8.1.1)."""
    return Code.NO_ERROR if isinstance(error, HeadersTooLarge) else Code.PROTOCOL_ERROR
