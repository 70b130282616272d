"""The supervisor's own lines in the access log: start, stop, reload, the replacement of children.

It is a writer like any other, with a small ring. A notary that is away costs the line, never the supervisor: what cannot
be recorded is said on stderr.
"""

from __future__ import annotations

import secrets
import socket
from collections.abc import Mapping

from edge.audit import io_ring
from edge.audit.io_recorder import open_recorder
from edge.audit.record import AuditSettings, Value
from edge.audit.ring import Ring
from edge.errors import NotRecordable
from edge.serve.notary_link import NotaryLink
from edge.serve.report import Report
from edge.serve.run_state import RunState

_SLOTS = 64


class OwnLog:
    """The supervisor's ring and recorder."""

    def __init__(
        self, notary: NotaryLink, run: RunState, settings: AuditSettings, pseudonym_key: bytes, report: Report
    ) -> None:
        """Raises: UnsafeState when the ring cannot be made."""
        self._notary = notary
        self._report = report
        self._name = f"supervisor-{secrets.token_hex(4)}"
        path = io_ring.ring_path(run.rings, self._name)
        self._nudge, notarys = socket.socketpair()
        self._ring = Ring.create(path, self._name, slots=_SLOTS, nudge=io_ring.Nudge(self._nudge))
        self._recorder = open_recorder(self._ring, settings, pseudonym_key)
        notary.attach(self._name, path, notarys)

    def event(self, kind: str, values: Mapping[str, Value], *, failed: str | None = None) -> None:
        """Record; never raises for what the disk or the notary may do."""
        try:
            self._recorder.event(kind, values, failed=failed)
        except NotRecordable as exc:
            self._report.warning("event not recorded", kind=kind, cause=str(exc))

    def close(self) -> None:
        """No further line; the notary drains the rest and deletes the ring."""
        self._notary.gone(self._name)
        self._ring.close()
        self._nudge.close()
