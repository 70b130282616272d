"""A worker's eye on what the authority publishes: files of `state/status` → what is known → connections that end.

    state/status/heartbeat.json    read first: the set that it tells of was written before it
    state/status/revocation.json

They are looked at four times a second, at once when the process `ca` says that the set has changed, and before anybody is
refused because nothing fresh was heard. What has not changed on disk is not read again, unless it left us without knowledge.
A gateway without an authority reads what its operator copies there, in the same way. A file that does not verify, or is older
than what is known, changes nothing, and is in the access log.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from edge.audit.recorder import Recorder
from edge.errors import NotRecordable
from edge.serve.report import Report
from pki.errors import PkiError, StatusRejected
from pki.io_files import read_private
from pki.io_status import HEARTBEAT, SET
from pki.known_status import KnownStatus
from pki.revocation import MAX_BYTES

LOOK_S = 0.25
_Seen = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Anchors:
    """Whose signature counts."""

    roots: Sequence[bytes]
    """DER; none where an outside authority issues, whose revocations are its own."""
    trust_domain: str


class Revocations:
    """Owner: `Serving`. One event loop; `cut` is called with what is revoked whenever that grew."""

    def __init__(
        self,
        known: KnownStatus,
        directory: Path,
        anchors: Anchors,
        recorder: Recorder,
        report: Report,
        cut: Callable[[frozenset[tuple[bytes, int]]], int],
    ) -> None:
        """`cut` → how many connections it ended."""
        self._known = known
        self._directory = directory
        self._anchors = anchors
        self._recorder = recorder
        self._report = report
        self._cut = cut
        self._seen: dict[str, _Seen] = {}
        self._refused: dict[str, str] = {}
        self._was_known = True
        self._heard = asyncio.Event()
        self._is_closed = False
        known.look_again = self._read_changed

    @property
    def is_known(self) -> bool:
        """Whether what is revoked is known at this moment; else nobody new is believed."""
        return self._known.revoked(datetime.now(UTC)) is not None

    async def words(self) -> AsyncIterator[tuple[bytes, bytes]]:
        """What the authority says, heartbeat and set, at once and then whenever something was heard; ends with us."""
        while not self._is_closed:
            heard, documents = self._heard, self._known.documents
            if documents is not None:
                yield documents
            await heard.wait()

    def close(self) -> None:
        """Whoever listens to `words` is told no more."""
        self._is_closed = True
        self._heard.set()

    def trust(self, anchors: Anchors) -> None:
        """The configuration changed. What could not be verified before may be now."""
        if anchors != self._anchors:
            self._anchors = anchors
            self._seen.clear()
        self.look()

    def look(self) -> None:
        """Read what has changed; all of it while we do not know what is revoked. What was refused then may be good now, and a
        file may have changed without looking so (times have the grain of the kernel's tick)."""
        if not self._was_known:
            self._seen.clear()
        self._read_changed()
        is_known = self.is_known
        if is_known != self._was_known:
            self._was_known = is_known
            self._tell_known(is_known=is_known)

    def _read_changed(self) -> None:
        if not self._anchors.roots:
            return
        self._read(HEARTBEAT, self._take_heartbeat, self._known.doubt_heartbeat)
        self._read(SET, self._take_set, self._known.doubt_set)

    def _tell_known(self, *, is_known: bool) -> None:
        if is_known:
            self._report.info("revocation is known again", number=self._known.number)
            return
        self._report.warning(
            "no fresh word of the authority: no new connections to or from its identities",
            file=self._directory / HEARTBEAT,
            remedy="open the authority, or remove the file and restart if there is none any more",
        )
        self._record("identity.revocation", failed="revocation-unknown")

    def _read(self, name: str, take: Callable[[bytes, datetime], None], doubt: Callable[[], None]) -> None:
        path = self._directory / name
        try:
            facts = os.stat(path)
            seen = (facts.st_mtime_ns, facts.st_ino, facts.st_size)
            if self._seen.get(name) == seen:
                return
            raw = read_private(path, limit=MAX_BYTES)
            self._seen[name] = seen  # a file that is replaced meanwhile differs at the next look
            take(raw, datetime.now(UTC))
        except FileNotFoundError:
            return
        except (PkiError, OSError) as exc:
            doubt()
            rule = exc.rule if isinstance(exc, StatusRejected) else "unreadable"
            if self._refused.get(name) != str(exc):  # once, not with every heartbeat
                self._refused[name] = str(exc)
                self._report.warning("refused what is said to be the authority's word", file=path, cause=str(exc))
                self._record("identity.revocation", failed=rule)
            return
        self._refused.pop(name, None)

    def _take_heartbeat(self, raw: bytes, now: datetime) -> None:
        anchors = self._anchors
        self._known.take_heartbeat(raw, anchors=anchors.roots, trust_domain=anchors.trust_domain, now=now)
        self._tell()

    def _take_set(self, raw: bytes, now: datetime) -> None:
        anchors = self._anchors
        if self._known.take_set(raw, anchors=anchors.roots, trust_domain=anchors.trust_domain, now=now):
            cut = self._cut(self._known.listed)
            self._tell()
            self._report.info("revocation set", number=self._known.number, entries=len(self._known.listed), cut=cut)
            self._record("config.revocation", failed=None)

    def _tell(self) -> None:
        heard, self._heard = self._heard, asyncio.Event()
        heard.set()

    def _record(self, kind: str, failed: str | None) -> None:
        try:
            self._recorder.event(kind, {"message": f"revocation set {self._known.number}"}, failed=failed)
        except NotRecordable as exc:
            self._report.warning("event not recorded", kind=kind, cause=str(exc))
