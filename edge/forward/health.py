"""How an instance has done lately, and whether requests should go there: a small state machine, told the time.

Two witnesses, kept apart:

    passive   what requests met. So many failures in a row, and the instance is ejected: left alone for a while that doubles
              each time, until it has behaved for long. Callers can cause failures, so this may take out half of a service at
              most (`ejectable`), and never its last instance.
    active    what checks of ours met. An instance that fails them gets nothing while another one passes: it was asked in
              plain words, by nobody who could gain from its failing.

Who comes back, and who is new among others, starts slowly: a tenth of its weight, growing to all of it.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class EjectionSettings:
    """When an instance is left alone, and for how long."""

    failures: int = 5
    """In a row: no connection, no proof of identity, an answer that breaks HTTP, or none in time."""
    counts_5xx: bool = False
    """Whether an answer of 500 and above is a failure too; else it is a sign of life."""
    first_s: float = 10.0
    longest_s: float = 300.0
    """It doubles from `first_s` up to here; whoever did well for so long begins with `first_s` again."""


EJECTION = EjectionSettings()
"""Where the file says nothing."""


@dataclass(frozen=True, slots=True)
class CheckSettings:
    """How instances are asked whether they can serve."""

    path: str = "/healthz"
    every_s: float = 10.0
    timeout_s: float = 2.0
    """Connecting included."""
    healthy_after: int = 2
    unhealthy_after: int = 3
    """Answers in a row that say the opposite of what was believed."""


TENTHS = 10
"""What is meant by a whole weight."""


class Health:
    """Of one endpoint, as one worker saw it. Owner: the fleet. Times are the loop's."""

    __slots__ = (
        "_ejections",
        "_opposite",
        "_warm_from_s",
        "ejected_s",
        "is_ejected",
        "is_failing",
        "until_s",
    )

    def __init__(self) -> None:
        self.is_ejected = False
        self.ejected_s = 0.0
        """Since when, or when it last was."""
        self.until_s = 0.0
        self.is_failing = False
        """By checks."""
        self._ejections = 0  # without long good conduct in between
        self._opposite = 0  # checks in a row that contradict `is_failing`
        self._warm_from_s: float | None = None  # slow start began then; None: it carries its whole weight

    def eject(self, now_s: float, settings: EjectionSettings) -> None:
        """Leave it alone, longer than last time."""
        if self._ejections and now_s - self.until_s >= settings.longest_s:
            self._ejections = 0
        self.until_s = now_s + min(settings.first_s * 2.0 ** min(self._ejections, 30), settings.longest_s)
        self._ejections += 1
        self.is_ejected = True
        self.ejected_s = now_s

    def readmit(self, now_s: float) -> None:
        """It may serve again."""
        self.is_ejected = False
        self.until_s = min(self.until_s, now_s)
        self.start_slowly(now_s)

    def is_due(self, now_s: float) -> bool:
        """Its time is over."""
        return self.is_ejected and now_s >= self.until_s

    def checked(self, settings: CheckSettings, now_s: float, *, passed: bool) -> bool:
        """Take a check into account; → whether something changed."""
        if passed is not self.is_failing:
            self._opposite = 0
            return False
        self._opposite += 1
        if self._opposite < (settings.healthy_after if passed else settings.unhealthy_after):
            return False
        self._opposite = 0
        self.is_failing = not passed
        if passed:
            self.start_slowly(now_s)
        return True

    def forget_checks(self) -> None:
        """Nobody checks it any more."""
        self.is_failing = False
        self._opposite = 0

    def start_slowly(self, now_s: float) -> None:
        self._warm_from_s = now_s

    def tenths(self, now_s: float, slow_start_s: float) -> int:
        """How much of its weight it carries: 1 … 10. In steps, so that whose turn it is stands for a while."""
        since_s = self._warm_from_s
        if since_s is None:
            return TENTHS
        if now_s - since_s >= slow_start_s:
            self._warm_from_s = None
            return TENTHS
        return max(1, int(TENTHS * (now_s - since_s) / slow_start_s))

    @property
    def is_starting(self) -> bool:
        return self._warm_from_s is not None


def ejectable(members: int) -> int:
    """How many of so many instances may be ejected at a time: half, rounded down, so never the last."""
    return members // 2
