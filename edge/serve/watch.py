"""The process that notices edits and writes one byte into a pipe; what to do about it is the supervisor's.

A process of its own because watchfiles runs a native thread, and the supervisor, which forks, must have none.
Directories are watched, never files: editors and Kubernetes replace a file by renaming over it, and a watch on the old
inode would stay silent. Not recursively: the state directory usually lies beside edge.yaml and changes all the time.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterable
from pathlib import Path

from watchfiles._rust_notify import RustNotify

from edge.serve.children import Backoff, Exit, Nursery
from edge.serve.reactor import READ, Reactor
from edge.serve.report import Report

_IGNORED = (signal.SIGTERM, signal.SIGINT)
_QUIET_MS = 40
"""An editor's truncate-write-rename comes in one burst; the edit is served ≤ 1 s after it all the same."""
_LONGEST_MS = 300
_POLL_MS = 300
"""Where the system gives no notifications and watchfiles looks by itself."""


def directories(files: Iterable[Path]) -> tuple[Path, ...]:
    """Where changes of `files` show: their directories, and those of what they are links to. Only existing ones, sorted."""
    found: set[Path] = set()
    for file in files:
        found.update((file.parent, file.resolve().parent))
    return tuple(sorted(path for path in found if path.is_dir()))


def run(paths: tuple[Path, ...], pipe: int) -> int:
    """The watcher's body: a byte into `pipe` when the watch is in place, and one for each burst of changes.

    The native watch itself, not `watchfiles.watch`: only here is the moment known from which nothing is missed.
    """
    with RustNotify([str(path) for path in paths], False, False, _POLL_MS, False, False) as notify:
        while True:
            try:
                os.write(pipe, b"\n")
            except BlockingIOError:
                pass  # the supervisor has not read the last ones yet; it will look at everything then
            if notify.watch(_LONGEST_MS, _QUIET_MS, 0, None) in ("signal", "stop"):
                return 0


class Watcher:
    """The supervisor's side: keeps one watcher running on the right directories."""

    def __init__(self, reactor: Reactor, nursery: Nursery, report: Report, on_change: Callable[[], None]) -> None:
        self._reactor = reactor
        self._nursery = nursery
        self._report = report
        self._on_change = on_change
        self._backoff = Backoff()
        self._paths: tuple[Path, ...] = ()
        self._pid: int | None = None
        self._stopping = False
        self.is_armed = False
        """From here on no edit is missed: the watch is in place."""
        self._pipe, self._write_end = os.pipe()
        os.set_blocking(self._pipe, False)
        os.set_blocking(self._write_end, False)
        reactor.watch(self._pipe, READ, self._changed)

    def watch(self, files: Iterable[Path]) -> None:
        """Watch where `files` lie from now on."""
        paths = directories(files)
        if paths == self._paths:
            return
        self._paths = paths
        if self._pid is None:
            self._start()
        else:
            self._nursery.kill(self._pid)  # its successor takes the new ones

    def _start(self) -> None:
        if self._stopping:
            return
        self.is_armed = False
        paths, write_end = self._paths, self._write_end
        self._pid = self._nursery.start(
            "edge-watcher", lambda: run(paths, write_end), self._ended, keep=(write_end,), ignore=_IGNORED
        )

    def _ended(self, ended: Exit, lived_s: float) -> None:
        self._pid = None
        if self._stopping:
            return
        wait_s = self._backoff.next_wait_s(lived_s)
        if ended.status != -signal.SIGKILL:
            self._report.warning("watcher ended; starting another", cause=str(ended), wait_s=wait_s)
        self._reactor.after(wait_s, self._start)

    def _changed(self, _events: int) -> None:
        try:
            os.read(self._pipe, 4096)
        except BlockingIOError:
            return
        self.is_armed = True
        if not self._stopping:
            self._on_change()  # also for the first byte: the files may have changed since they were read

    def stop(self) -> None:
        """Kill it: it has no state."""
        self._stopping = True
        if self._pid is not None:
            self._nursery.kill(self._pid)
        self._reactor.forget(self._pipe)
        os.close(self._pipe)
        os.close(self._write_end)

    @property
    def is_stopped(self) -> bool:
        return self._pid is None
