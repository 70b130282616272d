"""The line as an ASGI application: around the control app, for whatever server speaks HTTP to it.

    quart.asgi_app = DataPlane(front, quart.asgi_app)        # no request reaches Quart but through the line

Each request is one `Call`, the `Downstream` of its exchange: the same exchange, steps and types as in the shells of `front/`.
It runs on the hardened HTTP/2 of `accept/hypercorn_*`, whose `Stream` keeps the raw head beside the scope, and on a plain
server of ASGI (`accept/hypercorn_scope`). Laws:

- The request is built from the head as it came, never from what the server made of it.
- What is held of an answer is bounded: while the client does not take it, the upstream is not read. While the upstream does
  not take a body, nothing is received, and the stream's window closes.
- A client that leaves, or resets its stream, ends the exchange at once, also while nothing is received.
- An answer that cannot be completed ends with the reset of its stream; the other streams of the connection go on.

The admin listener adds `Health`. Its endpoints stand before the line and are not recorded: they say one bit, are asked every
second, and must answer when nothing can be decided or recorded.

    GET /healthz    200 while the process runs its loop
    GET /startupz   200 once the first generation serves
    GET /readyz     200 while requests can be decided and recorded; 503 names what fails

Everything else there asks for a Host that names the listener itself (a page in a browser could else reach loopback through a
name of its own: DNS rebinding) and for no foreign Origin (attacks E6).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from edge.accept.hypercorn_scope import Plain
from edge.accept.hypercorn_stream import Stream, stream_of
from edge.downstream import Shared
from edge.errors import EdgeError, Forbidden, MalformedRequest, RuledError
from edge.exchange import Exchange
from edge.forward.asgi import AsgiApp, AsgiScope
from edge.model.decision import Denial
from edge.model.http import RawField, Request
from edge.parse.fields import Framing
from edge.parse.http2 import require_trailers, translate
from edge.parse.request import build
from edge.pipeline import Gateway

HELD_BYTES = 65_536
"""Of an answer that the server did not take yet; then the upstream is not read."""

Send = Callable[[Any], Awaitable[None]]


_HEALTH = frozenset(("/healthz", "/readyz", "/startupz"))


class Pace(Protocol):
    """Of `front.Deadlines`, what concerns one request."""

    @property
    def body_s(self) -> float: ...

    @property
    def write_s(self) -> float: ...

    @property
    def least_bytes_per_s(self) -> float: ...


class Listening(Protocol):
    """Whose requests these are: the `Front` of a listener."""

    shared: Shared

    @property
    def gateway(self) -> Gateway: ...

    @property
    def deadlines(self) -> Pace: ...

    def date_line(self) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Health:
    """What the endpoints before the line are asked for. Callables, because a reload swaps what they answer."""

    is_serving: Callable[[], bool]
    """The first generation serves."""
    failing: Callable[[], list[str]]
    """What keeps requests from being decided and recorded right now; empty = ready."""


class DataPlane:
    """ASGI in, the line, ASGI out."""

    def __init__(self, front: Listening, application: AsgiApp | None = None, health: Health | None = None) -> None:
        """`application` is what this stands around: it is told of the server's life; requests reach it through the line.
        `health` makes this the admin listener's."""
        self._front = front
        self._application = application
        self._health = health
        self._calls: set[Call] = set()

    async def __call__(self, scope: AsgiScope, receive: Any, send: Send) -> None:
        if scope["type"] == "lifespan" and self._application is not None:
            await self._application(scope, receive, send)
        elif scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1002})
        elif self._health is not None and scope["method"] in ("GET", "HEAD") and scope["path"] in _HEALTH:
            await _tell(self._health, str(scope["path"]), self._front.date_line(), send)
        else:
            await self._walk(scope, receive, send)

    async def _walk(self, scope: AsgiScope, receive: Any, send: Send) -> None:
        """`receive` of a hardened stream is its own, and not used: `Stream` also tells when the client leaves."""
        watch: asyncio.Task[None] | None = None
        source: Stream | Plain | None = stream_of(scope)
        if source is None:
            source = plain = await Plain.open(scope, receive)
            watch = self._front.shared.loop.create_task(plain.watch())
        call = Call(self._front, source, is_admin=self._health is not None)
        self._calls.add(call)
        try:
            await call.run(send)
        finally:
            self._calls.discard(call)
            if watch is not None:
                watch.cancel()

    def sweep(self) -> None:
        """Cut what is past its deadline; called by the timer that sweeps the front."""
        now_s = self._front.shared.loop.time()
        for call in list(self._calls):
            call.check_deadline(now_s)


