"""A service that costs little beside what is measured: `/json` is 1 KiB, `/100k.bin` and `/10m.bin` are what they say, a POST
is read and thanked for. mTLS (plain without an identity, as behind a sidecar), HTTP/1.1: `python -m examples.bench.backend
IDENTITY` says its port on stdout."""

from __future__ import annotations

import asyncio
import json
import re
import ssl
import sys
from pathlib import Path

import uvloop

BODIES = {
    b"/json": json.dumps({"id": 1, "text": "x" * 1001}, separators=(",", ":")).encode(),
    b"/100k.bin": bytes(100 << 10),
    b"/10m.bin": bytes(10 << 20),
    b"/sink": b"{}",
}
_LENGTH = re.compile(rb"\r\ncontent-length: (\d+)\r\n")


class Backend(asyncio.Protocol):
    """One connection; the gateway sends one request at a time on it."""

    def __init__(self) -> None:
        self._head = b""
        self._left = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        if self._left:
            self._left -= len(data)
        else:
            self._head += data
            end = self._head.find(b"\r\n\r\n") + 4
            if end < 4:
                return
            length = _LENGTH.search(self._head, 0, end)
            self._left = (int(length[1]) if length else 0) - (len(self._head) - end)
        if self._left <= 0:
            body, self._head = BODIES[self._head.split(b" ", 2)[1]], b""
            self._transport.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body))
            self._transport.write(body)


def mutual(identity: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(identity / "chain.pem", identity / "key.pem")
    context.load_verify_locations(identity / "bundle.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    context.num_tickets = 0
    return context


async def main(identity: Path | None) -> None:
    context = mutual(identity) if identity is not None else None
    server = await asyncio.get_running_loop().create_server(Backend, "127.0.0.1", 0, ssl=context)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(Path(sys.argv[1]) if len(sys.argv) > 1 else None))
