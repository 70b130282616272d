"""Which refusals are written one by one and which are only counted, so that a flood of strangers cannot fill the disk.

Unauthenticated refusals beyond 50 per second and address prefix, and any refusal that finds no slot, become counts per
(second, prefix, reason); each count is one leaf once its second is over. All memory here is bounded.
"""

from __future__ import annotations

SINGLE_PER_S = 50
MAX_PREFIXES = 8192
"""Prefixes that get single leaves within one second; more in one second is a flood of another kind, only counted."""
MAX_COUNTS = 4096
"""Pending counts; beyond it all prefixes share one, named `*`."""

Key = tuple[int, str, str]
"""(second since the epoch, address prefix, reason)."""


class Flood:
    """The budgets of the current second and the counts that await their leaf. Owned by one Recorder."""

    def __init__(self) -> None:
        self._second = 0
        self._singles: dict[str, int] = {}
        self._counts: dict[Key, int] = {}

    def is_over(self, prefix: str, mono_s: int) -> bool:
        """Take one from the prefix's budget of this second of CLOCK_MONOTONIC (a wall clock set back would freeze it)."""
        if mono_s != self._second:
            self._second = mono_s
            self._singles.clear()
        taken = self._singles.get(prefix, 0)
        if taken >= SINGLE_PER_S or (not taken and len(self._singles) >= MAX_PREFIXES):
            return True
        self._singles[prefix] = taken + 1
        return False

    def count(self, prefix: str, reason: str, epoch_s: int) -> None:
        """One more refusal that gets no leaf of its own."""
        key = (epoch_s, prefix, reason)
        if key not in self._counts and len(self._counts) >= MAX_COUNTS:
            key = (epoch_s, "*", reason)
        self._counts[key] = self._counts.get(key, 0) + 1

    def due(self, epoch_s: int, limit: int) -> list[tuple[Key, int]]:
        """Up to `limit` counts of seconds before `epoch_s`."""
        return [item for item in self._counts.items() if item[0][0] < epoch_s][:limit]

    def written(self, key: Key) -> None:
        """The count has its leaf."""
        del self._counts[key]
