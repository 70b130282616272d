"""An upstream that lets anybody in: the operator is told on stderr, and the access log holds when it was out and back."""

from __future__ import annotations

from edge.audit.recorder import Recorder
from edge.errors import NotRecordable
from edge.forward.io_insist import ACCEPTS_ANYONE, Turn, Where
from edge.serve.report import Report


class UpstreamAlarm:
    """Called by the pool when an address turns."""

    def __init__(self, recorder: Recorder, report: Report) -> None:
        self._recorder = recorder
        self._report = report

    def __call__(self, where: Where, turn: Turn) -> None:
        spiffe_id, (host, port) = where
        place = f"{host}:{port}"
        if turn is Turn.OUT:
            self._report.error(
                "an upstream answers without a client certificate; it gets no requests",
                where=place,
                cause=ACCEPTS_ANYONE,
                remedy="make it require a certificate of the gateway's authority",
            )
        else:
            self._report.info("an upstream requires a client certificate again", where=place)
        facts = {"service.target.spiffe_id": spiffe_id, "destination.address": place}
        kind, failed = ("identity.upstream", ACCEPTS_ANYONE) if turn is Turn.OUT else ("config.upstream", None)
        try:
            self._recorder.event(kind, facts, failed=failed)
        except NotRecordable as exc:
            self._report.warning("event not recorded", kind=kind, cause=str(exc))
