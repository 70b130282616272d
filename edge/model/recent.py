"""A bounded map that forgets what was not used for long: two dictionaries, the younger replaces the older when full."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Recent(Generic[K, V]):
    """Holds at least the `capacity` keys used last and at most twice as many; every operation is O(1).

    The hot path may read `young` directly and call `find` on a miss. Owned by one worker's loop: no lock.
    """

    __slots__ = ("_capacity", "_old", "young")

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self.young: dict[K, V] = {}
        self._old: dict[K, V] = {}

    def find(self, key: K) -> V | None:
        """The value, which counts as used now."""
        value = self.young.get(key)
        if value is None:
            value = self._old.pop(key, None)
            if value is not None:
                self.put(key, value)
        return value

    def put(self, key: K, value: V) -> None:
        if len(self.young) >= self._capacity:
            self._old = self.young
            self.young = {}
        self.young[key] = value

    def values(self) -> Iterator[V]:
        """All that is held; nothing may be put or found meanwhile."""
        return chain(self.young.values(), self._old.values())

    def discard(self, key: K) -> None:
        """Forget it now."""
        self.young.pop(key, None)
        self._old.pop(key, None)

    def __len__(self) -> int:
        return len(self.young) + len(self._old)
