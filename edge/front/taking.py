"""Whether a client takes what waits for it in its transport, at the least rate or better."""

from __future__ import annotations

import asyncio

from edge.accept.deadlines import Deadlines
from edge.front.wire import taken_bytes


class Taking:
    """Owner: one connection. It is asked again and again, and reads TCP_INFO only when an answer is due."""

    __slots__ = ("_due_s", "_taken_bytes")

    def __init__(self) -> None:
        self._due_s = 0.0
        self._taken_bytes = 0

    def is_behind(self, transport: asyncio.Transport, deadlines: Deadlines, now_s: float) -> bool:
        if not transport.get_write_buffer_size():
            self._due_s = 0.0
            return False
        if self._due_s and now_s <= self._due_s:
            return False
        before, self._taken_bytes = self._taken_bytes, taken_bytes(transport)
        is_first, self._due_s = not self._due_s, now_s + deadlines.write_s
        return not is_first and self._taken_bytes - before < deadlines.least_bytes_per_s * deadlines.write_s
