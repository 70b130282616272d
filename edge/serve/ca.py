"""The process `ca`: the only one that can use the issuing keys while a gateway runs that hosts the CA.

It keeps the authority open, so nobody else holds its lock. Datagrams (SOCK_SEQPACKET) of JSON, answered in order:

    from the supervisor                                     to the supervisor
    {"attach": worker} + its end of the worker's socketpair
    {"gone": worker}
    {"in_force": true} + a memory file (`InForce`)
    {"id": 7, "ask": {"type": "Show"}}                      {"id": 7, "reply": {…}}
                                                            {"open": true} or {"open": false, "why": text}, at each change
                                                            {"changed": true} when the gateway's certificates were written
    from a worker                                           to a worker
    {"id": 3, "ask": {"type": "Enrol", …}}                  {"id": 3, "reply": {…}}
                                                            {"number": 7}: of the newest revocation set, with each heartbeat

One request of one worker at a time, in turn, so that a worker that floods takes only its own share. The supervisor keeps each
worker's socketpair open: what waits in it when this process dies is answered by the next one. Without a passphrase it stays
closed and says why; an operator's command then opens the authority itself. It leaves at the supervisor's EOF.
"""

from __future__ import annotations

import array
import os
import socket
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from edge.serve.reactor import READ, Reactor
from pki import desk
from pki.errors import AuthorityBusy, AuthorityLocked, NotRecorded, PkiError
from pki.io_authority import Authority
from pki.io_desk import Desk
from pki.io_enrol import Grants
from pki.io_heartbeat import Heartbeats
from pki.io_keys import Passphrases
from pki.io_status import HEARTBEAT, STATUS, Publisher
from pki.revocation import HEARTBEAT_S

_BUSY_S = 0.1
_AGAIN_S = 5.0
_ASIDE_S = 1.0
"""How long somebody who asked for the lock has to take it."""
_CLOSED = "the authority is not open here"


class Ask(msgspec.Struct, frozen=True):
    """What arrives."""

    id: int = 0
    ask: msgspec.Raw = msgspec.Raw(b"")
    attach: str | None = None
    gone: str | None = None
    in_force: bool = False


class InForce(msgspec.Struct, frozen=True):
    """What every worker goes by."""

    services: dict[str, tuple[str, ...]]
    """Service → DNS names: who may be renewed."""
    bundle_sha256: str = ""
    """Of the gateway's trust bundle, hex; empty while no worker serves."""


class Word(msgspec.Struct, frozen=True, omit_defaults=True):
    """What leaves."""

    id: int = 0
    reply: msgspec.Raw = msgspec.Raw(b"")
    open: bool | None = None
    why: str = ""
    number: int = 0
    changed: bool = False


