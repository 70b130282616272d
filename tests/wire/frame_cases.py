"""What clients may say over HTTP/2 and what they may not, by section of RFC 9113, RFC 7541 and RFC 8441."""

from __future__ import annotations

from tests.wire.raw_h2 import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GET,
    GOAWAY,
    HAS_PRIORITY,
    HEADERS,
    PADDED,
    PING,
    POST,
    PREFACE,
    PRIORITY,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    block,
    frame,
    headers,
    setting,
    string,
    u32,
)  # fmt: skip

PROTOCOL, FLOW, CLOSED, SIZE, REFUSED, COMPRESSION, CALM = 1, 3, 5, 6, 7, 9, 11
OPEN = END_HEADERS
"""Flags of a head behind which a body comes."""
BIG = 2**31 - 1
SELF = u32(1) + b"\x10"

CONNECTION: dict[str, tuple[bytes, int]] = {
    # §4.2, §4.3
    "4.2 a frame above the limit": (frame(DATA, 0, 1, bytes(16_385)), SIZE),
    "4.2 only its head": (frame(DATA, 0, 1, length=16_777_215), SIZE),
    "4.2 a head above the limit": (frame(HEADERS, END_HEADERS, 1, bytes(16_385)), SIZE),
    "4.2 an unknown frame above the limit": (frame(0x77, 0, 0, bytes(16_385)), SIZE),
    "4.3 an invalid block": (frame(HEADERS, END_STREAM | END_HEADERS, 1, b"\x80"), COMPRESSION),
    "4.3 another frame inside a block": (headers(1, flags=END_STREAM) + frame(PING, payload=bytes(8)), PROTOCOL),
    "4.3 another head inside a block": (headers(1, flags=END_STREAM) + headers(3), PROTOCOL),
    "4.3 an unknown frame inside a block": (headers(1, flags=END_STREAM) + frame(0x77), PROTOCOL),
    "4.3 a priority inside a block": (headers(1, flags=END_STREAM) + frame(PRIORITY, 0, 1, u32(0) + b"\x10"), PROTOCOL),
    "4.3 a reset inside a block": (headers(1, flags=END_STREAM) + frame(RST_STREAM, 0, 1, u32(8)), PROTOCOL),
    # §5.1, §5.1.1
    "5.1 idle: DATA": (frame(DATA, END_STREAM, 1, b"x"), PROTOCOL),
    "5.1 idle: RST_STREAM": (frame(RST_STREAM, 0, 1, u32(8)), PROTOCOL),
    "5.1 idle: WINDOW_UPDATE": (frame(WINDOW_UPDATE, 0, 1, u32(1)), PROTOCOL),
    "5.1 idle: CONTINUATION": (frame(CONTINUATION, END_HEADERS, 1, block(GET)), PROTOCOL),
    "5.1 ended: CONTINUATION": (headers(1) + frame(CONTINUATION, END_HEADERS, 1, block(GET)), PROTOCOL),
    "5.1.1 an even stream": (headers(2), PROTOCOL),
    "5.1.1 a lower stream than before": (headers(5) + headers(3), PROTOCOL),
    "5.1.1 DATA on an even stream": (headers(5) + frame(DATA, 0, 2, b"x"), PROTOCOL),
    "5.1.1 WINDOW_UPDATE on an even stream": (headers(5) + frame(WINDOW_UPDATE, 0, 2, u32(1)), PROTOCOL),
    "5.1.1 RST_STREAM on an even stream": (headers(5) + frame(RST_STREAM, 0, 2, u32(8)), PROTOCOL),
    "5.1.1 a skipped stream: HEADERS": (headers(9) + headers(5), PROTOCOL),
    "5.1.1 a skipped stream: DATA": (headers(9) + frame(DATA, 0, 5, b"x"), PROTOCOL),
    # §6.1, §6.2
    "6.1 DATA on no stream": (frame(DATA, 0, 0, b"x"), PROTOCOL),
    "6.1 padding as long as the frame": (headers(1, POST, OPEN) + frame(DATA, PADDED, 1, b"\x06hello"), PROTOCOL),
    "6.1 padding longer than the frame": (headers(1, POST, OPEN) + frame(DATA, PADDED, 1, b"\xffhello"), PROTOCOL),
    "6.1 padded and empty": (headers(1, POST, OPEN) + frame(DATA, PADDED, 1), SIZE),
    "6.2 HEADERS on no stream": (headers(0), PROTOCOL),
    "6.2 padding longer than the frame": (headers(1, flags=0x5 | PADDED, pad=b"\xff"), PROTOCOL),
    "6.2 padded and empty": (frame(HEADERS, 0x5 | PADDED, 1), SIZE),
    "6.2 a priority that is cut off": (frame(HEADERS, 0x5 | HAS_PRIORITY, 1, bytes(4)), SIZE),
    # §6.3, §5.3.1 on streams that are idle, where nothing can be reset
    "6.3 PRIORITY on no stream": (frame(PRIORITY, 0, 0, bytes(5)), PROTOCOL),
    "6.3 idle: PRIORITY of four bytes": (frame(PRIORITY, 0, 1, bytes(4)), SIZE),
    "5.3.1 idle: PRIORITY on itself": (frame(PRIORITY, 0, 1, SELF), PROTOCOL),
    # §6.4
    "6.4 RST_STREAM on no stream": (frame(RST_STREAM, 0, 0, u32(8)), PROTOCOL),
    "6.4 RST_STREAM of three bytes": (headers(1, POST, OPEN) + frame(RST_STREAM, 0, 1, bytes(3)), SIZE),
    "6.4 RST_STREAM of five bytes": (headers(1, POST, OPEN) + frame(RST_STREAM, 0, 1, bytes(5)), SIZE),
    # §6.5
    "6.5 SETTINGS on a stream": (frame(SETTINGS, 0, 1), PROTOCOL),
    "6.5 an acknowledgement with settings": (frame(SETTINGS, ACK, 0, bytes(6)), SIZE),
    "6.5 half a setting": (frame(SETTINGS, 0, 0, bytes(3)), SIZE),
    "6.5.2 push neither on nor off": (setting((2, 2)), PROTOCOL),
    "6.5.2 a window above the limit": (setting((4, BIG + 1)), FLOW),
    "6.5.2 frames below the limit": (setting((5, 16_383)), PROTOCOL),
    "6.5.2 frames above the limit": (setting((5, 1 << 24)), PROTOCOL),
    "8441 3 CONNECT neither on nor off": (setting((8, 2)), PROTOCOL),
    "9218 2.1 priorities neither on nor off": (setting((9, 2)), PROTOCOL),
    "6.5.2 the second of two": (setting((4, 1), (2, 7)), PROTOCOL),
    "6.5 a hundred settings in a frame": (setting(*[(0x99, 0)] * 100), CALM),
    # §6.6, §6.7, §6.8
    "6.6 PUSH_PROMISE": (headers(1, POST, OPEN) + frame(PUSH_PROMISE, 0x4, 1, u32(2) + block(GET)), PROTOCOL),
    "6.6 PUSH_PROMISE on no stream": (frame(PUSH_PROMISE, 0x4, 0, u32(2)), PROTOCOL),
    "6.7 PING on a stream": (frame(PING, 0, 1, bytes(8)), PROTOCOL),
    "6.7 PING of six bytes": (frame(PING, 0, 0, bytes(6)), SIZE),
    "6.7 PING of nine bytes": (frame(PING, 0, 0, bytes(9)), SIZE),
    "6.7 an answered PING of no bytes": (frame(PING, ACK, 0), SIZE),
    "6.8 GOAWAY on a stream": (frame(GOAWAY, 0, 1, u32(0, 0)), PROTOCOL),
    "6.8 GOAWAY of four bytes": (frame(GOAWAY, 0, 0, u32(0)), SIZE),
    # §6.9
    "6.9 WINDOW_UPDATE of three bytes": (frame(WINDOW_UPDATE, 0, 0, bytes(3)), SIZE),
    "6.9 WINDOW_UPDATE of five bytes": (headers(1, POST, OPEN) + frame(WINDOW_UPDATE, 0, 1, bytes(5)), SIZE),
    "6.9 of the connection by nothing": (frame(WINDOW_UPDATE, 0, 0, u32(0)), PROTOCOL),
    "6.9 by nothing, the first bit set": (frame(WINDOW_UPDATE, 0, 0, u32(1 << 31)), PROTOCOL),
    "6.9.1 of the connection above the limit": (frame(WINDOW_UPDATE, 0, 0, u32(BIG)), FLOW),
    "6.9.1 above the limit in steps": (frame(WINDOW_UPDATE, 0, 0, u32(1 << 30)) * 2, FLOW),
    "6.9.2 a setting lifts a stream above the limit": (
        headers(1, POST, OPEN) + frame(WINDOW_UPDATE, 0, 1, u32(BIG - 65_535)) + setting((4, 65_536)),
        FLOW,
    ),
    "6.9.2 a window of the connection is no setting's": (
        headers(1, POST, OPEN) + setting((4, BIG)) + frame(WINDOW_UPDATE, 0, 1, u32(1))
        + frame(WINDOW_UPDATE, 0, 0, u32(BIG)),
        FLOW,
    ),
    # §6.10
    "6.10 CONTINUATION alone": (frame(CONTINUATION, END_HEADERS, 1), PROTOCOL),
    "6.10 of no stream": (headers(1, flags=END_STREAM) + frame(CONTINUATION, END_HEADERS, 0), PROTOCOL),
    "6.10 of another stream": (headers(1, flags=END_STREAM) + frame(CONTINUATION, END_HEADERS, 3), PROTOCOL),
    "6.10 behind a whole head": (headers(1, POST, OPEN) + frame(CONTINUATION, END_HEADERS, 1), PROTOCOL),
    "6.10 behind DATA": (
        headers(1, POST, OPEN) + frame(DATA, 0, 1, b"x") + frame(CONTINUATION, END_HEADERS, 1),
        PROTOCOL,
    ),
    "CVE-2024-27316 continuations without end": (headers(1, flags=0) + frame(CONTINUATION, 0, 1) * 40, CALM),
    "CVE-2024-27316 a block without end": (headers(1, flags=0) + frame(CONTINUATION, 0, 1, bytes(16_384)) * 5, CALM),
    # RFC 7541
    "7541 2.3.3 index 0": (frame(HEADERS, 0x5, 1, b"\x80"), COMPRESSION),
    "7541 2.3.3 an index behind the table": (frame(HEADERS, 0x5, 1, b"\xbe"), COMPRESSION),
    "7541 2.3.3 a name behind the table": (frame(HEADERS, 0x5, 1, b"\x7f\x00\x01x"), COMPRESSION),
    "7541 4.2 a resize behind a field": (frame(HEADERS, 0x5, 1, block(GET) + b"\x20"), COMPRESSION),
    "7541 4.2 a resize behind a field, of trailers": (
        headers(1, POST, OPEN) + frame(HEADERS, 0x5, 1, block([(b"x-a", b"1")]) + b"\x20"), COMPRESSION),
    "7541 4.3 an index that was evicted": (
        frame(HEADERS, OPEN, 1, block(GET) + b"\x40\x01a\x01b")
        + frame(HEADERS, 0x5, 3, b"\x20\xbe" + block(GET)), COMPRESSION),
    "7541 4.4 an index behind an entry too large for the table": (
        frame(HEADERS, OPEN, 1, block(GET) + b"\x40\x01a\x01b\x40\x01c" + string(bytes(4096)) + b"\xbe"), COMPRESSION),
    "7541 of a stream that is refused": (
        headers(1, flags=0x5 | HAS_PRIORITY, pad=SELF) + frame(HEADERS, 0x5, 3, b"\xff"), COMPRESSION),
    "7541 in trailers": (headers(1, POST, OPEN) + frame(HEADERS, 0x5, 1, b"\xff\xff"), COMPRESSION),
    "7541 5.1 a number above all bounds": (frame(HEADERS, 0x5, 1, b"\x00\x7f\xff\xff\xff\x7f"), COMPRESSION),
    "7541 5.1 a number without end": (frame(HEADERS, 0x5, 1, b"\xff" + b"\xff" * 9), COMPRESSION),
    "7541 5.1 a number that is cut off": (frame(HEADERS, 0x5, 1, b"\xff"), COMPRESSION),
    "7541 5.2 a string that is cut off": (frame(HEADERS, 0x5, 1, b"\x00\x05abc"), COMPRESSION),
    "7541 5.2 a value that is missing": (frame(HEADERS, 0x5, 1, b"\x00\x01a"), COMPRESSION),
    "7541 5.2 a padding of zeros": (frame(HEADERS, 0x5, 1, b"\x00\x81\x1c\x00"), COMPRESSION),
    "7541 5.2 a padding of a whole byte": (frame(HEADERS, 0x5, 1, b"\x00\x82\x1f\xff\x00"), COMPRESSION),
    "7541 5.2 the end inside a string": (frame(HEADERS, 0x5, 1, b"\x00\x84\xff\xff\xff\xff\x00"), COMPRESSION),
    "7541 6.1 index 70 of an empty table": (frame(HEADERS, 0x5, 1, block(GET) + b"\xc6"), COMPRESSION),
    "7541 6.3 a table above the limit": (frame(HEADERS, 0x5, 1, b"\x3f\xe2\x1f" + block(GET)), COMPRESSION),
    "CVE-2016-6581 a small block of a large list": (
        frame(HEADERS, 0x5, 1, b"\x40" + string(b"x") + string(bytes(4000)) + b"\xbe" * 12_000),
        CALM,
    ),
}  # fmt: skip


