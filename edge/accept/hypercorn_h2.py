"""Hypercorn's HTTP/2 protocol, hardened: what it lets through and an edge must not is replaced by name.

- Heads go to the application as HPACK gave them (`Stream.head`): Hypercorn upper-cases methods, decodes paths and drops
  pseudo fields, so its reading is never used, and cannot fail. CONNECT is a method like any other: refused.
- A length that is not kept, or trailers that are none, are told to the application (`Stream.when_received`), and cost the
  other streams nothing. Behind the answer to what was no request its stream is reset (RFC 9113 §8.1.1).
- What is no header block, or comes before the client's SETTINGS, ends the connection with its own code (§4.3, §3.4).
- A body is acknowledged when the application takes it: what is held is bounded by the windows, per stream and per
  connection, and one upload that is not taken does not stop the others.
- An answer is held up to a mark by bytes held; a stream that ends in any way leaves nothing behind.
- An application that ends without finishing its answer resets the stream, so that the client notices.
- Frames that cause work and carry nothing are paid from a budget; who overdraws it is sent ENHANCE_YOUR_CALM.

A client's GOAWAY ends the connection at once: the `h2` library cannot send after it.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any, Protocol

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import h2.settings
import h2.stream
from hypercorn.asyncio.task_group import TaskGroup
from hypercorn.asyncio.worker_context import WorkerContext
from hypercorn.config import Config
from hypercorn.events import Closed, Event, RawData
from hypercorn.protocol import events as stream_events
from hypercorn.protocol.h2 import H2Protocol
from hypercorn.protocol.http_stream import HTTPStream
from hypercorn.typing import AppWrapper, ConnectionState
from hyperframe.frame import GoAwayFrame, RstStreamFrame
from priority.priority import MissingStreamError

from edge.accept.hypercorn_hpack import StrictDecoder
from edge.accept.hypercorn_stream import STATE, Buffer, Stream
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


class UnmeasuredStream(h2.stream.H2Stream):
    """The library's, without its opinion of lengths: for one that is wrong it ends the connection with all its streams.
    `parse` and the data plane judge them, as for any other shell: with an answer and a record."""

    def _initialize_content_length(self, headers: object) -> None:
        """Nothing is expected."""

    def _track_content_length(self, length: int, end_stream: bool) -> None:
        """Nothing is held against it."""


class UnmeasuredConnection(h2.connection.H2Connection):
    """The library's, with such streams."""

    def _begin_new_stream(self, stream_id: int, allowed_ids: h2.connection.AllowedStreamIDs) -> h2.stream.H2Stream:
        stream = super()._begin_new_stream(stream_id, allowed_ids)
        stream.__class__ = UnmeasuredStream
        return stream


class Connection(Protocol):
    """What the protocol asks of the one who has the transport (`hypercorn_tls.Server`)."""

    app: AppWrapper
    config: Config
    context: WorkerContext
    loop: asyncio.AbstractEventLoop
    peer: Peer

    async def protocol_send(self, event: Event) -> None: ...

    def write(self, data: bytes) -> None: ...

    async def writable(self) -> None: ...

    def note(self) -> None: ...


class EdgeH2(H2Protocol):
    """Hypercorn's HTTP/2 protocol, hardened."""

    def __init__(self, server: Connection, group: TaskGroup, address: tuple[str, int]) -> None:
        super().__init__(
            server.app, server.config, server.context, group, ConnectionState({}), True, None, address, server.protocol_send
        )  # fmt: skip
        self.peer = server.peer
        self._server = server
        # Names and values are judged by parse, which answers and records; the library's own check ends the connection.
        self.connection = UnmeasuredConnection(
            h2.config.H2Configuration(client_side=False, header_encoding=None, validate_inbound_headers=False)
        )
        codes = h2.settings.SettingCodes
        self.connection.decoder.__class__ = StrictDecoder
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
        self.is_acknowledged = False
        """Our SETTINGS were (RFC 9113 §6.5.3)."""
        self._budget = _BUDGET
        self._budget_s = server.loop.time()
        self._has_begun = False

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
        code = self._judge(events, len(event.data))
        if code is None:
            await self._handle_events(events)
        else:
            self.connection.close_connection(code)
            await self._flush()
            await self.send(Closed())

    def _judge(self, events: list[h2.events.Event], count: int) -> h2.errors.ErrorCodes | None:
        """What ends the connection although the library took it."""
        if self._awaits_too_much():
            return h2.errors.ErrorCodes.FRAME_SIZE_ERROR
        if events and not self._has_begun:
            self._has_begun = True
            if not isinstance(events[0], h2.events.RemoteSettingsChanged):
                return h2.errors.ErrorCodes.PROTOCOL_ERROR  # RFC 9113 §3.4
        return None if self._is_affordable(events, count) else h2.errors.ErrorCodes.ENHANCE_YOUR_CALM

    def _awaits_too_much(self) -> bool:
        """Whether a frame is announced that is too long: the library looks only when it has all of it, up to 16 MiB."""
        raw_begun = self.connection.incoming_buffer._data[:3]
        return (
            int.from_bytes(raw_begun, "big") > self.connection.max_inbound_frame_size if len(raw_begun) == 3 else False
        )

    def _is_affordable(self, events: list[h2.events.Event], count: int) -> bool:
        """Charge for frames that carry nothing: resets, pings, settings, empty data, unknown ones (CVE-2023-44487)."""
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
            elif isinstance(event, h2.events.TrailersReceived):
                if edge_stream := self._edge_streams.get(event.stream_id):
                    edge_stream.end_with([(bytes(name), bytes(value)) for name, value in event.headers])
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
            elif isinstance(event, h2.events.SettingsAcknowledged):
                self.is_acknowledged = True
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
        self.stream_buffers[stream_id] = Buffer(self.context.event_class, edge_stream)
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
                state=ConnectionState({STATE: edge_stream}),
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
                self._end_request(stream_id, is_malformed=isinstance(buffer, Buffer) and buffer.is_malformed)
                await self._forget(stream_id)
        except (KeyError, MissingStreamError, h2.exceptions.ProtocolError):
            await self._forget(stream_id)
        await self._flush()

    def _end_request(self, stream_id: int, *, is_malformed: bool) -> None:
        """Behind its answer: an error of the stream (RFC 9113 §8.1.1), or nobody reads the rest of its body (§8.1)."""
        code = h2.errors.ErrorCodes.PROTOCOL_ERROR if is_malformed else h2.errors.ErrorCodes.NO_ERROR
        if is_malformed:
            self._budget -= _RESET_COST
        if stream_id in self._uploading:
            self.connection.reset_stream(stream_id, code)
        elif is_malformed:  # to the library it is closed already
            self.write_out()
            self._server.write(RstStreamFrame(stream_id, code).serialize())

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
        if isinstance(buffer, Buffer) and not buffer.is_finished:
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
        with suppress(MissingStreamError):
            self.priority.remove_stream(stream_id)

    def farewell(self, code: h2.errors.ErrorCodes = h2.errors.ErrorCodes.NO_ERROR) -> None:
        """What comes behind the last stream was not looked at and may be asked elsewhere."""
        if not self.closed:
            with suppress(h2.exceptions.ProtocolError):
                self.connection.close_connection(code)
            self.write_out()

    def goodbye(self) -> None:
        """No new streams, please; what is under way, or was sent before this arrives, is answered (RFC 9113 §6.8).

        Made by hand: after its own GOAWAY the library refuses to send anything else.
        """
        if not self.closed:
            self.write_out()
            self._server.write(GoAwayFrame(0, last_stream_id=_ALL_STREAMS).serialize())
