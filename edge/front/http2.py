"""HTTP/2 for the public: one connection, its streams, its deadlines. What the protocol says is `http2_session`'s.

`Http1` sees in the handshake that `h2` was chosen and hands the transport over before a byte was read, so no byte of HTTP/1.1
is ever parsed as HTTP/2, nor the other way round. Laws:

- All of what was read is judged before a request begins: what was reset in the same breath never reaches an upstream.
- What one read holds is worked off in turns, and others have theirs in between.
- Frames leave once per turn of the loop, in the order in which they were made.
- Nothing new is begun for a client that does not take what it was answered, and while its socket takes none, it is not read.
- A connection ends with a GOAWAY that names the last stream looked at (RFC 9113 §6.8).
"""

from __future__ import annotations

import asyncio

from edge.errors import EdgeError
from edge.forward.fields import forget_peer
from edge.forward.io_gone import GONE
from edge.front import frames
from edge.front.frames import Code
from edge.front.front import Connection, Front
from edge.front.http2_roles import AnsweringStream
from edge.front.http2_session import Session
from edge.front.http2_stream import Stream, ending_for
from edge.front.http2_unended import UnendedRequest
from edge.front.taking import Taking
from edge.front.wire import reset
from edge.model.http import RawField, Request
from edge.parse.http2 import translate
from edge.parse.request import build
from edge.parse.websocket import PROTOCOL

MAX_HELD_BYTES = 1 << 20
"""Of all answers of a connection that its client does not take; then no upstream is read for it and no request begun."""
_TURN_BYTES = 16_384
"""Of one stream's answer at a time, when several wait for a window."""
HEADS_AT_ONCE = 6
"""Requests begun in one turn of the loop; then others have theirs. Each may cost a signature."""


