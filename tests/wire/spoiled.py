"""Messages that are none, in either protocol: no recipient may take them, for each is another request, or two, to somebody.

Between the lines of two RFCs: RFC 9112 §2.2 (lines), §3 (request line), §5 (fields), §6 (framing), §7.1 (chunks) and RFC 9113
§8.1–8.3. Each asks for /orders/evil if it asks for anything.
"""

from __future__ import annotations

import random

from tests.wire.raw_h2 import DATA, END_HEADERS, END_STREAM, Field, frame, headers

_HOST = b"Host: localhost\r\n"
_POST = b"POST /orders/evil HTTP/1.1\r\n" + _HOST
_GET = b"GET /orders/evil HTTP/1.1\r\n" + _HOST
_CHUNKS = _POST + b"Transfer-Encoding: chunked\r\n\r\n"
_FIVE = b"5\r\nhello\r\n0\r\n\r\n"

SPOILED_HTTP1: tuple[bytes, ...] = (
    # request line
    *(
        b"%b\r\n%b\r\n" % (line, _HOST)
        for line in (
            b"GET /orders/evil HTTP/1.2",
            b"GET /orders/evil HTTP/2.0",
            b"GET /orders/evil HTTP/0.9",
            b"GET /orders/evil http/1.1",
            b"GET /orders/evil",
            b"GET  /orders/evil HTTP/1.1",
            b"GET /orders/evil  HTTP/1.1",
            b"GET /orders/evil HTTP/1.1 ",
            b"GET\t/orders/evil\tHTTP/1.1",
            b"GET /orders/evil\x0bHTTP/1.1",
            b" GET /orders/evil HTTP/1.1",
            b"G\0T /orders/evil HTTP/1.1",
            b"GET /orders/evil\0 HTTP/1.1",
            b"GET /orders/evil HTTP/1.11",
            b"GET /orders/evil HTTP/01.1",
            b"GET /orders/evil HTTP/1,1",
            b"GET /orders/evil HTTP 1.1",
            b"GET /orders/evil HTTPS/1.1",
            b"GET /orders/evil ICE/1.1",
            b"GET /orders/evil RTSP/1.0",
            b"GET http://localhost/orders/evil HTTP/1.1",
            b"GET https://localhost/orders/evil HTTP/1.1",
            b"GET * HTTP/1.1",
            b"OPTIONS * HTTP/1.1",
            b"GET localhost:443 HTTP/1.1",
            b"CONNECT localhost:443 HTTP/1.1",
            b"CONNECT /orders/evil HTTP/1.1",
            b"PRI * HTTP/2.0",
            b"SOURCE /orders/evil ICE/1.0",
            b"GET orders/evil HTTP/1.1",
            b"GET /orders/evil HTTP/1.1\r",
            b"\r\n\r\nGET /orders/evil HTTP/1.1",
            b"\nGET /orders/evil HTTP/1.1",
            b"GET /orders/evil HTTP/\xd9\xa1.1",
        )
    ),
    # lines and fields
    *(
        _GET + line + b"\r\n\r\n"
        for line in (
            b"X-A: b\nX-B: c",
            b"X-A: b\rX-B: c",
            b"X-A: b\r\n c",
            b"X-A: b\r\n\tc",
            b" X-A: b",
            b"X-A : b",
            b"X-A\t: b",
            b"X-A",
            b": b",
            b"X-A: a\0b",
            b"X\0A: b",
            b"X-A: a\x08b",
            b"X(A): b",
            b"X,A: b",
            b"X@A: b",
            b"X/A: b",
            b"X\x7fA: b",
            b"X\xe9: b",
            b"X_A: b",
            b"Host: localhost",
            b"host: elsewhere",
            b"Host : localhost",
            b"X-A: b\r\n\r\r\n",
        )
    ),
    b"GET /orders/evil HTTP/1.1\r\n\r\n",
    b"GET /orders/evil HTTP/1.1\n" + _HOST + b"\n",
    _GET[:-2] + b"\n\r\n",
    _GET + b"\n\r\n\r\n",
    b"GET /orders/evil HTTP/1.1\r\n Host: localhost\r\n\r\n",
    b"GET /orders/evil HTTP/1.0\r\n\r\n",
    b"GET /orders/evil HTTP/1.1\r\nHost:\r\n localhost\r\n\r\n",
    # framing
    *(
        _POST + lines + b"\r\n\r\n" + _FIVE
        for lines in (
            b"Content-Length: 15\r\nTransfer-Encoding: chunked",
            b"Transfer-Encoding: chunked\r\nContent-Length: 15",
            b"Content-Length: 15\r\nContent-Length: 15",
            b"Content-Length: 15\r\ncontent-length: 16",
            b"Content-Length: 15, 15",
            b"Content-Length: +15",
            b"Content-Length: -15",
            b"Content-Length: 0xf",
            b"Content-Length: 1_5",
            b"Content-Length: 15;",
            b"Content-Length: 1 5",
            b"Content-Length:",
            b"Content-Length: 15\x0b",
            b"Content-Length: 99999999999999999999",
            b"Content-Length : 15",
            b"Content-Length\t: 15",
            b"Content-Length: 15\r\nTransfer-Encoding : chunked",
            b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
            b"Transfer-Encoding: chunked, chunked",
            b"Transfer-Encoding: identity",
            b"Transfer-Encoding: gzip, chunked",
            b"Transfer-Encoding: chunked, gzip",
            b"Transfer-Encoding: chunked, identity",
            b"Transfer-Encoding: xchunked",
            b"Transfer-Encoding: chunkedx",
            b"Transfer-Encoding: chunked;a=b",
            b'Transfer-Encoding: "chunked"',
            b"Transfer-Encoding: ,chunked",
            b"Transfer-Encoding: chunked,",
            b"Transfer-Encoding:",
            b"Transfer-Encoding: \x0bchunked",
            b"Transfer-Encoding: chunked\x00",
            b"Transfer-Encoding\x0b: chunked",
            b"Transfer-Encoding:\r\n chunked",
            b"Transfer-Encoding: chunked\r\n gzip",
            b"Transfer-Encoding: chunked\t",
            b"Transfer_Encoding: chunked",
            b"Content_Length: 15",
            b"Transfer-Encoding: cow\r\nTransfer-Encoding: chunked",
            b"Expect: 100-continue, x\r\nContent-Length: 15",
            b"Upgrade: h2c\r\nConnection: upgrade\r\nContent-Length: 15",
        )
    ),
    b"POST /orders/evil HTTP/1.0\r\n" + _HOST + b"Transfer-Encoding: chunked\r\n\r\n" + _FIVE,
    # chunks
    *(
        _CHUNKS + chunks
        for chunks in (
            b"zz\r\nhello\r\n0\r\n\r\n",
            b"0x5\r\nhello\r\n0\r\n\r\n",
            b"+5\r\nhello\r\n0\r\n\r\n",
            b"-5\r\nhello\r\n0\r\n\r\n",
            b" 5\r\nhello\r\n0\r\n\r\n",
            b"\r\nhello\r\n0\r\n\r\n",
            b"5_0\r\nhello\r\n0\r\n\r\n",
            b"5\nhello\r\n0\r\n\r\n",
            b"5\rhello\r\n0\r\n\r\n",
            b"5\r\nhello0\r\n\r\n",
            b"5\r\nhello\n0\r\n\r\n",
            b"5\r\nhelloX\r\n0\r\n\r\n",
            b"4\r\nhello\r\n0\r\n\r\n",
            b"5;a=b\nX: y\r\nhello\r\n0\r\n\r\n",
            b"5;a\0=b\r\nhello\r\n0\r\n\r\n",
            b"5;a=b\rc\r\nhello\r\n0\r\n\r\n",
            b"5,\r\nhello\r\n0\r\n\r\n",
            b"10000000000000005\r\nhello\r\n0\r\n\r\n",
            b"5\r\nhello\r\n-0\r\n\r\n",
            b"5\r\nhello\r\n0x0\r\n\r\n",
            b"5\r\nhello\r\n0\r\nX: a\nY: b\r\n\r\n",
            b"5\r\nhello\r\n0\r\n X: a\r\n\r\n",
            b"5\r\nhello\r\n0\r\nX : a\r\n\r\n",
            b"5\r\nhello\r\n0\r\nContent-Length: 3\r\n\r\n",
            b"5\r\nhello\r\n0\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"5 \r\nhello\r\n0\r\n\r\n",
            b"5; a = b\r\nhello\r\n0\r\n\r\n",
            b"5\r\nhello\r\n0\r\nX: a\0\r\n\r\n",
            b"5\r\nhello\r\n0\r\nno colon\r\n\r\n",
        )
    ),
)
"""Messages that are none. Each is followed by nothing: who waits for more of it is waiting for what never comes."""


