"""Of refusals that strangers can have as often as they like, some become leaves and the others are counted (attack P39).

Each leaf is durable, and the log's disk is the one that issuances need: an authority that cannot record cannot sign, and one
that cannot sign falls silent. So whoever holds a certificate that is not due, or a token that was spent, must not be able to
fill it. The first refusals of each kind in a window are recorded; the next one after it says how many there were more.
"""

from __future__ import annotations

from collections.abc import Hashable
from datetime import datetime

from pki.est import RENEWAL

ENROL, LISTENER = "est-enrol", "est-listener"
"""Who asks from afar, as the record names it."""
FROM_AFAR = frozenset((ENROL, RENEWAL, LISTENER))
_MOST_KINDS = 4096


class Pace:
    """Owner: who holds the authority open; no lock."""

    def __init__(self, *, most: int, window_s: float) -> None:
        """`most` of each kind in a window."""
        self._most = most
        self._window_s = window_s
        self._kinds: dict[Hashable, tuple[float, int, int]] = {}
        """Kind → when its window began, recorded in it, counted since the last that was recorded."""

    def dropped(self, kind: Hashable, now: datetime) -> int | None:
        """How many were only counted before this one, which is to be recorded; None: this one is counted too."""
        now_s = now.timestamp()
        began_s, recorded, counted = self._kinds.get(kind, (now_s, 0, 0))
        if not 0 <= now_s - began_s < self._window_s:  # over; or the clock was set back
            began_s, recorded = now_s, 0
        if recorded >= self._most:
            self._kinds[kind] = (began_s, recorded, counted + 1)
            return None
        if kind not in self._kinds and len(self._kinds) >= _MOST_KINDS:
            self._kinds.clear()
        self._kinds[kind] = (began_s, recorded + 1, 0)
        return counted


def told(detail: str, dropped: int) -> str:
    """The detail of a refusal that is recorded."""
    return f"{detail}; {dropped} more before it" if dropped else detail
