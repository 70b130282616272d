"""Periodic work that never dies silently."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

import pytest

from edge.timers import Action, Timers


async def turns(action: Action, count: int) -> tuple[int, list[str]]:
    """Let `action` have `count` turns; returns (failures, what was reported)."""
    reported: list[str] = []
    enough = asyncio.Event()
    timers = Timers(lambda name, exc: reported.append(f"{name}: {exc}"))

    def counted() -> Awaitable[None] | None:
        if timer.turns >= count:
            enough.set()
        return action()

    timer = timers.every(0.0, "work", counted)
    async with asyncio.timeout(2):
        await enough.wait()
        await asyncio.sleep(0)
    await timers.close()
    return timer.failures, reported


def test_plain_and_awaitable_work_both_run() -> None:
    async def awaitable() -> None:
        await asyncio.sleep(0)

    assert asyncio.run(turns(lambda: None, 3)) == (0, [])
    assert asyncio.run(turns(awaitable, 3)) == (0, [])


def test_failure_is_reported_and_the_next_turn_comes() -> None:
    def fail() -> None:
        raise ValueError("disk full")

    failures, reported = asyncio.run(turns(fail, 3))
    assert failures >= 2
    assert reported[0] == "work: disk full"


def test_turns_never_overlap() -> None:
    running = 0

    async def slow() -> None:
        nonlocal running
        running += 1
        assert running == 1
        await asyncio.sleep(0.001)
        running -= 1

    assert asyncio.run(turns(slow, 5)) == (0, [])


def test_close_cancels_what_is_under_way() -> None:
    cancelled = asyncio.Event()

    async def forever() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    def start() -> Awaitable[None]:
        return forever()

    asyncio.run(turns(start, 1))
    assert cancelled.is_set()


def test_work_under_way_at_close_is_not_reported_as_failed() -> None:
    async def forever() -> None:
        await asyncio.Event().wait()

    failures, reported = asyncio.run(turns(forever, 1))
    assert (failures, reported) == (0, [])


@pytest.mark.parametrize("interval_s", [0.5, 60.0])
def test_first_turn_comes_after_one_interval(interval_s: float) -> None:
    async def check() -> int:
        timers = Timers(lambda name, exc: None)
        timer = timers.every(interval_s, "work", lambda: None)
        await asyncio.sleep(0.01)
        await timers.close()
        return timer.turns

    assert asyncio.run(check()) == 0