async def _tell(health: Health, path: str, date_line: bytes, send: Send) -> None:
    failing: list[str] = []
    if path != "/healthz" and not health.is_serving():
        failing = ["starting"]
    elif path == "/readyz":
        failing = health.failing()
    body = json.dumps({"ok": not failing, "failing": failing}).encode("ascii")
    headers = [
        (b"content-type", b"application/json"),
        (b"cache-control", b"no-store"),
        (b"date", date_line[6:-2]),
        (b"content-length", b"%d" % len(body)),
    ]
    await send({"type": "http.response.start", "status": 503 if failing else 200, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})


class Outbox:
    """The answer on its way into ASGI `send`: a head, pieces in order, an end or a cut. Bounded by `pause`."""

    def __init__(self, pause: Callable[[bool], None]) -> None:
        """`pause` is told True when too much is held and False when all of that was taken."""
        self._pause = pause
        self._start: dict[str, object] | None = None
        self._pieces: list[bytes] = []
        self._held_bytes = 0
        self._is_ended = self._is_paused = False
        self.is_cut = False
        self.is_waiting = False
        """The server has not taken the last piece yet."""
        self._wake = asyncio.Event()

    def start(self, status: int, headers: list[RawField]) -> None:
        self._start = {"type": "http.response.start", "status": status, "headers": headers}

    def add(self, body: bytes) -> None:
        self._pieces.append(body)
        self._held_bytes += len(body)

    def end(self) -> None:
        self._is_ended = True

    def flush(self) -> None:
        """What was added goes out as soon as the server takes it."""
        self._wake.set()
        self._weigh()

    def cut(self) -> None:
        """Nothing more goes out."""
        self.is_cut = True
        self._wake.set()

    async def run(self, send: Send) -> None:
        """Ends behind the end, or at the cut."""
        while not self.is_cut:
            await self._wake.wait()
            self._wake.clear()
            if self._start is not None and not self.is_cut:
                start, self._start = self._start, None
                await send(start)
            while (self._pieces or self._is_ended) and not self.is_cut:
                body, self._pieces = b"".join(self._pieces), []
                is_last = self._is_ended
                self.is_waiting = True
                await send({"type": "http.response.body", "body": body, "more_body": not is_last})
                self.is_waiting = False
                if is_last:
                    return
                self._held_bytes -= len(body)
                self._weigh()

    def _weigh(self) -> None:
        if self._is_ended or self.is_cut:
            return
        if self._is_paused:
            if not self._held_bytes:
                self._is_paused = False
                self._pause(False)
        elif self._held_bytes > HELD_BYTES:
            self._is_paused = True
            self._pause(True)


