"""The supervisor's end of the process `ca`: it is replaced when it dies, told of each worker, and asked for operators.

The supervisor passes requests and replies on as bytes and looks into neither. It keeps the authority's end of each worker's
socketpair, and gives them to the next process after a kill -9.
"""

from __future__ import annotations

import itertools
import os
import signal
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from edge.serve import ca
from edge.serve.children import Backoff, Exit, Nursery
from edge.serve.reactor import READ, Reactor, Timer
from edge.serve.report import Report
from pki import desk

Answered = Callable[[desk.Reply], None]
_IGNORED = (signal.SIGTERM, signal.SIGINT)
_WITHIN_S = 20.0
_SILENT_S = 20.0
"""A process that does not even say that it is closed hangs."""
_DIED = desk.Failed(
    "AuthorityLocked", "", "the authority's process ended before it answered; nothing was handed out, ask again"
)
_SILENT = desk.Failed("AuthorityLocked", "", f"the authority's process did not answer within {_WITHIN_S:g} s")
_NOT_YET = "the authority is being opened"


@dataclass(slots=True)
class _Asked:
    done: Answered
    timer: Timer


class CaLink:
    """Keeps one process running and every living worker attached to it."""

    def __init__(
        self, reactor: Reactor, nursery: Nursery, state: Path, services: Mapping[str, tuple[str, ...]], report: Report
    ) -> None:
        self._reactor = reactor
        self._nursery = nursery
        self._state = state
        self._in_force = ca.InForce(dict(services))
        self._report = report
        self._backoff = Backoff()
        self._numbers = itertools.count(1)
        self._socket: socket.socket | None = None
        self._pid: int | None = None
        self._workers: dict[str, socket.socket] = {}  # the authority's ends; owner: the supervisor's one thread
        self._asked: dict[int, _Asked] = {}
        self._is_stopping = False
        self.on_changed: Callable[[], None] = lambda: None
        """Called when the gateway's own certificates were written."""
        self.is_open = False
        self.closed_because: str | None = None
        """Why the authority is not open; None while that is not known."""

    def start(self) -> None:
        """Fork it; it says whether it could open the authority."""
        if self._is_stopping:
            return
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        self._socket = ours
        state, in_force = self._state, self._in_force
        try:
            self._pid = self._nursery.start(
                "edge-ca",
                lambda: _run(theirs, state, in_force),
                self._ended,
                keep=(theirs.fileno(),),
                ignore=_IGNORED,
            )
        finally:
            theirs.close()
        self._reactor.watch(ours.fileno(), READ, self._heard)
        for name, sock in self._workers.items():
            self._pass({"attach": name}, sock.fileno())
        pid = self._pid
        self._reactor.after(_SILENT_S, lambda: self._kill_if_silent(pid))

    @property
    def is_settled(self) -> bool:
        """It has said whether the authority is open."""
        return self.is_open or self.closed_because is not None

    @property
    def is_stopped(self) -> bool:
        return self._pid is None

    def attach(self, name: str, authority_end: socket.socket) -> None:
        """A worker was started; its other end of `authority_end` is the worker's. Owned here from now on."""
        self._workers[name] = authority_end
        self._pass({"attach": name}, authority_end.fileno())

    def gone(self, name: str) -> None:
        """The worker is dead. Harmless for one that was never attached."""
        sock = self._workers.pop(name, None)
        if sock is not None:
            sock.close()
            self._send(msgspec.json.encode({"gone": name}))

    def adopt(self, services: Mapping[str, tuple[str, ...]], bundle_sha256: str) -> None:
        """Every worker goes by this now: who may be renewed, with which names, and who is trusted."""
        self._in_force = ca.InForce(dict(services), bundle_sha256)
        descriptor = ca.in_force_file(self._in_force)
        try:
            self._pass({"in_force": True}, descriptor)
        finally:
            os.close(descriptor)

    def ask(self, request: bytes, done: Answered) -> None:
        """Pass on an operator's request (JSON of a `desk.FromOperator`); `done` is called once, now or later."""
        if not self.is_open:
            done(desk.Failed("AuthorityLocked", "", self.closed_because or _NOT_YET))
            return
        number = next(self._numbers)
        self._asked[number] = _Asked(done, self._reactor.after(_WITHIN_S, lambda: self._answered(number, _SILENT)))
        self._send(msgspec.json.encode({"id": number, "ask": msgspec.Raw(request)}))

    def stop(self) -> None:
        """Hang up; it finishes what it does and leaves."""
        self._is_stopping = True
        self._hang_up()
        for sock in self._workers.values():
            sock.close()
        self._workers.clear()

    def _pass(self, message: dict[str, object], descriptor: int) -> None:
        if self._socket is not None:
            try:
                ca.pass_descriptor(self._socket, message, descriptor)
            except OSError:
                self._kill()

    def _send(self, raw: bytes) -> None:
        if self._socket is not None:
            try:
                self._socket.send(raw)
            except OSError:
                self._kill()  # its queue is full (it hangs), or it is gone; the next one is told everything again

    def _kill(self) -> None:
        if self._pid is not None:
            self._nursery.kill(self._pid)

    def _kill_if_silent(self, pid: int) -> None:
        if pid == self._pid and not self.is_settled:
            self._kill()

    def _heard(self, _events: int) -> None:
        assert self._socket is not None
        try:
            raw = self._socket.recv(1 << 18)
            if not raw:
                self._reactor.forget(self._socket.fileno())  # it is ending; `_ended` does the rest
                return
            word = msgspec.json.decode(raw, type=ca.Word)
            if word.open is not None:
                self._settled(word)
            elif word.changed:
                self.on_changed()
            else:
                self._answered(word.id, desk.read_reply(bytes(word.reply)))
        except BlockingIOError:
            return
        except (OSError, msgspec.MsgspecError):
            self._kill()

    def _settled(self, word: ca.Word) -> None:
        self.is_open = bool(word.open)
        self.closed_because = None if word.open else word.why
        if word.open:
            self._report.info("authority open")
        else:
            self._report.warning("authority closed: no enrolment, renewal or revocation here", cause=word.why)

    def _answered(self, number: int, reply: desk.Reply) -> None:
        asked = self._asked.pop(number, None)
        if asked is not None:
            asked.timer.cancel()
            asked.done(reply)

    def _hang_up(self) -> None:
        if self._socket is not None:
            self._reactor.forget(self._socket.fileno())
            self._socket.close()
        self._socket = None

    def _ended(self, ended: Exit, lived_s: float) -> None:
        self._hang_up()
        self._pid, self.is_open, self.closed_because = None, False, None
        for number in list(self._asked):
            self._answered(number, _DIED)
        if not self._is_stopping:
            wait_s = self._backoff.next_wait_s(lived_s)
            self._report.warning("authority's process ended; starting another", cause=str(ended), wait_s=wait_s)
            self._reactor.after(wait_s, self.start)


def _run(channel: socket.socket, state: Path, in_force: ca.InForce) -> int:
    """In the child."""
    ca.Office(channel, state, in_force).run()
    return 0