class Http2(Connection):
    """One downstream connection."""

    __slots__ = (
        "_acknowledge_by_s", "_begun", "_close_by_s", "_has_said_goodbye", "_is_closing", "_is_feeding", "_is_gone",
        "_is_held_back", "_is_leaving", "_is_turn_due", "_is_write_due", "_is_write_paused", "_overdrawn", "_received",
        "_since_s", "_taking", "_transport", "_unsent", "_waiting", "_whole_s", "_whole_units",
        "bytes_out", "front", "held_bytes", "peer", "session",
    )  # fmt: skip

    def __init__(self, front: Front, transport: asyncio.Transport) -> None:
        """Takes the transport over."""
        self.front = front
        self._transport = transport
        self.peer = front.peer_of(transport)
        self._begun: list[AnsweringStream] = []
        self._received: dict[AnsweringStream, None] = {}
        self._unsent: dict[AnsweringStream, None] = {}
        self._waiting: list[AnsweringStream] = []
        self._is_feeding = self._is_write_due = self._is_write_paused = self._is_held_back = self._is_turn_due = False
        self._is_closing = self._is_leaving = self._is_gone = self._has_said_goodbye = False
        self._overdrawn = Code.NO_ERROR
        self.bytes_out = self.held_bytes = self._whole_units = 0
        self._close_by_s, self._taking = 0.0, Taking()
        loop = front.shared.loop
        self._since_s = self._whole_s = loop.time()
        self._acknowledge_by_s = self._since_s + front.deadlines.head_s
        self.session = Session(self, front.blocks, loop.time, takes_tunnels=front.take_tunnel is not None)
        transport.set_protocol(self)
        front.connections.add(self)
        self._write()

    def waiting_bytes(self) -> int:
        """Of its streams, and in the transport while the client lets it wait."""
        return self.held_bytes + (self._transport.get_write_buffer_size() if self._is_write_paused else 0)

    # -- asyncio --------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        if self._is_closing:
            return
        self._is_feeding = True
        if code := self.session.feed(data):
            self._is_feeding = False
            self._close(code)
            return
        self._settle()
        self._is_feeding = False
        self._write()
        if self.session.is_behind or self._begun:
            self._wait_for_turn()
        elif self._is_leaving:
            self._leave_if_idle()

    def _wait_for_turn(self) -> None:
        """Others are served before the rest of what was read, which is not added to meanwhile."""
        if not self._is_turn_due and not self._is_closing:
            self._is_turn_due = True
            self._transport.pause_reading()
            self.front.shared.loop.call_soon(self._take_turn)

    def _take_turn(self) -> None:
        self._is_turn_due = False
        if self._is_closing or self._is_write_paused:
            return  # `resume_writing` goes on
        self.session.is_behind = False
        self.data_received(b"")
        if not (self._is_turn_due or self._is_closing or self._is_write_paused):
            self._transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self._is_closing = True
        self._drop_all()
        self._transport = GONE
        self.front.shared.shed.close(self.peer.prefix)
        forget_peer(self.peer)
        self.front.forget(self)

    def pause_writing(self) -> None:
        self._is_write_paused = True
        if not self._transport.is_closing():
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        self._is_write_paused = False
        if self._is_closing or self._transport.is_closing():
            return
        self._send_on()
        self._write()
        if self.session.is_behind or self._begun:
            self._wait_for_turn()
        else:
            self._transport.resume_reading()

    # -- requests -------------------------------------------------------------------------------

    def on_known(self, stream_id: int, request: Request) -> Stream:
        stream = Stream(self, stream_id, request)
        self._begun.append(stream)
        return stream

    def on_head(self, stream_id: int, fields: list[RawField], *, is_end: bool) -> Request | None:
        stream = Stream(self, stream_id)
        self.session.open(stream_id, stream)
        if is_end:
            stream.is_request_ended = True
        if self.front.take_tunnel is not None and PROTOCOL in fields:
            stream.expect_tunnel(fields)
            self._begun.append(stream)
            return None
        self._begun.append(stream)
        return self._parse(stream, fields, is_end=is_end)

    def _parse(self, stream: Stream, fields: list[RawField], *, is_end: bool) -> Request | None:
        try:
            method, raw_target, translated = translate(fields)
        except EdgeError as exc:
            stream.expect_refusal(exc, ending_for(exc), is_head_method=(b":method", b"HEAD") in fields)
            return None
        try:
            request, framing = build(method, raw_target, "2", translated)
        except EdgeError as exc:
            stream.expect_refusal(exc, Code.NO_ERROR, is_head_method=method == "HEAD")
            return None
        if not is_end:
            request.chunked = request.content_length is None
        stream.expect(request, wants_continue=framing.expects_continue)
        if is_end and request.has_body:
            stream.take(b"", is_end=True)  # what was announced will not come
            return None
        return request if is_end else None

    def _settle(self) -> None:
        """All that was read has been looked at."""
        if self._is_gone:
            self._drop_all()
        if self._begun and not self.session.is_behind:
            begun, self._begun = self._begun, []
            if self._waiting or self._is_held_back:
                self._waiting += begun
            else:
                if len(begun) > HEADS_AT_ONCE:
                    begun, self._begun = begun[:HEADS_AT_ONCE], begun[HEADS_AT_ONCE:]
                for stream in begun:
                    stream.begin()
        if self._received:
            received, self._received = self._received, {}
            for stream in received:
                stream.deliver()
        if self.session.has_window_grown:
            self.session.has_window_grown = False
            self._send_on()

    def received(self, stream: AnsweringStream) -> None:
        self._received[stream] = None

    def on_goaway(self, code: int) -> None:
        """The client opens nothing more. Behind an error it does not wait for answers either."""
        self._is_leaving = True
        self._is_gone |= bool(code)

    def _drop_all(self) -> None:
        self._begun, self._waiting = [], []
        streams, self.session.streams = list(self.session.streams.values()), {}
        for stream in streams:
            stream.drop()

    # -- answers --------------------------------------------------------------------------------

    def push(self, stream: AnsweringStream) -> None:
        if not self._is_write_paused:
            if not (stream.is_over or stream.emit(frames.MAX_WINDOW_BYTES)):
                self._wait_for_client(stream)
            elif self._unsent:
                self._unsent.pop(stream, None)
                stream.weigh()
        elif not stream.is_over:
            self._wait_for_client(stream)
        if not (self._is_feeding or self._is_write_due):
            self._is_write_due = True
            self.front.shared.loop.call_soon(self._write)

    def send_whole(self, stream: AnsweringStream, block: bytes, body: bytes | memoryview) -> bool:
        session, size, stream_id = self.session, len(body), stream.stream_id
        room = session.client_frame_bytes
        if self._is_write_paused or self._unsent or session.must_empty_table or size > room or len(block) > room:
            return False
        if size > session.send_left or size > stream.send_left:
            return False
        session.out += frames.whole_answer(stream_id, block, size), body
        session.send_left -= size
        session.close(stream_id)
        self.gone()
        return True

    def _send_on(self) -> None:
        """A window has grown, or the socket takes more: all that wait get their turns."""
        session = self.session
        while self._unsent and not self._is_write_paused:
            before = session.send_left
            for stream in list(self._unsent):
                if stream.is_over or stream.emit(_TURN_BYTES):
                    self._unsent.pop(stream, None)
                stream.weigh()
            if before == session.send_left:
                break
            self._write()
        if self._is_held_back:
            self._let_on()

    def _wait_for_client(self, stream: AnsweringStream) -> None:
        self._unsent[stream] = None
        stream.weigh()
        if self.held_bytes > MAX_HELD_BYTES and not self._is_held_back:
            self._is_held_back = True
            for other in list(self.session.streams.values()):
                other.hold_back(is_held_back=True)

    def _let_on(self) -> None:
        """When half of what was too much is gone, the others go on, and those that waited begin."""
        if self.held_bytes > MAX_HELD_BYTES // 2:
            return
        self._is_held_back = False
        for stream in list(self.session.streams.values()):
            stream.hold_back(is_held_back=False)
        waiting, self._waiting = self._waiting, []
        for stream in waiting:
            stream.begin()

    def _write(self) -> None:
        self._is_write_due = False
        out = self.session.out
        if out and not self._is_closing:
            data = b"".join(out)
            out.clear()
            self.bytes_out += len(data)
            if len(data) > _TURN_BYTES:
                self.session.credit_written(len(data))
            self._transport.write(data)

    def answered(self, stream: AnsweringStream) -> None:
        session, stream_id = self.session, stream.stream_id
        if stream.ending:
            self.spend(session.reset(stream_id, stream.ending))
        elif stream.is_request_ended:
            session.close(stream_id)
        elif self._is_leaving:
            session.cancel(stream_id, Code.NO_ERROR)
        else:
            until_s = self.front.shared.loop.time() + self.front.deadlines.linger_s
            session.streams[stream_id] = UnendedRequest(self, stream, until_s)
        if not session.streams:
            self._rest()

    def gone(self) -> None:
        if not (self._is_feeding or self._is_write_due):
            self._is_write_due = True
            self.front.shared.loop.call_soon(self._write)
        if not self.session.streams:
            self._rest()

    def let_go(self, stream: AnsweringStream) -> None:
        self._unsent.pop(stream, None)
        if self._is_held_back and not self._is_closing:
            self._let_on()
        if not self.session.streams:
            self._rest()

    def _rest(self) -> None:
        """No stream is open."""
        self._since_s = self.front.shared.loop.time()
        self._leave_if_idle()

    # -- endings --------------------------------------------------------------------------------

    def spend(self, code: Code) -> None:
        """What a reset cost; an overdrawn budget ends the connection behind what is being written."""
        if code and not self._overdrawn:
            self._overdrawn = code
            self.front.shared.loop.call_soon(self._close, code)

    def _close(self, code: Code) -> None:
        """Say which streams were looked at, and that nothing more comes. As `Http1` does, until the client has read it, or
        `linger_s` is over, the transport reads on and throws away."""
        if self._is_closing:
            return
        self.session.is_final = True
        self.session.out.append(frames.goaway(max(0, self.session.last_stream_id), code))
        self._write()
        self._is_closing = True
        self._drop_all()
        self._close_by_s = self.front.shared.loop.time() + self.front.deadlines.linger_s
        self._transport.close()

    def _leave_if_idle(self) -> None:
        if self._is_leaving and not self.session.streams and not self._is_feeding:
            self._close(Code.NO_ERROR)

    def _say_goodbye(self) -> None:
        """No new streams, please; what is under way, or was sent before this arrives, is answered (RFC 9113 §6.8)."""
        if not self._has_said_goodbye:
            self._has_said_goodbye = True
            self.session.out.append(frames.goaway(frames.MAX_STREAM_ID, Code.NO_ERROR))
            self._write()

    def close_if_idle(self) -> None:
        """Drain: nothing under way → close now; else behind the last answer."""
        if not self._is_closing:
            self._is_leaving = True
            if self.session.streams:
                self._say_goodbye()
            self._leave_if_idle()

    def cut(self) -> None:
        self._is_closing = True
        reset(self._transport)

    def cut_late(self, rule: str) -> None:
        for stream in list(self.session.streams.values()):
            stream.cut_late(rule)
        self.cut()

    # -- deadlines ------------------------------------------------------------------------------

    def check_deadline(self, now_s: float) -> None:
        for stream in list(self.session.streams.values()):
            stream.check_deadline(now_s)
        if self._is_closing:
            if now_s > self._close_by_s:
                self.cut()
        elif self._is_stuck(now_s):
            self._close(Code.ENHANCE_YOUR_CALM)
        elif now_s > self._acknowledge_by_s and self.session.acks_awaited > 0:
            self._close(Code.SETTINGS_TIMEOUT)
        elif self._taking.is_behind(self._transport, self.front.deadlines, now_s):
            self.cut_late("deadline")
        elif not self.session.streams:
            self._check_idle(now_s)

    def _check_idle(self, now_s: float) -> None:
        front, deadlines = self.front, self.front.deadlines
        if now_s > self._since_s + (deadlines.idle_s if self.session.last_stream_id > 0 else deadlines.head_s):
            self._close(Code.ENHANCE_YOUR_CALM if self.session.is_amid else Code.NO_ERROR)
        elif front.is_draining:
            # Told when nothing is under way, because some clients cannot read an answer behind it, and closed at the next
            # look: what the client sent before it heard is still answered.
            if self._has_said_goodbye:
                self._close(Code.NO_ERROR)
            else:
                self._say_goodbye()

    def _is_stuck(self, now_s: float) -> bool:
        """Whether something that was begun, be it the preface, a frame or a header block, takes too long to become whole."""
        session, deadlines = self.session, self.front.deadlines
        if not session.is_amid or (session.whole_units != self._whole_units):
            self._whole_units, self._whole_s = session.whole_units, now_s
            return False
        has_time_s = deadlines.body_s if session.streams and not session.is_in_block else deadlines.head_s
        return now_s > self._whole_s + has_time_s
