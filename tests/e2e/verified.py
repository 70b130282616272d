"""Services that let nobody but the gateway in, by `edge.verify` alone: under Hypercorn (ASGI) and Werkzeug (WSGI).

Both terminate mTLS themselves. Hypercorn shows its application nothing of the certificate, Werkzeug does: the two ways in
which a service can know who is there. Each remembers every request that its application saw, and checks of its health apart.
"""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypercorn.asyncio import serve
from hypercorn.config import Config
from werkzeug.serving import make_server

from edge.verify import AsgiVerifier, Caller, WsgiVerifier
from edge.verify.form import Mode
from tests.e2e.upstream import service_context
from tests.wire.rig import Answer

Seen = list[dict[str, str]]
UP = "/up"
"""Where gateways ask whether a service lives."""


def told(caller: Caller) -> bytes:
    """What the applications answer."""
    return json.dumps([caller.gateway, caller.issuer, caller.subject, sorted(caller.scopes)]).encode()


class HypercornService:
    """Any ASGI server that requires client certificates and shows nothing of them."""

    def __init__(self, identity: Path, service: str, mode: Mode) -> None:
        self.seen: Seen = []
        self.checks: Seen = []
        self._ended = threading.Event()
        listener = socket.create_server(("127.0.0.1", 0))
        self.port = listener.getsockname()[1]
        config = Config()
        config.bind = [f"fd://{listener.detach()}"]
        config.certfile, config.keyfile = str(identity / "chain.pem"), str(identity / "key.pem")
        config.ca_certs, config.verify_mode = str(identity / "bundle.pem"), ssl.CERT_REQUIRED
        config.errorlog = None
        app = AsgiVerifier(self._app, service=service, bundle=identity / "bundle.pem", mode=mode, peer="server")
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve(app, config)))
        self._thread.start()

    async def _serve(self, app: Any, config: Config) -> None:
        async def until_closed() -> None:
            await asyncio.to_thread(self._ended.wait)

        await serve(app, config, shutdown_trigger=until_closed)

    async def _app(self, scope: Any, receive: Callable[[], Any], send: Callable[[Any], Any]) -> None:
        if scope["type"] == "lifespan":
            for kind in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{kind}.complete"})
            return
        fields = {name.decode(): value.decode() for name, value in scope["headers"]}
        (self.checks if scope["path"] == UP else self.seen).append(fields)
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.accept"})
            await send({"type": "websocket.send", "bytes": told(scope["edge.caller"])})
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": told(scope["edge.caller"])})

    def close(self) -> None:
        self._ended.set()
        self._thread.join(10)


class WerkzeugService:
    """Any WSGI server that tells the certificate of the connection."""

    def __init__(self, identity: Path, service: str, mode: Mode) -> None:
        self.seen: Seen = []
        self.checks: Seen = []
        app = WsgiVerifier(self._app, service=service, bundle=identity / "bundle.pem", mode=mode)
        self._server = make_server("127.0.0.1", 0, app, threaded=True, ssl_context=service_context(identity))
        self.port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def _app(self, environ: Any, start_response: Any) -> list[bytes]:
        fields = {key[5:].lower().replace("_", "-"): value for key, value in environ.items() if key.startswith("HTTP_")}
        (self.checks if environ["PATH_INFO"] == UP else self.seen).append(fields)
        body = told(environ["edge.caller"])
        start_response("200 OK", [("Content-Length", str(len(body)))])
        return [body]

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join(10)
        self._server.server_close()


def call(port: int, identity: Path, fields: dict[str, str], target: str = "/orders/7", method: str = "GET") -> Answer:
    """Straight to a service, past the gateway, with the certificate that lies in `identity`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(identity / "bundle.pem")
    context.load_cert_chain(identity / "chain.pem", identity / "key.pem")
    head = f"{method} {target} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    with context.wrap_socket(socket.create_connection(("127.0.0.1", port), 10)) as tls:
        tls.sendall(f"{head}connection: close\r\n\r\n".encode())
        raw = b""
        while piece := tls.recv(65536):
            raw += piece
    said, _, body = raw.partition(b"\r\n\r\n")
    line, *lines = said.decode().split("\r\n")
    return Answer(int(line.split(" ")[1]), {n.lower(): v for n, _, v in (each.partition(": ") for each in lines)}, body)
