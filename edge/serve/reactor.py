"""The supervisor's loop: descriptors, signals and timers, one thread, no asyncio.

No asyncio because the supervisor forks: a forked event loop shares its epoll set and its wake-up pipe with the parent.
`poll(2)` keeps no state in the kernel, so a child that inherits the descriptors cannot disturb it.
"""

from __future__ import annotations

import heapq
import itertools
import select
import signal
import socket
import time
from collections.abc import Callable
from types import FrameType

READ = select.POLLIN
WRITE = select.POLLOUT
_BROKEN = select.POLLHUP | select.POLLERR
_LONGEST_WAIT_S = 60.0


class Timer:
    """A call at a moment; `cancel()` forgets it."""

    __slots__ = ("action",)

    def __init__(self, action: Callable[[], None]) -> None:
        self.action: Callable[[], None] | None = action

    def cancel(self) -> None:
        self.action = None


class Reactor:
    """Calls back on readiness, signals and moments. Callbacks run to the end and must not block."""

    def __init__(self) -> None:
        self._poll = select.poll()
        self._callbacks: dict[int, Callable[[int], None]] = {}  # owner: whoever called watch()
        self._timers: list[tuple[float, int, Timer]] = []
        self._order = itertools.count()
        self._on_signal: Callable[[int], None] | None = None
        self._wake_in, self._wake_out = socket.socketpair()
        self._wake_in.setblocking(False)
        self._wake_out.setblocking(False)
        self.watch(self._wake_in.fileno(), READ, self._signalled)

    def watch(self, fd: int, events: int, callback: Callable[[int], None]) -> None:
        """Call `callback(ready events)` when `fd` is ready; a hang-up counts as readable. Replaces an earlier watch."""
        self._callbacks[fd] = callback
        self._poll.register(fd, events)

    def forget(self, fd: int) -> None:
        """Stop watching `fd`; must come before closing it. Harmless when it is not watched."""
        if self._callbacks.pop(fd, None) is not None:
            self._poll.unregister(fd)

    def after(self, delay_s: float, action: Callable[[], None]) -> Timer:
        """Call `action` once, `delay_s` from now."""
        timer = Timer(action)
        heapq.heappush(self._timers, (time.monotonic() + delay_s, next(self._order), timer))
        return timer

    def catch(self, signals: tuple[signal.Signals, ...], on_signal: Callable[[int], None]) -> None:
        """Deliver `signals` as calls of `on_signal(number)` from the loop instead of wherever the process happens to be."""
        self._on_signal = on_signal
        signal.set_wakeup_fd(self._wake_out.fileno(), warn_on_full_buffer=False)
        for number in signals:
            signal.signal(number, _noticed)

    def run_until(self, done: Callable[[], bool], timeout_s: float | None = None) -> bool:
        """Turn until `done()`; False when `timeout_s` passed first."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while not done():
            left_s = _LONGEST_WAIT_S if deadline is None else deadline - time.monotonic()
            if left_s <= 0:
                return False
            self._turn(left_s)
        return True

    def _turn(self, longest_s: float) -> None:
        if self._timers:
            longest_s = min(longest_s, self._timers[0][0] - time.monotonic())
        for fd, events in self._poll.poll(max(0, int(longest_s * 1000) + 1)):
            callback = self._callbacks.get(fd)
            if callback is not None:  # an earlier callback of this turn may have forgotten it
                callback(events | READ if events & _BROKEN else events)
        now = time.monotonic()
        while self._timers and self._timers[0][0] <= now:
            action = heapq.heappop(self._timers)[2].action
            if action is not None:
                action()

    def _signalled(self, _events: int) -> None:
        numbers = self._wake_in.recv(4096)
        # One call per kind: what a signal means (reap, stop, reload) does not depend on how often it came.
        for number in dict.fromkeys(numbers):
            if self._on_signal is not None:
                self._on_signal(number)

    def close(self) -> None:
        """Give signals back their default meaning to Python and close the wake-up pair."""
        signal.set_wakeup_fd(-1)
        self._wake_in.close()
        self._wake_out.close()


def _noticed(_number: int, _frame: FrameType | None) -> None:
    """The wake-up descriptor carries the number; a Python handler must exist for that to happen."""
