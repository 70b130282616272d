"""One HTTP/2 request between Hypercorn and the ASGI application: what comes is bounded by windows, what goes by bytes held.

`Stream` stands in the place of Hypercorn's queue of events, whose bound is a number of events and whose fullness stops the
whole connection; `Buffer` in the place of its send buffer, which a client that takes one byte releases.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Protocol

from hypercorn.asyncio.task_group import TaskGroup
from hypercorn.config import Config
from hypercorn.protocol.h2 import BUFFER_HIGH_WATER, BUFFER_LOW_WATER, StreamBuffer

from edge.model.http import RawField
from edge.model.identity import Peer, tls_extension

STATE = "edge"
"""Where in the ASGI `scope["state"]` the stream is."""


class Wire(Protocol):
    """What a stream asks of its connection."""

    peer: Peer

    def acknowledge(self, stream_id: int, count: int) -> None: ...

    def send_continue(self, stream_id: int) -> None: ...

    def reset(self, stream_id: int) -> None: ...


class Stream:
    """What the application is told about one request beside the ASGI scope, in `scope["state"]["edge"]`."""

    def __init__(self, connection: Wire, stream_id: int, head: list[RawField], *, has_body: bool) -> None:
        self._connection = connection
        self._id = stream_id
        self.head = head
        """As HPACK gave it, pseudo fields first."""
        self.has_body = has_body
        self.peer = connection.peer
        self.bytes_taken = 0
        """Of the answer, by the client's windows; the measure of a slow reader."""
        self.when_gone: Callable[[], None] | None = None
        """Called when the client reset the stream or left, also while nobody receives."""
        self.when_received: Callable[[], None] | None = None
        """Called when more of the request has come: the three below say what."""
        self.received_bytes = 0
        self.trailers: list[RawField] = []
        self.is_ended = False
        self.is_malformed = False
        """Set by the application: a request that is none is an error of its stream, behind the answer (RFC 9113 §8.1.1)."""
        self._body = bytearray()
        self._is_gone = False
        self._changed = asyncio.Event()

    async def put(self, event: Any) -> None:
        """From Hypercorn: an ASGI event of the request. Never waits: the windows bound what can come."""
        if event["type"] == "http.request":
            self._body += event["body"]
            self.received_bytes += len(event["body"])
            self.is_ended = not event["more_body"]
            if self.when_received is not None:
                self.when_received()
        elif not self._is_gone:
            self._is_gone = True
            if self.when_gone is not None:
                self.when_gone()
        self._changed.set()

    def end_with(self, trailers: list[RawField]) -> None:
        """The end comes next, and is told then."""
        self.trailers = trailers

    async def receive(self) -> dict[str, object]:
        """The ASGI `receive`: all of the body that is there, in one piece. What is taken may be sent anew."""
        while not (self._is_gone or self._body or self.is_ended):
            self._changed.clear()
            await self._changed.wait()
        if self._is_gone:
            return {"type": "http.disconnect"}
        body = self.drop()
        return {"type": "http.request", "body": body, "more_body": not self.is_ended}

    def drop(self) -> bytes:
        """Take what is held of the body."""
        body = bytes(self._body)
        if body:
            self._body.clear()
            self._connection.acknowledge(self._id, len(body))
        return body

    def send_continue(self) -> None:
        self._connection.send_continue(self._id)

    def reset(self) -> None:
        """End the stream so that the client notices: its answer cannot be completed."""
        self._connection.reset(self._id)


def stream_of(scope: Any) -> Stream | None:
    """The stream behind an ASGI scope; None when this module did not make the scope."""
    stream = scope.get("state", {}).get(STATE)
    return stream if isinstance(stream, Stream) else None


class Buffer(StreamBuffer):
    """Hypercorn's, with back-pressure by what is held: its own is released by a client that takes one byte."""

    def __init__(self, event_class: Any, stream: Stream) -> None:
        super().__init__(event_class)
        self._stream = stream

    @property
    def is_malformed(self) -> bool:
        """Whether what is answered was no request."""
        return self._stream.is_malformed

    @property
    def is_finished(self) -> bool:
        """All of the answer is in it."""
        return self._complete

    async def push(self, data: bytes) -> None:
        if len(self.buffer) + len(data) >= BUFFER_HIGH_WATER:
            await self._paused.clear()
        await super().push(data)

    async def pop(self, max_length: int) -> bytes:
        length = min(len(self.buffer), max_length)
        data = bytes(self.buffer[:length])
        del self.buffer[:length]
        self._stream.bytes_taken += length
        if len(self.buffer) < BUFFER_LOW_WATER:
            await self._paused.set()
        if not self.buffer:
            await self._is_empty.set()
        return data


class Tasks(TaskGroup):
    """Hypercorn's, with the stream itself in the place of a queue bounded by the number of its events."""

    async def spawn_app(self, app: Any, config: Config, scope: Any, send: Any) -> Any:
        stream: Stream = scope["state"][STATE]
        scope["extensions"]["tls"] = tls_extension(stream.peer)
        self.spawn(_call, app, scope, stream, send)
        return stream.put


async def _call(app: Any, scope: Any, stream: Stream, send: Any) -> None:
    try:
        await app(scope, stream.receive, send, None, None)
    finally:
        await send(None)
