"""Tokens that were verified, so that the second request of a caller does not pay for a signature check again.

The key is the whole `Authorization` value, so a hit is a hit on exactly the bytes that were verified; Python's dict compares
bytes only when a keyed 64-bit hash agrees, which leaves nothing to learn from timing. Only verified tokens get in: whoever
floods the gateway with bad ones displaces nobody.

Two generations bound it without any work on a hit: entries enter `young`; when that is half the capacity, it becomes `old`
and what was `old` is forgotten; an entry hit in `old` moves to `young`. So the half-capacity most recently used are certain
to be here, and never more than the capacity are.

An entry carries all that could end its validity (time, and its key) and is judged on every hit.
"""

from __future__ import annotations

from dataclasses import dataclass

from edge.authn.keys import VerificationKey
from edge.model.identity import Principal

DEFAULT_CAPACITY = 10_000
"""About 15 MB when full of tokens of 600 bytes."""


# Built once per verified token, read on every hit: not frozen, see the note in model/http.py.
@dataclass(slots=True, eq=False)
class Verified:
    """A verified token: who it speaks for, from when, until when, and by which key."""

    principal: Principal
    key: VerificationKey
    not_before_ns: int
    expires_ns: int


class VerifiedTokens:
    """Bounded map from a raw credential to what was verified. One event loop, no lock."""

    __slots__ = ("_half", "_old", "_young")

    def __init__(self, capacity: int = DEFAULT_CAPACITY) -> None:
        self._half = max(1, capacity // 2)
        self._young: dict[bytes, Verified] = {}
        self._old: dict[bytes, Verified] = {}

    def __len__(self) -> int:
        return len(self._young) + len(self._old)

    def get(self, raw: bytes) -> Verified | None:
        """The entry of a raw credential, whether still valid or not; that is for the caller to judge."""
        entry = self._young.get(raw)
        if entry is None and (entry := self._old.pop(raw, None)) is not None:
            self.put(raw, entry)
        return entry

    def put(self, raw: bytes, entry: Verified) -> None:
        """Remember a verified credential."""
        if len(self._young) >= self._half and raw not in self._young:
            self._old, self._young = self._young, {}
        self._old.pop(raw, None)
        self._young[raw] = entry

    def discard(self, raw: bytes) -> None:
        """Forget a credential."""
        self._young.pop(raw, None)
        self._old.pop(raw, None)
