"""HTTP/2 on the wire (RFC 9113 §4, §6): numbers, and frames as bytes. What an answer's head looks like in HPACK.

Answers are encoded without a table of what was sent before and without Huffman (RFC 7541 §6.2.2): what a field becomes
depends on nothing but the field, so it is looked up, and no connection costs memory for it. The price is
some 300 bytes on the wire.
"""

from __future__ import annotations

import struct
from enum import IntEnum

from edge.model.http import RawField
from edge.parse.hpack import STATIC

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM, ACK, END_HEADERS, PADDED, HAS_PRIORITY = 0x1, 0x1, 0x4, 0x8, 0x20
MAX_FRAME_BYTES = 16_384
"""Of a payload, both ways unless the client allows more (RFC 9113 §4.2). We never do: a frame is held whole."""
DEFAULT_WINDOW_BYTES = 65_535
_OF_THE_CONNECTION = frozenset((SETTINGS, PING, GOAWAY))
MAX_WINDOW_BYTES = MAX_STREAM_ID = 2**31 - 1


class Code(IntEnum):
    """RFC 9113 §7. What a handler gives back."""

    NO_ERROR = 0
    PROTOCOL_ERROR = 1
    INTERNAL_ERROR = 2
    FLOW_CONTROL_ERROR = 3
    SETTINGS_TIMEOUT = 4
    STREAM_CLOSED = 5
    FRAME_SIZE_ERROR = 6
    REFUSED_STREAM = 7
    CANCEL = 8
    COMPRESSION_ERROR = 9
    ENHANCE_YOUR_CALM = 11


GO_ON = Code.NO_ERROR
"""What a handler gives back when nothing is wrong. By a name of its own, because looking a member up takes 100 ns."""


class Setting(IntEnum):
    """RFC 9113 §6.5.2, RFC 8441 §3, RFC 9218 §2.1."""

    HEADER_TABLE_SIZE = 1
    ENABLE_PUSH = 2
    MAX_CONCURRENT_STREAMS = 3
    INITIAL_WINDOW_SIZE = 4
    MAX_FRAME_SIZE = 5
    MAX_HEADER_LIST_SIZE = 6
    ENABLE_CONNECT_PROTOCOL = 8
    NO_RFC7540_PRIORITIES = 9


_HEAD = struct.Struct(">IBI")
"""Length and type in one number, flags, stream."""
read_head = _HEAD.unpack_from
_pack_head = _HEAD.pack
_U32 = struct.Struct(">I")
SETTING = struct.Struct(">HI")


def read_u32(payload: bytes) -> int:
    (number,) = _U32.unpack(payload)
    return int(number)


def read_u31(payload: bytes) -> int:
    """A number whose first bit says something else, or nothing."""
    return read_u32(payload) & MAX_STREAM_ID


def frame(kind: int, flags: int, stream_id: int, payload: bytes) -> bytes:
    return b"%b%b" % (_pack_head(len(payload) << 8 | kind, flags, stream_id), payload)


def frame_head(kind: int, flags: int, stream_id: int, length: int) -> bytes:
    """The nine bytes in front of a payload that is sent from where it lies."""
    return _pack_head(length << 8 | kind, flags, stream_id)


def settings(values: dict[Setting, int]) -> bytes:
    return frame(SETTINGS, 0, 0, b"".join(SETTING.pack(*item) for item in values.items()))


_SWITCHES = (Setting.ENABLE_PUSH, Setting.ENABLE_CONNECT_PROTOCOL, Setting.NO_RFC7540_PRIORITIES)


def fault_in_setting(name: int, value: int) -> Code:
    """Which error of the connection a value is, if it is one."""
    if name == Setting.INITIAL_WINDOW_SIZE and value > MAX_WINDOW_BYTES:
        return Code.FLOW_CONTROL_ERROR
    if name == Setting.MAX_FRAME_SIZE and not MAX_FRAME_BYTES <= value < 1 << 24:
        return Code.PROTOCOL_ERROR
    if name in _SWITCHES and value > 1:
        return Code.PROTOCOL_ERROR
    return Code.NO_ERROR


_MAX_SETTINGS = 32
"""In one frame; there are nine."""


def fault_in_form(kind: int, flags: int, stream_id: int, payload: bytes) -> Code:
    """Which error of the connection a frame is by itself, whatever went before; of those that carry no part of a message."""
    size = len(payload)
    if kind == PUSH_PROMISE:
        return Code.PROTOCOL_ERROR  # RFC 9113 §8.4: a client cannot push
    if kind in _OF_THE_CONNECTION and stream_id:
        return Code.PROTOCOL_ERROR
    if kind == SETTINGS:
        if size % 6 or (flags & ACK and size):
            return Code.FRAME_SIZE_ERROR
        return Code.NO_ERROR if size <= 6 * _MAX_SETTINGS else Code.ENHANCE_YOUR_CALM
    if kind in (RST_STREAM, WINDOW_UPDATE):
        return Code.NO_ERROR if size == 4 else Code.FRAME_SIZE_ERROR
    if (kind == PING and size != 8) or (kind == GOAWAY and size < 8):
        return Code.FRAME_SIZE_ERROR
    return Code.NO_ERROR


