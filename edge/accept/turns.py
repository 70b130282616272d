"""Whose turn it is: addresses take turns, so that one address's crowd does not stand before another's single connection.

    waiting   A A A A A A B      taken   A B A A A A A

Within one address whoever came first is first. Of each address only so many may be under way at once; the rest of it waits,
and nobody waits for them. Every call costs the same, however many wait.
"""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")


class Turns(Generic[T]):
    """Owner: one gate; one event loop, no lock."""

    __slots__ = ("_most", "_round", "_under_way", "_waiting")

    def __init__(self, most_under_way: int) -> None:
        """`most_under_way`: of one address."""
        self._most = most_under_way
        self._waiting: dict[str, deque[T]] = {}
        self._under_way: dict[str, int] = {}
        self._round: deque[str] = deque()
        """Each address once that has somebody waiting and may have one more under way, in the order of their turns."""

    def __bool__(self) -> bool:
        """Whether `take` would give anything."""
        return bool(self._round)

    def count(self, prefix: str) -> int:
        """Of this address: who waits, and who is under way."""
        return len(self._waiting.get(prefix, ())) + self._under_way.get(prefix, 0)

    def put(self, prefix: str, item: T) -> None:
        """It waits."""
        waiting = self._waiting.get(prefix)
        if waiting is None:
            self._waiting[prefix] = deque((item,))
            if self._under_way.get(prefix, 0) < self._most:
                self._round.append(prefix)
        else:
            waiting.append(item)

    def take(self) -> T:
        """Who is next, and under way from now on. Raises: IndexError; nobody may go."""
        prefix = self._round.popleft()
        waiting = self._waiting[prefix]
        item = waiting.popleft()
        count = self._under_way[prefix] = self._under_way.get(prefix, 0) + 1
        if not waiting:
            del self._waiting[prefix]
        elif count < self._most:
            self._round.append(prefix)
        return item

    def end(self, prefix: str) -> None:
        """One of those under way no longer is."""
        count = self._under_way[prefix]
        if count > 1:
            self._under_way[prefix] = count - 1
        else:
            del self._under_way[prefix]
        if count == self._most and prefix in self._waiting:
            self._round.append(prefix)
