"""The gateway's own certificates: made when missing, renewed at ⅔ of their life, looked at each hour.

Done by the process `ca`, or, where that is closed or this gateway has joined another's CA, in a short-lived child: the
issuing keys are never in the memory of the supervisor or of a worker. Where edge.yaml says which gateway has the CA it is the
follower (`follower`) that renews, and this only looks whether it did.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from edge.serve.ca_link import CaLink
from edge.serve.children import Nursery
from edge.serve.errand import Errand, Failure
from edge.serve.far_authority import Place
from edge.serve.follower import Followed, Follower
from edge.serve.outline import Outline
from edge.serve.reactor import Reactor
from edge.serve.report import Report
from pki import desk
from pki.errors import PkiError
from pki.io_identity import ensure_gateway_identities

_EVERY_S = 3600.0
_AGAIN_S = 60.0
_WITHIN_S = 30.0
_HEARD_WITHIN_S = 3.0


class Renewed(msgspec.Struct, frozen=True):
    """What the child did."""

    changed: tuple[str, ...] = ()
    """Identities that were written: `gateway`, `public`."""
    warnings: tuple[str, ...] = ()
    failure: str | None = None


Done = Callable[[Renewed], None]


class Renewal:
    """Runs the child, at most one at a time, and again each hour."""

    def __init__(self, reactor: Reactor, nursery: Nursery, report: Report) -> None:
        self._reactor = reactor
        self._nursery = nursery
        self._report = report
        self._ca: CaLink | None = None
        self._waiting: list[Done] = []
        self._follower: Follower | None = None
        self._stopping = False

    def ask(self, link: CaLink) -> None:
        """From now on it is the authority's process that renews, while it is open."""
        self._ca = link

    def follow(self, outline: Outline, is_hurried: Callable[[], bool]) -> None:
        """From now on another gateway's authority is heard, where edge.yaml names one; call once. Waits a moment for the
        first word: without one a gateway may serve, and dial nobody."""
        if outline.authority is not None:
            followed = Followed(Place(*outline.authority), outline.trust_domain, Path(outline.state))
            follower = Follower(self._reactor, self._nursery, self._report.of("follower"), followed)
            self._follower = follower
            self._reactor.run_until(lambda: follower.has_heard or is_hurried(), _HEARD_WITHIN_S)

    def run(self, outline: Outline, done: Done) -> None:
        """Look now; `done` is called once, from the loop."""
        if not (outline.issues_gateway or outline.issues_public):
            self._reactor.after(0.0, lambda: done(Renewed()))
            return
        self._waiting.append(done)
        if len(self._waiting) > 1:
            return
        if self._ca is not None and self._ca.is_open:
            own = desk.RenewOwn(outline.trust_domain, outline.hosts if outline.issues_public else ())
            self._ca.ask(desk.encode(own), lambda reply: self._told(renewed_by(reply)))
        else:
            Errand(
                self._reactor, self._nursery, "edge-renewal", lambda: renew(outline), self._finish, timeout_s=_WITHIN_S
            )

    def _finish(self, result: bytes | Failure) -> None:
        if isinstance(result, bytes):
            renewed = msgspec.json.decode(result, type=Renewed)
        else:
            renewed = Renewed(failure=f"the gateway's own certificates could not be renewed: {result.cause}")
        self._told(renewed)

    def _told(self, renewed: Renewed) -> None:
        for warning in renewed.warnings:
            self._report.warning(warning)
        waiting, self._waiting = self._waiting, []
        for done in waiting:
            done(renewed)

    def each_hour(self, outline: Callable[[], Outline], on_change: Callable[[], None]) -> None:
        """From now on: look each hour (a minute after a failure), and say when something changed."""

        def look() -> None:
            if not self._stopping:
                self.run(outline(), looked)

        def looked(renewed: Renewed) -> None:
            if renewed.failure is not None:
                self._report.error("certificates not renewed; trying again", cause=renewed.failure)
            elif renewed.changed:
                on_change()
            self._reactor.after(_AGAIN_S if renewed.failure else _EVERY_S, look)

        self._reactor.after(_EVERY_S, look)

    def stop(self) -> None:
        self._stopping = True
        if self._follower is not None:
            self._follower.stop()


def renewed_by(reply: desk.Reply) -> Renewed:
    """What the authority's process said."""
    if isinstance(reply, desk.OwnRenewed):
        return Renewed(reply.renewed, reply.warnings)
    assert isinstance(reply, desk.Failed)
    return Renewed(failure=f"the gateway's own certificates: {desk.error_of(reply)}")


def renew(outline: Outline) -> bytes:
    """In the child."""
    try:
        done = ensure_gateway_identities(
            Path(outline.state),
            trust_domain=outline.trust_domain,
            hosts=outline.hosts if outline.issues_public else (),
            now=datetime.now(UTC),
        )
        renewed = Renewed(done.renewed, done.warnings)
    except PkiError as exc:
        renewed = Renewed(failure=f"the gateway's own certificates: {exc}")
    return msgspec.json.encode(renewed)