FIRST: dict[str, bytes] = {
    "3.4 no preface": headers(1),
    "3.4 one byte of it is wrong": PREFACE[:-1] + b"x",
    "3.4 HTTP/1.1": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "3.4 a PING before SETTINGS": PREFACE + frame(PING, payload=bytes(8)),
    "3.4 a head before SETTINGS": PREFACE + headers(1),
    "3.4 an acknowledgement before SETTINGS": PREFACE + frame(SETTINGS, ACK),
    "3.4 an unknown frame before SETTINGS": PREFACE + frame(0x77),
}


LONG = (b"x-long", b"a" * 20_000)
STREAM: dict[str, tuple[bytes, int]] = {
    "5.1 half closed: DATA": (headers(1) + frame(DATA, END_STREAM, 1, b"x"), CLOSED),
    "5.1 half closed: HEADERS": (headers(1) + headers(1), CLOSED),
    "5.1 reset by the client: DATA": (
        headers(1, POST, OPEN) + frame(RST_STREAM, 0, 1, u32(8)) + frame(DATA, 0, 1, b"x"), CLOSED),
    "5.1 reset by the client: HEADERS": (headers(1, POST, OPEN) + frame(RST_STREAM, 0, 1, u32(8)) + headers(1), CLOSED),
    "5.3.1 HEADERS on itself": (headers(1, flags=0x5 | HAS_PRIORITY, pad=SELF), PROTOCOL),
    "5.3.1 exclusively on itself": (headers(1, flags=0x5 | HAS_PRIORITY, pad=u32(1 | 1 << 31) + b"\x10"), PROTOCOL),
    "5.3.1 PRIORITY on itself": (headers(1, POST, OPEN) + frame(PRIORITY, 0, 1, SELF), PROTOCOL),
    "6.3 PRIORITY of four bytes": (headers(1, POST, OPEN) + frame(PRIORITY, 0, 1, bytes(4)), SIZE),
    "6.3 PRIORITY of six bytes": (headers(1, POST, OPEN) + frame(PRIORITY, 0, 1, bytes(6)), SIZE),
    "6.9 of a stream by nothing": (headers(1, POST, OPEN) + frame(WINDOW_UPDATE, 0, 1, u32(0)), PROTOCOL),
    "6.9.1 of a stream above the limit": (headers(1, POST, OPEN) + frame(WINDOW_UPDATE, 0, 1, u32(BIG)), FLOW),
    "8.1 trailers without an end": (headers(1, POST, OPEN) + headers(1, [(b"x-a", b"1")], OPEN), PROTOCOL),
    "8.1 pseudo fields in trailers": (headers(1, POST, OPEN) + headers(1, [(b":path", b"/")]), PROTOCOL),
    "8.1 the head again for trailers": (headers(1, POST, OPEN) + headers(1, POST), PROTOCOL),
    "8.1 fields of the connection in trailers": (headers(1, POST, OPEN) + headers(1, [(b"connection", b"x")]), PROTOCOL),
    "8.1.1 a length and no body": (headers(1, (*POST, (b"content-length", b"1"))), PROTOCOL),
    "8.1.1 less than the length": (
        headers(1, (*POST, (b"content-length", b"2")), OPEN) + frame(DATA, END_STREAM, 1, b"x"), PROTOCOL),
    "8.1.1 more than the length": (
        headers(1, (*POST, (b"content-length", b"1")), OPEN) + frame(DATA, END_STREAM, 1, b"xy"), PROTOCOL),
    "8.1.1 more than nothing": (
        headers(1, (*POST, (b"content-length", b"0")), OPEN) + frame(DATA, END_STREAM, 1, b"x"), PROTOCOL),
    "8.1.1 less than the length, in two frames": (
        headers(1, (*POST, (b"content-length", b"3")), OPEN) + frame(DATA, 0, 1, b"x") + frame(DATA, END_STREAM, 1, b"x"),
        PROTOCOL),
    "8.1.1 a body behind a HEAD's own length": (
        headers(1, ((b":method", b"HEAD"), *GET[1:], (b"content-length", b"1")), OPEN)
        + frame(DATA, END_STREAM, 1, b"xy"), PROTOCOL),
    "8.1.1 padding is no body": (
        headers(1, (*POST, (b"content-length", b"5")), OPEN)
        + frame(DATA, END_STREAM | PADDED, 1, b"\x02hi" + bytes(2)), PROTOCOL),
    "8.1 trailers with upper case": (headers(1, POST, OPEN) + headers(1, [(b"X-A", b"1")]), PROTOCOL),
    "8.1 trailers with CR": (headers(1, POST, OPEN) + headers(1, [(b"x-a", b"1\r")]), PROTOCOL),
    "8.1.1 trailers before the length": (
        headers(1, (*POST, (b"content-length", b"3")), OPEN) + frame(DATA, 0, 1, b"x") + headers(1, [(b"x-a", b"1")]),
        PROTOCOL),
}  # fmt: skip


