"""HTTP/2 by hand: frames as bytes on a TLS socket, and what comes back as frames. No library judges what a test sends."""

from __future__ import annotations

import socket
import ssl
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field

import hpack

from tests.wire.rig import Listening

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM, ACK, END_HEADERS, PADDED, HAS_PRIORITY = 0x1, 0x1, 0x4, 0x8, 0x20
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
FENCE = b"fence..."
Field = tuple[bytes, bytes]
GET: tuple[Field, ...] = (
    (b":method", b"GET"),
    (b":scheme", b"https"),
    (b":authority", b"localhost"),
    (b":path", b"/orders/7"),
)
POST: tuple[Field, ...] = ((b":method", b"POST"), *GET[1:])


def frame(kind: int, flags: int = 0, stream: int = 0, payload: bytes = b"", *, length: int | None = None) -> bytes:
    """`length` lies about the payload."""
    size = len(payload) if length is None else length
    return size.to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


def u32(*values: int) -> bytes:
    return b"".join(struct.pack(">I", value) for value in values)


def setting(*pairs: tuple[int, int]) -> bytes:
    return frame(SETTINGS, payload=b"".join(struct.pack(">HI", *pair) for pair in pairs))


def string(text: bytes) -> bytes:
    """An HPACK string without Huffman, shorter than 64 KiB."""
    if len(text) < 127:
        return bytes((len(text),)) + text
    left, size = len(text) - 127, b"\x7f"
    while left >= 128:
        size, left = size + bytes((left & 127 | 128,)), left >> 7
    return size + bytes((left,)) + text


def block(fields: Sequence[Field]) -> bytes:
    """Literals without indexing: the table stays empty."""
    return b"".join(b"\x00" + string(name) + string(value) for name, value in fields)


def headers(
    stream: int, fields: Sequence[Field] = GET, flags: int = END_STREAM | END_HEADERS, pad: bytes = b""
) -> bytes:
    return frame(HEADERS, flags, stream, pad + block(fields))


@dataclass
class Heard:
    """What the gateway said."""

    statuses: dict[int, int] = field(default_factory=dict)
    fields: dict[int, dict[bytes, bytes]] = field(default_factory=dict)
    bodies: dict[int, bytes] = field(default_factory=dict)
    ended: set[int] = field(default_factory=set)
    resets: dict[int, int] = field(default_factory=dict)
    goaways: list[tuple[int, int]] = field(default_factory=list)
    """(last stream, code)"""
    updates: dict[int, int] = field(default_factory=dict)
    pongs: list[bytes] = field(default_factory=list)
    settings: dict[int, int] = field(default_factory=dict)
    acknowledged: int = 0
    """How many of our SETTINGS."""
    is_closed: bool = False


class RawH2:
    """One connection."""

    def __init__(
        self, gateway: Listening, *, begins: bool = True, acknowledges: bool = True, alpn: Sequence[str] = ("h2",)
    ) -> None:
        context = ssl.create_default_context(cafile=gateway.directory / "state" / "identity" / "public" / "bundle.pem")
        context.set_alpn_protocols(list(alpn))
        raw = socket.create_connection(("127.0.0.1", gateway.public), 9)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.tls = context.wrap_socket(raw, server_hostname="localhost")
        self.heard = Heard()
        self._buffer = b""
        self.decoder = hpack.Decoder()
        if begins:  # what is acknowledged lies in the socket already
            self.send(PREFACE + setting() + (frame(SETTINGS, ACK) if acknowledges else b""))

    def send(self, data: bytes) -> RawH2:
        self.tls.sendall(data)
        return self

    def hear(self) -> bool:
        """Read once; False at the end."""
        try:
            data = self.tls.recv(65536)
        except (ConnectionError, ssl.SSLError):
            data = b""
        if not data:
            self.heard.is_closed = True
            return False
        self._buffer += data
        while len(self._buffer) >= 9:
            end = 9 + int.from_bytes(self._buffer[:3], "big")
            if len(self._buffer) < end:
                break
            head, payload, self._buffer = self._buffer[:9], self._buffer[9:end], self._buffer[end:]
            self._on(head[3], head[4], int.from_bytes(head[5:9], "big"), payload)
        return True

    def _on(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        heard = self.heard
        if kind == HEADERS:
            fields = dict(self.decoder.decode(payload, raw=True))
            if b":status" in fields:
                heard.statuses[stream] = int(fields[b":status"])
                heard.fields[stream] = fields
        elif kind == DATA:
            heard.bodies[stream] = heard.bodies.get(stream, b"") + payload
        elif kind == RST_STREAM:
            heard.resets[stream] = int.from_bytes(payload, "big")
        elif kind == GOAWAY:
            heard.goaways.append((int.from_bytes(payload[:4], "big"), int.from_bytes(payload[4:8], "big")))
        elif kind == WINDOW_UPDATE:
            heard.updates[stream] = heard.updates.get(stream, 0) + int.from_bytes(payload, "big")
        elif kind == PING:
            heard.pongs.append(payload)
        elif kind == SETTINGS and flags & ACK:
            heard.acknowledged += 1
        elif kind == SETTINGS:
            heard.settings = {
                int.from_bytes(payload[at : at + 2], "big"): int.from_bytes(payload[at + 2 : at + 6], "big")
                for at in range(0, len(payload), 6)
            }
        if kind in (HEADERS, DATA) and flags & END_STREAM:
            heard.ended.add(stream)

    def fence(self) -> Heard:
        """All that was sent is looked at: until a PING comes back, or the connection ends."""
        fences = self.heard.pongs.count(FENCE)
        try:
            self.send(frame(PING, payload=FENCE))
        except OSError:
            pass
        while self.heard.pongs.count(FENCE) == fences and self.hear():
            pass
        return self.heard

    def until_over(self, stream: int) -> Heard:
        """Until the stream has ended in any way, or the connection has."""
        while not (stream in self.heard.ended or stream in self.heard.resets) and self.hear():
            pass
        return self.heard

    def until_closed(self) -> Heard:
        while self.hear():
            pass
        return self.heard

    def close(self) -> None:
        self.tls.close()

    def __enter__(self) -> RawH2:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
