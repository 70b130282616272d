"""The supervisor's side of the workers: start, replace, succeed, tell, drain.

A worker is a place: an index, with a listening socket of its own for each listener. At any time one process serves it; while
a successor takes over, two. Each process has a number that no other ever has, and takes part in reloads under it.

A process is forked when the notary drains its ring, never before: a process that listens can decide *and* record.
"""

from __future__ import annotations

import itertools
import pickle
import secrets
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from edge.audit import io_ring
from edge.audit.ring import Ring
from edge.config.sources import Sources
from edge.errors import EdgeError
from edge.serve.board import Board, Row
from edge.serve.ca_link import CaLink
from edge.serve.children import Backoff, Exit, Nursery
from edge.serve.messages import Channel, FrameError, Kind, Note
from edge.serve.notary_link import NotaryLink
from edge.serve.reactor import READ, WRITE, Reactor
from edge.serve.report import Report
from edge.serve.run_state import RunState

STARTS_WITHIN_S = 30.0
"""A worker that does not serve by then hangs and is replaced."""
LEAVES_WITHIN_S = 660.0
"""One that was succeeded; its own patience (`serving.FINISH_S`) is over before."""
_MAX_RETIRING = 2


@dataclass(frozen=True, slots=True)
class Boot:
    """What a worker is born with; all of it is inherited over the fork, nothing is read again."""

    index: int
    sources: Sources
    sockets: Mapping[str, socket.socket]
    """Listeners by name, bound and perhaps listening already; kept open by the supervisor."""
    channel: socket.socket
    ring: Ring
    nudge: io_ring.Nudge
    pseudonym_key: bytes
    run_fd: int
    """`state/run`; the embedded store is reached through it."""
    board: Board
    row: Row
    """The part of the board that this process writes."""
    report: Report
    ca: socket.socket | None = None
    """To the authority's process, where this gateway hosts one."""


WorkerMain = Callable[[Boot], int]
Tried = Callable[[str | None], None]
"""What came of a successor: None when it serves, else why it does not."""


@dataclass(slots=True, eq=False)
class Worker:
    """One process."""

    number: int
    index: int
    pid: int
    ring_name: str
    channel: Channel
    tried: Tried | None = None
    """Set for the successor of a worker that still serves, until it is known whether it does."""
    is_serving: bool = False
    is_retiring: bool = False
    failure: Note | None = None
    """Why it could not start, in its own words."""

    @property
    def state(self) -> str:
        return "retiring" if self.is_retiring else "serving" if self.is_serving else "starting"


