"""An answer on its way into ASGI: in order, bounded, ended once, and never resumed after a cut."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from edge.dataplane import HELD_BYTES, Outbox

Scene = Callable[["Server", Outbox], Awaitable[None]]


class Server:
    """The far side of ASGI `send`: takes one event at a time, when it is let."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self.pauses: list[bool] = []
        self.takes = asyncio.Event()
        self.takes.set()

    async def send(self, event: dict[str, object]) -> None:
        self.events.append(event)
        await self.takes.wait()

    @property
    def body(self) -> bytes:
        return b"".join(event["body"] for event in self.events if event["type"] == "http.response.body")


def play(scene: Scene, *, ends: bool = True) -> Server:
    """Run a scene beside the outbox; gives what the server got."""

    async def both() -> Server:
        server = Server()
        outbox = Outbox(server.pauses.append)
        task = asyncio.ensure_future(outbox.run(server.send))
        await asyncio.sleep(0)
        await scene(server, outbox)
        if ends:
            await asyncio.wait_for(task, 2)
        else:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        return server

    return asyncio.run(both())


async def turns(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def test_head_pieces_and_end_go_out_in_order_and_in_one_piece() -> None:
    async def scene(_: Server, outbox: Outbox) -> None:
        outbox.start(200, [(b"x-a", b"1")])
        outbox.add(b"he")
        outbox.add(b"llo")
        outbox.end()
        outbox.flush()

    assert play(scene).events == [
        {"type": "http.response.start", "status": 200, "headers": [(b"x-a", b"1")]},
        {"type": "http.response.body", "body": b"hello", "more_body": False},
    ]


def test_an_answer_without_a_body_ends() -> None:
    async def scene(_: Server, outbox: Outbox) -> None:
        outbox.start(204, [])
        outbox.end()
        outbox.flush()

    assert play(scene).events[1:] == [{"type": "http.response.body", "body": b"", "more_body": False}]


def test_nothing_goes_out_before_it_is_flushed() -> None:
    async def scene(server: Server, outbox: Outbox) -> None:
        outbox.start(200, [])
        outbox.add(b"x")
        await turns()
        assert server.events == []

    play(scene, ends=False)


def test_a_stream_goes_out_piece_by_piece() -> None:
    async def scene(server: Server, outbox: Outbox) -> None:
        outbox.start(200, [])
        for piece in (b"a", b"b", b"c"):
            outbox.add(piece)
            outbox.flush()
            await turns()
            assert server.body.endswith(piece)
        outbox.end()
        outbox.flush()

    assert play(scene).body == b"abc"


def test_what_is_not_taken_pauses_the_source_once_and_until_all_is_taken() -> None:
    async def scene(server: Server, outbox: Outbox) -> None:
        server.takes.clear()
        outbox.start(200, [])
        for _ in range(3):
            outbox.add(bytes(HELD_BYTES // 2 + 1))
            outbox.flush()
            await turns()
        assert server.pauses == [True]
        assert not outbox.is_waiting  # the head itself is not taken yet
        server.takes.set()
        await turns()
        assert server.pauses == [True, False]
        outbox.end()
        outbox.flush()

    assert len(play(scene).body) == 3 * (HELD_BYTES // 2 + 1)


def test_an_ended_answer_pauses_nobody() -> None:
    async def scene(server: Server, outbox: Outbox) -> None:
        outbox.start(200, [])
        outbox.add(bytes(2 * HELD_BYTES))
        outbox.end()
        outbox.flush()

    assert play(scene).pauses == []


def test_waiting_says_that_a_piece_is_not_taken() -> None:
    async def scene(server: Server, outbox: Outbox) -> None:
        outbox.start(200, [])
        outbox.flush()
        await turns()
        server.takes.clear()
        outbox.add(b"x")
        outbox.flush()
        await turns()
        assert outbox.is_waiting
        server.takes.set()
        await turns()
        assert not outbox.is_waiting

    play(scene, ends=False)


def test_a_cut_ends_it_before_the_head() -> None:
    async def scene(_: Server, outbox: Outbox) -> None:
        outbox.start(200, [])
        outbox.add(b"x")
        outbox.cut()
        outbox.end()
        outbox.flush()

    assert play(scene).events == []


def test_a_cut_ends_it_behind_the_piece_under_way() -> None:
    async def scene(server: Server, outbox: Outbox) -> None:
        outbox.start(200, [])
        outbox.add(b"x")
        outbox.flush()
        await turns()
        server.takes.clear()
        outbox.add(b"y")
        outbox.flush()
        await turns()
        outbox.add(b"z")
        outbox.cut()
        server.takes.set()

    server = play(scene)
    assert server.body == b"xy"
    assert all(event.get("more_body", True) for event in server.events)
