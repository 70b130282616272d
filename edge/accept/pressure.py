"""How much more one worker can take, and who waits when that is not everybody.

Three things are measured a few times a second, none of them per request:

- *lag*: how late the loop is with its own work. Only time in which this process computed counts: on a machine that is busy
  with something else, refusing our callers helps nobody.
- *held bytes*: what is kept for clients that do not take their answers, or have sent more than is read yet.
- *free slots*: how many more requests the access log could take; a request in flight has one.

Who waits is a matter of what we know. A caller whose credential was verified before is *known*: it costs little to serve and
has shown who it is. Everybody else is not, be it for want of a credential or because we would have to verify one. The unknown
are refused first, in eighths of their requests; the known only when that was not enough, and never all of them, unless
there is no memory left.
"""

from __future__ import annotations

from dataclasses import dataclass

from edge.errors import Shedding

LAG_S = 0.25
"""Above it some of the unknown are refused: a request waits that long before it is looked at."""
LAG_OF_KNOWN_S = 1.0
_ALL = 8
_MOST_OF_KNOWN = 6
_STEP_UP = 2
"""Per reading. Down it goes by one: what has just been too much is not offered again at once."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What was found at one moment."""

    lag_s: float
    held_bytes: int
    free_slots: int
    slots: int


class Pressure:
    """Owner: the worker's `Shed`; one event loop, no lock."""

    __slots__ = ("_known", "_max_held_bytes", "_turn", "_unknown", "is_high")

    def __init__(self, max_held_bytes: int) -> None:
        self._max_held_bytes = max_held_bytes
        self._unknown = self._known = 0
        """How many of eight requests are refused."""
        self._turn = 0
        self.is_high = False
        """Whether anybody is refused; else nobody need ask."""

    def weigh(self, reading: Reading) -> None:
        """Take a reading; called by the timer that sweeps deadlines."""
        is_full = reading.held_bytes >= self._max_held_bytes
        is_short = 4 * reading.held_bytes >= 3 * self._max_held_bytes or 4 * reading.free_slots < reading.slots
        if is_short:
            self._unknown = _ALL
        elif reading.lag_s > LAG_S:
            self._unknown = min(_ALL, self._unknown + _STEP_UP)
        else:
            self._unknown = max(0, self._unknown - 1)
        if is_full:
            self._known = _ALL
        elif self._unknown == _ALL and reading.lag_s > LAG_OF_KNOWN_S:
            self._known = min(_MOST_OF_KNOWN, self._known + _STEP_UP)
        else:
            self._known = min(_MOST_OF_KNOWN, max(0, self._known - 1))
        self.is_high = self._unknown > 0 or self._known > 0

    def admits(self, *, is_known: bool) -> bool:
        """Whether the next request of such a caller is served. Evenly spread, and without chance: every so manieth is not."""
        refused = self._known if is_known else self._unknown
        self._turn += refused
        if self._turn < _ALL:
            return True
        self._turn -= _ALL
        return False

    def demand(self, *, is_known: bool) -> None:
        """As `admits`, for the line. Raises: Shedding; then 503."""
        if not self.admits(is_known=is_known):
            raise Shedding("overload")
