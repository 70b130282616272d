"""Periodic work of a worker: deadlines of connections, summaries of refusals, key sets before they age.

A task that dies silently is how a gateway rots: here a failure is reported, counted and followed by the next turn. A turn
never overlaps the one before it, and the pause is counted from its end, so slow work cannot pile up.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

Action = Callable[[], Awaitable[None] | None]


@dataclass(slots=True)
class Timer:
    """One periodic piece of work; the counters are for the metrics."""

    name: str
    interval_s: float
    turns: int = 0
    failures: int = 0


class Timers:
    """All periodic work of one event loop. `on_failure(name, exception)` must not raise."""

    def __init__(self, on_failure: Callable[[str, Exception], None]) -> None:
        self._on_failure = on_failure
        self._tasks: list[asyncio.Task[None]] = []  # owner: this object; cancelled and awaited in close()

    def every(self, interval_s: float, name: str, action: Action) -> Timer:
        """Run `action` each `interval_s`, the first time after one interval."""
        timer = Timer(name, interval_s)
        self._tasks.append(asyncio.get_running_loop().create_task(self._run(timer, action), name=f"timer:{name}"))
        return timer

    async def _run(self, timer: Timer, action: Action) -> None:
        while True:
            await asyncio.sleep(timer.interval_s)
            timer.turns += 1
            try:
                result = action()
                if result is not None:
                    await result
            except Exception as exc:  # the next turn must come whatever this one met
                timer.failures += 1
                self._on_failure(timer.name, exc)

    async def close(self) -> None:
        """Stop all; work under way is cancelled."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
