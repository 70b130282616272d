"""What is known of each instance: the newest entry that was verified, and whether its lease holds.

    take      a verified entry, read or written by ourselves → whether it is newer than what was known
    sweep     time went on, or more is revoked → the leases that ended by that
    held      what is known of one instance, or of all

Nothing here verifies, and nothing unverified may be put in. Laws:

- Of one instance the highest sequence counts, whichever gateway wrote it; an equal one is that of the greater gateway, so all
  readers agree whatever order they read in.
- What is known is not forgotten because it disappeared from the store: only time, a newer entry or a revocation ends it.
- What ended is remembered until everything that it replaced has ended too: a replay of that finds something newer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container
from dataclasses import dataclass

from edge.registry.entry import Entry

_NEVER_MS = 1 << 63
MAX_EACH = 1000
"""Instances of one service, whoever admitted them: twice what a gateway admits, for two may do so at once."""
MAX_HELD_BYTES = 64 << 20
"""Of all entries together: what gateways sign is believed, and one that was broken into signs as much as it likes."""


@dataclass(frozen=True, slots=True)
class Moment:
    """When something is judged, and what was revoked by then."""

    now_ms: int
    """Since the epoch."""
    mono_s: float
    """Never goes back."""
    revoked: Container[tuple[bytes, int]]


@dataclass(slots=True, eq=False)
class Held:
    """The newest entry about one instance, with the bytes that prove it: whoever holds them may publish them again."""

    entry: Entry
    raw: bytes
    certificates: tuple[tuple[bytes, int], ...]
    """What it rests on: the proof of who registered, and of the gateway that says so."""
    keep_until_ms: int
    """The latest end of all that was known of it."""
    published_s: float
    """Monotonic; when it was last seen in the store, or written there."""
    is_living: bool
    """The lease holds: neither gone nor over nor of a revoked certificate. As of the last `take` or `sweep`."""

    def judge(self, moment: Moment) -> bool:
        """Look again; whether it lives."""
        is_over = self.entry.gone or moment.now_ms >= self.entry.expires_ms
        self.is_living = not is_over and not any(each in moment.revoked for each in self.certificates)
        return self.is_living


class Ledger:
    """Owner: the worker; one event loop, no lock. Bounded, and leases end within two minutes."""

    def __init__(self) -> None:
        self._held: dict[tuple[str, str], Held] = {}
        self._each: Counter[str] = Counter()
        self._bytes = 0
        self._due_ms = _NEVER_MS
        """Nothing ends by time before this."""

    def find(self, service: str, instance: str) -> Held | None:
        return self._held.get((service, instance))

    def all(self) -> list[Held]:
        return list(self._held.values())

    def count(self, service: str) -> int:
        """Instances known of a service, gone ones among them: a flood of names must not pass by leaving again."""
        return self._each[service]

    def has_room(self, entry: Entry, raw: bytes) -> bool:
        """Whether one more is bearable; what takes the place of something known always is."""
        if entry.key in self._held:
            return True
        return self._each[entry.service] < MAX_EACH and self._bytes + len(raw) <= MAX_HELD_BYTES

    def is_stale(self, entry: Entry) -> bool:
        """Whether something newer is known: then this is a replay, or was written late."""
        known = self._held.get(entry.key)
        return known is not None and _order(entry) < _order(known.entry)

    def take(self, entry: Entry, raw: bytes, signer: tuple[tuple[bytes, int], ...], moment: Moment) -> bool:
        """Whether it is news. The same again is none, and older is none. `signer`: what the proof of the gateway rests on."""
        known = self._held.get(entry.key)
        if known is not None and _order(entry) <= _order(known.entry):
            if known.raw == raw:
                known.published_s = moment.mono_s
            return False
        keep_until_ms = max(entry.expires_ms, known.keep_until_ms if known is not None else 0)
        held = Held(entry, raw, entry.certificates + signer, keep_until_ms, moment.mono_s, is_living=False)
        held.judge(moment)
        self._bytes += len(raw) - (len(known.raw) if known is not None else 0)
        self._each[entry.service] += known is None
        self._held[entry.key] = held
        self._due_ms = min(self._due_ms, entry.expires_ms)
        return True

    def sweep(self, moment: Moment, *, is_revocation_new: bool) -> list[Held]:
        """The leases that have ended since the last look. Looks at all only when one may have."""
        if moment.now_ms < self._due_ms and not is_revocation_new:
            return []
        ended = []
        for key, held in list(self._held.items()):
            if held.is_living and not held.judge(moment):
                ended.append(held)
            if moment.now_ms >= held.keep_until_ms:
                self._forget(key)
        self._due_ms = min((_next_ms(held) for held in self._held.values()), default=_NEVER_MS)
        return ended

    def _forget(self, key: tuple[str, str]) -> None:
        self._bytes -= len(self._held.pop(key).raw)
        self._each[key[0]] -= 1
        if not self._each[key[0]]:
            del self._each[key[0]]


def _next_ms(held: Held) -> int:
    return held.entry.expires_ms if held.is_living else held.keep_until_ms


def _order(entry: Entry) -> tuple[int, str]:
    return entry.sequence, entry.gateway