_EVIL: tuple[Field, ...] = (
    (b":method", b"POST"),
    (b":scheme", b"https"),
    (b":authority", b"localhost"),
    (b":path", b"/orders/evil"),
)


def _with(*more: Field) -> tuple[Field, ...]:
    return (*_EVIL, *more)


def _but(name: bytes, *values: bytes) -> tuple[Field, ...]:
    kept = tuple(field for field in _EVIL if field[0] != name)
    return (*((name, value) for value in values), *kept)


SPOILED_HEADS: tuple[tuple[Field, ...], ...] = (
    *(
        _with((name, b"x"))
        for name in (b"X-A", b"x a", b"x:a", b"", b"x\x7f", b"x\xe9", b"x\0", b"x\r", b"x\n", b":x", b"x_a", b":status")
    ),
    *(
        _with((b"x-a", value))
        for value in (b"a\0b", b"a\rb", b"a\nb", b"a\r\nx-b: c", b" a", b"a\t", b"a\x01", b"a\x7f")
    ),
    *(
        _with((name, value))
        for name, value in (
            (b"connection", b"close"),
            (b"connection", b"x-a"),
            (b"keep-alive", b"1"),
            (b"proxy-connection", b"x"),
            (b"upgrade", b"h2c"),
            (b"transfer-encoding", b"chunked"),
            (b"transfer-encoding", b"identity"),
            (b"te", b"gzip"),
            (b"te", b"trailers, gzip"),
            (b"host", b"elsewhere"),
            (b"content-length", b"+0"),
            (b"content-length", b"-0"),
            (b"content-length", b"0x0"),
            (b"content-length", b"0, 0"),
            (b"content-length", b"0 0"),
            (b"content-length", b"\xd9\xa0"),
            (b"content-length", b"1"),
            (b"content-length", b"4294967296"),
        )
    ),
    _with((b"content-length", b"0"), (b"content-length", b"0")),
    _with((b"host", b"localhost"), (b"host", b"localhost")),
    _with((b"x-a", b"1"), (b":path", b"/orders/8")),
    _with((b"x-a", b"1"), (b":authority", b"localhost")),
    *(_but(name) for name in (b":method", b":scheme", b":authority", b":path")),
    *(_but(name, value, value) for name, value in _EVIL),
    *(
        _but(b":path", path)
        for path in (
            b"",
            b"orders/evil",
            b"*",
            b"/orders/evil HTTP/1.1",
            b"/orders/evil\r\nx: y",
            b"/orders/evil\0",
            b"http://localhost/orders/evil",
        )
    ),
    *(
        _but(b":method", method)
        for method in (b"CONNECT", b"", b"POST /x", b"P\0ST", b"POST\r\n", b"\xc3\xa9", b"post", b"PO ST")
    ),
    *(_but(b":scheme", scheme) for scheme in (b"http", b"HTTPS", b"", b"ftp", b"https://x")),
)


def spoiled_http2(stream: int, draw: random.Random) -> bytes:
    """A request that is none, whole: a head, or a body that is not what its head says, or trailers that are no trailers."""
    which = draw.random()
    if which < 0.7:
        return headers(stream, draw.choice(SPOILED_HEADS))
    if which < 0.85:
        length, body = draw.choice(((b"5", b"four"), (b"5", b"sixsix"), (b"0", b"x"), (b"1", b"")))
        return headers(stream, _with((b"content-length", length)), END_HEADERS) + frame(DATA, END_STREAM, stream, body)
    trailers = draw.choice(
        (((b":path", b"/"),), ((b"connection", b"x"),), ((b"X-A", b"1"),), ((b"x\r", b"1"),), ((b"te", b"x"),))
    )
    return headers(stream, _EVIL, END_HEADERS) + frame(DATA, 0, stream, b"x") + headers(stream, trailers)
