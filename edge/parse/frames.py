"""WebSocket frames (RFC 6455 §5 to §7): bytes of one direction → frames that were judged, and frames → bytes.

Whoever reads knows nothing of the other side, of sockets or of time. Laws:

- Nothing is negotiated, so nothing is reserved: a set RSV bit or an unknown opcode is a violation. Without compression there
  is nothing to inflate, and a frame is never larger than what came.
- Masked from a client, bare from a server, and never the other way (§5.1).
- A frame is not awaited whole: of a long one a piece is given as soon as `PIECE_BYTES` are there, as a fragment of its
  message (§5.4 lets anybody between fragment anew when no extension is spoken). So no more than a piece is held, and a
  Close can go out at any moment. A frame that came in one read stays one frame.
- Text is UTF-8 to the last byte, also where a character is cut by a fragment (§8.1); so is the reason of a Close.
- Behind a Close, and behind a violation, nothing is read any more (§1.4, §7.1.7).
"""

from __future__ import annotations

import codecs
import sys
from dataclasses import dataclass
from typing import Final

from edge.model.websocket import WebSocketBounds

CONTINUATION: Final = 0
TEXT: Final = 1
BINARY: Final = 2
CLOSE: Final = 8
PING: Final = 9
PONG: Final = 10
_OPCODES = frozenset((CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG))

PIECE_BYTES = 16_384
"""Of a frame that is not complete; less waits for more, so that a byte now and then does not become a frame each."""

NO_CODE = 1005
"""What a Close without a code means; never on the wire (§7.4.1)."""
ABNORMAL = 1006
"""No Close at all; never on the wire."""

_MUCH = 512
_XOR = [bytes(byte ^ key for byte in range(256)) for key in range(256)]

_SENDABLE = frozenset((1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014))


@dataclass(slots=True)
class Frame:
    """One frame, or a piece of one; unmasked."""

    opcode: int
    payload: bytes
    is_final: bool = True

    @property
    def is_control(self) -> bool:
        return self.opcode >= CLOSE

    @property
    def close_code(self) -> int:
        """Of a Close."""
        return int.from_bytes(self.payload[:2], "big") if self.payload else NO_CODE


@dataclass(frozen=True, slots=True)
class Violation:
    """What the sender did wrong; always the last that a reader gives."""

    code: int
    """To close with."""
    rule: str
    """For the access log."""


class FrameReader:
    """Reads one direction of one WebSocket."""

    __slots__ = (
        "_buffer",
        "_frames",
        "_in_frame",
        "_in_message",
        "_is_final",
        "_is_masked",
        "_is_over",
        "_is_text",
        "_key",
        "_left",
        "_message_bytes",
        "_opcode",
        "_tail",
        "bounds",
        "is_behind",
    )

    def __init__(self, bounds: WebSocketBounds, *, is_masked: bool) -> None:
        """`is_masked`: the sender is a client, and its frames have to be masked; else none may be."""
        self.bounds = bounds
        self._is_masked = is_masked
        self._buffer = b""
        self.is_behind = self._is_over = False
        self._in_frame = False
        self._opcode = 0
        self._is_final = True
        self._left = 0
        self._key = b""
        self._in_message = self._is_text = False
        self._message_bytes = self._frames = 0
        self._tail = b""  # of a character whose other bytes have not come yet

    def feed(self, data: bytes, most: int = sys.maxsize) -> list[Frame | Violation]:
        """What the bytes complete, in order; at most so much. Then it `is_behind`, and goes on with the next or no bytes."""
        found: list[Frame | Violation] = []
        if self._is_over:
            return found
        buffer = self._buffer + data if self._buffer else data
        at = 0
        while not self._is_over and len(found) < most:
            if not self._in_frame:
                size = self._head(buffer, at)
                if isinstance(size, Violation):
                    found.append(size)
                    self._is_over = True
                    break
                if not size:
                    break
                at += size
            available = len(buffer) - at
            if available < self._left and (self._opcode >= CLOSE or available < PIECE_BYTES):
                break
            piece = self._piece(buffer[at : at + self._left])
            at += min(available, piece.taken)
            found.append(piece.result)
            self._is_over = isinstance(piece.result, Violation) or piece.result.opcode == CLOSE
        self._buffer = b"" if self._is_over else buffer[at:]
        self.is_behind = len(found) >= most and not self._is_over
        return found

    def _head(self, buffer: bytes, at: int) -> int | Violation:
        """Read a frame's head; its size, or 0 while it is not whole. What is wrong is told as soon as it is there."""
        available = len(buffer) - at
        if available < 2:
            return 0
        first, second = buffer[at], buffer[at + 1]
        length = second & 0x7F
        wrong = self._misuse(first, second)
        if wrong is not None:
            return Violation(1002, wrong)
        size = 2
        if length >= 126:
            size = 4 if length == 126 else 10
            if available < size:
                return 0
            least = 126 if length == 126 else 65_536
            length = int.from_bytes(buffer[at + 2 : at + size], "big")
            if length < least or length >> 63:
                return Violation(1002, "frame-length")  # §5.2: the shortest form; the first bit is 0
        if self._is_masked:
            size += 4
            if available < size:
                return 0
            self._key = buffer[at + size - 4 : at + size]
        self._in_frame, self._left = True, length
        if first & 0x0F >= CLOSE:
            self._opcode = first & 0x0F
            return size
        return self._open(first, length) or size

    def _misuse(self, first: int, second: int) -> str | None:
        """What the first two bytes alone show to be wrong."""
        opcode = first & 0x0F
        if first & 0x70:
            return "frame-reserved-bits"
        if opcode not in _OPCODES:
            return "frame-opcode"
        if bool(second & 0x80) is not self._is_masked:
            return "frame-mask"
        if opcode >= CLOSE:
            if not first & 0x80:
                return "frame-control-fragmented"
            return "frame-control-length" if second & 0x7F > 125 else None
        if (opcode == CONTINUATION) is not self._in_message:
            return "frame-continuation"
        return None

    def _open(self, first: int, length: int) -> Violation | None:
        """A data frame begins: count it before a byte of it is taken."""
        opcode = self._opcode = first & 0x0F
        self._is_final = bool(first & 0x80)
        if opcode != CONTINUATION:
            self._in_message, self._is_text = True, opcode == TEXT
            self._message_bytes = self._frames = 0
        self._message_bytes += length
        self._frames += 1
        if self._message_bytes > self.bounds.max_message_bytes:
            return Violation(1009, "message-size")
        if self._frames > self.bounds.max_message_frames:
            return Violation(1009, "message-frames")
        return None

    def _piece(self, raw: bytes) -> _Piece:
        """The rest of the frame, or as much of it as is there."""
        taken = len(raw)
        payload = masked(raw, self._key) if self._is_masked else raw
        self._left -= taken
        is_end = not self._left
        self._in_frame = not is_end
        opcode = self._opcode
        if opcode >= CLOSE:
            flaw = _close_flaw(payload) if opcode == CLOSE else None
            return _Piece(taken, flaw or Frame(opcode, payload))
        is_final = is_end and self._is_final
        if self._is_text and not self._is_utf8(payload, is_final=is_final):
            return _Piece(taken, Violation(1007, "text-not-utf8"))
        self._opcode = CONTINUATION  # of what is still to come of this frame
        turn = taken % 4
        if turn:
            self._key = self._key[turn:] + self._key[:turn]
        if is_final:
            self._in_message = self._is_text = False
        return _Piece(taken, Frame(opcode, payload, is_final))

    def _is_utf8(self, payload: bytes, *, is_final: bool) -> bool:
        if not self._tail and payload.isascii():
            return True
        whole = self._tail + payload
        try:
            _, read = codecs.utf_8_decode(whole, "strict", is_final)
        except UnicodeDecodeError:
            return False
        self._tail = whole[read:]
        return True


