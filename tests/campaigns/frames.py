"""As little HTTP/2 as thousands of callers, or gigabytes, need: one request a connection, frames by hand (RFC 9113).

A full client keeps too much for each connection, and spends more on a frame than the gateway does.
"""

from __future__ import annotations

import ssl
import struct
from collections.abc import Iterator

import hpack

DATA, HEADERS, RESET, SETTINGS, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 7, 8
END_STREAM, END_HEADERS, ACK = 1, 4, 1
INITIAL_WINDOW_SIZE = 4
MAX_FRAME = 16_384
DEFAULT_WINDOW = 65_535
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack(">HBBBI", len(payload) >> 8, len(payload) & 255, kind, flags, stream) + payload


class Caller:
    """One connection and its only stream, number 1."""

    def __init__(self, tls: ssl.SSLSocket, window: int = DEFAULT_WINDOW) -> None:
        """`window`: how much of an answer may be under way."""
        self._tls = tls
        self._buffer = bytearray()
        self._may_send = self._may_send_here = DEFAULT_WINDOW
        self._initial = DEFAULT_WINDOW
        self._window = window
        self._untold = 0
        self.status = 0
        self.is_settled = False
        self.is_ended = False
        first = frame(SETTINGS, 0, 0, struct.pack(">HI", INITIAL_WINDOW_SIZE, window))
        more = (
            frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", window - DEFAULT_WINDOW)) if window > DEFAULT_WINDOW else b""
        )
        tls.sendall(PREFACE + first + more)

    def ask(self, method: str, path: str, *, is_end: bool) -> None:
        head = [(":method", method), (":scheme", "https"), (":authority", "localhost"), (":path", path)]
        flags = END_HEADERS | (END_STREAM if is_end else 0)
        self._tls.sendall(frame(HEADERS, flags, 1, hpack.Encoder().encode(head)))

    def send(self, piece: memoryview) -> None:
        """Of the request's content; waits for the gateway's windows."""
        while piece:
            room = min(self._may_send, self._may_send_here, MAX_FRAME, len(piece))
            if room <= 0:
                self._next()
                continue
            self._may_send -= room
            self._may_send_here -= room
            self._tls.sendall(frame(DATA, 0, 1, bytes(piece[:room])))
            piece = piece[room:]

    def finish(self) -> None:
        self._tls.sendall(frame(DATA, END_STREAM, 1))

    def content(self) -> Iterator[bytes]:
        """Of the answer, piece by piece to its end; credit is given back as it is taken."""
        while not self.is_ended:
            piece = self._next()
            if piece:
                yield piece
                self._untold += len(piece)
                if self._untold > self._window // 2:
                    credit, self._untold = struct.pack(">I", self._untold), 0
                    self._tls.sendall(frame(WINDOW_UPDATE, 0, 0, credit) + frame(WINDOW_UPDATE, 0, 1, credit))

    def settle(self) -> None:
        """Until the gateway's settings have been seen and acknowledged."""
        while not self.is_settled:
            self._next()

    def _next(self) -> bytes:
        """Take one frame; the content in it, if any."""
        buffer = self._buffer
        while len(buffer) < 9 or len(buffer) < 9 + int.from_bytes(buffer[:3], "big"):
            piece = self._tls.recv(262_144)
            if not piece:
                raise EOFError
            buffer += piece
        length, kind, flags, stream = int.from_bytes(buffer[:3], "big"), *struct.unpack(">BBI", buffer[3:9])
        payload = bytes(buffer[9 : 9 + length])
        del buffer[: 9 + length]
        assert kind not in (RESET, GOAWAY), (kind, payload)
        if kind == SETTINGS and not flags & ACK:
            self._settings(payload)
        elif kind == WINDOW_UPDATE:
            (credit,) = struct.unpack(">I", payload)
            if stream:
                self._may_send_here += credit
            else:
                self._may_send += credit
        elif kind == HEADERS and stream == 1 and not self.status:
            self.status = int(dict(hpack.Decoder().decode(payload, raw=True))[b":status"])
        self.is_ended = self.is_ended or bool(stream == 1 and kind in (DATA, HEADERS) and flags & END_STREAM)
        return payload if kind == DATA else b""

    def _settings(self, payload: bytes) -> None:
        for at in range(0, len(payload), 6):
            name, value = struct.unpack(">HI", payload[at : at + 6])
            if name == INITIAL_WINDOW_SIZE:
                self._may_send_here += value - self._initial
                self._initial = value
        self._tls.sendall(frame(SETTINGS, ACK, 0))
        self.is_settled = True
