"""`edge …` without loading it anew: a process that has loaded every command forks for each that is run.

To load them costs most of a second of CPU, a gateway's start itself a fifth of that, and the suite starts some two hundred.
The fork runs the command line from its first argument on, in a session of its own. Who has changed the environment gets an
interpreter of its own, as an operator does (`cold`): what is loaded may have looked at it.

Laws
1. The loaded process starts no thread and opens nothing that a fork could share; whatever it holds, the fork closes.
2. It alone collects the forks, and says so over a socket for each: the pid first, the exit code last.
3. It ends with the test process, whose end of the channel nobody else holds.
"""

from __future__ import annotations

import gc
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import IO, Protocol

from edge.__main__ import main
from edge.cli import COMMANDS, GROUPS
from edge.serve.children import close_all_but

ROOT = Path(__file__).parents[2]
EDGE = [sys.executable, "-m", "edge"]
MAX_ORDER_BYTES = 65536


class Process(Protocol):
    """What tests ask of a command that they started: the common part of `Popen` and `Fork`."""

    @property
    def pid(self) -> int: ...
    @property
    def stderr(self) -> IO[str] | None: ...
    def poll(self) -> int | None: ...
    def wait(self, timeout: float | None = None) -> int: ...
    def send_signal(self, sig: int) -> None: ...
    def terminate(self) -> None: ...
    def kill(self) -> None: ...


def cold(*arguments: str) -> Process:
    """The command as an operator starts it."""
    return subprocess.Popen([*EDGE, *arguments], stderr=subprocess.PIPE, cwd=ROOT, text=True, start_new_session=True)


def start(*arguments: str) -> Process:
    """The command, forked where it may be; its standard error is for the caller to read."""
    loaded = _loaded_for_us()
    if loaded is None:
        return cold(*arguments)
    reading, writing = os.pipe()
    try:
        return loaded.fork(arguments, 1, writing, open(reading, encoding="utf-8"))
    finally:
        os.close(writing)


def run(*arguments: str, directory: Path = ROOT, within_s: float = 60) -> subprocess.CompletedProcess[str]:
    """The command to its end, in this directory, and what it said."""
    loaded = _loaded_for_us()
    if loaded is None:
        command, path = [*EDGE, *arguments], {**os.environ, "PYTHONPATH": str(ROOT)}
        return subprocess.run(command, capture_output=True, text=True, cwd=directory, env=path, timeout=within_s)
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        code = loaded.fork(arguments, out.fileno(), err.fileno(), directory=directory).wait(within_s)
        out.seek(0)
        err.seek(0)
        return subprocess.CompletedProcess(arguments, code, out.read(), err.read())


class Fork:
    """One command."""

    def __init__(self, arguments: tuple[str, ...], told: socket.socket, stderr: IO[str] | None) -> None:
        self.pid = int(told.recv(20))
        self.stderr = stderr
        self._arguments, self._told = arguments, told
        self._code: int | None = None

    def poll(self) -> int | None:
        return self._ended(0)

    def wait(self, timeout: float | None = None) -> int:
        code = self._ended(timeout)
        if code is None:
            raise subprocess.TimeoutExpired(self._arguments, timeout or 0)
        return code

    def _ended(self, within_s: float | None) -> int | None:
        if self._code is None and select.select([self._told], [], [], within_s)[0]:
            self._code = int(self._told.recv(20))
            self._told.close()
        return self._code

    def send_signal(self, sig: int) -> None:
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, sig)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class Loaded:
    """The process that forks. Owner: the test process, from its first command to its end."""

    def __init__(self) -> None:
        self.environment = _environment()
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            command = [sys.executable, "-m", "tests.e2e.forked", str(theirs.fileno())]
            self._process = subprocess.Popen(command, cwd=ROOT, pass_fds=[theirs.fileno()], start_new_session=True)

    def fork(
        self,
        arguments: tuple[str, ...],
        stdout: int,
        stderr: int,
        heard: IO[str] | None = None,
        directory: Path = ROOT,
    ) -> Fork:
        """`heard` is the other end of `stderr`, if the caller reads it."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        order = json.dumps([str(directory), *arguments]).encode()
        with theirs:
            socket.send_fds(self._channel, [order], [stdout, stderr, theirs.fileno()])
        return Fork(arguments, ours, heard)

    def close(self) -> None:
        self._channel.close()
        assert self._process.wait(30) == 0


class _OfThisProcess:
    """Owner: `at_hand`. A campaign that is run by hand has none: it starts what it measures as an operator does."""

    is_wanted = False
    loaded: Loaded | None = None


@contextmanager
def at_hand() -> Iterator[None]:
    """Within, the first command starts a process that has loaded them all."""
    _OfThisProcess.is_wanted = True
    try:
        yield
    finally:
        _OfThisProcess.is_wanted = False
        if _OfThisProcess.loaded is not None:
            _OfThisProcess.loaded.close()
            _OfThisProcess.loaded = None


def _loaded_for_us() -> Loaded | None:
    if not _OfThisProcess.is_wanted:
        return None
    if _OfThisProcess.loaded is None:
        _OfThisProcess.loaded = Loaded()
    loaded = _OfThisProcess.loaded
    return loaded if loaded.environment == _environment() else None


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"}


def _serve(channel: socket.socket) -> None:
    """Fork for every order until the test process is gone."""
    gc.disable()
    for name in (*COMMANDS, *GROUPS):
        import_module(f"edge.cli.{name}")
    gc.freeze()
    woken, wakes = socket.socketpair()
    wakes.setblocking(False)
    signal.set_wakeup_fd(wakes.fileno())
    signal.signal(signal.SIGCHLD, lambda *_: None)
    forks: dict[int, socket.socket] = {}
    while True:
        ready = select.select([channel, woken], [], [])[0]
        if woken in ready:
            woken.recv(4096)
            _collect(forks)
        if channel in ready:
            order, passed, *_ = socket.recv_fds(channel, MAX_ORDER_BYTES, 3)
            if not order:
                return
            stdout, stderr, told = passed
            pid = os.fork()
            if pid == 0:
                directory, *arguments = json.loads(order)
                _become(directory, arguments, stdout, stderr)
            os.close(stdout)
            os.close(stderr)
            forks[pid] = socket.socket(fileno=told)
            forks[pid].send(str(pid).encode())


def _collect(forks: dict[int, socket.socket]) -> None:
    while forks:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if not pid:
            return
        with forks.pop(pid) as told, suppress(OSError):
            told.send(str(os.waitstatus_to_exitcode(status)).encode())


def _become(directory: str, arguments: list[str], stdout: int, stderr: int) -> None:
    """Run the command in the fork. Never returns."""
    code = 70
    try:
        os.chdir(directory)
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.setsid()
        os.dup2(stdout, 1)
        os.dup2(stderr, 2)
        close_all_but(())
        sys.argv = ["edge", *arguments]
        code = main()
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])))
