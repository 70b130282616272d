"""What of Hypercorn's inside is relied on; a new minor that moves one of these fails here, by name."""

from __future__ import annotations

import asyncio
import inspect
import ssl
from dataclasses import replace
from importlib.metadata import version
from typing import Any

import h2.connection
import pytest
from h2.connection import H2Connection
from h2.stream import H2Stream
from hypercorn.asyncio.task_group import TaskGroup
from hypercorn.asyncio.tcp_server import TCPServer
from hypercorn.asyncio.worker_context import WorkerContext
from hypercorn.protocol.events import Request
from hypercorn.protocol.h2 import H2Protocol, StreamBuffer
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.protocol.http_stream import HTTPStream
from hypercorn.typing import ConnectionState

from edge.accept.hypercorn_h2 import EdgeH2, UnmeasuredConnection, UnmeasuredStream
from edge.accept.hypercorn_scope import Http1
from edge.accept.hypercorn_stream import STATE, Buffer, Stream, Tasks, stream_of
from edge.accept.hypercorn_tls import Server, hypercorn_config
from edge.model.identity import Peer

PEER = Peer(ip="127.0.0.1", port=1, prefix="127.0.0.1", sni=None, tls_version="", tls_cipher="")


class Wire:
    """A connection that only counts."""

    peer = PEER

    def __init__(self) -> None:
        self.acknowledged = 0

    def acknowledge(self, stream_id: int, count: int) -> None:
        self.acknowledged += count

    def send_continue(self, stream_id: int) -> None: ...

    def reset(self, stream_id: int) -> None: ...


def names(function: Any) -> list[str]:
    return list(inspect.signature(function).parameters)


def test_the_minor_is_the_one_that_is_pinned() -> None:
    assert version("hypercorn").startswith("0.18.")


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (EdgeH2, H2Protocol),
        (Buffer, StreamBuffer),
        (Tasks, TaskGroup),
        (Server, TCPServer),
        (Http1, H11Protocol),
        (UnmeasuredStream, H2Stream),
        (UnmeasuredConnection, H2Connection),
    ],
)
def test_what_we_replace_is_still_there_under_its_name(ours: type, theirs: type) -> None:
    replaced = {
        name
        for name in vars(ours)
        if name in vars(theirs) and inspect.isfunction(vars(ours)[name]) and name != "__init__"
    }
    expected = {
        EdgeH2: {
            *("initiate", "_flush", "handle", "_handle_events", "_create_stream", "stream_send"),
            *("_send_data", "_close_stream"),
        },
        Buffer: {"push", "pop"},
        Tasks: {"spawn_app"},
        Server: {"run", "protocol_send"},
        Http1: {"_check_protocol"},
        UnmeasuredStream: {"_initialize_content_length", "_track_content_length"},
        UnmeasuredConnection: {"_begin_new_stream"},
    }
    assert replaced == expected[ours]
    for name in replaced:
        assert len(names(getattr(ours, name))) == len(names(getattr(theirs, name))), name


def test_what_we_call_takes_what_we_give() -> None:
    assert names(H2Protocol.__init__)[1:] == [
        *("app", "config", "context", "task_group", "connection_state", "ssl", "client", "server", "send"),
    ]
    assert names(HTTPStream.__init__)[1:] == [
        *("app", "config", "context", "task_group", "ssl", "client", "server", "send", "stream_id"),
    ]
    assert names(TCPServer.__init__)[1:] == ["app", "loop", "config", "context", "state", "reader", "writer"]
    assert names(Request.__init__)[1:] == ["stream_id", "headers", "http_version", "method", "raw_path", "state"]
    assert callable(H2Protocol.send_task)
    assert callable(H2Protocol._window_updated)
    assert callable(TCPServer._read_data)
    assert {"buffer", "_complete", "_is_empty", "_paused"} <= set(vars(StreamBuffer(asyncio.Event)))  # type: ignore[arg-type]


