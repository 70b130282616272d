"""The two phases of a reload, without any I/O: what to send to which worker, and when it is over.

    idle ── begin ──▶ preparing ── all prepared ──▶ committing ── all committed ──▶ idle (applied)
                          │ one failed, or time is up
                          └──▶ abort to the others ──▶ idle (refused: the old state serves on)

A worker that dies while preparing no longer counts: its replacement is forked with whatever is current then. A worker that
dies while committing does not either. Commit cannot fail: a prepared worker swaps one reference.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum

from edge.serve.messages import Kind


class Phase(Enum):
    """Where the transaction is."""

    IDLE = "idle"
    PREPARING = "preparing"
    COMMITTING = "committing"


class Outcome(Enum):
    """How it ended."""

    APPLIED = "applied"
    REFUSED = "refused"


class TwoPhase:
    """One transaction at a time over workers named by integers. Each method returns the frames to send, in order."""

    def __init__(self) -> None:
        self.phase = Phase.IDLE
        self.outcome: Outcome | None = None
        self.reason = ""
        """Why it was refused."""
        self.bundle_hash = ""
        self._asked: set[int] = set()
        self._waiting: set[int] = set()

    def begin(self, workers: Iterable[int], bundle_hash: str) -> list[tuple[int, Kind]]:
        """Ask `workers` to prepare. With none of them it is applied at once: there is nobody to disagree."""
        assert self.phase is Phase.IDLE
        self._asked = set(workers)
        self._waiting = set(self._asked)
        self.phase, self.outcome, self.reason, self.bundle_hash = Phase.PREPARING, None, "", bundle_hash
        return [(worker, Kind.PREPARE) for worker in sorted(self._asked)] + self._advance()

    def join(self, worker: int) -> list[tuple[int, Kind]]:
        """A process was forked with the state before: while others prepare it must too, for it may serve before it is asked.
        Later there is nothing to do: it was forked with the new state."""
        if self.phase is not Phase.PREPARING:
            return []
        self._asked.add(worker)
        self._waiting.add(worker)
        return [(worker, Kind.PREPARE)]

    def heard(self, worker: int, kind: Kind, bundle_hash: str, detail: str = "") -> list[tuple[int, Kind]]:
        """A worker answered. Answers about another bundle (of a transaction that was given up) are ignored."""
        if worker not in self._waiting or bundle_hash != self.bundle_hash:
            return []
        if self.phase is Phase.PREPARING and kind is Kind.FAILED:
            return self.refuse(detail, but=worker)
        expected = {Phase.PREPARING: Kind.PREPARED, Phase.COMMITTING: Kind.COMMITTED}.get(self.phase)
        if kind is not expected:
            return []
        self._waiting.discard(worker)
        return self._advance()

    def lost(self, worker: int) -> list[tuple[int, Kind]]:
        """A worker died."""
        self._asked.discard(worker)
        self._waiting.discard(worker)
        return self._advance()

    def refuse(self, reason: str, *, but: int | None = None) -> list[tuple[int, Kind]]:
        """Give up while preparing; everybody asked but `but` forgets what it prepared."""
        if self.phase is not Phase.PREPARING:
            return []
        self.phase, self.outcome, self.reason = Phase.IDLE, Outcome.REFUSED, reason
        return [(worker, Kind.ABORT) for worker in sorted(self._asked) if worker != but]

    @property
    def asked(self) -> tuple[int, ...]:
        """Who takes part and lives."""
        return tuple(sorted(self._asked))

    @property
    def waiting(self) -> tuple[int, ...]:
        """Who has not answered yet. One that does not commit in time still decides by the old state: kill it."""
        return tuple(sorted(self._waiting))

    def _advance(self) -> list[tuple[int, Kind]]:
        if self._waiting:
            return []
        if self.phase is Phase.PREPARING:
            self.phase, self._waiting = Phase.COMMITTING, set(self._asked)
            return [(worker, Kind.COMMIT) for worker in sorted(self._asked)] + self._advance()
        if self.phase is Phase.COMMITTING:
            self.phase, self.outcome = Phase.IDLE, Outcome.APPLIED
        return []
