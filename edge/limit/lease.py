"""Units of a quota held by this process, so that most requests need not ask the store. Arithmetic only.

The store grants units out of one window; a `Lease` holds those that were granted ahead. The story of a unit:

1. A request finds no unit. Its lease joins a `Ticket`: one all-or-none question about all leases that lack one.
2. The store grants as many as there are waiting requests (`owed`, theirs alone), and some ahead for the lease.
3. The waiting requests take what is owed to them, later ones take from the lease without asking anybody.
4. The lease dies with its window. What is left is given back with the next question (moving and sliding windows) or ends
   with the window (fixed window). A process that crashes wastes what it holds, nothing else.

Laws:

- A unit is used at most once and never outlives what the store allowed: the life of a lease counts from *before* the
  question was sent, less 1/1024 for clocks that run at different speed. (A machine that is suspended as a whole sleeps
  through the death of its leases: it may use up to 1 % of a quota late when it wakes.)
- Granted ahead is at most 1 % of the quota over all replicas together, so ≥ 99 % stay usable whatever traffic does. A
  quota below 200 per replica is never leased ahead, for one unit would save nothing: each request asks, and the answer is
  exact.
- Before a question is sent the lease forgets its units; an answer that is lost loses them and never doubles them.

All times are nanoseconds of one monotonic clock, unless a name says `_us`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edge.limit.rules import LimitSettings

_NS = 1_000_000_000
AHEAD_PER_QUOTA = 100
"""Granted ahead: the quota divided by this, and by the number of replicas."""

FIRST_AHEAD = 16
"""Of a lease that never had units: doubling from one, a caller asked the store five times in its first twenty requests."""


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked of the store for one lease."""

    key: str
    limit: LimitSettings
    ahead: int
    """Units wanted beyond what the waiting requests need; 0 when another ticket asks for them already."""
    back: int
    """Unused units of an earlier grant, which the store may take back."""
    stamp: int
    """Which grant these came from: the mark the store gave it."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the store says about one lease."""

    granted: int
    """0 when this or another limit of the ticket is used up."""
    free: int
    """Units left in the window after this."""
    life_us: int
    """How long units granted ahead may be used."""
    reset_us: int
    """When the window is as good as new."""
    retry_us: int
    """When one unit may be free again; 0 unless this limit refused."""
    stamp: int


