"""How often a service may change its registrations: a token bucket for each, so that a flood costs its sender.

A change costs us a handshake, a signature and a write that every worker reads and verifies, a heartbeat the latter two,
and one that is not due nothing. Buckets are kept by service of services.yaml, so there are no more of them than grants.
Times are nanoseconds of a monotonic clock.
"""

from __future__ import annotations

_NS = 1_000_000_000


class Pace:
    """Owner: one worker; no lock."""

    def __init__(self, *, per_s: int, burst: int) -> None:
        """`burst`: a fleet that is restarted as a whole comes at once."""
        self._step_ns = _NS // per_s
        self._burst_ns = burst * self._step_ns
        # When each bucket is full again (GCRA): never more than the burst ahead.
        self._full_ns: dict[str, int] = {}

    def retry_after_s(self, service: str, now_ns: int) -> int:
        """Take one; 0 when there was one, else whole seconds until there is."""
        full_ns = max(self._full_ns.get(service, 0), now_ns) + self._step_ns
        too_far_ns = full_ns - now_ns - self._burst_ns
        if too_far_ns > 0:
            return -(-too_far_ns // _NS)
        self._full_ns[service] = full_ns
        return 0


class Share:
    """How much of the loop a kind of work may take, whatever asks for it: after a burst, only the share of the time.

    Times are seconds of a monotonic clock.
    """

    def __init__(self, *, share: float, burst_s: float) -> None:
        """`burst_s` of work may come at once."""
        self._share = share
        self._burst_s = burst_s / share
        # When all that was done is paid for.
        self._paid_s = 0.0

    def may_begin(self, now_s: float) -> bool:
        return self._paid_s - now_s <= self._burst_s

    def spent(self, began_s: float, ended_s: float) -> None:
        self._paid_s = max(self._paid_s, began_s) + (ended_s - began_s) / self._share
