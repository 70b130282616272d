"""Forking: what a child keeps of the supervisor, how it dies with it, and when it is replaced.

Laws
1. Every signal is blocked across the fork: a signal that arrives between `fork` and the child's reset would otherwise run
   the supervisor's wake-up in the child and be taken for the supervisor's own.
2. A child keeps standard output and error and the descriptors it is given; everything else is closed. So a socketpair's end
   is held by exactly one other process, and its EOF means that this process is gone.
3. A child never returns into the supervisor's frames: it ends in `os._exit`. The frames stay alive meanwhile, so no
   finaliser of the supervisor's sockets ever closes a number that the child has given to something else.
4. A child dies with the supervisor (PR_SET_PDEATHSIG, Linux), with the signal that suits it. The notary takes none: it sees
   the EOF, seals the log and leaves. Nobody leaves the supervisor's session or process group.
5. The dead are replaced at once the first time and after ≤ 1 s later, so that with the start (≪ 1 s) it stays below 3 s.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable, Collection
from dataclasses import dataclass

_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15
_STABLE_AFTER_S = 10.0
_WAITS_S = (0.0, 0.1, 0.25, 0.5, 1.0)

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Exit:
    """How a child ended."""

    pid: int
    status: int
    """Exit code ≥ 0, or minus the signal that ended it."""

    def __str__(self) -> str:
        if self.status >= 0:
            return f"exit code {self.status}"
        try:
            return signal.Signals(-self.status).name
        except ValueError:
            return f"signal {-self.status}"


def fork(
    name: str,
    body: Callable[[], int],
    *,
    keep: Collection[int],
    ignore: Collection[signal.Signals] = (),
    dies_with_parent: bool = True,
    on_bug: Callable[[BaseException], None] = traceback.print_exception,
) -> int:
    """Start `body` in a child that keeps the descriptors `keep`; its result is the exit code. Returns the child's pid."""
    parent = os.getpid()
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid == 0:
            _child(name, body, keep, ignore, parent if dies_with_parent else None, mask, on_bug)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    return pid


def _child(
    name: str,
    body: Callable[[], int],
    keep: Collection[int],
    ignore: Collection[signal.Signals],
    parent: int | None,
    mask: Collection[int],
    on_bug: Callable[[BaseException], None],
) -> None:
    """Never returns."""
    code = 70
    try:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD, signal.SIGPIPE):
            # A hang-up of the terminal is the supervisor's to interpret.
            quiet = number in ignore or number in (signal.SIGHUP, signal.SIGPIPE)
            signal.signal(number, signal.SIG_IGN if quiet else signal.SIG_DFL)
        if parent is not None:
            die_with_parent(parent)
        set_name(name)
        close_all_but(keep)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        code = body()
    except SystemExit as exc:
        code = exc.code if isinstance(exc.code, int) else 70
    except BaseException as exc:
        on_bug(exc)
    finally:
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(code)


def die_with_parent(parent: int) -> None:
    """Ask the kernel for SIGKILL when the supervisor dies; leave at once if it died before the question."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(0)


def set_name(name: str) -> None:
    """The name `ps -o comm` and /proc/PID/comm show; the kernel keeps 15 bytes."""
    _libc.prctl(_PR_SET_NAME, name.encode()[:15], 0, 0, 0)


def set_limits() -> None:
    """For this process and all it starts: no core dumps, since they hold keys; as many descriptors as are allowed.

    The soft limit is 1024 almost everywhere, a tenth of the connections one worker is made for.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def close_all_but(keep: Collection[int]) -> None:
    """Close every descriptor but standard output, standard error and `keep`; standard input becomes /dev/null."""
    kept = {1, 2, *keep}
    # The list and not closerange(): the limit may be a billion, and the descriptors are twenty.
    for fd in [int(number) for number in os.listdir("/proc/self/fd")]:
        if fd not in kept:
            try:
                os.close(fd)
            except OSError:
                pass  # the descriptor of the listing itself
    if 0 not in kept:
        os.open(os.devnull, os.O_RDONLY)  # the lowest free number, which is 0


def collect(pid: int) -> Exit | None:
    """How child `pid` ended, or None while it lives. Collects it: call no more after a result."""
    try:
        found, status = os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return Exit(pid, 0)
    return Exit(pid, os.waitstatus_to_exitcode(status)) if found else None


def kill(pid: int, number: signal.Signals = signal.SIGKILL) -> None:
    """A deadly signal to a child that was not collected yet (so the number cannot belong to anybody else)."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass


class Nursery:
    """The children that live, and who is told when one does not. One per supervisor; call `reap` on SIGCHLD."""

    def __init__(self, on_bug: Callable[[BaseException], None] = traceback.print_exception) -> None:
        """`on_bug` is called in a child that ends by an exception."""
        self._on_bug = on_bug
        self._alive: dict[
            int, tuple[str, float, Callable[[Exit, float], None]]
        ] = {}  # owner: the supervisor's one thread

    def start(
        self,
        name: str,
        body: Callable[[], int],
        on_exit: Callable[[Exit, float], None],
        *,
        keep: Collection[int] = (),
        ignore: Collection[signal.Signals] = (),
        dies_with_parent: bool = True,
    ) -> int:
        """Fork; `on_exit(exit, seconds lived)` is called once from `reap`."""
        pid = fork(name, body, keep=keep, ignore=ignore, dies_with_parent=dies_with_parent, on_bug=self._on_bug)
        self._alive[pid] = (name, time.monotonic(), on_exit)
        return pid

    def reap(self) -> None:
        """Collect whoever ended and tell the owner."""
        for pid in list(self._alive):
            ended = collect(pid)
            if ended is not None:
                _, started_s, on_exit = self._alive.pop(pid)
                on_exit(ended, time.monotonic() - started_s)

    def is_alive(self, pid: int) -> bool:
        return pid in self._alive

    def kill(self, pid: int) -> None:
        """SIGKILL; its owner is told through `reap` as of any other end. Harmless for one that was collected."""
        if pid in self._alive:
            kill(pid)

    def abort(self, pid: int) -> None:
        """SIGABRT: it may still say where it was. Harmless for one that was collected."""
        if pid in self._alive:
            kill(pid, signal.SIGABRT)

    @property
    def processes(self) -> tuple[tuple[str, int], ...]:
        """(name, pid) of those that live."""
        return tuple((name, pid) for pid, (name, _, _) in self._alive.items())

    @property
    def pids(self) -> tuple[int, ...]:
        return tuple(self._alive)


class Backoff:
    """How long to wait before the next start of one child, given when the last one started and ended."""

    def __init__(self) -> None:
        self._quick_deaths = 0

    def next_wait_s(self, lived_s: float) -> float:
        """0 for the first death, then longer up to 1 s; a life of 10 s forgives."""
        if lived_s >= _STABLE_AFTER_S:
            self._quick_deaths = 0
        wait_s = _WAITS_S[min(self._quick_deaths, len(_WAITS_S) - 1)]
        self._quick_deaths += 1
        return wait_s
