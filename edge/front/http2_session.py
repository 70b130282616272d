"""The protocol of one HTTP/2 connection (RFC 9113): bytes of a client → heads, bodies and windows of its streams. No I/O.

`Session` judges every frame by the state it meets and answers what the protocol itself has to answer; what a request means is
the stream's to say, what may be slow the shell's. Laws:

- A handler gives back an error code of the connection, and nothing raises whatever comes.
- A frame that carries nothing is paid from a budget, and so is every reset, whoever sends it: what a client makes us reset
  costs as much as what it resets itself (CVE-2023-44487, CVE-2025-8671). Who overdraws it is told ENHANCE_YOUR_CALM.
- What is held is bounded: one frame, one header block, so many streams, and of bodies what the windows allow.
"""

from __future__ import annotations

from collections.abc import Callable

from edge.errors import MalformedRequest
from edge.front import frames
from edge.front.budget import Budget
from edge.front.frames import GO_ON, Code, Setting
from edge.front.heads import KnownBlocks
from edge.front.http2_closed import ClosedStreams
from edge.front.http2_heads import HeadReader
from edge.front.http2_roles import OpenStream, Shell
from edge.parse import hpack
from edge.parse.http2 import require_trailers

MAX_STREAMS = 100
STREAM_WINDOW_BYTES = 262_144
CONNECTION_WINDOW_BYTES = 1 << 20
"""Held of all bodies of one connection that no upstream takes."""

BUDGET = 1000
BUDGET_PER_S = 50
RESET_COST = 8
ANSWER_CREDIT = 2
"""For the window updates and priorities that come with an honest request."""
_BLOCK_BYTES_PER_CREDIT = 512
"""Of a header block that was not met before: decoding is the dearest thing that a client can ask for by the byte."""
_BYTES_PER_CREDIT = 4096
_SMALL_BYTES = 256
_WHOLE = frames.END_HEADERS | frames.END_STREAM
_LAST_STREAM = frames.MAX_STREAM_ID
_TURN = range(16)
"""Frames of one read, which may hold thousands; then others have their turn."""
_OURS = {
    Setting.MAX_CONCURRENT_STREAMS: MAX_STREAMS,
    Setting.INITIAL_WINDOW_SIZE: STREAM_WINDOW_BYTES,
    Setting.MAX_HEADER_LIST_SIZE: hpack.MAX_LIST_BYTES,
    Setting.NO_RFC7540_PRIORITIES: 1,
}
_ROOM = frames.window_update(0, CONNECTION_WINDOW_BYTES - frames.DEFAULT_WINDOW_BYTES)
_OPENINGS = (frames.settings(_OURS) + _ROOM, frames.settings(_OURS | {Setting.ENABLE_CONNECT_PROTOCOL: 1}) + _ROOM)
"""What is said first: without tunnels, and with them."""