MALFORMED: dict[str, list[tuple[bytes, bytes]]] = {
    "8.2.1 upper case": [*GET, (b"X-A", b"1")],
    "8.2.1 a space in a name": [*GET, (b"x a", b"1")],
    "8.2.1 a colon in a name": [*GET, (b"x:a", b"1")],
    "8.2.1 no name": [*GET, (b"", b"1")],
    "8.2.1 a control byte in a name": [*GET, (b"x\x7f", b"1")],
    "8.2.1 a byte above ASCII in a name": [*GET, (b"x\xe9", b"1")],
    "8.2.1 NUL in a value": [*GET, (b"x-a", b"a\0b")],
    "8.2.1 CR in a value": [*GET, (b"x-a", b"a\rb")],
    "8.2.1 LF in a value": [*GET, (b"x-a", b"a\nb")],
    "8.2.1 a space before a value": [*GET, (b"x-a", b" a")],
    "8.2.1 a tab behind a value": [*GET, (b"x-a", b"a\t")],
    **{f"8.2.2 {name.decode()}": [*GET, (name, b"x")] for name in (
        b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade", b"te")},
    "8.2.1 only white space": [*GET, (b"x-a", b" ")],
    "8.2.2 te with more": [*GET, (b"te", b"trailers, gzip")],
    "8.2.2 http2-settings": [*GET, (b"http2-settings", b"AAMAAABkAAQAAP__")],
    "8.3 unknown": [*GET, (b":a", b"1")],
    "8.3 of CONNECT": [*GET, (b":protocol", b"websocket")],
    "8.3 upper case": [*GET[:3], (b":Path", b"/orders/7")],
    "8.3.1 http": [GET[0], (b":scheme", b"http"), *GET[2:]],
    "8.3.1 an absolute path": [*GET[:3], (b":path", b"https://localhost/orders/7")],
    "8.3.1 two hosts": [*GET, (b"host", b"localhost"), (b"host", b"localhost")],
    "8.3 of answers": [*GET, (b":status", b"200")],
    "8.3 behind a field": [*GET[:3], (b"x-a", b"1"), GET[3]],
    "8.3.1 an empty path": [*GET[:3], (b":path", b"")],
    "8.3.1 a path without a slash": [*GET[:3], (b":path", b"orders")],
    **{f"8.3.1 without {GET[at][0].decode()}": [*GET[:at], *GET[at + 1:]] for at in range(4)},
    **{f"8.3.1 {GET[at][0].decode()} twice": [*GET, GET[at]] for at in range(4)},
    "8.3.1 a host that disagrees": [*GET, (b"host", b"elsewhere")],
    "8.5 CONNECT with a path": [(b":method", b"CONNECT"), *GET[1:]],
    "8.5 CONNECT": [(b":method", b"CONNECT"), GET[2]],
    "8441 CONNECT without a path": [(b":method", b"CONNECT"), (b":protocol", b"websocket"), *GET[1:3]],
    "8441 CONNECT to another protocol": [(b":method", b"CONNECT"), (b":protocol", b"connect-udp"), *GET[1:]],
}  # fmt: skip


FINE: dict[str, bytes] = {
    "4.1 unknown flags": frame(HEADERS, 0x5 | 0x40 | 0x80, 1, block(GET)),
    "4.1 the reserved bit": frame(HEADERS, 0x5, 1 | 1 << 31, block(GET)),
    "5.5 an unknown frame": frame(0x77, 0xFF, 0, b"?") + headers(1),
    "5.5 an unknown frame on a stream": headers(1, flags=OPEN) + frame(0x77, 0, 1, b"?") + frame(DATA, 1, 1),
    "6.2 padded, with a priority": frame(
        HEADERS, 0x5 | PADDED | HAS_PRIORITY, 1, b"\x03" + u32(0) + b"\x10" + block(GET) + bytes(3)),
    "6.1 padded": headers(1, POST, OPEN) + frame(DATA, END_STREAM | PADDED, 1, b"\x03hi" + bytes(3)),
    "6.1 all of it padding": headers(1, POST, OPEN) + frame(DATA, END_STREAM | PADDED, 1, b"\x03" + bytes(3)),
    "6.1 empty": headers(1, POST, OPEN) + frame(DATA, END_STREAM, 1),
    "6.3 PRIORITY of an idle stream": frame(PRIORITY, 0, 7, u32(0) + b"\x10") + headers(1),
    "6.3 PRIORITY of a later one": frame(PRIORITY, 0, 1, u32(3) + b"\x10") + headers(1),
    "6.5 an unknown setting": setting((0x99, 7)) + headers(1),
    "6.5 one setting twice": setting((4, 0), (4, 65_535)) + headers(1),
    "6.5 frames as large as can be": setting((5, (1 << 24) - 1)) + headers(1),
    "6.5.2 no table": setting((1, 0)) + headers(1),
    "6.7 an answer nobody waits for": frame(PING, ACK, 0, bytes(8)) + headers(1),
    "6.10 in three frames": headers(1, [], END_STREAM) + frame(CONTINUATION, 0, 1, block(GET[:2]))
        + frame(CONTINUATION, END_HEADERS, 1, block(GET[2:])),
    "6.10 cut inside a field": frame(HEADERS, END_STREAM, 1, block(GET)[:7]) + frame(CONTINUATION, 4, 1, block(GET)[7:]),
    "8.1 trailers": headers(1, POST, OPEN) + frame(DATA, 0, 1, b"hi") + headers(1, [(b"x-a", b"1")]),
    "8.2.2 te": headers(1, (*GET, (b"te", b"trailers"))),
    "8.3.1 host for the authority": headers(1, [*GET[:2], GET[3], (b"host", b"localhost")]),
    "7541 2.1 static fields": frame(HEADERS, 0x5, 1, b"\x82\x87\x01" + string(b"localhost") + b"\x04" + string(b"/orders/7")),
    "7541 2.3.2 from the table": frame(
            HEADERS, OPEN, 1, b"\x82\x87\x44" + string(b"/orders/7") + b"\x41" + string(b"localhost"))
        + frame(DATA, END_STREAM, 1) + frame(HEADERS, 0x5, 3, b"\x82\x87\xbe\xbf"),
    "7541 4.2 two sizes": frame(HEADERS, 0x5, 1, b"\x20\x3f\xe1\x1f" + block(GET)),
    "7541 5.2 Huffman": frame(
        HEADERS, 0x5, 1, block(GET[:3]) + b"\x04" + b"\x87" + bytes.fromhex("603d65b82a18 77".replace(" ", ""))),
    "7541 6.2.3 never indexed": frame(HEADERS, 0x5, 1, block(GET).replace(b"\x00\x07:method", b"\x10\x07:method")),
    "5.1 ended: WINDOW_UPDATE, PRIORITY and RST_STREAM": headers(1) + frame(WINDOW_UPDATE, 0, 1, u32(1))
        + frame(PRIORITY, 0, 1, u32(0) + b"\x10"),
    "5.1.1 the last stream there is": headers(2**31 - 1),
    "6.5.2 push on": setting((2, 1)) + headers(1),
    "6.5.2 push off": setting((2, 0)) + headers(1),
    "6.5.2 no streams": setting((3, 0)) + headers(1),
    "6.5.2 no list of fields": setting((6, 0)) + headers(1),
    "6.5.2 the largest window": setting((4, BIG)) + headers(1),
    "6.9.1 the largest window of the connection": frame(WINDOW_UPDATE, 0, 0, u32(BIG - 65_535)) + headers(1),
    "6.8 GOAWAY with words": headers(1) + frame(GOAWAY, 0, 0, u32(0, 0) + b"until later"),
    "7 an unknown code": headers(3, POST, OPEN) + frame(RST_STREAM, 0, 3, u32(0xFFFF)) + headers(5),
    "7541 2.3.2 of a stream that was refused": (
        frame(HEADERS, 0x5 | HAS_PRIORITY, 1, SELF + block(GET) + b"\x40\x01a\x01b")
        + frame(HEADERS, 0x5, 5, block(GET) + b"\xbe")),
    "7541 2.3.2 of trailers": headers(1, POST, OPEN) + frame(HEADERS, 0x5, 1, b"\x40\x01a\x01b")
        + frame(HEADERS, 0x5, 5, block(GET) + b"\xbe"),
    "7541 4.4 an entry too large for the table": frame(
        HEADERS, 0x5, 1, block(GET) + b"\x40\x01a\x01b\x40\x01c" + string(b"v" * 4096)),
    "7541 5.1 a number with needless zeros": frame(HEADERS, 0x5, 1, block(GET) + b"\x00\x01a\x7f\x80\x00" + b"v" * 127),
    "an end and a window in one breath": headers(1) + frame(WINDOW_UPDATE, 0, 1, u32(1)),
    "a stream is left out": headers(5),
}  # fmt: skip


STREAM_OF = {
    "a stream is left out": 5,
    "5.1.1 the last stream there is": 2**31 - 1,
    "7 an unknown code": 5,
    "7541 2.3.2 of a stream that was refused": 5,
    "7541 2.3.2 of trailers": 5,
}
REFUSED_BESIDE = {"7541 2.3.2 of a stream that was refused": {1: PROTOCOL}}


NOBODY = (*POST[:3], (b":path", b"/"))
"""Answered by its head, with 404."""
ANSWERED: dict[str, tuple[bytes, bytes, int]] = {
    "5.1 DATA behind a reset": (
        headers(1, NOBODY, OPEN), frame(RST_STREAM, 0, 1, u32(8)) + frame(DATA, END_STREAM, 1, b"test"), CLOSED),
    "5.1 HEADERS behind a reset": (headers(1, NOBODY, OPEN), frame(RST_STREAM, 0, 1, u32(8)) + headers(1), CLOSED),
    "6.3 PRIORITY of four bytes": (headers(1, NOBODY, OPEN), frame(PRIORITY, 0, 1, bytes(4)), SIZE),
    "6.9 a window by nothing": (headers(1, NOBODY, OPEN), frame(WINDOW_UPDATE, 0, 1, u32(0)), PROTOCOL),
    "6.9.1 a window above the limit": (headers(1, NOBODY, OPEN), frame(WINDOW_UPDATE, 0, 1, u32(BIG)) * 2, FLOW),
    "8.1 trailers without an end": (
        headers(1, NOBODY, OPEN), frame(DATA, 0, 1, b"test") + headers(1, [(b"x-a", b"1")], OPEN), PROTOCOL),
    "8.1 pseudo fields in trailers": (
        headers(1, NOBODY, OPEN), frame(DATA, 0, 1, b"test") + headers(1, [(b":method", b"POST")]), PROTOCOL),
    "8.1.1 more than the length": (
        headers(1, (*NOBODY, (b"content-length", b"1")), OPEN), frame(DATA, END_STREAM, 1, b"test"), PROTOCOL),
    "8.1.1 more than the length, and it goes on": (
        headers(1, (*NOBODY, (b"content-length", b"1")), OPEN), frame(DATA, 0, 1, b"test"), PROTOCOL),
    "8.1.1 less than the length": (
        headers(1, (*NOBODY, (b"content-length", b"9")), OPEN), frame(DATA, END_STREAM, 1, b"test"), PROTOCOL),
    "8.1 a body that does not end": (headers(1, NOBODY, OPEN), frame(DATA, 0, 1, bytes(16_384)) * 2, 0),
    "8.1 nothing more comes": (headers(1, NOBODY, OPEN), b"", 0),
}  # fmt: skip
