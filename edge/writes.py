"""What is written in one turn of the event loop leaves at its end, together.

A turn handles all that became readable at once: dozens of requests and answers under load. Each written at once finds its
reader asleep, wakes it, and is read alone, forty times a turn; written one after the other they find it awake. The kernel's
part of a request gets a quarter cheaper that way, and with one request in the turn nothing waits but for the turn's end.

Only what is small and whole goes this way: a request without a body, an answer that ends. What streams is written at once,
where back-pressure is felt.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

MAX_BYTES = 16_384
"""Of one piece. Larger ones are worth their own wake-up, and would be held for nothing."""


class Writable(Protocol):
    """What is asked of a transport."""

    def write(self, data: bytes) -> None: ...

    def is_closing(self) -> bool: ...


class Writes:
    """Owner: whoever owns the transports; one event loop, no lock."""

    __slots__ = ("_call_soon", "_waiting")

    def __init__(self, call_soon: Callable[[Callable[[], None]], object]) -> None:
        """`call_soon` is the loop's: it calls what it is given when the turn ends."""
        self._call_soon = call_soon
        self._waiting: dict[Writable, bytes] = {}

    def write(self, transport: Writable, data: bytes) -> None:
        """Leave `data` for the end of the turn. One piece for each transport; a second one takes the first along at once,
        so that whoever answers many requests of one client notices that it does not read."""
        waiting = self._waiting
        if transport in waiting or len(data) > MAX_BYTES:
            self.write_now(transport, data)
            return
        waiting[transport] = data
        if len(waiting) == 1:
            self._call_soon(self._end)

    def write_now(self, transport: Writable, data: bytes) -> None:
        """Behind what waits for it."""
        held = self._waiting.pop(transport, None)
        transport.write(data if held is None else held + data)

    def settle(self, transport: Writable) -> None:
        """Before something else is done with it: what waits for it is written."""
        held = self._waiting.pop(transport, None)
        if held is not None:
            transport.write(held)

    def _end(self) -> None:
        waiting, self._waiting = self._waiting, {}
        for transport, data in waiting.items():
            if not transport.is_closing():
                transport.write(data)
