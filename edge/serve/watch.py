"""The process that notices edits and writes one byte into a pipe; what to do about it is the supervisor's.

A process of its own because watchfiles runs a native thread, and the supervisor, which forks, must have none.
Directories are watched, never files: editors and Kubernetes replace a file by renaming over it, and a watch on the old
inode would stay silent. Not recursively: the state directory usually lies beside edge.yaml and changes all the time.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from watchfiles._rust_notify import RustNotify

from edge.serve.children import Nursery
from edge.serve.kept import Kept
from edge.serve.reactor import Reactor
from edge.serve.report import Report

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
        self._on_change = on_change
        self._paths: tuple[Path, ...] = ()
        self.is_armed = False
        """From here on no edit is missed: the watch is in place."""
        self._kept = Kept(reactor, nursery, report, "watcher", self._body, self._changed)

    def watch(self, files: Iterable[Path]) -> None:
        """Watch where `files` lie from now on."""
        paths = directories(files)
        if paths != self._paths:
            self._paths = paths
            self._kept.renew()

    def _body(self, pipe: int) -> Callable[[], int]:
        self.is_armed = False
        return partial(run, self._paths, pipe)

    def _changed(self) -> None:
        self.is_armed = True
        self._on_change()  # also for the first byte: the files may have changed since they were read

    def stop(self) -> None:
        self._kept.stop()

    @property
    def is_stopped(self) -> bool:
        return self._kept.is_stopped
