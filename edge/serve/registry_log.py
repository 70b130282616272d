"""What is told of registrations: events `registry.*` in the access log, lines for the operator. A flood is counted.

Of one kind twenty a second are written one by one, what comes beyond is counted and told once the second is over: forged
entries in the store and refused registrations cost whoever makes them nothing, and must not fill the log.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

from edge.audit.record import Value
from edge.audit.recorder import Recorder
from edge.errors import NotRecordable
from edge.serve.report import Report

SINGLE_PER_S = 20
_REMEMBERED = 100
_Kind = tuple[str, str, str]
"""(kind, rule, service)."""


@dataclass(slots=True)
class _Tally:
    second: int
    told: int = 0
    count: int = 0
    """Beyond what was told."""


class RegistryLog:
    """Owner: the worker."""

    def __init__(self, recorder: Recorder, report: Report) -> None:
        self._recorder = recorder
        self._report = report
        self._tallies: dict[_Kind, _Tally] = {}
        self.refusals: deque[Mapping[str, object]] = deque(maxlen=_REMEMBERED)
        """The last registrations that this worker refused, for `edge services`."""

    def change(self, kind: str, values: Mapping[str, Value]) -> None:
        """A lease began, changed, or ended."""
        self._report.info(
            kind,
            service=values.get("service.name"),
            instance=values.get("service.node.name"),
            address=values.get("service.address"),
            identity=values.get("registry.gateway"),
        )
        self._event(kind, values, None)

    def refused(self, rule: str, values: Mapping[str, Value], when_s: float) -> None:
        """A registration that was not taken."""
        self.refusals.append({"at_s": round(when_s, 3), "rule": rule, **values})
        self._bounded("registry.refused", rule, values)

    def forged(self, rule: str, values: Mapping[str, Value]) -> None:
        """Something in the store that no gateway put there, or something gone from it that one had."""
        self._bounded("registry.forged", rule, values)

    def lost(self, cause: str) -> None:
        """The store does not answer."""
        self._report.warning(
            "the shared registry cannot be reached; leases end where they are not renewed", cause=cause
        )

    def reached(self) -> None:
        self._report.info("the shared registry is reached again")

    def _bounded(self, kind: str, rule: str, values: Mapping[str, Value]) -> None:
        key = (kind, rule, str(values.get("service.name", "")))
        second = int(time.monotonic())
        tally = self._tallies.get(key)
        if tally is None:
            # Services are those of services.yaml, rules a closed set: so is this.
            tally = self._tallies[key] = _Tally(second)
        elif tally.second != second:
            self._sum(key, tally)
            tally.second, tally.told = second, 0
        if tally.told >= SINGLE_PER_S:
            tally.count += 1
            return
        if not tally.told:
            self._report.warning(kind, rule=rule, service=key[2])
        tally.told += 1
        self._event(kind, values, rule)

    def flush(self) -> None:
        """Tell what was only counted, once its second is over; called by a timer."""
        second = int(time.monotonic())
        for key, tally in list(self._tallies.items()):
            if tally.second != second:
                self._sum(key, tally)
                del self._tallies[key]

    def _sum(self, key: _Kind, tally: _Tally) -> None:
        if tally.count:
            kind, rule, service = key
            self._event(kind, {"service.name": service, "count": tally.count}, rule)
            tally.count = 0

    def _event(self, kind: str, values: Mapping[str, Value], failed: str | None) -> None:
        try:
            self._recorder.event(kind, values, failed=failed)
        except NotRecordable as exc:
            self._report.warning("event not recorded", kind=kind, cause=str(exc))
