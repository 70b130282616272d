"""Deadlines, budgets and the drain of HTTP/2 connections: the front in this process, with seconds made short."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import uvloop

from edge.accept.shed import ShedSettings
from tests.wire.h2_client import H2Client, Reset
from tests.wire.raw_h2 import RawH2, headers
from tests.wire.rig import Rig
from tests.wire.test_deadlines import SHORT, Near, near, play

POST = [(b":method", b"POST"), (b":scheme", b"https"), (b":authority", b"localhost"), (b":path", b"/orders/x")]
BIG = 8 << 20
SETTINGS_TIMEOUT = 4
Attack = Callable[[Near], None]


def until_reset(client: H2Client, stream: int, say: bytes = b"") -> None:
    """Until the gateway resets the stream, or ends the connection."""
    end = time.monotonic() + 9
    while time.monotonic() < end:
        if say and stream not in client.resets:
            client.connection.send_data(stream, say)
            client.flush()
        client.pump_until_quiet(0.05)
        if stream in client.resets:
            return
    raise AssertionError("it was never cut")


def says_nothing(there: Near) -> None:
    with H2Client(there) as client:
        client.pump_until_closed()


def rests_after_an_answer(there: Near) -> None:
    with H2Client(there) as client:
        assert client.ask().status == 200
        client.pump_until_closed()
        assert client.goaways == [0]


def stops_in_its_body(there: Near) -> None:
    with H2Client(there) as client:
        stream = client.head(POST, is_end=False)
        client.send(stream, b"begin")
        until_reset(client, stream)
        assert client.ask().status == 200  # the connection goes on


def dribbles_a_body(there: Near) -> None:
    with H2Client(there) as client:
        until_reset(client, client.head(POST, is_end=False), b"x")


def takes_nothing_of_its_window(there: Near) -> None:
    with H2Client(there, window=0) as client:
        until_reset(client, client.request())
        assert client.resets[1] in (2, 8)  # Hypercorn's, ours


def opens_its_window_by_one_byte(there: Near) -> None:
    with H2Client(there, window=0, acks=False) as client:
        stream = client.request()
        end = time.monotonic() + 9
        while stream not in client.resets and time.monotonic() < end:
            client.connection.increment_flow_control_window(1, stream)
            client.flush()
            client.pump_until_quiet(0.05)
        assert stream in client.resets


def reads_nothing_from_its_socket(there: Near) -> None:
    with H2Client(there) as client:
        client.request(path="/orders/big")
        time.sleep(2.2)
        with pytest.raises((EOFError, OSError, Reset)):
            client.answer(1)


def never_acknowledges(there: Near) -> None:
    with RawH2(there, acknowledges=False) as client:
        assert client.send(headers(1)).until_over(1).statuses == {1: 200}
        assert client.until_closed().goaways == [(1, SETTINGS_TIMEOUT)]


ENDS: dict[Attack, tuple[float, float]] = {
    says_nothing: (0.4, 2),
    rests_after_an_answer: (0.4, 2),
    stops_in_its_body: (0.4, 2),
    dribbles_a_body: (0.4, 2),
    takes_nothing_of_its_window: (0.4, 2.5),
    opens_its_window_by_one_byte: (0.4, 2.5),
    reads_nothing_from_its_socket: (0, 4),
    never_acknowledges: (0.4, 2),
}


@pytest.mark.parametrize("engine", ["front", "hypercorn"])
def test_who_holds_on_is_cut_C4(running: Rig, tmp_path: Path, engine: str) -> None:
    running.upstream.by_target[b"/orders/big"] = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % BIG + bytes(BIG)
    running.upstream.by_target[b"/orders/7"] = b"HTTP/1.1 200 OK\r\ncontent-length: 2000\r\n\r\n" + bytes(2000)

    async def all_of_them() -> list[float | BaseException]:
        async with near(running.gateway.directory, tmp_path / "w.ring", ShedSettings(), http2=engine) as there:
            with ThreadPoolExecutor(len(ENDS)) as pool:
                found = await asyncio.gather(*(play(there, attack, pool) for attack in ENDS), return_exceptions=True)
            assert await there.front.emptied(2), "connections are left"
        return found

    for (attack, (least_s, most_s)), found in zip(ENDS.items(), uvloop.run(all_of_them()), strict=True):
        if isinstance(found, BaseException):
            raise AssertionError(attack.__name__) from found
        assert least_s < found < most_s, (attack.__name__, found)


@pytest.mark.parametrize("engine", ["front", "hypercorn"])
def test_one_address_has_so_many_connections_and_gets_them_back(running: Rig, tmp_path: Path, engine: str) -> None:
    def crowd(there: Near) -> None:
        with H2Client(there) as first, H2Client(there) as second:
            assert [first.ask().status, second.ask().status] == [200, 200]
            with pytest.raises((OSError, EOFError)), H2Client(there) as third:
                third.ask()
        end = time.monotonic() + 9
        while there.front.connections:
            assert time.monotonic() < end
        with H2Client(there) as fourth:
            assert fourth.ask().status == 200

    async def alone() -> None:
        shed = ShedSettings(max_connections_per_prefix=2)
        async with near(running.gateway.directory, tmp_path / "w.ring", shed, http2=engine) as there:
            with ThreadPoolExecutor(1) as pool:
                await play(there, crowd, pool)

    uvloop.run(alone())


@pytest.mark.parametrize("engine", ["front", "hypercorn"])
def test_a_drain_finishes_what_is_under_way_and_says_goodbye(running: Rig, tmp_path: Path, engine: str) -> None:
    async def scene() -> None:
        async with near(running.gateway.directory, tmp_path / "w.ring", ShedSettings(), http2=engine) as there:
            loop = asyncio.get_running_loop()

            def ask(client: H2Client, stream: int) -> tuple[int, list[int]]:
                client.send(stream, b"b", is_end=True)
                return client.answer(stream).status, client.goaways

            with ThreadPoolExecutor(1) as pool:
                client = await loop.run_in_executor(pool, H2Client, there)
                stream = await loop.run_in_executor(pool, lambda: client.head(POST, is_end=False))
                await loop.run_in_executor(pool, client.send, stream, b"a")
                there.front.begin_drain()
                assert there.front.connections
                status, goaways = await loop.run_in_executor(pool, ask, client, stream)
                assert (status, set(goaways)) == (200, {0})
                await loop.run_in_executor(pool, client.pump_until_closed)
                client.close()
            assert await there.front.drained(SHORT.linger_s + 1)

    uvloop.run(scene())
