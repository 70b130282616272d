"""What a sidecar tells about requests: who was turned away, and what its service did not answer. Nothing of what went well.

The gateway has recorded the request in its signed log before it came here, with the identity that answered. A second record
next to the service would be signed by nobody that an auditor knows. So this is an application log like any other: lines on
stderr, at most fifty a second and address, the rest counted. Each names the gateway's id of the request, if one was read.
"""

from __future__ import annotations

import time
from os import urandom

from edge.audit.flood import Flood
from edge.model.decision import Admission, Need
from edge.model.http import Request
from edge.model.identity import Peer, Principal
from edge.model.record import UpstreamFacts
from edge.model.route import RouteMatch
from edge.serve.report import Report

_SUMMARIES = 64
_NS = 1_000_000_000
_QUIET = frozenset((None, "client-gone"))
"""Outcomes that are no news: an answer was passed on, or the gateway's own client left."""


class AttachLog:
    """The `Records` of a sidecar. Owner: the process; one loop."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._flood = Flood()
        self._tail = urandom(6).hex()
        self._last_ns = 0
        self._number = 0
        self._open: dict[int, tuple[Request, Peer]] = {}
        self.served = 0
        """Requests that were passed to the service, whatever it answered."""

    @property
    def room(self) -> tuple[int, int]:
        """There is always room: nothing waits to be written."""
        return 1, 1

    def next_id(self) -> str:
        """Spelled as a gateway's; it names problems that are this sidecar's own."""
        self._last_ns = max(time.time_ns(), self._last_ns + 1)
        return f"{self._last_ns:016x}{self._tail}"

    def admit(
        self,
        decision_id: str,
        request: Request,
        peer: Peer,
        admission: Admission,
        bundle_hash: str,
        started_ns: int,
    ) -> int:
        self._number += 1
        self._open[self._number] = request, peer
        return self._number

    def synced(self, slot: int) -> Need | None:
        return None

    def complete(
        self,
        slot: int,
        *,
        status: int,
        reason: str | None,
        bytes_in: int,
        bytes_out: int,
        duration_ns: int,
        upstream: UpstreamFacts | None,
        rule: str | None = None,
        close_code: int | None = None,
    ) -> int:
        request, peer = self._open.pop(slot)
        self.served += 1
        if reason not in _QUIET:
            self._tell("the service did not answer", request, peer, status, str(reason), rule)
        return slot

    def refuse(
        self,
        decision_id: str,
        request: Request | None,
        peer: Peer,
        *,
        principal: Principal | None,
        match: RouteMatch | None,
        status: int,
        reason: str,
        rule: str,
        bundle_hash: str,
        started_ns: int,
        duration_ns: int,
        policies: tuple[str, ...] = (),
        bytes_in: int = 0,
        bytes_out: int = 0,
    ) -> int | None:
        self._tell("refused", request, peer, status, reason, rule)
        return None

    def acked(self, completion: int | None) -> Need | None:
        return None

    def _tell(self, what: str, request: Request | None, peer: Peer, status: int, reason: str, rule: str | None) -> None:
        if self._flood.is_over(peer.prefix, time.monotonic_ns() // _NS):
            self._flood.count(peer.prefix, reason, time.time_ns() // _NS)
            return
        named = request.field(b"x-request-id") if request is not None else None
        self._report.warning(
            what,
            address=peer.ip,
            identity=peer.spiffe_id,
            status=status,
            reason=reason,
            rule=rule,
            request=named.decode("latin-1") if named is not None else None,
        )

    def flush(self, now_ns: int) -> None:
        """Tell what was only counted, of seconds that are over; called once a second by a timer."""
        for key, count in self._flood.due(now_ns // _NS, _SUMMARIES):
            _, prefix, reason = key
            self._report.warning("refused, and not told one by one", address=prefix, reason=reason, count=count)
            self._flood.written(key)
