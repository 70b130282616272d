"""A request as an unmodified ASGI server hands it over: the scope and `receive` of Hypercorn's own HTTP/1.1.

`Plain` gives the data plane what `hypercorn_stream.Stream` gives it on the hardened connections, as far as such a server can
tell: raw path and raw fields are taken, never its decoded reading. Its first event is awaited before anything is decided,
because only that says whether a body comes. It serves the admin listener, on loopback; nothing public is served this way.

Hypercorn would change to its own HTTP/2 for whoever asks for `h2c`, or begins with its preface: `keep_to_http1` ends that.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import hypercorn.protocol
from hypercorn.protocol.h11 import H11Protocol

from edge.accept.peer import prefix_of
from edge.model.http import RawField
from edge.model.identity import Peer

Receive = Callable[[], Awaitable[Any]]


class Http1(H11Protocol):
    """HTTP/1.1 to the end of the connection. The HTTP/2 behind it is not `hypercorn_h2`: none of its budgets hold there, and
    nobody needs it without TLS (attacks C3, C4). A wish for `h2c` is ignored (RFC 9110 §7.8), the preface is no request."""

    async def _check_protocol(self, event: Any) -> None:
        """Nothing is looked for."""


def keep_to_http1() -> None:
    """What Hypercorn serves without TLS in this process stays HTTP/1.1."""
    vars(hypercorn.protocol)["H11Protocol"] = Http1


class Plain:
    """One request. Made by `open`."""

    bytes_taken = 0
    """Not known here; the server waits for its client before it takes the next piece."""

    def __init__(self, scope: MutableMapping[str, Any], receive: Receive, first: Any) -> None:
        self.method = str(scope["method"])
        self.protocol = str(scope["http_version"])
        raw_target, raw_query = bytes(scope["raw_path"]), bytes(scope["query_string"])
        self.raw_target = b"%b?%b" % (raw_target, raw_query) if raw_query and b"?" not in raw_target else raw_target
        self.fields: tuple[RawField, ...] = tuple(
            (bytes(name).lower(), bytes(value).strip(b" \t")) for name, value in scope["headers"]
        )
        ip, port = scope.get("client") or ("127.0.0.1", 0)
        self.peer = Peer(ip=ip, port=port, prefix=prefix_of(ip), sni=None, tls_version="", tls_cipher="")
        self.when_gone: Callable[[], None] | None = None
        self._receive = receive
        self._first: Any = first
        self._has_left = first["type"] != "http.request"
        self.has_body = not self._has_left and bool(first.get("body") or first.get("more_body"))
        self._all_received = asyncio.Event()
        if not self.has_body:
            self._all_received.set()

    @classmethod
    async def open(cls, scope: MutableMapping[str, Any], receive: Receive) -> Plain:
        return cls(scope, receive, await receive())

    async def receive(self) -> dict[str, object]:
        """The next piece of the body, or `http.disconnect`."""
        event, self._first = self._first, None
        if event is None:
            event = await self._receive()
        if event["type"] != "http.request":
            self._gone()
            return {"type": "http.disconnect"}
        has_more = bool(event.get("more_body", False))
        if not has_more:
            self._all_received.set()
        return {"type": "http.request", "body": bytes(event.get("body", b"")), "more_body": has_more}

    async def watch(self) -> None:
        """Tell when the client leaves before its answer is out; runs beside the request."""
        await self._all_received.wait()
        while not self._has_left:
            self._has_left = (await self._receive())["type"] != "http.request"
        self._gone()

    def _gone(self) -> None:
        if self.when_gone is not None:
            self.when_gone()

    def send_continue(self) -> None:
        """Nothing: such a server asks for the body by itself."""

    def reset(self) -> None:
        """Nothing: an application that returns before its answer is complete makes the server end the connection."""
