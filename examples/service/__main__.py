"""Serves the example service: see the package's docstring."""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import signal
import ssl
from collections.abc import Collection, Iterator
from pathlib import Path

import httptools

DEFAULT_GATEWAY = "spiffe://mesh.internal/gw/edge"


class Conversation(asyncio.Protocol):
    """One connection of the gateway. httptools calls the `on_…` methods as it reads."""

    def __init__(self, service: str, gateways: Collection[str], served: Iterator[int]) -> None:
        self._service = service
        self._gateways = gateways
        self._peer = ""
        self._served = served
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpRequestParser(self)
        self._path = ""
        self._headers: dict[str, str] = {}
        self._body_bytes = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The handshake proved a certificate of our authority; now it must be a gateway's that we know."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        names = transport.get_extra_info("peercert").get("subjectAltName", ())
        uris = [value for kind, value in names if kind == "URI"]
        self._peer = " ".join(uris)
        if len(uris) != 1 or uris[0] not in self._gateways:
            transport.abort()

    def data_received(self, data: bytes) -> None:
        assert self._transport is not None
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._transport.abort()

    def on_message_begin(self) -> None:
        self._path, self._headers, self._body_bytes = "", {}, 0

    def on_url(self, url: bytes) -> None:
        self._path += url.decode("latin-1")

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)

    def on_message_complete(self) -> None:
        """Tell the caller what was seen."""
        assert self._transport is not None
        method = self._parser.get_method().decode("ascii")
        seen = {
            "service": self._service,
            "gateway": self._peer,
            "served": next(self._served),
            "method": method,
            "path": self._path,
            "headers": self._headers,
            "body_bytes": self._body_bytes,
        }
        body = json.dumps(seen).encode()
        head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        self._transport.write(head.encode() + (b"" if method == "HEAD" else body))
        if not self._parser.should_keep_alive():
            self._transport.close()


def context(identity: Path) -> ssl.SSLContext:
    """TLS 1.3 with a client certificate of the bundle. No tickets: a resumed session would skip the proof."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.minimum_version = ssl.TLSVersion.TLSv1_3
    made.num_tickets = 0
    made.load_cert_chain(identity / "chain.pem", identity / "key.pem")
    made.load_verify_locations(identity / "bundle.pem")
    made.verify_mode = ssl.CERT_REQUIRED
    return made


async def serve(name: str, port: int, identity: Path, gateways: Collection[str]) -> None:
    """Answer until SIGTERM."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    served = itertools.count(1)
    server = await loop.create_server(
        lambda: Conversation(name, gateways, served), "127.0.0.1", port, ssl=context(identity)
    )
    print(f"ready 127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await stop.wait()
    server.close()


def main() -> None:
    """Read the arguments and serve."""
    parser = argparse.ArgumentParser(prog="python -m examples.service", description="A service behind the gateway.")
    parser.add_argument("--name", required=True, help="how it calls itself in its answers")
    parser.add_argument("--port", type=int, default=0, help="0 lets the system choose")
    parser.add_argument("--identity", type=Path, required=True, metavar="DIR", help="what issue-cert.py wrote")
    parser.add_argument("--gateway", action="append", help="SPIFFE ID of a caller that is let in; nobody else is")
    arguments = parser.parse_args()
    asyncio.run(serve(arguments.name, arguments.port, arguments.identity, arguments.gateway or [DEFAULT_GATEWAY]))


if __name__ == "__main__":
    main()
