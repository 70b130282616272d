"""What one address may cost us before anybody knows who it is: connections, and credential checks that fail.

Two budgets, both per address prefix (`Peer.prefix`: one IPv4 address, or the first 64 bits of an IPv6 address, because a
single host owns a whole /64):

- open connections, per prefix and in all;
- failed credential checks, a token bucket per prefix. A failed check costs a signature verification, a good one is
  cached; so only failures are paid for, and the bucket is asked *before* a signature is looked at.

Law: memory is bounded by what is open and by what was failed in the last two periods, never by what was ever seen. A
bucket that is dropped was full again: forgetting never forgives.

Times are nanoseconds of a monotonic clock.
"""

from __future__ import annotations

from dataclasses import dataclass

from edge.accept.pressure import Pressure

_NS = 1_000_000_000
_MAX_BUCKETS = 200_000
_OVERFLOW = ""
"""The bucket shared by all prefixes that come when `_MAX_BUCKETS` are in use; no prefix has this name."""


@dataclass(frozen=True, slots=True)
class ShedSettings:
    """Defaults as in design §6."""

    max_connections: int = 20_000
    max_connections_per_prefix: int = 2_000
    failed_checks_per_s: int = 20_000
    failed_checks_burst: int = 40_000
    max_held_bytes: int = 256 << 20
    """Of all connections together: answers not taken, requests not read; see `accept.pressure`."""

    def share(self, workers: int) -> ShedSettings:
        """One worker's part, rounded up. The kernel spreads connections by address and port, so one address meets all
        workers alike: together they allow what is written here."""
        return ShedSettings(
            -(-self.max_connections // workers),
            -(-self.max_connections_per_prefix // workers),
            -(-self.failed_checks_per_s // workers),
            -(-self.failed_checks_burst // workers),
            -(-self.max_held_bytes // workers),
        )


class Shed:
    """The budgets of one worker. Owned by the worker, used from its loop only: no lock."""

    __slots__ = (
        "_burst_ns",
        "_failed",
        "_failed_before",
        "_open",
        "_rotate_ns",
        "_settings",
        "_step_ns",
        "open_total",
        "pressure",
    )

    def __init__(self, settings: ShedSettings) -> None:
        self._settings = settings
        self._open: dict[str, int] = {}
        self.open_total = 0
        self.pressure = Pressure(settings.max_held_bytes)
        self._step_ns = max(1, _NS // settings.failed_checks_per_s)
        self._burst_ns = self._step_ns * settings.failed_checks_burst
        # The time at which each prefix's bucket is full again (GCRA's theoretical arrival time). A value never lies more
        # than `_burst_ns` ahead, so whatever was not touched for that long is full and may be dropped.
        self._failed: dict[str, int] = {}
        self._failed_before: dict[str, int] = {}
        self._rotate_ns = 0

    @property
    def max_held_bytes(self) -> int:
        """Of all connections of this worker together."""
        return self._settings.max_held_bytes

    def open(self, prefix: str, *, is_proxy: bool = False) -> bool:
        """Count a new connection; False = over a limit, nothing was counted and the caller closes it.

        `is_proxy`: it speaks for many, so it has no share of its own but that of all.
        """
        count = self._open.get(prefix, 0)
        settings = self._settings
        is_full = count >= settings.max_connections_per_prefix and not is_proxy
        if is_full or self.open_total >= settings.max_connections:
            return False
        self._open[prefix] = count + 1
        self.open_total += 1
        return True

    def close(self, prefix: str) -> None:
        """Give back what one successful `open` took."""
        count = self._open[prefix]
        if count == 1:
            del self._open[prefix]
        else:
            self._open[prefix] = count - 1
        self.open_total -= 1

    def may_check(self, prefix: str, now_ns: int) -> bool:
        """Whether a credential of this prefix may be checked; False → 429 before any signature is looked at."""
        full_ns = self._failed.get(prefix) or self._failed_before.get(prefix)
        if full_ns is None:
            if len(self._failed) < _MAX_BUCKETS:
                return True
            full_ns = self._failed.get(_OVERFLOW, 0)
        return full_ns + self._step_ns - now_ns <= self._burst_ns

    def failed(self, prefix: str, now_ns: int) -> None:
        """A credential of this prefix was checked and is bad."""
        if now_ns >= self._rotate_ns:
            # Two rotations apart means that nothing was touched for a whole period: everything is full again.
            stale = now_ns >= self._rotate_ns + self._burst_ns
            self._failed_before = {} if stale else self._failed
            self._failed = {}
            self._rotate_ns = now_ns + self._burst_ns
        full_ns = self._failed.get(prefix) or self._failed_before.get(prefix)
        if full_ns is None and len(self._failed) >= _MAX_BUCKETS:
            prefix = _OVERFLOW
            full_ns = self._failed.get(prefix)
        # Checks already under way may fail after the bucket is empty; the debt is capped so that it ends in one period.
        self._failed[prefix] = min(max(full_ns or 0, now_ns) + self._step_ns, now_ns + self._burst_ns)
