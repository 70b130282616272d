"""The upstream that lives in this process: an ASGI application, reached behind the line and in no other way.

`LocalCall` stands where an `UpstreamConnection` stands for a service on the network: the exchange that made it gets head,
pieces and end of the answer as a `Receiver`. Laws:

- It is called like any upstream: with an `Admission`, so the request is already authenticated, permitted and recorded. The
  application sees the verified principal in `scope["edge.principal"]` and authenticates nobody.
- Both ways are streamed and bounded: `receive` takes what is there, and until it does the downstream is not read further;
  `send` waits while the downstream takes nothing.
- Who leaves is gone: `receive` says `http.disconnect`, and the exchange cancels the task.
- An answer is as long as it said, or it is an error: what the downstream was told of its length holds (attacks C1).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from edge.errors import UpstreamError, UpstreamProtocolError
from edge.forward.answers import Receiver
from edge.forward.fields import HOP_BY_HOP, MANAGED, upstream_path
from edge.model.decision import Admission
from edge.model.http import RawField, Request
from edge.model.identity import Peer, tls_extension

AsgiScope = MutableMapping[str, Any]
AsgiEvent = MutableMapping[str, Any]
AsgiApp = Callable[
    [AsgiScope, Callable[[], Awaitable[AsgiEvent]], Callable[[AsgiEvent], Awaitable[None]]], Awaitable[None]
]

HELD_BYTES = 65_536
"""Of a body that the application does not take; then the downstream is not read."""
_NO_BODY_STATUS = frozenset((204, 304))


class LocalCall:
    """One request to the application in this process."""

    is_reused = False
    """Nothing is kept between two requests, so nothing can have closed in the meantime."""

    def __init__(self, app: AsgiApp, receiver: Receiver, scope: AsgiScope) -> None:
        self._app = app
        self._receiver: Receiver | None = receiver
        self._scope = scope
        self._is_head_method = scope["method"] == "HEAD"
        self._body = bytearray()
        self._is_complete = self._is_taken = self._is_paused = False
        self._changed = asyncio.Event()
        self._may_send = asyncio.Event()
        self._may_send.set()
        self._start: AsgiEvent | None = None
        self._left: int | None = None
        """Bytes of the answer's body that it announced and that are still to come; None when it announced nothing."""
        self.answer_started = False

    # -- from the exchange ----------------------------------------------------------------------

    def send(self, raw_body: bytes, *, is_complete: bool) -> None:
        """More of the request body, unframed."""
        self._body += raw_body
        self._is_complete = is_complete
        self._changed.set()
        if len(self._body) > HELD_BYTES and not self._is_paused and self._receiver is not None:
            self._is_paused = True
            self._receiver.on_upstream_paused(is_paused=True)

    def pause_reading(self) -> None:
        """The downstream takes nothing at the moment."""
        self._may_send.clear()

    def resume_reading(self) -> None:
        self._may_send.set()

    def abort(self) -> None:
        """Nobody waits for the answer any more."""
        self._receiver = None
        self._changed.set()
        self._may_send.set()

    def fail(self, error: UpstreamError) -> None:
        """It takes too long: the call is given up, and the exchange told."""
        receiver = self._receiver
        self.abort()
        if receiver is not None:
            receiver.on_upstream_failed(error)

    async def run(self) -> None:
        """Ends with the application. What it raises is the exchange's to answer: an `EdgeError` is a refusal like any other.

        Raises: UpstreamProtocolError when the answer is not as long as it said; then 502 or a cut.
        """
        await self._app(self._scope, self._receive, self._send)
        if self._receiver is not None:
            raise UpstreamProtocolError("upstream-truncated")

    # -- from the application (ASGI) ------------------------------------------------------------

    async def _receive(self) -> AsgiEvent:
        # The caller stays until it has its answer. Quart listens while the handler works, and ends it at a disconnect.
        while self._receiver is not None and (self._is_taken or not (self._body or self._is_complete)):
            self._changed.clear()
            await self._changed.wait()
        if self._receiver is None:
            return {"type": "http.disconnect"}
        body = bytes(self._body)
        self._body.clear()
        self._is_taken = self._is_complete
        if self._is_paused:
            self._is_paused = False
            self._receiver.on_upstream_paused(is_paused=False)
        return {"type": "http.request", "body": body, "more_body": not self._is_taken}

    async def _send(self, event: AsgiEvent) -> None:
        if event["type"] == "http.response.start" and self._start is None:
            self._start = event
        elif event["type"] == "http.response.body" and self._start is not None:
            await self._may_send.wait()
            if self._receiver is not None:
                self._deliver(self._receiver, self._start, bytes(event.get("body", b"")), event.get("more_body", False))

    def _deliver(self, receiver: Receiver, start: AsgiEvent, body: bytes, has_more: bool) -> None:
        status = int(start["status"])
        is_bodiless = self._is_head_method or status in _NO_BODY_STATUS
        if not self.answer_started:
            fields: list[RawField] = [(bytes(name).lower(), bytes(value)) for name, value in start.get("headers", ())]
            self._left = _length(fields)
            self.answer_started = True
            receiver.on_upstream_head(status, fields, self._left, has_body=not is_bodiless and self._left != 0)
        if body and not is_bodiless:
            self._count(len(body))
            receiver.on_upstream_body(body)
        if not has_more:
            if self._left and not is_bodiless:
                raise UpstreamProtocolError("upstream-truncated")
            self._receiver = None
            receiver.on_upstream_end()
        receiver.on_upstream_flush()

    def _count(self, count: int) -> None:
        if self._left is not None:
            self._left -= count
            if self._left < 0:
                raise UpstreamProtocolError("upstream-surplus")


def _length(fields: list[RawField]) -> int | None:
    lengths = [value for name, value in fields if name == b"content-length"]
    return int(lengths[0]) if len(lengths) == 1 and lengths[0].isdigit() else None


def asgi_scope(admission: Admission, request: Request, peer: Peer, decision_id: str) -> AsgiScope:
    """What the application is told. Takes an `Admission`: what was not authenticated, permitted and admitted is not told."""
    match = admission.permit.match
    path = upstream_path(match.route, request.path)
    dropped = HOP_BY_HOP | MANAGED if match.route.forward_token else HOP_BY_HOP | MANAGED | {b"authorization"}
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
        "extensions": {"tls": tls_extension(peer)},
        "edge.principal": admission.permit.principal,
        "edge.peer": peer,
        "edge.params": match.params,
        "edge.decision": decision_id,
    }
