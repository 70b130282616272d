"""Heads of answers, and those that were parsed before, by their very bytes.

A service that says the same thing again within a second sends the same head to the last byte. llhttp found these bytes
unambiguous then, and they are unambiguous now: what they became is kept, and the body behind them is only counted. Kept are
final answers with a length, on connections that live on; everything else goes through the parser each time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from edge.model.http import RawField

MAX_ANSWERS = 256
MAX_HEAD_BYTES = 2048


@dataclass(slots=True, eq=False)
class AnswerHead:
    """What a head says; shared by all its answers, so nobody changes it."""

    status: int
    fields: list[RawField]
    """Lower-case names, trimmed values, as received."""
    content_length: int | None
    memo: dict[object, Any] | None = None
    """What a step derived from this head alone, under an object of its own; None unless the head is kept."""


class KnownAnswers:
    """Owner: the pool, one per worker; one loop, no lock. The key is the whole head, so nothing can stand for another."""

    __slots__ = ("_known", "get")

    def __init__(self) -> None:
        self._known: dict[bytes, AnswerHead] = {}
        self.get = self._known.get

    def put(self, raw_head: bytes, head: AnswerHead) -> None:
        """Remember a head that the parser has just accepted."""
        if len(raw_head) <= MAX_HEAD_BYTES:
            if len(self._known) >= MAX_ANSWERS:
                self._known.clear()  # `Date` makes every head stale within a second anyway
            head.memo = {}
            self._known[raw_head] = head
