"""Units of a quota held by this process, so that most requests need not ask the store. Arithmetic only.

The store grants units out of one window; a `Lease` holds those that were granted ahead. The story of a unit:

1. A request finds no unit. Its lease joins a `Ticket`: one all-or-none question about all leases that lack one.
2. The store grants as many as there are waiting requests (`owed`, theirs alone), and some ahead for the lease.
3. The waiting requests take what is owed to them, later ones take from the lease without asking anybody.
4. The lease dies with its window. What is left is given back with the next question (moving and sliding windows) or ends
   with the window (fixed window). A process that crashes wastes what it holds, nothing else.
5. Of a fixed window that is used, the store grants units of the next ones too, so that nobody waits when it turns. The
   lease goes on to them by itself; where two windows meet, a request costs a unit of both, for which of them counts it
   only the store's clock knows.

Laws:

- A unit is used at most once and never outlives what the store allowed: the life of a lease counts from *before* the
  question was sent, less 1/1024 for clocks that run at different speed. (A machine that is suspended as a whole sleeps
  through the death of its leases: it may use up to 1 % of a quota late when it wakes.)
- Granted ahead is at most 1 % of the quota over all replicas together, so ≥ 99 % stay usable whatever traffic does. A
  quota below 200 per replica is never leased ahead, for one unit would save nothing: each request asks, and the answer is
  exact.
- A unit of a later window is used when that window has begun for certain: its beginning counts from *after* the answer
  came, and 1/1024 more.
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

FIRST_AHEAD = 64
"""Of a lease that never had units. Doubling from one, a caller asked the store five times in its first twenty requests; from
sixteen, one with twenty requests a second asked in each of its first four windows, and a thousand such callers cost the
first five seconds a twentieth of their CPU. One percent of the quota bounds it as it does the rest."""

_LATER_S = 8
_MAX_LATER = 7
_LONGEST_LATER_S = 60
"""Windows after the present one that are leased too: those that begin within `_LATER_S`, at least one, at most so many; of
long windows none, where one request that waits is nothing and a counter that is kept for longer is something."""


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
    windows: int = 0
    """Later windows of which units are wanted too; fixed windows only."""
    later: int = 0
    """How many of each."""


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
    """The mark of this grant; of a fixed window its end by the store's clock, the same for all grants of it."""
    later: tuple[int, ...] = ()
    """Units of the windows that follow, in their order."""


@dataclass(slots=True)
class Later:
    """Units of a window that has not begun."""

    units: int
    starts_ns: int
    """From then on it has begun for certain."""
    dies_ns: int
    stamp: int