def test_a_frame_that_is_not_whole_waits_where_we_look_for_it() -> None:
    connection = h2.connection.H2Connection()
    connection.initiate_connection()
    connection.receive_data(b"\xff\xff\xff\x00\x00")
    assert bytes(connection.incoming_buffer._data[:3]) == b"\xff\xff\xff"


def test_hypercorn_adds_nothing_to_an_answer() -> None:
    assert hypercorn_config().response_headers("h2") == []


def test_a_scope_that_was_not_made_here_holds_no_stream() -> None:
    scopes: list[dict[str, object]] = [{}, {"state": {}}, {"state": {"edge": {"head": []}}}]
    for scope in scopes:
        assert stream_of(scope) is None


def test_the_application_is_told_of_the_client_certificate_where_asgi_says() -> None:
    peer = replace(PEER, chain=(b"leaf", b"intermediate"), tls_version="TLSv1.3")
    told: list[Any] = []

    async def app(scope: Any, _receive: Any, send: Any, *_: Any) -> None:
        told.append(scope["extensions"]["tls"])

    async def scene() -> None:
        wire = Wire()
        wire.peer = peer
        stream = Stream(wire, 1, [], has_body=False)
        config, context = hypercorn_config(), WorkerContext(None)
        async with Tasks(asyncio.get_running_loop()) as group:
            sent: list[Any] = []

            async def send(event: Any) -> None:
                sent.append(event)

            served = HTTPStream(app, config, context, group, True, None, ("", 0), send, 1)  # type: ignore[arg-type]
            await served.handle(
                Request(
                    stream_id=1, headers=[], http_version="2", method="GET", raw_path=b"/",
                    state=ConnectionState({STATE: stream}),
                )
            )  # fmt: skip

    asyncio.run(scene())
    assert [ssl.PEM_cert_to_DER_cert(pem) for pem in told[0]["client_cert_chain"]] == [b"leaf", b"intermediate"]
    assert told[0]["tls_version"] == 0x0304


async def _events(*events: dict[str, object]) -> tuple[Stream, Wire]:
    wire = Wire()
    stream = Stream(wire, 1, [], has_body=True)
    for event in events:
        await stream.put(event)
    return stream, wire


def piece(body: bytes, *, more: bool = True) -> dict[str, object]:
    return {"type": "http.request", "body": body, "more_body": more}


def test_pieces_are_taken_in_one_and_acknowledged_then() -> None:
    async def scene() -> None:
        stream, wire = await _events(piece(b"ab"), piece(b"cd"), piece(b"", more=False))
        assert wire.acknowledged == 0
        assert await stream.receive() == {"type": "http.request", "body": b"abcd", "more_body": False}
        assert wire.acknowledged == 4

    asyncio.run(scene())


def test_a_client_that_leaves_is_told_of_once_and_at_once() -> None:
    async def scene() -> None:
        told: list[int] = []
        stream, wire = await _events(piece(b"ab"))
        stream.when_gone = lambda: told.append(1)
        await stream.put({"type": "http.disconnect"})
        await stream.put({"type": "http.disconnect"})
        assert told == [1]
        assert await stream.receive() == {"type": "http.disconnect"}
        assert (stream.drop(), wire.acknowledged) == (b"ab", 2)

    asyncio.run(scene())


def test_a_send_buffer_is_released_by_what_it_holds_not_by_what_was_taken() -> None:
    from hypercorn.asyncio.worker_context import EventWrapper

    async def scene() -> None:
        stream, _ = await _events()
        buffer = Buffer(EventWrapper, stream)
        push = asyncio.ensure_future(buffer.push(bytes(100_000)))
        for _ in range(50):
            await buffer.pop(1)
            await asyncio.sleep(0)
        assert not push.done()
        while len(buffer.buffer) > 10_000:
            await buffer.pop(16_384)
        await push
        assert stream.bytes_taken == 100_000 - len(buffer.buffer)

    asyncio.run(scene())
