"""Requests by chance, and the ways to say one: what may differ between two spellings of it must not change what is read.

`draw_ask` makes a request that may be good or bad, as far as HTTP/1.1 and HTTP/2 can both say it. `in_http1` and `in_http2`
spell it: case of names, white space, chunks with extensions, trailers, continuations, padding, where the host stands. Left
out is what one protocol cannot say, or must refuse by itself: a second cookie, names in upper case (RFC 9113 §8.2).
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from tests.wire.raw_h2 import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    HAS_PRIORITY,
    HEADERS,
    PADDED,
    Field,
    block,
    frame,
    u32,
)

GOOD_METHODS = ("GET", "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
METHODS = (*GOOD_METHODS, "TRACE", "get", "FOO", "PROPFIND", "CONNECTED")
ROOTS = (b"/orders", b"/slashes", b"/small", b"/nowhere", b"/api/orders", b"", b"/Orders")
PLAIN = (b"7", b"a.b", b"%37")
SEGMENTS = (
    *PLAIN, b"%2f", b"%2F", b"%2e%2e", b"..", b".", b"", b"%zz", b"%", b"%4", b"a;b", b"..;", b";", b".;x", b"\xc3\xa9",
    b"%41~", b"!$&'()", b"%c3%a9", b"%C3%A9", b"%c0%af", b"%ed%a0%80", b"%00", b"%252f", b"%252e%252e", b"%25", b"%2520",
    b"a\\b", b"%5c", b"a*b", b"[x]", b"{y}", b"a b", b"a\x01", b"\xff", b"|", b"a:b@c", b"%23", b"%3f", b"%7f", b"%0d%0a",
    b"a,b=c+d", b"\"", b"<x>", b"^`", b"x" * 300,
)  # fmt: skip
GOOD_QUERIES = (b"", b"", b"?a=1&b=%2e", b"?")
QUERIES = (
    b"?\xc3\xa9", b"?a#b", b"??", b"?a=%zz", b"?a=%00", b"?a=b+c", b"?a/../b//c",
    b"?\xff", b"?a=\"<>\"", b"?;;", b"#x", b"?%",
)  # fmt: skip
GOOD_NAMES = (
    b"accept", b"x-a", b"x-b", b"cookie", b"user-agent", b"x-auth-subject", b"x-forwarded-for", b"forwarded", b"traceparent",
    b"x-request-id", b"via",
)  # fmt: skip
GOOD_VALUES = (b"", b"a", b"a, b", b"a=1; b=2", b'"q"', b"\xc3\xa9", b"a\tb", b"x" * 300)
NAMES = (
    *GOOD_NAMES, b"origin", b"x_a", b"authorization", b"traceparent", b"range", b"cookie",
    b"x-forwarded-for", b"forwarded", b"expect", b"content-type", b"x-request-id", b"via", b"if-none-match", b"a b", b"a\x80",
    b"content-encoding", b"referer", b"user-agent", b"x-forwarded-host", b"max-forwards", b"x.a", b"accept-encoding", b"date",
    b"x-http-method-override", b"x-original-url", b"sec-websocket-key", b"edge-assertion", b"x" * 65, b"priority", b"x--",
)  # fmt: skip
VALUES = (
    b"", b"a", b"a, b", b'"q"', b"\xc3\xa9", b"a\x7fb", b"a\x01b", b"a\tb", b"00-11-22-01", b"a=1; b=2", b"trailers",
    b"x" * 300, b"100-continue", b"100-Continue", b"miracles", b"bytes=0-1", b"for=1.2.3.4", b"a: b", b"chunked", b"\xff",
    b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", b"Basic eDp5", b"/admin",
)  # fmt: skip
AUTHORITIES = (
    b"localhost", b"LocalHost", b"localhost:8443", b"localhost:443", b"localhost:0", b"localhost:65536", b"localhost:65535",
    b"localhost:", b"elsewhere", b"127.0.0.1", b"a b", b"", b"localhost:x", b"u@localhost", b"localhost.", b"[::1]", b"[::1",
    b"127.1", b"localhost/x", b"localhost#", b"*", b"x" * 300, b"localhost,localhost", b"%6cocalhost",
)  # fmt: skip
LENGTHS = (
    b"+5", b"-1", b"5x", b"0x5", b"5,5", b"5, 5", b"1_0", b"5.0", b"", b"99999999999999999999", b"\xd9\xa5",
    b"1000000000000000",
)  # fmt: skip
BODIES = (None, None, None, b"", b"hello", b"0\r\n\r\n", b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n", b"x" * 2000)


@dataclass(frozen=True)
class Ask:
    """One request, as far as both protocols can say it."""

    method: str
    path: bytes
    fields: tuple[Field, ...]
    authority: bytes
    body: bytes | None


TOO_MUCH = (
    Ask("GET", b"/orders/" + b"x" * 3000, (), b"localhost", None),
    Ask("GET", b"/orders/" + b"x" * 8200, (), b"localhost", None),
    Ask("HEAD", b"/orders/7?" + b"q" * 7000, (), b"localhost", None),
    Ask("GET", b"/orders/7?" + b"q" * 8200, (), b"localhost", None),
    Ask("GET", b"/orders/7?" + b"&".join(b"a%d" % at for at in range(500)), (), b"localhost", None),
    Ask("GET", b"/orders/7?" + b";".join(b"a%d" % at for at in range(520)), (), b"localhost", None),
    *(Ask("POST", b"/orders/7", ((b"x-many", b"1"),) * count, b"localhost", b"hello") for count in (100, 120, 131, 300)),
    *(Ask("GET", b"/orders/7", ((b"x-long", b"v" * size),), b"localhost", None) for size in (16_000, 32_000, 34_000, 50_000)),
    Ask("POST", b"/small/7", (), b"localhost", bytes(1001)),
    Ask("POST", b"/small/7", ((b"content-length", b"1001"),), b"localhost", bytes(1001)),
    Ask("POST", b"/small/7", ((b"content-length", b"1000"),), b"localhost", bytes(1000)),
    Ask("PUT", b"/orders/7", (), b"localhost", bytes(range(256)) * 150),
    Ask("PUT", b"/orders/7", ((b"content-length", b"60000"),), b"localhost", bytes(60_000)),
)  # fmt: skip
"""And what is just not. By itself, because of two faults in one request the shells may name either."""


def draw_ask(draw: random.Random) -> Ask:
    if draw.random() < 0.01:
        return draw.choice(TOO_MUCH)
    odd = draw.sample(
        ("method", "root", "path", "query", "fields", "authority", "length"), draw.choice((0, 0, 1, 1, 2))
    )
    segments = SEGMENTS if "path" in odd else PLAIN
    path = draw.choice(ROOTS) if "root" in odd else b"/orders"
    path += b"".join(b"/" + draw.choice(segments) for _ in range(draw.randint(1, 3)))
    path += draw.choice(QUERIES if "query" in odd else GOOD_QUERIES)
    names, values = (NAMES, VALUES) if "fields" in odd else (GOOD_NAMES, GOOD_VALUES)
    fields = [(draw.choice(names), draw.choice(values)) for _ in range(draw.choice((0, 0, 1, 2, 3)))]
    if sum(name == b"cookie" for name, _ in fields) > 1:
        fields = []  # HTTP/2 splits and joins them (RFC 9113 §8.2.3)
    if draw.random() < 0.05:
        fields.append((b"te", b"trailers"))  # anything else HTTP/2 refuses by itself (RFC 9113 §8.2.2)
    if draw.random() < 0.05:
        fields.append((b"expect", b"100-continue"))
    body = draw.choice(BODIES)
    if body is not None and ("length" in odd or draw.random() < 0.7):
        length = draw.choice(LENGTHS) if "length" in odd and draw.random() < 0.8 else b"%d" % len(body)
        fields.append((b"content-length", length))
        if "length" in odd and draw.random() < 0.3:
            fields.append((b"content-length", draw.choice((length, b"7"))))
    method = draw.choice(METHODS if "method" in odd else GOOD_METHODS)
    authority = draw.choice(AUTHORITIES) if "authority" in odd else AUTHORITIES[0]
    return Ask(method, path, tuple(fields), authority, body)


def _cut(draw: random.Random, body: bytes) -> list[bytes]:
    """Into pieces, none empty, none above a frame."""
    pieces: list[bytes] = []
    while body:
        size = draw.choice((1, 3, 17, 500, 16_000) if len(body) < 3000 else (500, 16_000))
        pieces.append(body[:size])
        body = body[size:]
    return pieces


# -- HTTP/1.1 ----------------------------------------------------------------------------------------

_SPACES = (b" ", b" ", b" ", b"", b"\t", b"  \t")
_BEHIND = (b"", b"", b"", b" ", b"\t ")
_EXTENSIONS = (b"", b"", b"", b";a", b";a=b", b';a="b c"', b";a=b;c=d")
_OF_THE_HOP: tuple[tuple[Field, ...], ...] = (
    ((b"connection", b"keep-alive"),), ((b"connection", b"X-Hop , keep-alive"), (b"x-hop", b"1")),
    ((b"keep-alive", b"timeout=5"),), ((b"connection", b"te"),), ((b"proxy-connection", b"keep-alive"),),
    ((b"trailer", b"x-late"),),
)  # fmt: skip
_TRAILERS = (b"", b"", b"x-late: 1\r\n", b"Authorization: Bearer late\r\nX-Auth-Subject: root\r\n")


def _recase(draw: random.Random, name: bytes) -> bytes:
    return draw.choice((name, name.title(), name.upper()))


def _line(draw: random.Random, name: bytes, value: bytes) -> bytes:
    behind = draw.choice(_BEHIND)
    if name == b"transfer-encoding":
        behind = behind.replace(b"\t", b"")  # llhttp refuses a tab there, and rightly (attacks C1)
    return b"%b:%b%b%b" % (_recase(draw, name), draw.choice(_SPACES), value, behind)


def in_http1(ask: Ask, draw: random.Random) -> bytes:
    """The message, to its last byte."""
    fields = [(b"host", ask.authority), *ask.fields]
    is_chunked = ask.body is not None and all(name != b"content-length" for name, _ in ask.fields)
    if is_chunked:
        fields.append((b"transfer-encoding", draw.choice((b"chunked", b"chunked", b"Chunked", b"CHUNKED"))))
    if draw.random() < 0.2 and len(fields) < 100:
        fields += [each for some in draw.sample(_OF_THE_HOP, draw.randint(1, 3)) for each in some]
    fields.insert(draw.randrange(len(fields)), fields.pop(0))
    lines = [b"%b %b HTTP/1.1" % (ask.method.encode("ascii"), ask.path)]
    lines += [_line(draw, name, value) for name, value in fields]
    body = chunked(ask.body or b"", draw) if is_chunked else ask.body or b""
    before = b"\r\n" if draw.random() < 0.05 else b""  # RFC 9112 §2.2
    return before + b"\r\n".join(lines) + b"\r\n\r\n" + body


def chunked(body: bytes, draw: random.Random) -> bytes:
    raw = b""
    for piece in _cut(draw, body):
        size = draw.choice((b"%x", b"%X", b"00%x")) % len(piece)
        raw += b"%b%b\r\n%b\r\n" % (size, draw.choice(_EXTENSIONS), piece)
    return b"%b%b%b\r\n%b\r\n" % (raw, draw.choice((b"0", b"000")), draw.choice(_EXTENSIONS), draw.choice(_TRAILERS))


# -- HTTP/2 ------------------------------------------------------------------------------------------


def _head(ask: Ask, draw: random.Random) -> list[Field]:
    pseudo = [(b":method", ask.method.encode("ascii")), (b":scheme", b"https"), (b":path", ask.path)]
    fields: list[Field] = []
    for name, value in ask.fields:
        crumbs = value.split(b"; ") if name == b"cookie" and draw.random() < 0.5 else [value]
        fields += [(name, crumb) for crumb in crumbs]
    where = draw.random()
    if where < 0.8 or not ask.authority:
        pseudo.append((b":authority", ask.authority))
    if where > 0.6 and ask.authority:
        fields.insert(draw.randint(0, len(fields)), (b"host", ask.authority))
    draw.shuffle(pseudo)
    return pseudo + fields


def in_http2(stream: int, ask: Ask, draw: random.Random, encode: Callable[[list[Field]], bytes]) -> bytes:
    """All frames of the request."""
    head = _head(ask, draw)
    trailers = (
        block([(b"x-late", b"1"), (b"authorization", b"late")]) if ask.body is not None and draw.random() < 0.1 else b""
    )
    raw_head = _in_frames(stream, encode(head), draw, is_end=ask.body is None)
    if ask.body is None:
        return raw_head
    pieces = _cut(draw, ask.body)
    if draw.random() < 0.2:
        pieces.insert(draw.randint(0, len(pieces)), b"")
    raw = raw_head
    is_end_alone = not pieces or bool(trailers) or draw.random() < 0.2
    for at, piece in enumerate(pieces):
        flags = END_STREAM if at == len(pieces) - 1 and not is_end_alone else 0
        if piece and draw.random() < 0.2:  # Hypercorn's library takes padding beside nothing for too much
            pad = draw.choice((0, 1, 255))
            raw += frame(DATA, flags | PADDED, stream, bytes((pad,)) + piece + bytes(pad))
        else:
            raw += frame(DATA, flags, stream, piece)
    if trailers:
        raw += frame(HEADERS, END_STREAM | END_HEADERS, stream, trailers)
    elif is_end_alone:
        raw += frame(DATA, END_STREAM, stream)
    return raw


def _in_frames(stream: int, encoded: bytes, draw: random.Random, *, is_end: bool) -> bytes:
    flags, before, behind = END_STREAM if is_end else 0, b"", b""
    cuts = sorted({draw.randint(1, len(encoded)) for _ in range(draw.choice((0, 0, 0, 1, 3)))} | {
        at for at in range(16_000, len(encoded), 16_000)})  # fmt: skip
    if draw.random() < 0.1:
        flags |= PADDED
        before, behind = b"\x05", bytes(5)
    if draw.random() < 0.1:
        flags |= HAS_PRIORITY
        before += u32(draw.choice((0, stream + 2, 1 << 31))) + b"\x0f"
    pieces = [encoded[low:high] for low, high in zip([0, *cuts], [*cuts, len(encoded)], strict=True)]
    raw = frame(HEADERS, flags | (END_HEADERS if len(pieces) == 1 else 0), stream, before + pieces[0] + behind)
    for at, piece in enumerate(pieces[1:], 2):
        raw += frame(CONTINUATION, END_HEADERS if at == len(pieces) else 0, stream, piece)
    return raw
