"""`state/run/control.sock`: how `edge reload` and `edge status` reach the supervisor.

One request a connection: a line of JSON in, a line of JSON out.

    {"command":"status"}  →  {"ok":true,"status":{…}}
    {"command":"ca","ca":{"type":"Show"}}  →  {"ok":true,"ca":{…}}, as `pki.desk` says
    {"command":"reload"}  →  {"ok":true,"bundle_hash":"…","changed":true}  or  {"ok":false,"faults":["file:line:column: …"]}

The file is 0600 in a 0700 directory and the kernel says who connects (SO_PEERCRED): anyone but the gateway's own user and
root is hung up on without a word. Connections, request size and patience are bounded, since the supervisor has one thread.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from edge.errors import UnsafeState
from edge.serve.reactor import READ, Reactor, Timer
from edge.serve.run_state import open_directory, unix_address
from edge.serve.status import Status

NAME = "control.sock"
_MAX_CONNECTIONS = 8
_MAX_REQUEST_BYTES = 32 << 10
_MAX_ANSWER_BYTES = 4 << 20
_MAX_FAULTS = 100
_MAX_FAULT_CHARS = 500
_REQUEST_WITHIN_S = 5.0
_UCRED = struct.Struct("3i")


NOTHING = msgspec.Raw(b"null")


class Command(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A request."""

    command: str
    ca: msgspec.Raw = NOTHING


class Answer(msgspec.Struct, frozen=True):
    """The one answer to a request."""

    ok: bool
    bundle_hash: str = ""
    changed: bool = False
    faults: tuple[str, ...] = ()
    restarted: int = 0
    """Workers that were succeeded."""
    status: Status | None = None
    ca: msgspec.Raw = NOTHING
    """What the authority said, unread."""


Reply = Callable[[Answer], None]


class ControlSocket:
    """The supervisor's side. `handle(command, reply)` must call `reply` once, now or later."""

    def __init__(self, reactor: Reactor, directory_fd: int, handle: Callable[[Command, Reply], None]) -> None:
        self._reactor = reactor
        self._directory_fd = directory_fd
        self._handle = handle
        self._open: dict[int, tuple[socket.socket, bytearray, Timer]] = {}  # owner: this class, one thread
        try:
            os.unlink(NAME, dir_fd=directory_fd)  # of a predecessor that was killed; the lock says it is gone
        except FileNotFoundError:
            pass
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.setblocking(False)
        mask = os.umask(0o177)
        try:
            self._listener.bind(unix_address(directory_fd, NAME))
        finally:
            os.umask(mask)
        self._listener.listen(_MAX_CONNECTIONS)
        reactor.watch(self._listener.fileno(), READ, self._accept)

    def _accept(self, _events: int) -> None:
        try:
            connection, _ = self._listener.accept()
        except OSError:
            return
        if peer_uid(connection) not in (os.geteuid(), 0) or len(self._open) >= _MAX_CONNECTIONS:
            connection.close()
            return
        connection.setblocking(False)
        fd = connection.fileno()
        timer = self._reactor.after(_REQUEST_WITHIN_S, lambda: self._hang_up(fd))
        self._open[fd] = (connection, bytearray(), timer)
        self._reactor.watch(fd, READ, lambda _: self._read(fd))

    def _read(self, fd: int) -> None:
        connection, buffer, timer = self._open[fd]
        try:
            received = connection.recv(_MAX_REQUEST_BYTES)
        except BlockingIOError:
            return
        except OSError:
            received = b""
        buffer += received
        line, newline, rest = bytes(buffer).partition(b"\n")
        if not received or rest or len(buffer) > _MAX_REQUEST_BYTES:
            self._hang_up(fd)
        elif newline:
            self._reactor.forget(fd)
            timer.cancel()
            self._answer_to(fd, line)

    def _answer_to(self, fd: int, line: bytes) -> None:
        try:
            command = msgspec.json.decode(line, type=Command)
        except msgspec.MsgspecError as exc:
            self._reply(fd, Answer(ok=False, faults=(f"control: not a command: {exc}",)))
            return
        self._handle(command, lambda answer: self._reply(fd, answer))

    def _reply(self, fd: int, answer: Answer) -> None:
        entry = self._open.get(fd)
        if entry is None:
            return
        try:
            entry[0].send(msgspec.json.encode(_short(answer)) + b"\n")
        except OSError:
            pass  # whoever asked has gone
        self._hang_up(fd)

    def _hang_up(self, fd: int) -> None:
        entry = self._open.pop(fd, None)
        if entry is not None:
            self._reactor.forget(fd)
            entry[2].cancel()
            entry[0].close()

    def close(self) -> None:
        """Refuse new commands and drop those without an answer."""
        for fd in list(self._open):
            self._hang_up(fd)
        self._reactor.forget(self._listener.fileno())
        self._listener.close()
        try:
            os.unlink(NAME, dir_fd=self._directory_fd)
        except FileNotFoundError:
            pass


def _short(answer: Answer) -> Answer:
    """Small enough for the socket's own buffer, so that a slow reader never makes the supervisor wait."""
    faults = [fault[:_MAX_FAULT_CHARS] for fault in answer.faults[:_MAX_FAULTS]]
    if len(answer.faults) > _MAX_FAULTS:
        faults.append(f"… and {len(answer.faults) - _MAX_FAULTS} more; `edge check` shows all")
    return msgspec.structs.replace(answer, faults=tuple(faults))


def peer_uid(connection: socket.socket) -> int:
    """Who is at the other end of a Unix socket, as the kernel saw it at connect."""
    credentials: tuple[Any, ...] = _UCRED.unpack(
        connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    )
    return int(credentials[1])


def ask(run: Path, command: str, timeout_s: float, ca: bytes = bytes(NOTHING)) -> Answer:
    """Send one command to the gateway that runs on `run` (= `state/run`) and wait for its answer.

    Raises: UnsafeState when none runs there or it belongs to somebody else.
    """
    remedy = "start it with `edge serve`"
    asked = Command(command, msgspec.Raw(ca))
    try:
        directory_fd = open_directory(run)
    except OSError as exc:
        raise UnsafeState(f"{run}: no gateway has run here; {remedy}") from exc
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(timeout_s)
            connection.connect(unix_address(directory_fd, NAME))
            connection.sendall(msgspec.json.encode(asked) + b"\n")
            return msgspec.json.decode(_read_line(connection), type=Answer)
    except TimeoutError as exc:
        raise UnsafeState(f"{run / NAME}: no answer within {timeout_s:g} s; look at the gateway's own output") from exc
    except (OSError, msgspec.MsgspecError) as exc:
        raise UnsafeState(f"{run / NAME}: no gateway answers ({exc}); {remedy}") from exc
    finally:
        os.close(directory_fd)


def _read_line(connection: socket.socket) -> bytes:
    buffer = bytearray()
    while not buffer.endswith(b"\n") and len(buffer) < _MAX_ANSWER_BYTES:
        received = connection.recv(1 << 16)
        if not received:
            break
        buffer += received
    return bytes(buffer)