SETTINGS_ACK = frame(SETTINGS, ACK, 0, b"")


def rst_stream(stream_id: int, code: int) -> bytes:
    return frame(RST_STREAM, 0, stream_id, _U32.pack(code))


def window_update(stream_id: int, count: int) -> bytes:
    return frame(WINDOW_UPDATE, 0, stream_id, _U32.pack(count))


def goaway(last_stream_id: int, code: int) -> bytes:
    return frame(GOAWAY, 0, 0, struct.pack(">II", last_stream_id, code))


def headers(stream_id: int, block: bytes, limit_bytes: int, *, is_end: bool) -> bytes:
    """A header block in one frame, or with continuations when it is longer than the client takes."""
    flags = END_STREAM if is_end else 0
    if len(block) <= limit_bytes:
        return frame(HEADERS, flags | END_HEADERS, stream_id, block)
    pieces = [block[at : at + limit_bytes] for at in range(0, len(block), limit_bytes)]
    last = len(pieces) - 1
    return b"".join(
        frame(
            CONTINUATION if at else HEADERS, (0 if at else flags) | (END_HEADERS if at == last else 0), stream_id, piece
        )
        for at, piece in enumerate(pieces)
    )


def whole_answer(stream_id: int, block: bytes, body_bytes: int) -> bytes:
    """The head in one frame, and the nine bytes in front of a body in another, which ends the stream."""
    head = _pack_head(len(block) << 8 | HEADERS, END_HEADERS, stream_id)
    return b"%b%b%b" % (head, block, _pack_head(body_bytes << 8, END_STREAM, stream_id))


# -- header blocks -----------------------------------------------------------------------------------

TABLE_IS_EMPTIED = b"\x20"
"""RFC 7541 §6.3: from now on nothing is remembered."""
CONTINUE_BLOCK = b"\x08\x03100"
_STATUSES = {int(value): bytes((0x80 | at,)) for at, (name, value) in enumerate(STATIC) if name == b":status"}
_NAMES = {name: at for at, (name, _) in reversed(list(enumerate(STATIC))) if at and name[:1] != b":"}

# Fields that answers repeat, encoded. Bounded: a value that differs each time costs its own encoding and nothing else.
_known: dict[RawField, bytes] = {}
_MAX_KNOWN = 1024
_MAX_KNOWN_BYTES = 256
_CHANGING = (b"x-request-id", b"ratelimit", b"set-cookie")


def _length(count: int) -> bytes:
    """RFC 7541 §5.1, with a prefix of seven bits."""
    if count < 127:
        return bytes((count,))
    left = count - 127
    found = bytearray(b"\x7f")
    while left >= 128:
        found.append(left & 127 | 128)
        left >>= 7
    found.append(left)
    return bytes(found)


_NAME_PREFIXES = {
    **{name: b"\x00%b%b" % (_length(len(name)), name) for name in _CHANGING},
    **{name: bytes((at,)) if at < 15 else bytes((15, at - 15)) for name, at in _NAMES.items()},
}


def _encode(field: RawField) -> bytes:
    name, value = field
    prefix = _NAME_PREFIXES.get(name) or b"\x00%b%b" % (_length(len(name)), name)
    size = len(value)
    encoded = b"%b%c%b" % (prefix, size, value) if size < 127 else b"%b%b%b" % (prefix, _length(size), value)
    if name not in _CHANGING and len(encoded) <= _MAX_KNOWN_BYTES:
        if len(_known) >= _MAX_KNOWN:
            _known.clear()
        _known[field] = encoded
    return encoded


_DATE = _NAME_PREFIXES[b"date"] + _length(29)
_CONTENT_LENGTH = _NAME_PREFIXES[b"content-length"]


def answer_block(status: int, fields: list[RawField], content_length: int | None, date: bytes) -> bytes:
    """The head of an answer. `date` is used unless the fields have one.

    304 does not say how long the whole would be, though it may: client libraries on `h2` then wait for it.
    """
    known = _known.get
    pieces = [known(field) or _encode(field) for field in fields]
    for name, _ in fields:
        if name == b"date":
            break
    else:
        pieces.append(_DATE + date)
    if content_length is not None and status not in (204, 304):
        digits = b"%d" % content_length
        pieces.append(b"%b%c%b" % (_CONTENT_LENGTH, len(digits), digits))
    return (_STATUSES.get(status) or b"\x08\x03%d" % status) + b"".join(pieces)