class Call:
    """One request; the `Downstream` of its exchange."""

    def __init__(self, front: Listening, stream: Stream | Plain, *, is_admin: bool) -> None:
        self._front = front
        self._is_admin = is_admin
        self._stream = stream
        self._exchange = Exchange(front.gateway, front.shared, self, stream.peer)
        exchange = self._exchange
        self._outbox = Outbox(lambda is_paused: exchange.pause_answer(is_paused=is_paused))
        self._may_receive = asyncio.Event()
        self._may_receive.set()
        self._body_deadline_s = self._write_deadline_s = 0.0
        self._bytes_taken = 0

    async def run(self, send: Send) -> None:
        """Ends when the answer is taken, or nobody is there to take it."""
        self._stream.when_gone = self._gone
        receiver: asyncio.Task[None] | None = None
        try:
            if self._begin():
                receiver = self._front.shared.loop.create_task(self._receive())
            await self._outbox.run(send)
        finally:
            if receiver is not None:
                receiver.cancel()
            self._exchange.on_gone()  # nothing happens unless this task was cancelled

    # -- the request ----------------------------------------------------------------------------

    def _begin(self) -> bool:
        """Start the exchange; whether there is a body to receive."""
        stream, exchange = self._stream, self._exchange
        try:
            request, framing = _read(stream)
            exchange.request = request
            if self._is_admin:
                _refuse_foreign_origin(request)
            if isinstance(stream, Stream):
                stream.when_received = partial(self._received, stream, request)
                _judge_what_came(stream, request)
            elif request.content_length and not stream.has_body:
                raise MalformedRequest("framing-disagrees")
        except EdgeError as exc:
            exchange.refuse(exc)
            return False
        request.chunked = stream.has_body and request.content_length is None
        if request.has_body:
            self._await_body()
        exchange.start(request, wants_continue=framing.expects_continue)
        return request.has_body

    async def _receive(self) -> None:
        exchange = self._exchange
        while True:
            await self._may_receive.wait()
            event = await self._stream.receive()
            if event["type"] != "http.request":
                return  # `_gone` was told
            body = bytes(event["body"])  # type: ignore[call-overload]
            if self._body_deadline_s:
                deadlines = self._front.deadlines
                latest_s = self._front.shared.loop.time() + deadlines.body_s
                more_s = len(body) / deadlines.least_bytes_per_s
                self._body_deadline_s = min(latest_s, self._body_deadline_s + more_s)
            if body:
                exchange.on_body(body)
            if not event["more_body"]:
                self._body_deadline_s = 0.0
                exchange.on_body_end()
                return

    def _received(self, stream: Stream, request: Request) -> None:
        try:
            _judge_what_came(stream, request)
        except MalformedRequest as exc:
            self._exchange.refuse(exc)

    def _await_body(self) -> None:
        self._body_deadline_s = self._front.shared.loop.time() + self._front.deadlines.body_s

    def _gone(self) -> None:
        """The client left. When the answer was out before, this tells nobody anything."""
        self._exchange.on_gone()
        self._outbox.cut()

    # -- the answer (Downstream) ----------------------------------------------------------------

    def send_head(self, status: int, fields: list[RawField], content_length: int | None, *, has_body: bool) -> None:
        headers = list(fields)
        if all(name != b"date" for name, _ in fields):
            headers.append((b"date", self._front.date_line()[6:-2]))
        # 304 may say how long the whole would be; client libraries on `h2` then wait for it.
        if content_length is not None and status not in (204, 304):
            headers.append((b"content-length", b"%d" % content_length))
        self._outbox.start(status, headers)

    def send_body(self, body: bytes) -> None:
        self._outbox.add(body)

    def send_end(self) -> None:
        self._outbox.end()

    def flush(self) -> None:
        self._outbox.flush()

    def send_continue(self) -> None:
        self._stream.send_continue()

    def pause_body(self, *, is_paused: bool) -> None:
        if is_paused:
            self._may_receive.clear()
            self._body_deadline_s = 0.0  # what is awaited is not the client's to do
        else:
            self._may_receive.set()
            if not self._exchange.is_body_complete:
                self._await_body()

    def must_close(self) -> None:
        """Nothing: a stream carries one request, and ends with its answer."""

    def cut(self) -> None:
        self._outbox.cut()
        self._stream.reset()

    # -- deadlines ------------------------------------------------------------------------------

    def check_deadline(self, now_s: float) -> None:
        self._exchange.check_deadline(now_s)
        if (self._body_deadline_s and now_s > self._body_deadline_s) or self._is_behind(now_s):
            self._exchange.on_gone(RuledError("deadline"))
            self.cut()

    def _is_behind(self, now_s: float) -> bool:
        """Whether the client takes less of its answer than the least rate."""
        if not self._outbox.is_waiting:
            self._write_deadline_s = 0.0
            return False
        if self._write_deadline_s and now_s <= self._write_deadline_s:
            return False
        deadlines = self._front.deadlines
        before, self._bytes_taken = self._bytes_taken, self._stream.bytes_taken
        is_first, self._write_deadline_s = not self._write_deadline_s, now_s + deadlines.write_s
        return not is_first and self._bytes_taken - before < deadlines.least_bytes_per_s * deadlines.write_s


def _read(stream: Stream | Plain) -> tuple[Request, Framing]:
    """Raises: MalformedRequest, UriTooLong, HeadersTooLarge."""
    if isinstance(stream, Plain):
        return build(stream.method, stream.raw_target, stream.protocol, stream.fields)
    try:
        method, raw_target, fields = translate(stream.head)
    except MalformedRequest:
        stream.is_malformed = True
        raise
    return build(method, raw_target, "2", fields)


def _judge_what_came(stream: Stream, request: Request) -> None:
    """Raises: MalformedRequest; the body is not as long as announced, or the trailers are none (RFC 9113 §8.1.1)."""
    left = None if request.content_length is None else request.content_length - stream.received_bytes
    try:
        require_trailers(stream.trailers)
        if left is not None and (left < 0 or (left and (stream.is_ended or not stream.has_body))):
            raise MalformedRequest("framing-disagrees")
    except MalformedRequest:
        stream.is_malformed = True
        raise


def _refuse_foreign_origin(request: Request) -> None:
    own, origin = request.authority.encode("ascii"), request.field(b"origin")
    if origin is not None and origin.lower() not in (b"http://" + own, b"https://" + own):
        raise Forbidden(Denial("foreign-origin"))
