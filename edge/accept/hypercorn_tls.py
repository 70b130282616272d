"""A TLS connection that chose `h2`, on Hypercorn's HTTP/2 machinery: everything that touches Hypercorn's inside is here.

The connection's transport is given a `StreamReaderProtocol`, and Hypercorn's `TCPServer`, `H2Protocol` and `HTTPStream` do the
rest in the same loop, ending in an ASGI application. What they let through, and an edge must not (research: http-hardening), is
replaced by name below; the minor version is pinned, and tests/edge/accept/test_hypercorn_tls.py fails when one of these moves.

- Heads go to the application as HPACK gave them (`Stream.head`): Hypercorn upper-cases methods, decodes paths and drops pseudo
  fields, so its reading of them is never used, and cannot fail on one of them. CONNECT is a method like any other: refused.
- A body is acknowledged when the application takes it: what is held is bounded by the windows, per stream and per connection,
  and one upload that is not taken does not stop the others.
- An answer is held up to a mark by bytes held, not by bytes popped; a stream that ends in any way leaves nothing behind.
- An application that ends without finishing its answer resets the stream, so that the client notices.
- Frames that cause work and carry nothing are paid from a budget; who overdraws it is sent ENHANCE_YOUR_CALM.

A client's GOAWAY ends the connection at once: the `h2` library cannot send after it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import h2.settings
import priority
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.asyncio.task_group import TaskGroup
from hypercorn.asyncio.tcp_server import TCPServer
from hypercorn.asyncio.worker_context import WorkerContext
from hypercorn.config import Config
from hypercorn.events import Closed, RawData
from hypercorn.protocol import events as stream_events
from hypercorn.protocol.h2 import BUFFER_HIGH_WATER, BUFFER_LOW_WATER, H2Protocol, StreamBuffer
from hypercorn.protocol.http_stream import HTTPStream
from hyperframe.frame import GoAwayFrame

from edge.model.http import RawField
from edge.model.identity import Peer

MAX_STREAMS = 100
STREAM_WINDOW_BYTES = 262_144
CONNECTION_WINDOW_BYTES = 1 << 20
"""Held of all bodies of one connection that nobody takes."""
MAX_HEADER_LIST_BYTES = 65_536
"""Above it the connection ends; `parse.http2` answers 431 well before."""

_BUDGET = 2000.0
_BUDGET_PER_S = 100.0
_BYTES_PER_CREDIT = 512
_RESET_COST = 10.0
_ALL_STREAMS = 2**31 - 1
_STATE = "edge"

App = Callable[[Any, Any, Any], Awaitable[None]]


def hypercorn_config() -> Config:
    """What Hypercorn may do by itself: nothing that the shell does."""
    config = Config()
    config.accesslog = None
    config.errorlog = None
    config.include_server_header = False
    config.include_date_header = False
    config.read_timeout = None  # deadlines are the sweep's
    return config


class Stream:
    """What the application is told about one request beside the ASGI scope, in `scope["state"]["edge"]`."""

    def __init__(self, connection: EdgeH2, stream_id: int, head: list[RawField], *, has_body: bool) -> None:
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
        self._body = bytearray()
        self._is_ended = self._is_gone = False
        self._changed = asyncio.Event()

    async def put(self, event: Any) -> None:
        """From Hypercorn: an ASGI event of the request. Never waits: the windows bound what can come."""
        if event["type"] == "http.request":
            self._body += event["body"]
            self._is_ended = not event["more_body"]
        elif not self._is_gone:
            self._is_gone = True
            if self.when_gone is not None:
                self.when_gone()
        self._changed.set()

    async def receive(self) -> dict[str, object]:
        """The ASGI `receive`: all of the body that is there, in one piece. What is taken may be sent anew."""
        while not (self._is_gone or self._body or self._is_ended):
            self._changed.clear()
            await self._changed.wait()
        if self._is_gone:
            return {"type": "http.disconnect"}
        body = self.drop()
        return {"type": "http.request", "body": body, "more_body": not self._is_ended}

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


def stream_of(scope: Any) -> Stream:
    """The stream behind an ASGI scope. Raises: KeyError when this module did not make the scope."""
    stream = scope["state"][_STATE]
    if not isinstance(stream, Stream):
        raise KeyError(_STATE)
    return stream


class _Buffer(StreamBuffer):
    """Hypercorn's, with back-pressure by what is held: its own is released by a client that takes one byte."""

    def __init__(self, event_class: Any, stream: Stream) -> None:
        super().__init__(event_class)
        self._stream = stream

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