class Office:
    """The authority's process. A request takes some milliseconds, and nothing but the heartbeat happens meanwhile."""

    def __init__(self, channel: socket.socket, state: Path, in_force: InForce) -> None:
        self._reactor = Reactor()
        self._channel = channel
        self._state = state
        self._in_force = in_force
        self._passphrases = Passphrases(state / "ca", environ=os.environ)
        self._workers: dict[str, socket.socket] = {}
        self._authority: Authority | None = None
        self._publisher: Publisher | None = None
        self._heartbeats: Heartbeats | None = None
        self._desk: Desk | None = None
        self._own: desk.RenewOwn | None = None  # outlives the desk
        self._why = _CLOSED
        self._is_over = False

    def run(self) -> None:
        """Until the supervisor hangs up."""
        self._channel.setblocking(False)
        self._reactor.watch(self._channel.fileno(), READ, self._told)
        self._open()
        self._beat()
        self._reactor.run_until(lambda: self._is_over)
        self._close("")

    # The authority

    def _open(self) -> None:
        now = datetime.now(UTC)
        try:
            authority = Authority.open(self._state / "ca", self._passphrases, now=now, lock_wait_s=0)
        except AuthorityBusy as error:
            self._is_closed(str(error), _BUSY_S)
            return
        except AuthorityLocked as error:
            self._is_locked(str(error))
            return
        except PkiError as error:
            self._is_closed(str(error), _AGAIN_S)
            return
        try:
            publisher = Publisher(authority, self._state / STATUS)
            publisher.publish(now)
            publisher.beat(datetime.now(UTC))  # the last one may be long ago, and what follows may take its time
        except (PkiError, OSError) as error:
            authority.close()
            self._is_closed(str(error), _AGAIN_S)
            return
        self._authority, self._publisher, self._heartbeats = authority, publisher, Heartbeats(publisher)
        self._heartbeats.start()
        self._desk = Desk(authority, self._passphrases, publisher, Grants(self._in_force.services), self._own)
        self._desk.in_force = self._in_force.bundle_sha256
        self._say(Word(open=True))

    def _is_locked(self, why: str) -> None:
        """Nobody gave the passphrase to this process. It will not say what is revoked, so nobody shall wait for it: what it
        said in an earlier life is taken away. Who heard it already goes on waiting (`known_status`)."""
        if self._why == _CLOSED:
            with suppress(FileNotFoundError):
                os.unlink(self._state / STATUS / HEARTBEAT)
        self._is_closed(why, _AGAIN_S)

    def _is_closed(self, why: str, again_s: float) -> None:
        if why != self._why:
            self._why = why
            self._say(Word(open=False, why=why))
        self._reactor.after(again_s, self._open)

    def _close(self, why: str) -> None:
        if self._heartbeats is not None:
            self._heartbeats.end()
        if self._authority is not None:
            self._authority.close()
        if self._desk is not None:
            self._own = self._desk.own
        self._authority = self._publisher = self._heartbeats = self._desk = None
        if why:
            self._why = why
            self._say(Word(open=False, why=why))

    def _beat(self) -> None:
        self._go_on()
        self._reactor.after(HEARTBEAT_S, self._beat)

    def _go_on(self) -> None:
        """Take a rotation as far as the evidence goes, and say what the newest set is."""
        if self._publisher is None or self._desk is None or self._heartbeats is None:
            return
        self._heartbeats.come_round()
        now = datetime.now(UTC)
        try:
            self._desk.advance(now)
            self._tell_changes()
            newest = self._publisher.publish(now)
            self._publisher.beat(datetime.now(UTC))  # a stage of a rotation may have taken seconds
            self._push(newest.number)
        except (PkiError, OSError) as error:
            self._close(str(error))
            self._reactor.after(_AGAIN_S, self._open)

    def _push(self, number: int) -> None:
        word = msgspec.json.encode(Word(number=number))
        for sock in self._workers.values():
            try:
                sock.send(word, socket.MSG_DONTWAIT)
            except OSError:
                pass  # it is ending, or far behind; the next heartbeat says it again

    # Requests

    def _answer(self, request: desk.FromWorker | desk.FromOperator | desk.Failed) -> desk.Reply:
        if isinstance(request, desk.Failed):
            return request
        if self._desk is None:
            return desk.Failed("AuthorityLocked", "", self._why)
        if isinstance(request, desk.StandAside):
            self._close("an operator works with the authority")
            self._reactor.after(_ASIDE_S, self._open)
            return desk.Done()
        reply = self._desk.answer(request, datetime.now(UTC))
        if isinstance(reply, desk.Failed) and reply.kind == NotRecorded.__name__:
            # A log that a write failed on is of no further use; opening it again finishes or revokes what was begun.
            self._close(reply.detail)
            self._reactor.after(_BUSY_S, self._open)
        elif isinstance(reply, desk.Revoked):
            self._push(reply.set_number)
        elif isinstance(reply, desk.Certified):
            self._tell_issued()
        elif self._desk.is_waiting_for(request):
            self._reactor.after(0.0, self._go_on)  # this may have been the last of the evidence
        self._tell_changes()
        return reply

    def _tell_issued(self) -> None:
        """A heartbeat now: with it gateways that joined hear of the certificate before its holder can use it."""
        if self._publisher is not None:
            try:
                self._push(self._publisher.beat(datetime.now(UTC)).number)
            except (PkiError, OSError):
                pass  # the next one is at most two seconds away, and says what is wrong

    def _tell_changes(self) -> None:
        """The gateway reads its files again; nobody waits for a watcher of files to notice."""
        if self._desk is not None and self._desk.has_renewed:
            self._desk.has_renewed = False
            self._say(Word(changed=True))

    def _told(self, _events: int) -> None:
        try:
            raw, descriptors, _, _ = socket.recv_fds(self._channel, desk.MAX_BYTES, 1)
        except BlockingIOError:
            return
        if not raw:
            self._is_over = True
            return
        asked = msgspec.json.decode(raw, type=Ask)  # our own supervisor: what cannot be read is a bug
        if asked.attach is not None:
            self._attach(asked.attach, socket.socket(fileno=descriptors.pop()))
        elif asked.gone is not None:
            self._forget(asked.gone)
        elif asked.in_force:
            self._take_in_force(descriptors.pop())
        else:
            reply = self._answer(desk.read_operator(bytes(asked.ask)))
            self._say(Word(asked.id, msgspec.Raw(desk.encode(reply))))

    def _take_in_force(self, descriptor: int) -> None:
        with open(descriptor, "rb") as file:
            self._in_force = msgspec.json.decode(file.read(), type=InForce)
        if self._desk is not None:
            self._desk.grants, self._desk.in_force = Grants(self._in_force.services), self._in_force.bundle_sha256
            self._reactor.after(0.0, self._go_on)  # a rotation may have waited for it

    def _attach(self, name: str, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._workers[name] = sock
        self._reactor.watch(sock.fileno(), READ, lambda _: self._asked(name))

    def _forget(self, name: str) -> None:
        sock = self._workers.pop(name, None)
        if sock is not None:
            self._reactor.forget(sock.fileno())
            sock.close()

    def _asked(self, name: str) -> None:
        sock = self._workers[name]
        try:
            raw = sock.recv(desk.MAX_BYTES)
            if not raw:
                self._forget(name)
                return
            asked = msgspec.json.decode(raw, type=Ask)
            reply = self._answer(desk.read_worker(bytes(asked.ask)))
            sock.send(msgspec.json.encode(Word(asked.id, msgspec.Raw(desk.encode(reply)))))
        except BlockingIOError:
            pass  # it does not read its answers: then it gets none
        except (OSError, msgspec.MsgspecError):
            self._forget(name)  # a worker that sends what no worker sends is not listened to any more

    def _say(self, word: Word) -> None:
        try:
            self._channel.send(msgspec.json.encode(word))
        except OSError:
            self._is_over = True


def in_force_file(in_force: InForce) -> int:
    """A descriptor of a memory file that says it; services may be more than a datagram holds."""
    descriptor = os.memfd_create("in-force")
    os.write(descriptor, msgspec.json.encode(in_force))
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


def pass_descriptor(channel: socket.socket, asked: dict[str, object], descriptor: int) -> None:
    """Send a message with a descriptor. Raises: OSError."""
    ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [descriptor]))]
    channel.sendmsg([msgspec.json.encode(asked)], ancillary)
