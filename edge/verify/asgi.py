"""For ASGI applications (FastAPI, Starlette, Quart, Django): nothing reaches them but what a gateway sent, as it sent it.

    app = AsgiVerifier(app, service="spiffe://mesh.internal/svc/orders", bundle="bundle.pem")

Who calls is `scope["edge.caller"]`, a `Caller`. HTTP and WebSockets are judged alike; `lifespan` passes, any other kind is
refused. The certificate of the connection is taken from ASGI's TLS extension and from nowhere else, never a header.
"""

from __future__ import annotations

import logging
import ssl
import time
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from os import PathLike
from typing import Any

from edge.verify.answer import refusal
from edge.verify.form import Mode
from edge.verify.io_bundle import Watched
from edge.verify.rules import AssertionRefused, Peer, require_peer
from edge.verify.verifier import Presented, Settings, Verifier

AsgiScope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]
App = Callable[[Any, Receive, Send], Awaitable[None]]

_log = logging.getLogger("edge.verify")


class AsgiVerifier:
    """An ASGI application in front of another one."""

    def __init__(
        self,
        app: App,
        *,
        service: str,
        bundle: str | PathLike[str],
        mode: Mode = "subject",
        gateways: Iterable[str] = (),
        peer: Peer = "shown",
    ) -> None:
        """`service`, `mode` and `gateways` as in `Settings`; `bundle` is the PEM file that was issued with the certificate.
        `peer`: `shown`, the server must show the connection's certificate; `server`, it requires one of the bundle by itself
        and shows nothing, as Hypercorn and uvicorn do, and the assertion alone tells the gateway.

        Raises: BadSettings.
        """
        require_peer(peer)
        self._app = app
        self._peer = peer
        self._watched = Watched(Settings(service, mode, frozenset(gateways)), bundle)

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        kind = scope["type"]
        if kind == "lifespan":
            await self._app(scope, receive, send)
            return
        if kind not in ("http", "websocket"):
            raise NotImplementedError(f"nobody vouches for {kind!r}")
        try:
            now_ns = time.time_ns()
            verifier = self._watched.verifier()
            peer = self._connected(scope, verifier, now_ns)
            caller = verifier.check(_presented(scope), now_ns, peer)
        except AssertionRefused as refused:
            _log.warning("refused: %s", refused)
            await _refuse(kind, refused, send)
            return
        await self._app({**scope, "edge.caller": caller}, receive, send)

    def _connected(self, scope: AsgiScope, verifier: Verifier, now_ns: int) -> str | None:
        shown = (scope.get("extensions") or {}).get("tls")
        if shown is None and self._peer == "server":
            return None
        chain = list((shown or {}).get("client_cert_chain") or ())
        if not chain:
            raise AssertionRefused("peer-unknown")
        try:
            return verifier.check_peer([ssl.PEM_cert_to_DER_cert(pem) for pem in chain], now_ns)
        except ValueError as exc:
            raise AssertionRefused("peer-rejected", "not PEM") from exc


def _presented(scope: AsgiScope) -> Presented:
    raw_path = scope.get("raw_path")
    return Presented(
        method=scope.get("method", "GET"),  # a WebSocket's has none to tell
        raw_path=raw_path if raw_path is not None else scope["path"].encode("utf-8", "surrogateescape"),
        raw_query=scope.get("query_string", b""),
        fields=scope["headers"],
        is_decoded=raw_path is None,
    )


async def _refuse(kind: str, refused: AssertionRefused, send: Send) -> None:
    if kind == "websocket":  # before it was accepted: the server answers 403
        await send({"type": "websocket.close", "code": 1008, "reason": ""})
        return
    fields, body = refusal(refused.status)
    headers = [(name.lower().encode("ascii"), value.encode("ascii")) for name, value in fields]
    await send({"type": "http.response.start", "status": refused.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