class Session:
    """One connection. The shell feeds it and writes `out`."""

    __slots__ = (
        "_awaited", "_budget", "_closed", "_heads", "_receive_left", "_rest", "_shell", "_untold", "_window_bytes",
        "acks_awaited", "client_frame_bytes", "has_window_grown", "is_behind", "is_final", "last_stream_id",
        "must_empty_table", "out", "send_left", "streams", "whole_units",
    )  # fmt: skip

    def __init__(self, shell: Shell, blocks: KnownBlocks, clock: Callable[[], float], *, takes_tunnels: bool) -> None:
        self._shell = shell
        self._heads = HeadReader(blocks)
        self._budget = Budget(BUDGET, BUDGET_PER_S, clock)
        self.out: list[bytes | memoryview] = [_OPENINGS[takes_tunnels]]
        self.streams: dict[int, OpenStream] = {}
        self.last_stream_id = -1
        self.send_left = self._window_bytes = frames.DEFAULT_WINDOW_BYTES
        self.client_frame_bytes = frames.MAX_FRAME_BYTES
        self.has_window_grown = False
        self.is_final = False
        """The last GOAWAY was sent: no stream is opened any more."""
        self.whole_units = 0
        """Frames and header blocks begun, for whoever watches that something becomes whole."""
        self._awaited: bytes | None = frames.PREFACE
        self.acks_awaited = 1  # of our SETTINGS (RFC 9113 §6.5.3)
        self._rest = b""
        self.is_behind = False
        """More was fed than is judged at once: the rest goes on with the next bytes, or with none. Who feeds clears it."""
        self.must_empty_table = False  # said with the next head of an answer
        self._receive_left = CONNECTION_WINDOW_BYTES
        self._untold = 0
        """Of the connection's window, free again and not yet said so."""
        self._closed = ClosedStreams()

    @property
    def is_amid(self) -> bool:
        """Something begun is not whole: the preface, a frame, or a header block."""
        return bool(self._rest) or self.is_in_block or self._awaited is not None or not self.whole_units

    @property
    def is_in_block(self) -> bool:
        return self._heads.waits_for != 0

    # -- receiving ------------------------------------------------------------------------------

    def feed(self, data: bytes) -> Code:
        """Bytes of the client, cut anywhere. An error ends the connection."""
        if self._rest:
            data = self._rest + data
            self._rest = b""
        at, size = 0, len(data)
        if self._awaited is not None:
            awaited = self._awaited
            if not data.startswith(awaited[:size]):
                return Code.PROTOCOL_ERROR
            if size < len(awaited):
                self._rest = data
                return GO_ON
            self._awaited = None
            at = len(awaited)
        for _ in _TURN:
            if size - at < 9:
                break
            length_and_kind, flags, stream_id = frames.read_head(data, at)
            end = at + 9 + (length_and_kind >> 8)
            if length_and_kind >> 8 > frames.MAX_FRAME_BYTES:
                return Code.FRAME_SIZE_ERROR
            if end > size:
                break
            payload = data[at + 9 : end]
            at = end
            if flags == _WHOLE and length_and_kind & 0xFF == frames.HEADERS and self._begins_again(stream_id, payload):
                continue
            if code := self._on_frame(length_and_kind & 0xFF, flags, stream_id & 0x7FFFFFFF, payload):
                return code
        else:
            self.is_behind = at < size
        if at < size:
            self._rest = data[at:]
        return GO_ON

    def _on_frame(self, kind: int, flags: int, stream_id: int, payload: bytes) -> Code:
        waits_for = self._heads.waits_for
        if waits_for:
            if kind != frames.CONTINUATION or stream_id != waits_for:
                return Code.PROTOCOL_ERROR  # RFC 9113 §6.10: a block is not interrupted
        else:
            if not self.whole_units and (kind != frames.SETTINGS or flags & frames.ACK):
                return Code.PROTOCOL_ERROR  # RFC 9113 §3.4
            self.whole_units += 1
        if kind == frames.HEADERS:
            return self._on_headers(flags, stream_id, payload)
        if code := frames.fault_in_form(kind, flags, stream_id, payload):
            return code
        handler = _HANDLERS.get(kind)
        return handler(self, flags, stream_id, payload) if handler is not None else self._charge(1)

    def _charge(self, cost: int) -> Code:
        return GO_ON if self._budget.spend(cost) else Code.ENHANCE_YOUR_CALM

    def credit_written(self, count: int) -> None:
        """So many bytes went out; whoever is sent much may say much."""
        self._budget.earn(count // _BYTES_PER_CREDIT)

    # -- heads ----------------------------------------------------------------------------------

    def _begins_again(self, stream_id: int, block: bytes) -> bool:
        """Whether the next stream began by a head that was parsed before, where nothing stands against it: what `_on_frame`
        would do with most requests, in one step. False: nothing was done."""
        streams, heads = self.streams, self._heads
        if stream_id != self.last_stream_id + 2 or heads.waits_for or self.is_final or not self.whole_units:
            return False
        known = heads.again(block) if len(streams) < MAX_STREAMS and stream_id < _LAST_STREAM else None
        if known is None:
            return False
        self.whole_units += 1
        self.last_stream_id = stream_id
        stream = streams[stream_id] = self._shell.on_known(stream_id, known)
        stream.send_left = self._window_bytes
        return True

    def _on_headers(self, flags: int, stream_id: int, payload: bytes) -> Code:
        if not stream_id & 1:
            return Code.PROTOCOL_ERROR
        if code := self._heads.begin(flags, stream_id, payload):
            return code
        return self._on_block(stream_id) if flags & frames.END_HEADERS else GO_ON

    def _on_continuation(self, flags: int, stream_id: int, payload: bytes) -> Code:
        if code := self._heads.go_on(flags, stream_id, payload):
            return code
        return self._on_block(stream_id) if flags & frames.END_HEADERS else self._charge(0 if payload else 1)

    def _on_block(self, stream_id: int) -> Code:
        heads = self._heads
        if code := heads.decode():
            return code
        if heads.known is None and (code := self._charge(len(heads.block) // _BLOCK_BYTES_PER_CREDIT)):
            return code
        stream = self.streams.get(stream_id)
        if stream is not None:
            return self._on_trailers(stream_id, stream)
        last, expected = self.last_stream_id, self.last_stream_id + 2
        if stream_id <= last:
            return self._on_late_frame(stream_id, 1)
        self.last_stream_id = stream_id
        if stream_id != expected:
            self._closed.note_gap(last, stream_id)
            if code := self._charge(1):
                return code
        if self.is_final:
            self._closed.note_reset(stream_id, by_us=True)  # RFC 9113 §6.8: ignored
            return self._charge(1)
        if heads.is_self_dependent:
            return self.reset(stream_id, Code.PROTOCOL_ERROR)
        if len(self.streams) >= MAX_STREAMS:
            return self.reset(stream_id, Code.REFUSED_STREAM)
        if heads.known is not None:
            self.open(stream_id, self._shell.on_known(stream_id, heads.known))
        elif (parsed := self._shell.on_head(stream_id, heads.fields, is_end=heads.is_end)) is not None:
            heads.remember(parsed)
        return GO_ON

    def _on_trailers(self, stream_id: int, stream: OpenStream) -> Code:
        if stream.is_request_ended:
            return self.reset(stream_id, Code.STREAM_CLOSED)
        heads = self._heads
        try:
            if heads.known is not None or not heads.is_end:  # what is known begins with pseudo fields
                raise MalformedRequest("trailers" if heads.known is None else "trailer-pseudo-field")
            require_trailers(heads.fields)
        except MalformedRequest as exc:
            stream.fail(exc)
            return GO_ON
        stream.take(b"", is_end=True)
        return GO_ON

    def _on_late_frame(self, stream_id: int, cost: int) -> Code:
        """A head, or DATA, for a stream that is closed, or was skipped and so can never be opened (RFC 9113 §5.1, §5.1.1)."""
        if self._closed.is_reset_by_us(stream_id):
            return self._charge(cost)  # it was under way
        if self._closed.is_reset_by_client(stream_id):
            return self.reset(stream_id, Code.STREAM_CLOSED)
        return Code.PROTOCOL_ERROR if self._closed.is_in_gap(stream_id) else Code.STREAM_CLOSED

    # -- bodies ---------------------------------------------------------------------------------

    def _on_data(self, flags: int, stream_id: int, payload: bytes) -> Code:
        if self._is_idle(stream_id):
            return Code.PROTOCOL_ERROR
        count = len(payload)
        if flags & frames.PADDED:
            if not count:
                return Code.FRAME_SIZE_ERROR
            if payload[0] >= count:
                return Code.PROTOCOL_ERROR
            payload = payload[1 : count - payload[0]]
        self._receive_left -= count
        if self._receive_left < 0:
            return Code.FLOW_CONTROL_ERROR
        stream = self.streams.get(stream_id)
        if stream is None or stream.is_request_ended:
            self.give_back(count)
            if stream is not None:
                return self.reset(stream_id, Code.STREAM_CLOSED)
            return self._on_late_frame(stream_id, 1 if count < _SMALL_BYTES else 0)
        stream.receive_left -= count
        if stream.receive_left < 0:
            self.give_back(count)
            return self.reset(stream_id, Code.FLOW_CONTROL_ERROR)
        is_end = bool(flags & frames.END_STREAM)
        if count != len(payload):
            stream.give_back(count - len(payload))
        if payload or is_end:
            stream.take(payload, is_end=is_end)
        return self._charge(0 if payload or is_end else 1)

    def give_back(self, count: int) -> None:
        """So many bytes of bodies are held no more; said to the client when it is half a window."""
        self._untold += count
        if self._untold >= CONNECTION_WINDOW_BYTES // 2:
            self.out.append(frames.window_update(0, self._untold))
            self._receive_left += self._untold
            self._untold = 0

    # -- the others -----------------------------------------------------------------------------

    def _is_idle(self, stream_id: int) -> bool:
        """Never opened; the connection itself and streams of a server, of which there are none, count as such."""
        return stream_id > self.last_stream_id or not stream_id & 1

    def _on_priority(self, flags: int, stream_id: int, payload: bytes) -> Code:
        """Nothing is made of it (RFC 9113 §5.3.2), but it has to be one."""
        code = GO_ON
        if len(payload) != 5:
            code = Code.FRAME_SIZE_ERROR
        elif not stream_id or frames.read_u31(payload[:4]) == stream_id:
            code = Code.PROTOCOL_ERROR
        if not code:
            return self._charge(1)
        return code if self._is_idle(stream_id) else self.reset(stream_id, code)

    def _on_rst_stream(self, flags: int, stream_id: int, payload: bytes) -> Code:
        if self._is_idle(stream_id):
            return Code.PROTOCOL_ERROR
        stream = self.streams.pop(stream_id, None)
        if stream is None:
            return self._charge(1)
        self._closed.note_reset(stream_id, by_us=False)
        stream.drop()
        return self._charge(1 if stream.is_answered else RESET_COST)

    def _on_settings(self, flags: int, stream_id: int, payload: bytes) -> Code:
        if flags & frames.ACK:
            self.acks_awaited -= 1
            return self._charge(0 if self.acks_awaited == 0 else 1)
        for name, value in frames.SETTING.iter_unpack(payload):
            if code := self._on_setting(name, value):
                return code
        self.out.append(frames.SETTINGS_ACK)
        return self._charge(1)

    def _on_setting(self, name: int, value: int) -> Code:
        if code := frames.fault_in_setting(name, value):
            return code
        if name == Setting.INITIAL_WINDOW_SIZE:
            more, self._window_bytes = value - self._window_bytes, value
            for stream in self.streams.values():
                stream.send_left += more
                if stream.send_left > frames.MAX_WINDOW_BYTES:
                    return Code.FLOW_CONTROL_ERROR  # RFC 9113 §6.9.2
            self.has_window_grown = True
        elif name == Setting.MAX_FRAME_SIZE:
            self.client_frame_bytes = min(value, 4 * frames.MAX_FRAME_BYTES)
        elif name == Setting.HEADER_TABLE_SIZE:
            self.must_empty_table |= value < hpack.TABLE_BYTES  # ours is empty, but that has to be said
        return GO_ON

    def _on_ping(self, flags: int, stream_id: int, payload: bytes) -> Code:
        if not flags & frames.ACK:
            self.out.append(frames.frame(frames.PING, frames.ACK, 0, payload))
        return self._charge(1)

    def _on_goaway(self, flags: int, stream_id: int, payload: bytes) -> Code:
        self._shell.on_goaway(frames.read_u32(payload[4:8]))
        return self._charge(1)

    def _on_window_update(self, flags: int, stream_id: int, payload: bytes) -> Code:
        more = frames.read_u31(payload)
        if not stream_id:
            self.send_left += more
            if not more or self.send_left > frames.MAX_WINDOW_BYTES:
                return Code.FLOW_CONTROL_ERROR if more else Code.PROTOCOL_ERROR
        else:
            if self._is_idle(stream_id):
                return Code.PROTOCOL_ERROR
            stream = self.streams.get(stream_id)
            if stream is None:
                return self._charge(1)
            stream.send_left += more
            if not more or stream.send_left > frames.MAX_WINDOW_BYTES:
                return self.reset(stream_id, Code.FLOW_CONTROL_ERROR if more else Code.PROTOCOL_ERROR)
        self.has_window_grown = True
        return self._charge(1)

    # -- streams --------------------------------------------------------------------------------

    def open(self, stream_id: int, stream: OpenStream) -> None:
        """From the shell, in `on_head`; what `on_known` gives."""
        stream.send_left = self._window_bytes
        self.streams[stream_id] = stream

    def reset(self, stream_id: int, code: Code) -> Code:
        """End a stream for what the client did."""
        stream = self.streams.pop(stream_id, None)
        self.out.append(frames.rst_stream(stream_id, code))
        self._closed.note_reset(stream_id, by_us=True)
        if stream is not None:
            stream.drop()
        return self._charge(RESET_COST)

    def cancel(self, stream_id: int, code: Code) -> None:
        """End a stream for what is not the client's doing."""
        if self.streams.pop(stream_id, None) is not None:
            self.out.append(frames.rst_stream(stream_id, code))
            self._closed.note_reset(stream_id, by_us=True)

    def close(self, stream_id: int) -> None:
        """Both sides said all they had to."""
        self.streams.pop(stream_id, None)
        self._budget.earn(ANSWER_CREDIT)

    def head(self, stream_id: int, block: bytes, *, is_end: bool) -> None:
        """Send the head of an answer."""
        if self.must_empty_table:
            self.must_empty_table = False
            block = frames.TABLE_IS_EMPTIED + block
        self.out.append(frames.headers(stream_id, block, self.client_frame_bytes, is_end=is_end))


_HANDLERS = {
    frames.DATA: Session._on_data, frames.PRIORITY: Session._on_priority, frames.RST_STREAM: Session._on_rst_stream,
    frames.SETTINGS: Session._on_settings, frames.PING: Session._on_ping, frames.GOAWAY: Session._on_goaway,
    frames.WINDOW_UPDATE: Session._on_window_update, frames.CONTINUATION: Session._on_continuation,
}  # fmt: skip
