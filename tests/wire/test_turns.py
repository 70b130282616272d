"""What one read holds is worked off in turns, whatever it costs, and others have theirs in between (attacks C4).

A front in this process is fed by hand, so that each turn of its loop can be looked at: nothing depends on time.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import uvloop

from edge.accept.shed import ShedSettings
from edge.front import Http1, Http2
from edge.front.http1 import HEADS_AT_ONCE
from edge.front.http2 import HEADS_AT_ONCE as STREAMS_AT_ONCE
from edge.front.message import CHUNKED_AT_ONCE
from tests.wire.raw_h2 import (
    ACK,
    END_HEADERS,
    GET,
    HEADERS,
    PING,
    PREFACE,
    RST_STREAM,
    SETTINGS,
    frame,
    headers,
    setting,
    u32,
)
from tests.wire.rig import HEAD, Rig
from tests.wire.test_deadlines import SHORT, near

CALM = replace(SHORT, head_s=60, idle_s=60, body_s=60, write_s=60)
NOWHERE = b"GET /nowhere HTTP/1.1\r\n" + HEAD + b"\r\n"
NOWHERE_FIELDS = (*GET[:3], (b":path", b"/nowhere"))
MANY = 100


class Wire(asyncio.Transport):
    """Keeps what is written, and whether it is read."""

    def __init__(self) -> None:
        super().__init__({"peername": ("127.0.0.1", 1)})
        self.written = b""
        self.is_read = True
        self.is_closed = False
        self.protocol: asyncio.BaseProtocol | None = None

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.protocol = protocol

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """It takes everything."""

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += data

    def pause_reading(self) -> None:
        self.is_read = False

    def resume_reading(self) -> None:
        self.is_read = True

    def close(self) -> None:
        """The test ends it."""
        self.is_closed = True

    def abort(self) -> None:
        """The test ends it."""

    def streams_answered(self) -> int:
        """By their HEADERS frames."""
        at, count = 0, 0
        while at < len(self.written):
            count += self.written[at + 3] == HEADERS
            at += 9 + int.from_bytes(self.written[at : at + 3], "big")
        return count

    def statuses(self) -> int:
        return self.written.count(b"HTTP/1.1 404 ")


@asynccontextmanager
async def connection(running: Rig, tmp_path: Path, *, is_http2: bool) -> AsyncIterator[tuple[Http1 | Http2, Wire]]:
    async with near(running.gateway.directory, tmp_path / "w.ring", ShedSettings(), deadlines=CALM) as there:
        wire, protocol = Wire(), Http1(there.front)
        assert there.front.shared.shed.open("127.0.0.1")
        client: Http1 | Http2 = protocol
        if is_http2:
            client = Http2(there.front, wire)
        else:
            protocol.connection_made(wire)
        yield client, wire
        client.connection_lost(None)


async def steps(count: Callable[[], int], whole: int) -> list[int]:
    """How much more was done in each turn, until all was."""
    found: list[int] = []
    before = 0
    while before < whole:
        assert len(found) < 100_000, "it does not go on"
        await asyncio.sleep(0)
        now = count()
        found.append(now - before)
        before = now
    return found


def test_pipelined_refusals_have_turns_C4(running: Rig, tmp_path: Path) -> None:
    async def scene() -> list[int]:
        async with connection(running, tmp_path, is_http2=False) as (client, wire):
            client.data_received(NOWHERE * MANY)
            return await steps(wire.statuses, MANY)

    found = uvloop.run(scene())
    assert max(found) <= 2 * HEADS_AT_ONCE  # what is written last in a turn may leave in the next
    assert sum(map(bool, found)) >= MANY // HEADS_AT_ONCE


def test_who_goes_on_sending_has_no_more_turns_for_it_C4(running: Rig, tmp_path: Path) -> None:
    async def scene() -> list[int]:
        async with connection(running, tmp_path, is_http2=False) as (client, wire):
            client.data_received(NOWHERE * (MANY // 2))
            for _ in range(MANY // 2):
                client.data_received(NOWHERE)
            return await steps(wire.statuses, MANY)

    assert max(uvloop.run(scene())) <= 2 * HEADS_AT_ONCE


def test_the_smallest_chunks_have_turns_and_the_body_arrives_C4(running: Rig, tmp_path: Path) -> None:
    running.upstream.clear()
    raw = b"1\r\nx\r\n" * CHUNKED_AT_ONCE

    async def scene() -> tuple[list[bool], bytes]:
        async with connection(running, tmp_path, is_http2=False) as (client, wire):
            client.data_received(b"POST /orders/x HTTP/1.1\r\n" + HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
            client.data_received(raw + b"0\r\n\r\n")
            are_read = [wire.is_read]
            while b"\r\n\r\nok" not in wire.written:
                await asyncio.sleep(0.001)
                are_read.append(wire.is_read)
            client.data_received(NOWHERE)  # and the connection is as good as before
            await steps(wire.statuses, 1)
            return are_read, wire.written

    are_read, written = uvloop.run(scene())
    assert written.startswith(b"HTTP/1.1 200 ")
    assert (are_read[0], are_read[-1]) == (False, True)
    body = running.upstream.requests[0].partition(b"\r\n\r\n")[2]
    assert body.count(b"x") == len(raw) // 6


def test_heads_of_http2_have_turns_C4(running: Rig, tmp_path: Path) -> None:
    async def scene() -> tuple[list[int], bool]:
        async with connection(running, tmp_path, is_http2=True) as (client, wire):
            heads = b"".join(headers(stream, NOWHERE_FIELDS) for stream in range(1, 2 * MANY, 2))
            client.data_received(PREFACE + setting() + frame(SETTINGS, ACK) + heads)
            assert not wire.is_read
            return await steps(wire.streams_answered, MANY), wire.is_read

    found, is_read = uvloop.run(scene())
    assert max(found) <= STREAMS_AT_ONCE
    assert is_read


def test_control_frames_have_turns_and_what_they_reset_is_not_begun_C4(running: Rig, tmp_path: Path) -> None:
    """Also when the reset is judged in another turn than its head."""
    running.upstream.clear()
    pings = b"".join(frame(PING, payload=b"%8d" % number) for number in range(MANY))

    async def scene() -> list[int]:
        async with connection(running, tmp_path, is_http2=True) as (client, wire):
            reset = headers(1, GET, END_HEADERS | 1) + pings + frame(RST_STREAM, 0, 1, u32(8))
            client.data_received(PREFACE + setting() + frame(SETTINGS, ACK) + reset)
            return await steps(lambda: wire.written.count(b"\x00\x00\x08\x06\x01"), MANY)

    found = uvloop.run(scene())
    assert max(found) <= 2 * 32  # the first two turns are seen together
    assert running.upstream.seen == b""


@pytest.mark.parametrize(("begun", "is_left_open"), [(b"", False), (b"\r\n", False), (b"\r\nG", True), (b"G", True)])
def test_an_empty_line_begins_no_request_that_a_drain_would_wait_for(
    running: Rig, tmp_path: Path, begun: bytes, is_left_open: bool
) -> None:
    async def scene() -> bool:
        async with connection(running, tmp_path, is_http2=False) as (client, wire):
            client.data_received(NOWHERE + begun)
            await steps(wire.statuses, 1)
            client.close_if_idle()
            return not wire.is_closed

    assert uvloop.run(scene()) is is_left_open


@pytest.mark.parametrize("is_http2", [False, True], ids=["h1", "h2"])
@pytest.mark.parametrize("path", [b"/nowhere", b"/orders/7"])
def test_requests_leave_nothing_to_the_collector_C4(
    running: Rig, tmp_path: Path, path: bytes, *, is_http2: bool
) -> None:
    """It comes when twenty thousand objects wait for it, and takes milliseconds that a whole worker waits for."""

    async def scene() -> int:
        async with connection(running, tmp_path, is_http2=is_http2) as (client, wire):
            if is_http2:
                client.data_received(PREFACE + setting() + frame(SETTINGS, ACK))
            for number in range(2 * MANY):
                if number == MANY:  # what is made once was
                    gc.collect()
                    gc.disable()
                if is_http2:
                    client.data_received(headers(2 * number + 1, (*GET[:3], (b":path", path))))
                    await steps(wire.streams_answered, number + 1)
                else:
                    client.data_received(b"GET %b HTTP/1.1\r\n" % path + HEAD + b"\r\n")
                    await steps(lambda: wire.written.count(b"HTTP/1.1 "), number + 1)
            return gc.collect()

    try:
        assert uvloop.run(scene()) < MANY
    finally:
        gc.enable()
