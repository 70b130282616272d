"""Kill -9, or a disk that is full, at the n-th write, sync or rename of a piece of work: a forked child, stopped by ptrace(2)
at each of its system calls, so that what SQLite and the C library do counts as well as what Python does."""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import signal
import sys
import traceback
from collections.abc import Callable

TRACEME, SETOPTIONS, SYSCALL, PEEKUSER, POKEUSER = 0, 0x4200, 24, 3, 6
_TRACESYSGOOD, _EXITKILL = 0x1, 0x100000
_RAX, _RDI, _ORIG_RAX = 10 * 8, 14 * 8, 15 * 8
_STOP = signal.SIGTRAP | 0x80
IS_KNOWN = sys.platform == "linux" and platform.machine() == "x86_64"
NAMES = {
    1: "write", 18: "pwrite64", 20: "writev", 74: "fsync", 75: "fdatasync", 76: "truncate", 77: "ftruncate",
    82: "rename", 83: "mkdir", 84: "rmdir", 86: "link", 87: "unlink", 90: "chmod", 91: "fchmod", 162: "sync",
    258: "mkdirat", 263: "unlinkat", 264: "renameat", 296: "pwritev", 306: "syncfs", 316: "renameat2",
}  # fmt: skip
"""Everything that changes what a next start finds (x86-64)."""
_NEEDS_ROOM = {"write", "pwrite64", "writev", "pwritev", "mkdir", "mkdirat"}

_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.restype = ctypes.c_long
_libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]


def run(work: Callable[[], None], kill_at: int | None = None) -> list[str]:
    """Do `work` in a child and kill it just before its change number `kill_at` (from 0); → the changes that it made.

    Raises: AssertionError when it failed by itself; OSError where tracing is not allowed.
    """
    made, code = _traced(work, kill_at=kill_at)
    assert code in (None, 0)
    return made


def run_out_of_room(work: Callable[[], None], full_at: int) -> int:
    """Do `work` in a child on a disk that is full from its change number `full_at` on; → its exit code."""
    code = _traced(work, full_at=full_at)[1]
    assert code is not None
    return code


def _traced(
    work: Callable[[], None], *, kill_at: int | None = None, full_at: int | None = None
) -> tuple[list[str], int | None]:
    """The changes that were tried, and the exit code; None when it was killed."""
    pid = os.fork()
    if pid == 0:
        _child(work)
    made: list[str] = []
    _, status = os.waitpid(pid, 0)
    if not os.WIFSTOPPED(status):
        raise OSError("this machine does not let a process trace its child")
    _ptrace(SETOPTIONS, pid, _TRACESYSGOOD | _EXITKILL)
    is_entry, is_refused, deliver = True, False, 0
    while True:
        _ptrace(SYSCALL, pid, deliver)
        _, status = os.waitpid(pid, 0)
        if not os.WIFSTOPPED(status):
            assert os.WIFEXITED(status), f"killed by {os.WTERMSIG(status)}"
            return made, os.WEXITSTATUS(status)
        deliver = 0
        if os.WSTOPSIG(status) != _STOP:
            deliver = os.WSTOPSIG(status)
            continue
        if is_refused:
            _ptrace(POKEUSER, pid, -errno.ENOSPC, _RAX)
            is_refused = False
        elif is_entry and (name := NAMES.get(_ptrace(PEEKUSER, pid, 0, _ORIG_RAX))) is not None:
            if len(made) == kill_at:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                return made, None
            is_refused = full_at is not None and len(made) >= full_at and name in _NEEDS_ROOM
            if is_refused and _ptrace(PEEKUSER, pid, 0, _RDI) == 2:  # stderr is no disk
                is_refused = False
            if is_refused:
                _ptrace(POKEUSER, pid, -1, _ORIG_RAX)  # no such system call: nothing is done
            made.append(name)
        is_entry = not is_entry


def _child(work: Callable[[], None]) -> None:
    """Never returns."""
    code = 1
    try:
        if _libc.ptrace(TRACEME, 0, None, None) == 0:
            os.kill(os.getpid(), signal.SIGSTOP)
            work()
            code = 0
    except SystemExit as left:
        code = left.code if isinstance(left.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def _ptrace(request: int, pid: int, data: int, address: int = 0) -> int:
    ctypes.set_errno(0)
    result: int = _libc.ptrace(request, pid, address, data)
    if result == -1 and ctypes.get_errno():
        raise OSError(ctypes.get_errno(), f"ptrace {request}")
    return result
