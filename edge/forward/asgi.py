"""The upstream that lives in this process: the Quart control app, reached behind the line and in no other way.

It is called like any upstream: with an `Admission`, so the request is already authenticated, permitted and recorded. The
application sees the verified principal in `scope["edge.principal"]` and authenticates nobody.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from typing import Any

from edge.errors import UpstreamProtocolError
from edge.forward.fields import HOP_BY_HOP, MANAGED, upstream_path
from edge.model.decision import Admission
from edge.model.http import RawField, Request
from edge.model.identity import Peer

AsgiScope = MutableMapping[str, Any]
AsgiEvent = MutableMapping[str, Any]
AsgiApp = Callable[
    [AsgiScope, Callable[[], Awaitable[AsgiEvent]], Callable[[AsgiEvent], Awaitable[None]]], Awaitable[None]
]

MAX_ANSWER_BYTES = 8 << 20
"""The control app answers with small documents; more is a bug there, not a reason to fill memory here."""


@dataclass(slots=True)
class AsgiAnswer:
    """A complete answer; `fields` have lower-case names."""

    status: int = 0
    fields: list[RawField] = field(default_factory=list)
    body: bytearray = field(default_factory=bytearray)
    is_complete: bool = False


async def call(app: AsgiApp, admission: Admission, request: Request, peer: Peer, body: bytes) -> AsgiAnswer:
    """One request to the application in this process.

    Raises:
        UpstreamProtocolError: it did not give one whole answer; then 502.
    """
    answer = AsgiAnswer()
    sent = False

    async def receive() -> AsgiEvent:
        nonlocal sent
        if sent:
            # The caller stays until it has its answer. Quart listens while the handler works, and ends it at a disconnect.
            await asyncio.Event().wait()
        sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(event: AsgiEvent) -> None:
        if event["type"] == "http.response.start" and not answer.status:
            answer.status = int(event["status"])
            answer.fields = [(bytes(name).lower(), bytes(value)) for name, value in event.get("headers", ())]
        elif event["type"] == "http.response.body" and answer.status and not answer.is_complete:
            answer.body += event.get("body", b"")
            answer.is_complete = not event.get("more_body", False)
            if len(answer.body) > MAX_ANSWER_BYTES:
                raise UpstreamProtocolError("upstream-answer-size")

    await app(_asgi_scope(admission, request, peer), receive, send)
    if not answer.is_complete:
        raise UpstreamProtocolError("upstream-truncated")
    return answer


def _asgi_scope(admission: Admission, request: Request, peer: Peer) -> AsgiScope:
    path = upstream_path(admission.permit.match.route, request.path)
    dropped = HOP_BY_HOP | MANAGED | {b"authorization"}
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": request.protocol,
        "method": request.method,
        "scheme": "https",
        "path": path,
        "raw_path": path.encode("ascii"),
        "query_string": request.raw_query,
        "root_path": "",
        "headers": [(name, value) for name, value in request.fields if name not in dropped],
        "client": (peer.ip, peer.port),
        "server": None,
        "extensions": {},
        "edge.principal": admission.permit.principal,
    }