class _Tasks(TaskGroup):
    """Hypercorn's, with the stream itself in the place of a queue bounded by the number of its events."""

    async def spawn_app(self, app: Any, config: Config, scope: Any, send: Any) -> Any:
        stream = stream_of(scope)
        self.spawn(_call, app, scope, stream, send)
        return stream.put


async def _call(app: Any, scope: Any, stream: Stream, send: Any) -> None:
    try:
        await app(scope, stream.receive, send, None, None)
    finally:
        await send(None)


class EdgeH2(H2Protocol):
    """Hypercorn's HTTP/2 protocol, hardened."""

    def __init__(self, server: Server, group: TaskGroup, address: tuple[str, int]) -> None:
        super().__init__(
            server.app, server.config, server.context, group, server.state, True, None, address, server.protocol_send
        )  # fmt: skip
        self.peer = server.peer
        self._server = server
        # Names and values are judged by parse, which answers and records; the library's own check ends the connection.
        self.connection = h2.connection.H2Connection(
            h2.config.H2Configuration(client_side=False, header_encoding=None, validate_inbound_headers=False)
        )
        codes = h2.settings.SettingCodes
        self.connection.local_settings = h2.settings.Settings(
            client=False,
            initial_values={
                codes.MAX_CONCURRENT_STREAMS: MAX_STREAMS,
                codes.MAX_HEADER_LIST_SIZE: MAX_HEADER_LIST_BYTES,
                codes.INITIAL_WINDOW_SIZE: STREAM_WINDOW_BYTES,
                codes.ENABLE_CONNECT_PROTOCOL: 0,
            },
        )
        self._edge_streams: dict[int, Stream] = {}
        self._uploading: set[int] = set()
        self._endings: set[asyncio.Task[None]] = set()
        self._budget = _BUDGET
        self._budget_s = server.loop.time()

    @property
    def is_idle(self) -> bool:
        return not self.streams and not self.stream_buffers

    async def initiate(self, headers: Any = None, settings: bytes | None = None) -> None:
        """There is no h2c upgrade to take `headers` and `settings` from."""
        self.connection.initiate_connection()
        self.connection.increment_flow_control_window(CONNECTION_WINDOW_BYTES - 65_535)
        await self._flush()
        self.task_group.spawn(self.send_task)

    def write_out(self) -> None:
        """Hand what is to be sent to the transport at once: frames leave in the order in which they were made."""
        data = self.connection.data_to_send()
        if data:
            self._server.write(data)

    async def _flush(self) -> None:
        self.write_out()
        await self._server.writable()

    # -- receiving ------------------------------------------------------------------------------

    async def handle(self, event: Any) -> None:
        if not isinstance(event, RawData):
            await super().handle(event)
            return
        try:
            events = self.connection.receive_data(event.data)
        except h2.exceptions.ProtocolError:
            await self._flush()
            await self.send(Closed())
            return
        if self._awaits_too_much():
            self.connection.close_connection(h2.errors.ErrorCodes.FRAME_SIZE_ERROR)
            await self._flush()
            await self.send(Closed())
        elif self._is_affordable(events, len(event.data)):
            await self._handle_events(events)
        else:
            self.connection.close_connection(h2.errors.ErrorCodes.ENHANCE_YOUR_CALM)
            await self._flush()
            await self.send(Closed())

    def _awaits_too_much(self) -> bool:
        """Whether a frame is announced that is too long: the library looks only when it has all of it, up to 16 MiB."""
        raw_begun = self.connection.incoming_buffer._data[:3]
        return (
            int.from_bytes(raw_begun, "big") > self.connection.max_inbound_frame_size if len(raw_begun) == 3 else False
        )

    def _is_affordable(self, events: list[h2.events.Event], count: int) -> bool:
        """Charge for frames that carry nothing: resets, pings, settings, empty data, unknown ones (CVE-2023-44487 and kin)."""
        now_s = self._server.loop.time()
        budget = min(_BUDGET, self._budget + (now_s - self._budget_s) * _BUDGET_PER_S)
        self._budget_s = now_s
        if not events:
            budget -= 1 + count // (2 * _BYTES_PER_CREDIT)
        for event in events:
            if isinstance(event, h2.events.DataReceived):
                budget += len(event.data) / _BYTES_PER_CREDIT if event.data or event.stream_ended else -1
            elif isinstance(event, h2.events.StreamReset):
                budget -= _RESET_COST
            elif not isinstance(event, (h2.events.RequestReceived, h2.events.StreamEnded)):
                budget -= 1
        self._budget = min(_BUDGET, budget)
        return budget >= 0

    async def _handle_events(self, events: list[h2.events.Event]) -> None:
        for event in events:
            if isinstance(event, h2.events.RequestReceived):
                await self._create_stream(event)
            elif isinstance(event, h2.events.DataReceived):
                await self._body(event)
            elif isinstance(event, h2.events.StreamEnded):
                self._uploading.discard(event.stream_id)
                stream = self.streams.get(event.stream_id)
                if stream is not None:
                    await stream.handle(stream_events.EndBody(stream_id=event.stream_id))
            elif isinstance(event, h2.events.StreamReset):
                await self._forget(event.stream_id)
            elif isinstance(event, h2.events.WindowUpdated):
                await self._window_updated(event.stream_id)
            elif isinstance(event, h2.events.RemoteSettingsChanged):
                await self._window_updated(None)
            elif isinstance(event, h2.events.ConnectionTerminated):
                await self.send(Closed())
        await self._flush()

    async def _create_stream(self, request: h2.events.RequestReceived) -> None:
        """Hypercorn is told as little as it needs; the application reads `Stream.head`."""
        stream_id: int = request.stream_id
        head: list[RawField] = [(bytes(name), bytes(value)) for name, value in request.headers]
        edge_stream = Stream(self, stream_id, head, has_body=request.stream_ended is None)
        if edge_stream.has_body:
            self._uploading.add(stream_id)
        self._edge_streams[stream_id] = edge_stream
        stream = HTTPStream(
            self.app, self.config, self.context, self.task_group, True, None, self.server, self.stream_send, stream_id
        )  # fmt: skip
        self.streams[stream_id] = stream
        self.stream_buffers[stream_id] = _Buffer(self.context.event_class, edge_stream)
        self.priority.insert_stream(stream_id)
        self.priority.block(stream_id)
        is_head = (b":method", b"HEAD") in head
        await stream.handle(
            stream_events.Request(
                stream_id=stream_id,
                headers=[],
                http_version="2",
                method="HEAD" if is_head else "GET",
                raw_path=b"/",
                state={_STATE: edge_stream},
            )
        )

    async def _body(self, event: h2.events.DataReceived) -> None:
        stream = self.streams.get(event.stream_id)
        if stream is None:  # answered before its body was in
            self.acknowledge(event.stream_id, event.flow_controlled_length)
            return
        padding = event.flow_controlled_length - len(event.data)
        if padding:
            self.acknowledge(event.stream_id, padding)
        if event.data:
            await stream.handle(stream_events.Body(stream_id=event.stream_id, data=event.data))

    def acknowledge(self, stream_id: int, count: int) -> None:
        """So many bytes of a body were taken: the client may send as many again."""
        if not self.closed:
            try:
                self.connection.acknowledge_received_data(count, stream_id)
            except (KeyError, h2.exceptions.ProtocolError):
                return
            self.write_out()

    # -- sending --------------------------------------------------------------------------------

    async def stream_send(self, event: Any) -> None:
        if isinstance(event, stream_events.StreamClosed):
            await self._app_ended(event.stream_id)
        elif isinstance(event, stream_events.Response):
            try:
                fields = [(b":status", b"%d" % event.status_code), *event.headers]
                self.connection.send_headers(event.stream_id, fields)
            except (KeyError, h2.exceptions.ProtocolError):
                self.reset(event.stream_id)
            await self._flush()
        else:
            await super().stream_send(event)

    async def _send_data(self, stream_id: int) -> None:
        buffer = self.stream_buffers.get(stream_id)
        try:
            if buffer is None:
                self.priority.remove_stream(stream_id)
                return
            window = min(self.connection.local_flow_control_window(stream_id), self.connection.max_outbound_frame_size)
            data = await buffer.pop(max(0, window))
            is_last = buffer.complete
            if data or is_last:
                self.connection.send_data(stream_id, data, end_stream=is_last)
                self._budget = min(_BUDGET, self._budget + 2)
            else:
                self.priority.block(stream_id)
            if is_last:
                if stream_id in self._uploading:  # RFC 9113 §8.1: nobody reads the rest of its body
                    self.connection.reset_stream(stream_id, h2.errors.ErrorCodes.NO_ERROR)
                await self._forget(stream_id)
        except (KeyError, priority.MissingStreamError, h2.exceptions.ProtocolError):
            await self._forget(stream_id)
        await self._flush()

    def send_continue(self, stream_id: int) -> None:
        try:
            self.connection.send_headers(stream_id, [(b":status", b"100")])
        except (KeyError, h2.exceptions.ProtocolError):
            return
        self.write_out()

    def reset(self, stream_id: int) -> None:
        """From the application: its answer cannot be completed."""
        try:
            self.connection.reset_stream(stream_id, h2.errors.ErrorCodes.INTERNAL_ERROR)
        except (KeyError, h2.exceptions.ProtocolError):
            return
        self.write_out()
        ending = self._server.loop.create_task(self._forget(stream_id))  # the group may be shutting down
        self._endings.add(ending)
        ending.add_done_callback(self._endings.discard)

    # -- endings --------------------------------------------------------------------------------

    async def _app_ended(self, stream_id: int) -> None:
        buffer = self.stream_buffers.get(stream_id)
        if buffer is not None and not buffer.is_finished:
            self.reset(stream_id)
        else:
            await self._close_stream(stream_id)

    async def _close_stream(self, stream_id: int) -> None:
        stream = self.streams.pop(stream_id, None)
        if stream is not None:
            await stream.handle(stream_events.StreamClosed(stream_id=stream_id))
        edge_stream = self._edge_streams.pop(stream_id, None)
        if edge_stream is not None:
            edge_stream.drop()
        if self.closed:
            await self._drop_answer(stream_id)
        self._server.note()

    async def _forget(self, stream_id: int) -> None:
        """The stream is over on the wire."""
        await self._drop_answer(stream_id)
        self._uploading.discard(stream_id)
        await self._close_stream(stream_id)

    async def _drop_answer(self, stream_id: int) -> None:
        buffer = self.stream_buffers.pop(stream_id, None)
        if buffer is not None:
            await buffer.close()
        try:
            self.priority.remove_stream(stream_id)
        except priority.MissingStreamError:
            pass

    def goodbye(self) -> None:
        """No new streams, please; what is under way, or was sent before this arrives, is answered (RFC 9113 §6.8).

        Made by hand: after its own GOAWAY the library refuses to send anything else.
        """
        if not self.closed:
            self.write_out()
            self._server.write(GoAwayFrame(0, last_stream_id=_ALL_STREAMS).serialize())


