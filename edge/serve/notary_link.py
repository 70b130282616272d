"""The supervisor's end of the notary: which writers it drains, what happens when it dies, how the log is sealed.

One JSON object a datagram (SOCK_SEQPACKET), answered in order:

    {"attach": path, "writer": name} + descriptor   →  {"attached": name}
    {"gone": name}                                  →  {"recovered": name, "unknown": n}
    {"seal": true}                                  →  {"sealed": size}, then it exits
                                                       {"ready": size} comes first of all
                                                       {"broken": name, "why": text} when a ring made no sense
                                                       {"error": text} when a message did not

The supervisor keeps the notary's end of each writer's socketpair: after kill -9 of the notary its successor is given the
same descriptors and goes on from the same rings. The notary does not get PR_SET_PDEATHSIG: without a supervisor it must
still seal the log, and it learns of that by the EOF of this socket.
"""

from __future__ import annotations

import array
import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from edge.errors import UnsafeState
from edge.serve.children import Backoff, Exit, Nursery
from edge.serve.reactor import READ, Reactor
from edge.serve.report import Report

NotaryMain = Callable[[socket.socket], None]
_IGNORED = (signal.SIGTERM, signal.SIGINT)
_STARTS_WITHIN_S = 20.0
"""Recovery after a crash reads the unpublished tail of the log; a notary silent for longer hangs and is replaced."""


class Answer(msgspec.Struct, frozen=True):
    """Any message of the notary."""

    ready: int | None = None
    attached: str | None = None
    recovered: str | None = None
    unknown: int = 0
    sealed: int | None = None
    broken: str | None = None
    why: str = ""
    error: str | None = None


@dataclass(slots=True, eq=False)
class Writer:
    """One ring and the state of its attachment."""

    name: str
    path: Path
    notary_end: socket.socket | None
    """None for a ring left behind by a writer of an earlier run."""
    on_attached: Callable[[], None]
    on_recovered: Callable[[int], None]
    on_broken: Callable[[], None]
    is_gone: bool = False