class Lease:
    """The units of one key of one limit. Owner: the process's table of leases; used from its loop only, no lock."""

    __slots__ = (
        "_drawn",
        "_local_left",
        "_local_until_ns",
        "_next_ahead",
        "dies_ns",
        "free",
        "is_local",
        "key",
        "limit",
        "refill",
        "refused_ns",
        "reset_ns",
        "stamp",
        "units",
    )

    def __init__(self, limit: LimitSettings, key: str) -> None:
        self.limit = limit
        self.key = key
        self.units = 0
        self.dies_ns = 0
        self.free = limit.quota
        """Free units in the store, as last heard."""
        self.reset_ns = 0
        self.refused_ns = 0
        """Until then the store has nothing for us; nobody asks it."""
        self.stamp = 0
        self.is_local = False
        """The units are our share while the store is away, not granted by it."""
        self.refill: Ticket | None = None
        """The ticket that asks for units ahead; single flight."""
        self._local_until_ns = 0
        self._local_left = 0
        self._next_ahead = 1
        self._drawn = 0

    def is_ready(self, now_ns: int, *, is_store_down: bool) -> bool:
        """Whether a unit can be taken now. A local share ends when the store is back."""
        return self.units > 0 and now_ns < self.dies_ns and (is_store_down or not self.is_local)

    def is_worth_renewing(self, now_ns: int) -> bool:
        """Whether units for the next window may be fetched before anybody waits: those of the last one were used.

        Fixed windows only (rolling ones grant a little every now and then), and only what is leased ahead anyway.
        """
        return (
            self.limit.strategy == "fixed-window"
            and self.refill is None
            and not self.is_local
            and self._drawn > self.units
            and self.refused_ns <= now_ns
            and now_ns >= self.dies_ns
        )

    def question(self, ticket: Ticket, now_ns: int, replicas: int) -> Question:
        """Size the next grant after what was used of the last, and forget what is held.

        Doubled when the lease was used up before its death; else one and a half times what was used of it.
        """
        if self.refill is not None:
            return Question(self.key, self.limit, 0, 0, 0)
        self.refill = ticket
        if not self.dies_ns:
            self._next_ahead = FIRST_AHEAD
        elif now_ns < self.dies_ns and not self.is_local:
            self._next_ahead *= 2
        else:
            used = 0 if self.is_local else self._drawn - self.units
            self._next_ahead = used + used // 2
            self._drawn = 0
        most = self.limit.quota // (AHEAD_PER_QUOTA * replicas)
        self._next_ahead = max(1, min(self._next_ahead, most))
        if self.is_local:
            self._local_left = self.units  # the store is back; should it go again in this window, this much is left
        back = 0 if self.is_local or self.limit.strategy == "fixed-window" else self.units
        stamp, self.units, self.is_local = self.stamp, 0, False
        return Question(self.key, self.limit, self._next_ahead if most > 1 else 0, back, stamp)

    def learn(self, answer: Answer, sent_ns: int) -> None:
        self.free = answer.free
        self.reset_ns = sent_ns + min(answer.reset_us, self.limit.window_s * 1_000_000) * 1_000
        self.refused_ns = sent_ns + answer.retry_us * 1_000 if answer.retry_us else 0

    def fill(self, answer: Answer, ahead: int, sent_ns: int) -> None:
        """Take `ahead` units granted beyond those owed to waiting requests."""
        if self.limit.strategy != "fixed-window":
            self._drawn = 0
        self._drawn += answer.granted
        self.units = ahead
        self.dies_ns = death(answer, sent_ns)
        self.stamp = answer.stamp

    def adopt(self, units: int, dies_ns: int, stamp: int) -> None:
        """Keep units that nobody claimed, unless the lease holds others: those have their own death."""
        if self.units == 0 and self.refill is None:
            self.units, self.dies_ns, self.stamp, self.is_local = units, dies_ns, stamp, False

    def start_local(self, now_ns: int, replicas: int) -> bool:
        """The store is away: take this replica's share of the quota for one window, once per window.

        At least 1, so a quota smaller than the number of replicas may be exceeded; that is what `local` accepts.
        """
        if now_ns < self.refused_ns:
            return False
        if now_ns < self._local_until_ns:
            if not self._local_left:
                return False
            self.units, self._local_left = self._local_left, 0
            self.dies_ns = self.reset_ns = self._local_until_ns
            self.is_local, self.free = True, 0
            return True
        self._local_until_ns = self.dies_ns = self.reset_ns = now_ns + self.limit.window_s * _NS
        self.units = max(1, self.limit.quota // replicas)
        self._local_left = 0
        self.is_local, self.free = True, 0
        return True

    def free_again_ns(self, *, is_store_down: bool) -> int:
        """Until when this limit is known to be used up; in the past when that is not known."""
        if is_store_down and self.limit.on_store_failure == "local":
            return max(self.refused_ns, 0 if self._local_left else self._local_until_ns)
        return self.refused_ns


def death(answer: Answer, sent_ns: int) -> int:
    life_ns = answer.life_us * 1_000
    return sent_ns + life_ns - (life_ns >> 10)


class Ticket:
    """One all-or-none question about `leases`, asked for all requests that lack a unit of exactly these."""

    __slots__ = ("_dies_ns", "_owed", "_stamps", "leases", "present", "refused")

    def __init__(self, leases: tuple[Lease, ...]) -> None:
        self.leases = leases
        self.present = 0
        """Requests that wait for this ticket or have not yet taken what is owed to them."""
        self.refused: Lease | None = None
        """The limit that is used up for the longest time; then nothing was granted."""
        self._owed = dict.fromkeys(leases, 0)
        self._dies_ns = dict.fromkeys(leases, 0)
        self._stamps = dict.fromkeys(leases, 0)

    def questions(self, now_ns: int, replicas: int) -> tuple[Question, ...]:
        return tuple(lease.question(self, now_ns, replicas) for lease in self.leases)

    def settle(self, answers: Sequence[Answer], asked_for: int, sent_ns: int) -> None:
        """Hand out what the store granted: `asked_for` waiting requests first, the rest to the leases."""
        served = min(asked_for, *(answer.granted for answer in answers))
        for lease, answer in zip(self.leases, answers, strict=True):
            lease.learn(answer, sent_ns)
            self._owed[lease] = served
            self._dies_ns[lease] = death(answer, sent_ns)
            self._stamps[lease] = answer.stamp
            if lease.refill is self:
                lease.refill = None
                if answer.granted:
                    lease.fill(answer, answer.granted - served, sent_ns)
        refusing = [lease for lease in self.leases if lease.refused_ns]
        self.refused = max(refusing, key=lambda lease: lease.refused_ns, default=None)
        if not self.present:
            self._release(sent_ns)

    def abandon(self) -> None:
        """The question got no answer; what it may have taken dies in the store."""
        for lease in self.leases:
            if lease.refill is self:
                lease.refill = None

    def owes(self, lease: Lease) -> bool:
        return self._owed.get(lease, 0) > 0

    def claim(self, lease: Lease) -> None:
        self._owed[lease] -= 1

    def leave(self, now_ns: int) -> None:
        """One request has taken its units, or went away. The last one leaves the rest to the leases."""
        self.present -= 1
        if not self.present:
            self._release(now_ns)

    def _release(self, now_ns: int) -> None:
        for lease, owed in self._owed.items():
            if owed and now_ns < self._dies_ns[lease]:
                lease.adopt(owed, self._dies_ns[lease], self._stamps[lease])
        self._owed.clear()
