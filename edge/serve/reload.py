"""A reload from its cause to its answer.

    cause (edit, SIGHUP, `edge reload`, renewed identity)
      → read every byte once → judge in a child → log the bundle hash → prepare in every worker → commit in every worker

Nobody re-reads a file on his own, so all workers decide by the same bytes, and these are the bytes that were judged.
Whatever fails on the way changes nothing and says why. Causes that come while a round is under way start one more round
after it: the round may have read the files before the edit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from edge.config.sources import Sources
from edge.errors import ConfigError, Fault, UnsafeState
from edge.serve.children import Nursery
from edge.serve.control_socket import Answer, Reply
from edge.serve.errand import Errand, Failure
from edge.serve.messages import Kind, Note
from edge.serve.outline import Outline, digest, fixed_differences, judge, read_verdict, worse_certificates
from edge.serve.reactor import Reactor, Timer
from edge.serve.renewal import Renewed
from edge.serve.report import Report
from edge.serve.two_phase import Outcome, Phase, TwoPhase

JUDGE_WITHIN_S = 20.0
PREPARE_WITHIN_S = 10.0
COMMIT_WITHIN_S = 2.0


@dataclass(frozen=True, slots=True)
class Current:
    """What is being served."""

    sources: Sources
    outline: Outline


class Workers(Protocol):
    """What a reload asks of the workers (`pool.Pool`)."""

    def living(self) -> tuple[int, ...]: ...

    def serving(self) -> tuple[int, ...]: ...

    def send(self, index: int, kind: Kind, sources: Sources | None = None) -> None: ...

    def kill(self, indices: tuple[int, ...] | None = None) -> None: ...


class Event(Enum):
    """What goes into the access log about a reload."""

    PREPARED = "config.prepare"
    APPLIED = "config.reload"
    REFUSED = "config.refused"


Record = Callable[[Event, str, str, str | None], None]
"""(event, bundle hash, previous bundle hash, reason of failure); must not raise."""


_STOPPING = Answer(ok=False, faults=("control: the gateway is stopping",))


class Reload:
    """All reloads of one supervisor, one after the other. `current` is replaced when a round is applied."""

    def __init__(
        self,
        reactor: Reactor,
        nursery: Nursery,
        workers: Workers,
        current: Current,
        report: Report,
        *,
        load: Callable[[], Sources],
        renew: Callable[[Outline, Callable[[Renewed], None]], None],
        record: Record,
        on_applied: Callable[[Current], None],
        prepare_within_s: float = PREPARE_WITHIN_S,
    ) -> None:
        """`renew(outline, done)` makes the certificates that `outline` asks for (`renewal.Renewal.run`)."""
        self.current = current
        self._reactor = reactor
        self._nursery = nursery
        self._workers = workers
        self._report = report
        self._load = load
        self._renew = renew
        self._record = record
        self._on_applied = on_applied
        self._prepare_within_s = prepare_within_s
        self._file = current.sources.edge.name
        self._transaction = TwoPhase()
        self._candidate: Current | None = None
        self._timer: Timer | None = None
        self._waiting: list[Reply] = []  # answered when the round under way ends
        self._next: list[Reply] | None = None  # a list as soon as one more round is wanted
        self._is_busy = False
        self._is_closed = False

    def request(self, reply: Reply | None = None) -> None:
        """Begin a round, or one more after the present one."""
        replies = [] if reply is None else [reply]
        if self._is_closed:
            for refuse in replies:
                refuse(_STOPPING)
        elif self._is_busy:
            self._next = (self._next or []) + replies
        else:
            self._begin(replies)

    def close(self) -> None:
        """The gateway stops: no further round. Of the present one nothing happens that was not sent to the workers yet: who
        would record or apply it is about to leave."""
        self._is_closed = True

    def _begin(self, replies: list[Reply]) -> None:
        self._is_busy, self._waiting, self._candidate = True, replies, None
        self._read(renewed=False)

    def _read(self, *, renewed: bool) -> None:
        try:
            sources = self._load()
        except ConfigError as exc:
            self._refuse(exc.faults)
            return
        except UnsafeState as exc:
            self._refuse((Fault(self._file, 1, 1, "unsafe-state", str(exc), "nothing was changed"),))
            return
        if digest(sources) == digest(self.current.sources):
            self._end(Answer(ok=True, bundle_hash=sources.bundle_hash, changed=False))
            return
        Errand(
            self._reactor,
            self._nursery,
            "edge-judge",
            lambda: judge(sources),
            lambda result: self._judged(sources, result, renewed=renewed),
            timeout_s=JUDGE_WITHIN_S,
        )

    def _judged(self, sources: Sources, result: bytes | Failure, *, renewed: bool) -> None:
        if self._is_closed:
            self._end(_STOPPING)
            return
        verdict = read_verdict(result, self._file)
        if verdict.outline is None:
            self._refuse(verdict.faults)
            return
        outline = verdict.outline
        differences = fixed_differences(self.current.outline, outline, self._file)
        differences += worse_certificates(self.current.outline, outline)
        if differences:
            self._refuse(differences)
        elif outline.hosts != self.current.outline.hosts and outline.issues_public and not renewed:
            self._renew(outline, self._renewed)
        else:
            self._prepare(Current(sources, outline))

    def _renewed(self, renewed: Renewed) -> None:
        if self._is_closed:
            self._end(_STOPPING)
        elif renewed.failure is None:
            self._read(renewed=True)  # the new certificate is among the bytes
        else:
            self._refuse((Fault(self._file, 1, 1, "certificate", renewed.failure, "nothing was changed"),))

    def _prepare(self, candidate: Current) -> None:
        self._candidate = candidate
        self._record(Event.PREPARED, candidate.outline.bundle_hash, self.current.outline.bundle_hash, None)
        frames = self._transaction.begin(self._workers.living(), digest(candidate.sources))
        self._timer = self._reactor.after(self._prepare_within_s, self._prepared_too_late)
        self._send(frames)

    def _prepared_too_late(self) -> None:
        starting = set(self._transaction.waiting) - set(self._workers.serving())
        if starting:  # they hang; whoever takes their places is forked with the new state as soon as the others commit
            self._timer = self._reactor.after(self._prepare_within_s, self._refuse_late)
            self._workers.kill(tuple(sorted(starting)))
        else:
            self._refuse_late()

    def _refuse_late(self) -> None:
        late = self._transaction.waiting
        self._send(self._transaction.refuse(f"workers {late} did not prepare within {self._prepare_within_s:g} s"))

    def joined(self, index: int) -> None:
        """A worker was forked; it may serve before it has said so."""
        if self._transaction.phase is not Phase.IDLE:
            self._send(self._transaction.join(index))

    def heard(self, index: int, kind: Kind, note: Note) -> None:
        """A worker said something."""
        if self._transaction.phase is not Phase.IDLE:
            self._send(self._transaction.heard(index, kind, note.bundle_hash, note.detail))

    def lost(self, index: int) -> None:
        """A worker died."""
        if self._transaction.phase is not Phase.IDLE:
            self._send(self._transaction.lost(index))

    def _send(self, frames: list[tuple[int, Kind]]) -> None:
        candidate = self._candidate
        assert candidate is not None
        for index, kind in frames:
            if kind is Kind.COMMIT and self.current is not candidate:
                self._adopt(candidate)
            self._workers.send(index, kind, candidate.sources if kind is Kind.PREPARE else None)
        if self._transaction.outcome is Outcome.REFUSED:
            self._refuse(
                (Fault(self._file, 1, 1, "not-prepared", self._transaction.reason, "the old state serves on"),)
            )
        elif self._transaction.outcome is Outcome.APPLIED:
            if self.current is not candidate:  # no worker was there to ask
                self._adopt(candidate)
            self._applied(candidate)

    def _adopt(self, candidate: Current) -> None:
        """All are prepared. From here the new state is the one a replacement starts with, whatever dies meanwhile."""
        previous = self.current.outline.bundle_hash
        self.current = candidate
        self._record(Event.APPLIED, candidate.outline.bundle_hash, previous, None)
        self._restart_timer()

    def _restart_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        # A worker that does not commit would go on deciding by the old state.
        self._timer = self._reactor.after(COMMIT_WITHIN_S, lambda: self._workers.kill(self._transaction.waiting))

    def _applied(self, candidate: Current) -> None:
        self._report.info("reloaded", bundle_hash=candidate.outline.bundle_hash)
        for warning in candidate.outline.warnings:
            self._report.warning(warning)
        self._on_applied(candidate)
        self._end(Answer(ok=True, bundle_hash=candidate.outline.bundle_hash, changed=True))

    def _refuse(self, faults: tuple[Fault, ...]) -> None:
        self._report.faults(faults)
        self._report.error("reload refused; the old state serves on", faults=len(faults))
        running = self.current.outline.bundle_hash
        self._record(Event.REFUSED, running, running, faults[0].rule)
        self._end(Answer(ok=False, bundle_hash=running, faults=tuple(map(str, faults))))

    def _end(self, answer: Answer) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        waiting, following = self._waiting, self._next
        self._is_busy, self._waiting, self._next = False, [], None
        for reply in waiting:
            reply(answer)
        if following is not None and not self._is_closed:
            self._begin(following)