class NotaryLink:
    """Keeps one notary running and every living writer attached to it."""

    def __init__(
        self,
        reactor: Reactor,
        nursery: Nursery,
        main: NotaryMain,
        report: Report,
        on_change: Callable[[bool], None] = lambda _: None,
    ) -> None:
        """`on_change(is ready)` is called whenever that changes."""
        self._on_change = on_change
        self._reactor = reactor
        self._nursery = nursery
        self._main = main
        self._report = report
        self._backoff = Backoff()
        self._socket: socket.socket | None = None
        self._pid: int | None = None
        self._writers: dict[str, Writer] = {}  # owner: the supervisor's one thread
        self._sealing = False
        self.is_ready = False
        self.size = 0
        """Leaves in the log when the notary started or sealed."""
        self.is_sealed = False
        self.failed_starts = 0
        """Deaths in a row before `ready`; a log that never opens must end `edge serve`."""
        self._abandoned = False

    def start(self) -> None:
        """Fork the notary; it is `is_ready` once it has recovered the log."""
        if self._abandoned:
            return
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        self._socket = ours
        try:
            self._pid = self._nursery.start(
                "edge-notary",
                lambda: self._run(theirs),
                self._ended,
                keep=(theirs.fileno(),),
                ignore=_IGNORED,
                dies_with_parent=False,
            )
        finally:
            theirs.close()
        self._reactor.watch(ours.fileno(), READ, self._heard)
        pid = self._pid
        self._reactor.after(_STARTS_WITHIN_S, lambda: self._kill_if_silent(pid))

    def _run(self, theirs: socket.socket) -> int:
        """In the child. A log that cannot be opened or written is said in one line."""
        try:
            self._main(theirs)
        except UnsafeState as exc:
            self._report.of("notary").error(str(exc))
            return 4
        return 0

    def _kill_if_silent(self, pid: int) -> None:
        if pid == self._pid and not self.is_ready:
            self._nursery.kill(pid)

    def attach(
        self,
        name: str,
        path: Path,
        notary_end: socket.socket | None,
        *,
        on_attached: Callable[[], None] = lambda: None,
        on_recovered: Callable[[int], None] = lambda _: None,
        on_broken: Callable[[], None] = lambda: None,
    ) -> None:
        """Have the notary drain the ring at `path`. `on_attached` is called again by each successor of the notary.

        `on_broken`: the notary gave the ring up; whoever writes to it is not recorded any more and must be replaced.
        """
        writer = Writer(name, path, notary_end, on_attached, on_recovered, on_broken)
        self._writers[name] = writer
        self._announce(writer)

    def gone(self, name: str) -> None:
        """The writer is dead: what it left open becomes leaves with an unknown outcome, then its ring is deleted."""
        writer = self._writers[name]
        if not writer.is_gone:
            writer.is_gone = True
            self._send({"gone": name})

    @property
    def writers(self) -> tuple[str, ...]:
        """Names of those not yet recovered."""
        return tuple(self._writers)

    def seal(self) -> None:
        """Have everything drained, synced, signed; the notary exits after it. A notary that dies on the way is replaced."""
        self._sealing = True
        self._send({"seal": True})

    def abandon(self) -> None:
        """Give up a notary that never became ready: nothing can be in the log that needs a seal."""
        self._abandoned = True
        self.kill()

    def kill(self) -> None:
        if self._pid is not None:
            self._nursery.kill(self._pid)

    @property
    def is_stopped(self) -> bool:
        return self._pid is None

    def _announce(self, writer: Writer) -> None:
        fd = None if writer.notary_end is None else writer.notary_end.fileno()
        self._send({"attach": str(writer.path), "writer": writer.name}, fd)
        if writer.is_gone:
            self._send({"gone": writer.name})

    def _send(self, message: dict[str, object], fd: int | None = None) -> None:
        """To a notary that is ready; one that is not yet gets everything by `_became_ready`."""
        if self._socket is None or not self.is_ready:
            return
        ancillary = [] if fd is None else [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))]
        try:
            self._socket.sendmsg([msgspec.json.encode(message)], ancillary)
        except OSError:
            # Its queue is full (it hangs) or it is gone. Its successor is told everything again.
            self.kill()

    def _heard(self, _events: int) -> None:
        assert self._socket is not None
        try:
            datagram = self._socket.recv(1 << 16)
            if not datagram:
                self._reactor.forget(self._socket.fileno())  # it is ending; `_ended` does the rest
                return
            answer = msgspec.json.decode(datagram, type=Answer)
        except BlockingIOError:
            return
        except (OSError, msgspec.MsgspecError):
            self.kill()
            return
        self._dispatch(answer)

    def _read_last(self, sock: socket.socket) -> None:
        """What it said before it ended: `sealed` and the end arrive together."""
        while True:
            try:
                datagram = sock.recv(1 << 16)
                if not datagram:
                    return
                self._dispatch(msgspec.json.decode(datagram, type=Answer))
            except (OSError, msgspec.MsgspecError):
                return

    def _dispatch(self, answer: Answer) -> None:
        if answer.ready is not None:
            self.is_ready, self.size, self.failed_starts = True, answer.ready, 0
            self._on_change(True)
            for writer in list(self._writers.values()):
                self._announce(writer)
            if self._sealing:
                self._send({"seal": True})
        elif answer.attached is not None and (found := self._writers.get(answer.attached)):
            found.on_attached()
        elif answer.recovered is not None and (found := self._writers.pop(answer.recovered, None)):
            if found.notary_end is not None:
                found.notary_end.close()
            found.on_recovered(answer.unknown)
        elif answer.sealed is not None:
            self.is_sealed, self.size = True, answer.sealed
        elif answer.broken is not None:
            self._report.error("a ring was set aside", writer=answer.broken, cause=answer.why)
            if found := self._writers.get(answer.broken):
                found.on_broken()
        elif answer.error is not None:
            self._report.error("the notary did not understand", cause=answer.error)

    def _ended(self, ended: Exit, lived_s: float) -> None:
        if self._socket is not None:
            self._read_last(self._socket)
            self._reactor.forget(self._socket.fileno())
            self._socket.close()
        was_ready = self.is_ready
        self._socket, self._pid, self.is_ready = None, None, False
        self._on_change(False)
        if self.is_sealed or self._abandoned:
            return
        self.failed_starts += not was_ready
        wait_s = self._backoff.next_wait_s(lived_s)
        self._report.warning(
            "notary ended; requests are refused until another is ready", cause=str(ended), wait_s=wait_s
        )
        self._reactor.after(wait_s, self.start)
