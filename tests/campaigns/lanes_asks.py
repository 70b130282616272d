"""What the clients of `lanes` say: a few requests again and again, and now and then one that is nearly another.

Nothing is known here of what is right: the bytes only have to lie close to what was said before.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import pairwise

import hpack

from tests.campaigns.lanes_far import KINDS
from tests.wire.raw_h2 import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    PING,
    PREFACE,
    PRIORITY,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    Field,
    block,
    frame,
    setting,
    u32,
)

_LAST_STREAM = 2**31 - 1
_HOST = b"Host: localhost\r\n"
_EVIL = b"GET /orders/evil HTTP/1.1\r\n" + _HOST + b"\r\n"
_BODIES = (b"a", b"hello", b"world", b"0\r\n\r\n", b"\r\n\r\n", b"GET ", _EVIL, bytes(300))
_ODD = (
    b"\0", b"\n", b"\r", b"\r\n", b" ", b"\t", b":", b"\x0b", b"_", b"\x80", b",", b";", b"0", b"chunked", b"\r\n ",
    b"\r\n\r\n", b"Transfer-Encoding: chunked\r\n", b"Content-Length: 5\r\n", b"Host: elsewhere\r\n", b"X-A: 1\r\n",
    b"Connection: close\r\n",
)  # fmt: skip
_SWAPS = (
    (b"HTTP/1.1", b"HTTP/1.0"), (b"Host:", b"host:"), (b"Host: ", b"Host:\t"), (b"localhost", b"LOCALHOST"),
    (b"localhost", b"localhost:443"), (b"localhost", b"localhost "), (b"localhost", b"elsewhere"),
    (b"Length: ", b"Length: 0"),
    (b"Length: ", b"Length: 1"), (b"Length: 5", b"Length: 4"), (b"Length: 5", b"Length: 6"), (b"Length", b"length"),
    (b"Length:", b"Length :"), (b"Content-Length: 5\r\n", b"Content-Length: 5\r\nContent-Length: 5\r\n"), (b"GET", b"HEAD"),
    (b"GET", b"get"), (b"POST", b"GET"), (b"GET", b"POST"), (b"/orders/", b"/orders/%"), (b"/orders/", b"/orders//"),
    (b"/orders/", b"/nowhere/"), (b"/orders/", b"/ORDERS/"), (b"/orders/", b"/closed/"), (b"/held/", b"/orders/"),
    (b" HTTP", b"?0 HTTP"),
    (b" HTTP", b"#0 HTTP"), (b"\r\n", b"\n"), (b"chunked", b"Chunked"), (b"chunked", b"xchunked"), (b"Host", b"\r\nHost"),
    (b"chunked", b"chunked, chunked"), (b"GET", b"\r\nGET"), (b"GET", b"\r\n\r\nGET"), (b"Bearer ", b"bearer "),
    (b"Bearer ", b"Bearer  "), (b"Bearer e", b"Bearer f"),
)  # fmt: skip
_HANDSHAKE = (
    b"Upgrade: websocket\r\nConnection: upgrade\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)
_MORE = (
    b"Connection: close\r\n", b"Connection: keep-alive\r\n", b"Connection: X-A\r\nX-A: 1\r\n", b"Expect: 100-continue\r\n",
    b"Upgrade: h2c\r\nConnection: upgrade\r\n", b"X-A: 1\r\n", b"X-A: 2\r\n", b"X_A: 1\r\n", b" fold\r\n", _HOST,
    b"Transfer-Encoding: chunked\r\n", b"Content-Length: 0\r\n", b"Content-Length: 5\r\n", _HANDSHAKE,
    b"X-Forwarded-For: 198.51.100.7\r\n", b"X-Forwarded-For: 203.0.113.7\r\n", b"Forwarded: for=198.51.100.7\r\n",
)  # fmt: skip


def _target(draw: random.Random, root: bytes) -> bytes:
    return b"/%b/%c%c" % (root, draw.choice(b"uv"), draw.choice(KINDS) if draw.random() < 0.4 else 48)


def _usual(draw: random.Random, tokens: Sequence[str]) -> tuple[bytes, bytes]:
    """A head without its empty line, and the body."""
    if draw.random() < 0.25:
        token = draw.choice(tokens).encode("ascii")
        root = draw.choice((b"closed", b"held"))
        more = draw.choice((b"", b"", b"X-Forwarded-For: 198.51.100.7\r\n"))
        return b"GET %b HTTP/1.1\r\n%b%bAuthorization: Bearer %b\r\n" % (_target(draw, root), _HOST, more, token), b""
    target, which = _target(draw, b"orders"), draw.random()
    if which < 0.5:
        return b"%b %b HTTP/1.1\r\n%b" % (draw.choice((b"GET", b"GET", b"HEAD")), target, _HOST), b""
    if which < 0.6:
        chunk = draw.choice((b"hello", b"0\r\n\r\n"))
        head = b"POST %b HTTP/1.1\r\n%bTransfer-Encoding: chunked\r\n" % (target, _HOST)
        return head, b"5\r\n%b\r\n0\r\n\r\n" % chunk
    body = draw.choice(_BODIES)
    fields = draw.choice((b"", b"", b"X-A: 1\r\n")) + b"Content-Length: %d\r\n" % len(body)
    return b"%b %b HTTP/1.1\r\n%b%b" % (draw.choice((b"POST", b"PUT", b"GET")), target, _HOST, fields), body


def _message(draw: random.Random, tokens: Sequence[str]) -> bytes:
    head, body = _usual(draw, tokens)
    which = draw.random()
    at = draw.randrange(len(head))
    if which < 0.08:
        head = head.replace(*draw.choice(_SWAPS), 1)
    elif which < 0.14:
        head += draw.choice(_MORE)
    elif which < 0.16:
        line, _, rest = head.partition(b"\r\n")
        head = b"%b\r\n%b%b" % (line, draw.choice(_MORE), rest)
    elif which < 0.18:
        head = head[:at] + draw.choice(_ODD) + head[at + draw.choice((0, 0, 1)) :]
    elif which < 0.19:
        head = head[:at] + head[at + 1 :]
    elif which < 0.2:
        body = body[:-1]
    elif which < 0.21:
        body += draw.choice((b"\r\n", b"x", b"\0"))
    return head + b"\r\n" + body


def cut(raw: bytes, draw: random.Random) -> list[bytes]:
    """Into reads."""
    how = draw.random()
    if how < 0.3:
        return [raw]
    if how < 0.5:
        size = draw.choice((1, 2, 3, 7, 61))
        return [raw[at : at + size] for at in range(0, len(raw), size)]
    cuts = sorted({0, *(draw.randrange(len(raw)) for _ in range(draw.choice((1, 2, 5)))), len(raw)})
    return [raw[low:high] for low, high in pairwise(cuts)]


def http1(draw: random.Random, tokens: Sequence[str]) -> list[bytes]:
    """The reads of one connection."""
    messages = [_message(draw, tokens) for _ in range(draw.choice((1, 2, 3, 5, 12)))]
    if draw.random() < 0.3:
        return [piece for raw in messages for piece in ([raw] if draw.random() < 0.7 else cut(raw, draw))]
    return cut(b"".join(messages), draw)


_FIELDS: tuple[Field, ...] = (
    (b"x-a", b"1"), (b"x-a", b"2"), (b"accept", b"*/*"), (b"cookie", b"a=b"), (b"cookie", b"c=d"), (b"te", b"trailers"),
    (b"x-b", b"y" * 40), (b"x-forwarded-for", b"198.51.100.7"), (b"content-length", b"0"),
)  # fmt: skip
_BAD: tuple[Field, ...] = (
    (b"X-A", b"1"), (b"connection", b"close"), (b":path", b"/x"), (b"te", b"x"), (b"x-a", b"1\r\n"),
    (b"content-length", b"5"), (b"host", b"elsewhere"), (b"expect", b"100-continue"), (b":protocol", b"websocket"),
)  # fmt: skip
_CODES = (b"\x20", b"\x3f\xe1\x1f", b"\x3f\xe2\x1f", b"\x80", b"\xbe", b"\xff\x80\x80\x80\x80\x01", b"\x40\x00\x00")


def _head(draw: random.Random, method: bytes, tokens: Sequence[str]) -> list[Field]:
    root = draw.choice((b"orders",) * 6 + (b"closed", b"held"))
    pseudo = [(b":method", method), (b":scheme", b"https"), (b":authority", b"localhost")]
    fields: list[Field] = [*pseudo, (b":path", _target(draw, root))]
    if root != b"orders":
        fields.append((b"authorization", b"Bearer " + draw.choice(tokens).encode("ascii")))
    fields += draw.sample(_FIELDS, draw.choice((0, 0, 1, 2)))
    if draw.random() < 0.06:
        fields.append(draw.choice(_BAD))
    if draw.random() < 0.03:
        draw.shuffle(fields)
    return fields


def _spoil(draw: random.Random, encoded: bytes) -> bytes:
    which = draw.random()
    if which < 0.02:
        return draw.choice(_CODES) + encoded
    if which < 0.04:
        at = draw.randrange(len(encoded))
        return encoded[:at] + bytes((draw.randrange(256),)) + encoded[at + 1 :]
    return encoded


def _also(draw: random.Random, stream: int) -> bytes:
    """Frames between requests."""
    frames = (
        frame(RST_STREAM, 0, stream, u32(8)), setting((4, draw.choice((0, 10, 65_535, 1 << 20)))), setting((1, 0)),
        frame(WINDOW_UPDATE, 0, draw.choice((0, stream)), u32(draw.choice((1, 100, 1 << 20)))), frame(PING, payload=bytes(8)),
        frame(PRIORITY, 0, stream, u32(0) + b"\x01"),
    )  # fmt: skip
    return draw.choice(frames) if draw.random() < 0.12 else b""


def _in_frames(draw: random.Random, stream: int, flags: int, encoded: bytes) -> bytes:
    if draw.random() < 0.9:
        return frame(HEADERS, flags | END_HEADERS, stream, encoded)
    at = draw.randrange(len(encoded))
    return frame(HEADERS, flags, stream, encoded[:at]) + frame(CONTINUATION, END_HEADERS, stream, encoded[at:])


def _next(draw: random.Random, stream: int) -> int:
    """Mostly the next; behind the last of all comes the first, often with the reserved bit."""
    if stream >= _LAST_STREAM:
        return draw.choice((1, 1 << 31 | 1))
    return max(1, min(_LAST_STREAM, stream + draw.choice((2,) * 40 + (0, 4, -2, 1, 1 << 31))))


def http2(draw: random.Random, tokens: Sequence[str]) -> list[bytes]:
    """The reads of one connection."""
    encoder = hpack.Encoder()
    raw, stream = PREFACE + setting() + frame(SETTINGS, ACK), 1
    for _ in range(draw.choice((1, 3, 8, 40))):
        method = draw.choice((b"GET", b"GET", b"GET", b"HEAD", b"POST"))
        fields = _head(draw, method, tokens)
        encoded = _spoil(draw, encoder.encode(fields) if draw.random() < 0.9 else block(fields))
        has_body = method == b"POST" or draw.random() < 0.05
        flags = 0 if has_body else END_STREAM
        if draw.random() < 0.02:
            raw += frame(HEADERS, flags, stream, encoded)  # whose end never comes
        raw += _in_frames(draw, stream, flags, encoded)
        if has_body and draw.random() < 0.95:
            raw += frame(DATA, END_STREAM, stream, draw.choice((b"", b"hello")))
        raw += _also(draw, stream)
        stream = _next(draw, stream)
    return cut(raw, draw)
