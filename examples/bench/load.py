"""A load generator for machines without another: callers that ask, wait for the whole answer, and ask again.

    python -m examples.bench.load JSON

JSON: port, ca, seconds, connections, path, tokens (a file, one a line), body (bytes), status, version ("1.1" or "2"),
reconnect. Prints JSON: requests, errors, p50_ms, p99_ms. A closed loop: when the gateway is slow, fewer questions are asked.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import ssl
import struct
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import hpack
import uvloop

_LENGTH = re.compile(rb"\r\ncontent-length: (\d+)\r\n", re.I)
_DATA, _HEADERS, _RESET, _SETTINGS, _GOAWAY = 0, 1, 3, 4, 7
_END_STREAM, _END_HEADERS, _ACK = 1, 4, 1
_WINDOW = (1 << 30) - 1


@dataclass
class Plan:
    """What all callers do, and what came of it."""

    requests: Iterator[bytes]
    """Whole HTTP/1.1 messages, or HTTP/2 header blocks."""
    status: int
    end_s: float
    reconnect: bool
    times_ms: list[float] = field(default_factory=list)
    errors: int = 0


class Caller(asyncio.Protocol):
    """One connection, one request at a time."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.gone = asyncio.get_running_loop().create_future()
        self.began_s = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: asyncio.Transport = transport  # type: ignore[assignment]
        self.ask()

    def ask(self) -> None: ...

    def answered(self, status: int) -> None:
        """Count it, and go on until time is up."""
        now_s = time.perf_counter()
        self.plan.times_ms.append((now_s - self.began_s) * 1000)
        self.plan.errors += status != self.plan.status
        self.began_s = 0.0
        if self.plan.reconnect or now_s >= self.plan.end_s:
            self.transport.close()
        else:
            self.ask()

    def connection_lost(self, exc: Exception | None) -> None:
        self.plan.errors += self.began_s != 0  # an answer was awaited
        if not self.gone.done():
            self.gone.set_result(None)


class Http1Caller(Caller):
    """Counts bytes up to the announced length."""

    _head, _left, _status = b"", -1, 0

    def ask(self) -> None:
        self.began_s = time.perf_counter()
        self.transport.write(next(self.plan.requests))

    def data_received(self, data: bytes) -> None:
        if self._left < 0:
            self._head += data
            end = self._head.find(b"\r\n\r\n") + 4
            if end < 4:
                return
            length = _LENGTH.search(self._head, 0, end)
            self._status = int(self._head[9:12])
            self._left, data, self._head = int(length[1]) if length else 0, self._head[end:], b""
        self._left -= len(data)
        if self._left <= 0:
            self._left = -1
            self.answered(self._status)


class Http2Caller(Caller):
    """One stream after the other; only the end of each is looked at, and its first header block."""

    _stream, _status = -1, 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._buffer = bytearray()
        self._decoder = hpack.Decoder()
        settings = _frame(_SETTINGS, 0, 0, struct.pack(">HI", 4, _WINDOW))
        window = _frame(8, 0, 0, struct.pack(">I", _WINDOW - 65_535))
        transport.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + settings + window)  # type: ignore[attr-defined]
        super().connection_made(transport)

    def ask(self) -> None:
        self.began_s = time.perf_counter()
        self._stream += 2
        self.transport.write(_frame(_HEADERS, _END_STREAM | _END_HEADERS, self._stream, next(self.plan.requests)))

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer
        buffer += data
        while len(buffer) >= 9 and len(buffer) >= (end := 9 + int.from_bytes(buffer[:3], "big")):
            kind, flags = buffer[3], buffer[4]
            payload = bytes(buffer[9:end])
            del buffer[:end]
            if kind in (_RESET, _GOAWAY):
                self.transport.close()
                return
            if kind == _SETTINGS and not flags & _ACK:
                self.transport.write(_frame(_SETTINGS, _ACK, 0))
            if kind == _HEADERS:
                self._status = int(dict(self._decoder.decode(payload, raw=True))[b":status"])
            if kind in (_DATA, _HEADERS) and flags & _END_STREAM:
                self.answered(self._status)


def _frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack(">HBBBI", len(payload) >> 8, len(payload) & 255, kind, flags, stream) + payload


def requests(path: str, tokens: list[str], body: int, version: str) -> list[bytes]:
    """One for each token."""
    if version == "2":
        fixed = [(":method", "GET"), (":scheme", "https"), (":authority", "localhost"), (":path", path)]
        return [hpack.Encoder().encode([*fixed, ("authorization", f"Bearer {token}")]) for token in tokens]
    line, length = (f"POST {path}", f"Content-Length: {body}\r\n") if body else (f"GET {path}", "")
    head = "{} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\n{}\r\n"
    return [head.format(line, token, length).encode() + b"x" * body for token in tokens]


async def run(given: dict[str, Any]) -> dict[str, float]:
    context = ssl.create_default_context(cafile=given["ca"])
    context.set_alpn_protocols(["h2" if given["version"] == "2" else "http/1.1"])
    tokens = Path(given["tokens"]).read_text().split()
    messages = itertools.cycle(requests(given["path"], tokens, given["body"], given["version"]))
    plan = Plan(messages, given["status"], time.perf_counter() + given["seconds"], given["reconnect"])
    kind = Http2Caller if given["version"] == "2" else Http1Caller

    async def call() -> None:
        loop = asyncio.get_running_loop()
        while time.perf_counter() < plan.end_s:
            try:
                _, caller = await loop.create_connection(
                    lambda: kind(plan), "127.0.0.1", given["port"], ssl=context, server_hostname="localhost"
                )
            except OSError:
                plan.errors += 1
                continue
            await caller.gone

    await asyncio.gather(*(call() for _ in range(given["connections"])))
    times = sorted(plan.times_ms) or [0.0]
    return {
        "requests": len(plan.times_ms),
        "errors": plan.errors,
        "p50_ms": times[len(times) // 2],
        "p99_ms": times[len(times) * 99 // 100],
    }


if __name__ == "__main__":
    print(json.dumps(uvloop.run(run(json.loads(sys.argv[1])))))