@dataclass(slots=True)
class _Piece:
    taken: int
    result: Frame | Violation


def _close_flaw(payload: bytes) -> Violation | None:
    """§5.5.1 and §7.4: nothing, or a code that may be sent and a reason in UTF-8."""
    if not payload:
        return None
    code = int.from_bytes(payload[:2], "big")
    if len(payload) == 1 or not (code in _SENDABLE or 3000 <= code <= 4999):
        return Violation(1002, "close-code")
    try:
        payload[2:].decode("utf-8")
    except UnicodeDecodeError:
        return Violation(1007, "close-reason-not-utf8")
    return None


def masked(payload: bytes, key: bytes) -> bytes:
    """Mask or unmask (§5.3): one number against another, or, of much, each fourth byte through a table (2.5 times faster)."""
    size = len(payload)
    if size < _MUCH:
        mask = (key * (size // 4 + 1))[:size]
        return (int.from_bytes(payload, "little") ^ int.from_bytes(mask, "little")).to_bytes(size, "little")
    out = bytearray(payload)
    for lane in range(4):
        out[lane::4] = payload[lane::4].translate(_XOR[key[lane]])
    return bytes(out)


def encode(frame: Frame, key: bytes | None) -> bytes:
    """A frame's bytes; `key` is the four bytes to mask with, None when a server speaks."""
    payload = frame.payload
    first = frame.opcode | (0x80 if frame.is_final else 0)
    flag = 0 if key is None else 0x80
    size = len(payload)
    if size < 126:
        head = bytes((first, flag | size))
    elif size < 65_536:
        head = b"%c%c%b" % (first, flag | 126, size.to_bytes(2, "big"))
    else:
        head = b"%c%c%b" % (first, flag | 127, size.to_bytes(8, "big"))
    return head + payload if key is None else b"%b%b%b" % (head, key, masked(payload, key))


def closing(code: int, reason: str) -> Frame:
    """A Close of our own; `reason` is short ASCII."""
    return Frame(CLOSE, code.to_bytes(2, "big") + reason.encode("ascii"))


class ControlPace:
    """How many control frames one side may send: so many at once, and so many a second."""

    __slots__ = ("_left", "_since_s")

    def __init__(self, now_s: float) -> None:
        self._since_s = now_s
        self._left: float | None = None

    def take(self, per_s: int, now_s: float) -> bool:
        """Count one; False when it is one too many."""
        before = per_s if self._left is None else self._left + (now_s - self._since_s) * per_s
        self._since_s = now_s
        self._left = min(per_s, before) - 1
        if self._left < 0:
            self._left = 0
            return False
        return True