class Lease:
    """The units of one key of one limit. Owner: the process's table of leases; used from its loop only, no lock."""

    __slots__ = (
        "_both",
        "_drawn",
        "_local_left",
        "_local_until_ns",
        "_next_ahead",
        "_used",
        "dies_ns",
        "free",
        "is_local",
        "key",
        "later",
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
        self.later: list[Later] = []
        self._both = 0
        """Units that stood for the present window and the next one alike, when the present one ended."""
        self._next_ahead = 1
        self._drawn = 0
        self._used = 0
        """Of the window before the present one."""

    def is_ready(self, now_ns: int, *, is_store_down: bool) -> bool:
        """Whether a unit can be taken now. A local share ends when the store is back."""
        if self.later and (now_ns >= self.dies_ns or not self.units):
            self._turn(now_ns)
        return self.units > 0 and now_ns < self.dies_ns and (is_store_down or not self.is_local)

    def _turn(self, now_ns: int) -> None:
        """The present window has ended, or may have: go on to the one that has begun, or to where the two meet."""
        later, rest = self.later, self.units
        while later and later[0].starts_ns <= now_ns:
            window = later.pop(0)
            self._used, self._drawn = max(0, self._drawn - rest), window.units
            rest = self.units = max(0, window.units - self._both + rest) if self._both else window.units
            self._both = 0
            self.free = self.limit.quota - window.units
            self.reset_ns = self.dies_ns = window.dies_ns
            self.stamp = window.stamp
        if later and now_ns >= self.dies_ns:
            self.units = self._both = min(self.units, later[0].units)
            self.dies_ns = min(later[0].starts_ns, later[0].dies_ns)

    def is_worth_renewing(self, now_ns: int) -> bool:
        """Whether units of later windows may be fetched before anybody waits: those of this window or the last were used.

        Fixed windows only (rolling ones grant a little every now and then), and only what is leased ahead anyway.
        """
        if self.later and now_ns >= self.dies_ns:
            self._turn(now_ns)
        return (
            self.limit.strategy == "fixed-window"
            and self.refill is None
            and not self.is_local
            and not self.later
            and (self._drawn > self.units or (self._used > 0 and now_ns < self.dies_ns))
            and self.refused_ns <= now_ns
        )

    def question(self, ticket: Ticket, now_ns: int, replicas: int) -> Question:
        """Size the next grant after what was used of the last, and forget what is held, unless none of it is asked for.

        Doubled when the lease was used up before its death; else one and a half times what was used of it.
        """
        window_ns = self.limit.window_s * _NS
        if self.refill is not None or (self.later and self.later[0].starts_ns - now_ns <= window_ns >> 3):
            return Question(self.key, self.limit, 0, 0, 0)
        self.refill = ticket
        is_alive = now_ns < self.dies_ns and not self.is_local
        used = 0 if self.is_local else max(0, self._drawn - self.units)
        if not self.dies_ns:
            self._next_ahead = FIRST_AHEAD
        elif is_alive and not self.units:
            self._next_ahead *= 2
        else:
            used = max(used, self._used) if is_alive else used
            self._next_ahead = used + used // 2
        most = self.limit.quota // (AHEAD_PER_QUOTA * replicas)
        self._next_ahead = max(1, min(self._next_ahead, most))
        ahead = self._next_ahead if most > 1 else 0
        if self.limit.strategy != "fixed-window":
            windows = 0
        else:
            windows = 0 if self.later or not ahead else _windows(self.limit.window_s)
            if is_alive and self.units:  # enough for now
                return Question(self.key, self.limit, 0, 0, 0, windows, ahead)
        if not is_alive:
            self._drawn = 0
        if self.is_local:
            self._local_left = self.units  # the store is back; should it go again in this window, this much is left
        back = 0 if self.is_local or self.limit.strategy == "fixed-window" else self.units
        stamp, self.units, self.is_local = self.stamp, 0, False
        return Question(self.key, self.limit, ahead, back, stamp, windows, ahead if windows else 0)

    def learn(self, answer: Answer, sent_ns: int) -> None:
        self.free = answer.free
        self.reset_ns = sent_ns + min(answer.reset_us, self.limit.window_s * 1_000_000) * 1_000
        self.refused_ns = sent_ns + answer.retry_us * 1_000 if answer.retry_us else 0

    def fill(self, answer: Answer, ahead: int, sent_ns: int, heard_ns: int) -> None:
        """Take `ahead` units granted beyond those owed to waiting requests, and those of later windows."""
        if answer.granted:
            if self.limit.strategy != "fixed-window":
                self._drawn = 0
            self._drawn += answer.granted
            self.units, self._both = ahead, 0
            self.dies_ns = death(answer, sent_ns)
            self.stamp = answer.stamp
            self.later = [window for window in self.later if window.stamp > answer.stamp]
        window_us = self.limit.window_s * 1_000_000
        for number, units in enumerate(answer.later):
            if units:
                begins_ns, ends_ns = ((answer.life_us + each * window_us) * 1_000 for each in (number, number + 1))
                starts_ns = heard_ns + begins_ns + (begins_ns >> 10)
                dies_ns = sent_ns + ends_ns - (ends_ns >> 10)
                self.later.append(Later(units, starts_ns, dies_ns, answer.stamp + (number + 1) * window_us))

    def adopt(self, units: int, dies_ns: int, stamp: int) -> None:
        """Keep units that nobody claimed, unless the lease holds others: those have their own death."""
        if self.units == 0 and self.refill is None and not self._both:
            self.units, self.dies_ns, self.stamp, self.is_local = units, dies_ns, stamp, False

    def forget_later(self) -> None:
        """The store may have lost what it granted: its next word about these windows begins anew."""
        self.later.clear()
        self._both = 0

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
        self.forget_later()
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


def _windows(window_s: int) -> int:
    if window_s > _LONGEST_LATER_S:
        return 0
    return max(1, min(_MAX_LATER, _LATER_S // window_s))


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

    def settle(self, answers: Sequence[Answer], asked_for: int, sent_ns: int, heard_ns: int) -> None:
        """Hand out what the store granted: `asked_for` waiting requests first, the rest to the leases."""
        served = min(asked_for, *(answer.granted for answer in answers))
        for lease, answer in zip(self.leases, answers, strict=True):
            lease.learn(answer, sent_ns)
            self._owed[lease] = served
            self._dies_ns[lease] = death(answer, sent_ns)
            self._stamps[lease] = answer.stamp
            if lease.refill is self:
                lease.refill = None
                lease.fill(answer, answer.granted - served, sent_ns, heard_ns)
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