class Pool:
    """All workers. `on_forked`, `on_note` and `on_lost` feed the reload; `current()` gives what to serve."""

    def __init__(
        self,
        reactor: Reactor,
        nursery: Nursery,
        notary: NotaryLink,
        run: RunState,
        report: Report,
        *,
        listeners: Mapping[str, Sequence[socket.socket]],
        ca: CaLink | None = None,
        board: Board,
        pseudonym_key: bytes,
        main: WorkerMain,
        current: Callable[[], Sources],
        on_forked: Callable[[int], None],
        on_note: Callable[[int, Kind, Note], None],
        on_lost: Callable[[Worker, Exit], None],
        on_recovered: Callable[[str, int], None],
    ) -> None:
        self._reactor = reactor
        self._nursery = nursery
        self._notary = notary
        self._run = run
        self._report = report
        self._listeners = listeners
        self._ca = ca
        self._board = board
        self._pseudonym_key = pseudonym_key
        self._main = main
        self._current = current
        self._on_forked = on_forked
        self._on_note = on_note
        self._on_lost = on_lost
        self._on_recovered = on_recovered
        self._numbers = itertools.count(1)
        self._workers: dict[int, Worker] = {}  # by number; owner: the supervisor's one thread
        self._coming: dict[int, int] = {}  # index → number of a process that is about to be forked
        self._backoff: dict[int, Backoff] = {}
        self._draining = False
        self.first_failure: Note | None = None
        """Set when a worker ended without ever serving; decides the fate of a first start."""

    def start(self, index: int, tried: Tried | None = None) -> None:
        """Make a ring, have it attached, then fork. Without `tried` only where nobody serves or starts already."""
        if self._draining or (tried is None and self._is_held(index)):
            return
        retiring = sum(worker.index == index and worker.is_retiring for worker in self._workers.values())
        if tried is not None and retiring >= _MAX_RETIRING:
            tried(f"{retiring} processes before it still finish their requests; try again when they have left")
            return
        number = next(self._numbers)
        name = f"worker{index}-{secrets.token_hex(4)}"
        ours, notarys = socket.socketpair()
        nudge = io_ring.Nudge(ours)
        try:
            ring = Ring.create(io_ring.ring_path(self._run.rings, name), name, nudge=nudge)
        except EdgeError as exc:
            ours.close()
            notarys.close()
            self._report.error("worker cannot start; trying again", cause=str(exc))
            if tried is not None:
                tried(str(exc))
            else:
                self._reactor.after(1.0, lambda: self.start(index))
            return
        forked = False
        self._coming[index] = number

        def fork() -> None:
            nonlocal forked
            if not forked:  # each successor of the notary attaches again
                forked = True
                self._fork(number, index, name, ring, nudge, tried)

        self._notary.attach(
            name,
            ring.mapping.path,
            notarys,
            on_attached=fork,
            on_recovered=lambda unknown: self._on_recovered(name, unknown),
            on_broken=lambda: self._replace_writer(name),
        )

    def _is_held(self, index: int) -> bool:
        """Somebody serves there, or will."""
        return index in self._coming or any(w.index == index and not w.is_retiring for w in self._workers.values())

    def _fork(self, number: int, index: int, name: str, ring: Ring, nudge: io_ring.Nudge, tried: Tried | None) -> None:
        self._coming.pop(index, None)
        if self._draining:
            self._notary.gone(name)
        else:
            ours, theirs = socket.socketpair()
            sockets = {listener: group[index] for listener, group in self._listeners.items()}
            report, run_fd = self._report.of("worker"), self._run.directory_fd
            row, key = self._board.take(number, index), self._pseudonym_key
            ca = self._attach_ca(name)
            boot = Boot(index, self._current(), sockets, theirs, ring, nudge, key, run_fd, self._board, row, report, ca)
            pid = self._nursery.start(
                "edge-worker",
                lambda: self._main(boot),
                lambda ended, lived_s: self._ended(worker, ended, lived_s),
                keep={sock.fileno() for sock in (theirs, nudge.socket, *sockets.values(), *([ca] if ca else []))}
                | {ring.mapping.fd, run_fd},
            )
            theirs.close()
            if ca is not None:
                ca.close()
            self._board.own(number, pid)
            worker = self._workers[number] = Worker(number, index, pid, name, Channel(ours), tried)
            self._reactor.watch(ours.fileno(), READ, lambda events: self._ready(worker, events))
            self._reactor.after(STARTS_WITHIN_S, lambda: self._kill_if_silent(worker))
            self._on_forked(number)
        nudge.socket.close()
        ring.close()

    def _attach_ca(self, name: str) -> socket.socket | None:
        """The end of a new worker; the authority's process is given the other."""
        if self._ca is None:
            return None
        ours, authoritys = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._ca.attach(name, authoritys)
        return ours

    def _replace_writer(self, name: str) -> None:
        for worker in list(self._workers.values()):
            if worker.ring_name == name:
                self._nursery.kill(worker.pid)

    def _kill_if_silent(self, worker: Worker) -> None:
        if not worker.is_serving:
            self._nursery.kill(worker.pid)

    def _ready(self, worker: Worker, events: int) -> None:
        if events & WRITE:
            worker.channel.flush()
            self._watch(worker)
        if events & READ:
            self._receive(worker)

    def _receive(self, worker: Worker) -> None:
        try:
            frames = worker.channel.receive()
        except FrameError as exc:
            self._report.error("worker replaced: it broke the framing", pid=worker.pid, cause=str(exc))
            self._nursery.kill(worker.pid)
            frames = None
        if frames is None:
            self._reactor.forget(worker.channel.fileno())  # it ends, or is made to
            return
        for kind, note in frames:
            if kind is Kind.SERVING:
                worker.is_serving = True
                self._say(worker, None)
            elif kind is Kind.FAILED and not worker.is_serving:
                worker.failure = note
            self._on_note(worker.number, kind, note)

    @staticmethod
    def _say(worker: Worker, failure: str | None) -> None:
        tried, worker.tried = worker.tried, None
        if tried is not None:
            tried(failure)

    def _watch(self, worker: Worker) -> None:
        events = READ if worker.channel.is_flushed else READ | WRITE
        self._reactor.watch(worker.channel.fileno(), events, lambda ready: self._ready(worker, ready))

    def _ended(self, worker: Worker, ended: Exit, lived_s: float) -> None:
        if worker.failure is None:
            self._receive(worker)  # what it said last may still lie in the socket
        self._reactor.forget(worker.channel.fileno())
        worker.channel.close()
        del self._workers[worker.number]
        self._board.free(worker.number)
        self._notary.gone(worker.ring_name)
        if self._ca is not None:
            self._ca.gone(worker.ring_name)
        if not worker.is_serving and self.first_failure is None:
            self.first_failure = worker.failure or Note(detail=f"the worker ended by {ended}", exit_code=70)
        self._on_lost(worker, ended)
        if self._draining or worker.is_retiring:
            return
        if self._is_held(worker.index):  # a successor that failed, or one that has to serve alone now
            self._say(worker, worker.failure.detail if worker.failure else str(ended))
            return
        wait_s = self._backoff.setdefault(worker.index, Backoff()).next_wait_s(lived_s)
        cause = worker.failure.detail if worker.failure else str(ended)
        self._report.warning("worker ended; starting another", pid=worker.pid, cause=cause, wait_s=wait_s)
        self._say(worker, cause)
        self._reactor.after(wait_s, lambda: self.start(worker.index))

    def retire(self, index: int) -> None:
        """Its successor serves: the one before takes no new connection and leaves when its clients have."""
        serving = [worker for worker in self._workers.values() if worker.index == index and not worker.is_retiring]
        for worker in serving[:-1]:
            worker.is_retiring = True
            self.send(worker.number, Kind.RETIRE)
            self._reactor.after(LEAVES_WITHIN_S, partial(self._nursery.kill, worker.pid))

    def send(self, number: int, kind: Kind, sources: Sources | None = None) -> None:
        """Send a frame to one worker, when it lives."""
        worker = self._workers.get(number)
        if worker is not None:
            payload = b"" if sources is None else pickle.dumps(sources, pickle.HIGHEST_PROTOCOL)
            worker.channel.send(kind, payload)
            self._watch(worker)

    def living(self) -> tuple[int, ...]:
        """Numbers of all processes: one that has not said so may have begun to serve."""
        return tuple(self._workers)

    def serving(self) -> tuple[int, ...]:
        """Numbers of the processes that have said that they serve."""
        return tuple(worker.number for worker in self._workers.values() if worker.is_serving)

    @property
    def is_retiring(self) -> bool:
        """Some that were succeeded have not left yet."""
        return any(worker.is_retiring for worker in self._workers.values())

    @property
    def workers(self) -> tuple[Worker, ...]:
        return tuple(self._workers.values())

    def kill(self, numbers: Sequence[int] | None = None) -> None:
        """SIGKILL to some, or all."""
        for worker in list(self._workers.values()):
            if numbers is None or worker.number in numbers:
                self._nursery.kill(worker.pid)

    def drain(self) -> None:
        """Let them finish what is in flight; nobody is replaced any more."""
        self._draining = True
        for number in list(self._workers):
            self.send(number, Kind.DRAIN)

    @property
    def is_empty(self) -> bool:
        return not self._workers