class Server(TCPServer):
    """One connection. Made with a transport whose handshake is done and whose ALPN is `h2`."""

    protocol: EdgeH2  # type: ignore[assignment]

    def __init__(
        self, app: App, loop: asyncio.AbstractEventLoop, transport: asyncio.Transport, peer: Peer, config: Config
    ) -> None:
        reader = asyncio.StreamReader(loop=loop)
        bridge = asyncio.StreamReaderProtocol(reader, loop=loop)
        transport.set_protocol(bridge)
        bridge.connection_made(transport)
        writer = asyncio.StreamWriter(transport, bridge, reader, loop)
        super().__init__(ASGIWrapper(app), loop, config, WorkerContext(None), {}, reader, writer)  # type: ignore[arg-type]
        self.peer = peer
        self.bytes_out = 0
        self.has_served = False
        self.since_s = loop.time()
        """When it became idle."""
        self._is_leaving = False

    async def run(self) -> None:
        address = self.writer.get_extra_info("sockname") or ("", 0)
        try:
            async with _Tasks(self.loop) as group:
                self.protocol = EdgeH2(self, group, address[:2])
                await self.protocol.initiate()
                if self._is_leaving:
                    self.leave()
                await self._read_data()
        except OSError:
            pass
        finally:
            self.writer.transport.abort()

    async def protocol_send(self, event: Any) -> None:
        """From the protocol: the connection is over. Whatever is under way ends now, whenever the client may close."""
        if isinstance(event, Closed):
            self.close()
            await self.protocol.handle(event)

    def write(self, data: bytes) -> None:
        if not self.writer.transport.is_closing():
            self.bytes_out += len(data)
            self.writer.write(data)

    async def writable(self) -> None:
        """Wait while the client takes nothing."""
        try:
            await self.writer.drain()
        except OSError:
            pass  # told again to whoever reads

    def note(self) -> None:
        """A stream ended."""
        self.has_served = True
        self.since_s = self.loop.time()
        if self._is_leaving and self.is_idle:
            self.close()

    @property
    def is_idle(self) -> bool:
        return not hasattr(self, "protocol") or self.protocol.is_idle

    @property
    def is_closing(self) -> bool:
        return self.writer.transport.is_closing()

    def goodbye(self) -> None:
        if hasattr(self, "protocol"):
            self.protocol.goodbye()

    def leave(self) -> None:
        """Close now when nothing is under way, else behind the last answer."""
        self._is_leaving = True
        self.goodbye()
        if self.is_idle:
            self.close()

    def close(self) -> None:
        """Say so behind what is written; the reader is woken by the end of the transport."""
        if not self.is_closing:
            self.writer.close()
