"""What one connection may cost that carries nothing: a bucket that fills with time and with honest traffic."""

from __future__ import annotations

from collections.abc import Callable


class Budget:
    """Owner: one HTTP/2 session. The clock is looked at only when the bucket is empty."""

    __slots__ = ("_clock", "_left", "_looked_s", "_per_s", "_size")

    def __init__(self, size: int, per_s: int, clock: Callable[[], float]) -> None:
        self._left = self._size = size
        self._per_s = per_s
        self._clock = clock
        self._looked_s = clock()

    def spend(self, cost: int) -> bool:
        """Whether it could be paid."""
        self._left -= cost
        if self._left >= 0:
            return True
        now_s = self._clock()
        self._left = min(self._size, self._left + int((now_s - self._looked_s) * self._per_s))
        self._looked_s = now_s
        return self._left >= 0

    def earn(self, credit: int) -> None:
        left = self._left + credit
        self._left = left if left < self._size else self._size
