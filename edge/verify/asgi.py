"""For ASGI applications (FastAPI, Starlette, Quart, Django): nothing reaches them but what a gateway sent, as it sent it.

    app = AsgiVerifier(app, service="spiffe://mesh.internal/svc/orders", bundle="bundle.pem")

Who calls is `scope["edge.caller"]`, a `Caller`. HTTP and WebSockets are judged alike; `lifespan` passes, any other kind is
refused. The certificate of the connection is taken from ASGI's TLS extension and from nowhere else, never a header.
"""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Unpack

from edge.verify.answer import refusal
from edge.verify.io_guard import Guard, Options
from edge.verify.rules import AssertionRefused
from edge.verify.verifier import Presented

AsgiScope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]
App = Callable[[Any, Receive, Send], Awaitable[None]]


class AsgiVerifier:
    """An ASGI application in front of another one."""

    def __init__(self, app: App, **options: Unpack[Options]) -> None:
        """Raises: BadSettings."""
        self._app = app
        self._guard = Guard(**options)

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        kind = scope["type"]
        if kind == "lifespan":
            await self._app(scope, receive, send)
            return
        if kind not in ("http", "websocket"):
            raise NotImplementedError(f"nobody vouches for {kind!r}")
        try:
            caller = self._guard.caller(lambda: _shown(scope), _presented(scope))
        except AssertionRefused as refused:
            await _refuse(kind, refused, send)
            return
        await self._app({**scope, "edge.caller": caller}, receive, send)


def _shown(scope: AsgiScope) -> list[bytes] | None:
    """What the connection's peer proved itself with, leaf first, DER; None: the server has no TLS extension."""
    shown = (scope.get("extensions") or {}).get("tls")
    return None if shown is None else [ssl.PEM_cert_to_DER_cert(pem) for pem in shown.get("client_cert_chain") or ()]


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
