"""The line as an ASGI application around Quart, for what Hypercorn parsed. Today: the admin listener.

`DataPlane` wraps the control app (`app.asgi_app = DataPlane(app.asgi_app)`), so that no request reaches Quart but through
`decide`. The health endpoints stand before the line and are not recorded: they say one bit, are asked every second, and must
answer when nothing can be decided or recorded.

    GET /healthz    200 while the process runs its loop
    GET /startupz   200 once the first generation serves
    GET /readyz     200 while requests can be decided and recorded; 503 names what fails

Everything else on the admin listener is read-only and asks for a Host that names the listener itself (a page in a browser
could else reach loopback through a name of its own: DNS rebinding) and for no foreign Origin (attacks E6).
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from edge.accept.peer import prefix_of
from edge.account import Account
from edge.control.app import Facts, create_app
from edge.downstream import Shared
from edge.errors import EdgeError, Forbidden, MalformedRequest, PayloadTooLarge
from edge.forward.asgi import AsgiScope, call
from edge.model.decision import Admission, Denial, Need
from edge.model.http import RawField, Request
from edge.model.identity import Peer
from edge.parse.request import build
from edge.pipeline import Gateway, Walk, decide
from edge.respond.fields import outgoing
from edge.respond.problem import render

MAX_BODY_BYTES = 64 << 10
_HEALTH = frozenset(("/healthz", "/readyz", "/startupz"))
Send = Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class Control:
    """What the control plane may know of its worker. Callables, because a reload swaps what they answer."""

    gateway: Callable[[], Gateway]
    """The generation of the admin listener: its one service is this process (`assemble.build_admin`)."""
    shared: Shared
    is_serving: Callable[[], bool]
    """The first generation serves."""
    failing: Callable[[], list[str]]
    """What keeps requests from being decided and recorded right now; empty = ready."""
    status: Callable[[], Facts]
    routes: Callable[[], list[Facts]]
    metrics: Callable[[], bytes]
    """Of all workers, as Prometheus text."""


def admin_app(control: Control) -> Any:
    """The application of the admin listener, for Hypercorn."""
    app = create_app(control.status, control.routes, control.metrics)
    app.asgi_app = DataPlane(app.asgi_app, control)  # type: ignore[method-assign, assignment]
    return app


class DataPlane:
    """ASGI in, the line, ASGI out."""

    def __init__(self, app: Any, control: Control) -> None:
        self._app = app
        self._control = control

    async def __call__(self, scope: AsgiScope, receive: Any, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            if scope["method"] in ("GET", "HEAD") and scope["path"] in _HEALTH:
                await self._health(str(scope["path"]), send)
            else:
                await self._walk(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 1002})

    async def _health(self, path: str, send: Send) -> None:
        failing: list[str] = []
        if path != "/healthz" and not self._control.is_serving():
            failing = ["starting"]
        elif path == "/readyz":
            failing = self._control.failing()
        body = json.dumps({"ok": not failing, "failing": failing}).encode("ascii")
        await _send(
            send,
            503 if failing else 200,
            [(b"content-type", b"application/json"), (b"cache-control", b"no-store")],
            body,
        )

    async def _walk(self, scope: AsgiScope, receive: Any, send: Send) -> None:
        gateway, shared, peer = self._control.gateway(), self._control.shared, _peer(scope)
        account = Account(shared, peer, gateway.bundle_hash)
        request: Request | None = None
        walk: Walk | None = None
        reason: str | None = None
        error: Exception | None = None
        try:
            request = _request(scope)
            walk = Walk(request, peer)
            _refuse_foreign_origin(request)
            admission = await _admit(gateway, walk)
            body = await _body(receive)
            account.bytes_in = len(body)
            to_disk = account.admit(request, admission)
            if to_disk is not None:
                await to_disk.fetch()
            answer = await call(self._app, admission, request, peer, body)
            status, content = answer.status, bytes(answer.body)
            fields = [
                *outgoing(answer.fields, admission.permit.match.route),
                (b"x-request-id", account.decision_id.encode("ascii")),
            ]
        except Exception as exc:  # the end of this line: every error becomes its row, an unknown one `internal`
            if not isinstance(exc, EdgeError):
                shared.report(exc)
            problem = render(exc, account.decision_id, gateway.problem_base)
            status, fields, content = problem.row.status, list(problem.fields), problem.body
            reason, error = problem.row.reason, exc
        account.bytes_out = len(content)
        to_disk = account.close(request, walk, status, reason, error)
        if to_disk is not None:
            await to_disk.fetch()
        await _send(send, status, fields, content)


async def _admit(gateway: Gateway, walk: Walk) -> Admission:
    while True:
        step = decide(gateway, walk, time.time_ns(), time.monotonic_ns())
        if not isinstance(step, Need):
            return step
        await step.fetch()


def _request(scope: AsgiScope) -> Request:
    """The canonical request from Hypercorn's reading: raw path and raw fields, never its decoded ones."""
    raw_query = bytes(scope["query_string"])
    raw_target = bytes(scope["raw_path"])
    if raw_query and b"?" not in raw_target:
        raw_target = b"%b?%b" % (raw_target, raw_query)
    fields = tuple((bytes(name).lower(), bytes(value).strip(b" \t")) for name, value in scope["headers"])
    request, framing = build(str(scope["method"]), raw_target, str(scope["http_version"]), fields)
    if (framing.content_length or 0) > MAX_BODY_BYTES:
        raise PayloadTooLarge("admin-body")
    return request


def _refuse_foreign_origin(request: Request) -> None:
    origin = request.field(b"origin")
    if origin is not None and origin.lower() not in (
        b"http://" + request.authority.encode("ascii"),
        b"https://" + request.authority.encode("ascii"),
    ):
        raise Forbidden(Denial("foreign-origin"))


async def _body(receive: Any) -> bytes:
    body = b""
    while True:
        event = await receive()
        if event["type"] != "http.request":
            raise MalformedRequest("body-ended-early")
        body += bytes(event.get("body", b""))
        if len(body) > MAX_BODY_BYTES:
            raise PayloadTooLarge("admin-body")
        if not event.get("more_body", False):
            return body


def _peer(scope: AsgiScope) -> Peer:
    ip, port = scope.get("client") or ("127.0.0.1", 0)
    return Peer(ip=ip, port=port, prefix=prefix_of(ip), sni=None, tls_version="", tls_cipher="")


async def _send(send: Send, status: int, fields: list[RawField], body: bytes) -> None:
    fields = [*fields, (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": fields})
    await send({"type": "http.response.body", "body": body, "more_body": False})
