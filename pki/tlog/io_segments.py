"""The write-ahead files on disk: two, used in turn, so that appends never wait for the tiles to reach the disk.

    wal.0, wal.1      segments as `wal` describes them; a file whose magic is zeroed is retired

Tiles and bundles are written without fsync: a thousand small files a second would cost more than everything else the
log does. Until they are on the disk the write-ahead segment is what survives a power cut, and `recover` makes the tiles
anew from it. When a segment has grown large, appends go on in the other file and one `syncfs` in a thread of its own
brings all tiles to the disk at once; only then is the old segment retired.

Order of a turn, and what a crash behind each step leaves:
1. the other file gets its start (base size, snapshot), synced. Crash: two live segments, read one after the other.
2. syncfs. Crash: the same.
3. the old file's magic is zeroed, synced. Crash: nothing to repair.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Sequence
from pathlib import Path

from pki.tlog import wal
from pki.tlog.errors import LogUnwritable
from pki.tlog.tail import Tail

TURN_BYTES = 16 << 20
_KEEP_BYTES = 64 << 20  # a file that a burst made larger is cut back when its turn comes again


class Segments:
    """Both write-ahead files of one writer, and where the next frame goes. Used by one thread only."""

    __slots__ = ("_check", "_descriptors", "_directory", "_end", "_live", "_synced", "_turn")

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        self._descriptors = [os.open(directory / name, flags, 0o600) for name in wal.NAMES]
        self._live = 0  # index of the file that is appended to
        self._end = 0
        self._check = b""
        self._synced = True
        self._turn: _Turn | None = None

    def resume(self, live: int, segment: wal.Segment) -> None:
        """Continue a segment that was found on disk, and cut off what follows its last valid frame.

        What was found may have reached only the page cache (after kill -9), so it counts as not yet synced.
        """
        self._live, self._end, self._check, self._synced = live, segment.end, segment.check, False
        os.ftruncate(self._descriptors[live], segment.end)

    def begin(self, tail: Tail) -> None:
        """Start a segment at `tail` in the file that is not appended to."""
        other = self._descriptors[1 - self._live]
        if os.fstat(other).st_size > _KEEP_BYTES:
            os.ftruncate(other, 0)
        start = wal.open_segment(tail.size, tail.root(), tail.snapshot())
        self._write(other, (start, wal.END), 0)
        os.fdatasync(other)
        self._live, self._end, self._check, self._synced = 1 - self._live, len(start), wal.first_check(start), True

    def append(self, first: int, hashes: list[bytes], joined: bytes) -> None:
        """Add one frame, all or nothing.

        Raises:
            LogUnwritable: the disk refused; the next frame takes the same place.
        """
        prefix = wal.frame_prefix(self._check, first, hashes, len(joined))
        self._write(self._descriptors[self._live], (prefix, joined, wal.END), self._end)
        self._end += len(prefix) + len(joined)
        self._check = prefix[-wal.CHECK_BYTES :]
        self._synced = False

    def sync(self) -> None:
        """Make every frame survive a power cut; free when there is nothing new. OSError is the caller's."""
        if not self._synced:
            os.fdatasync(self._descriptors[self._live])
            self._synced = True

    def turn(self, tail: Tail) -> None:
        """Let a turn go on: begin one when the segment is large, finish it when the tiles are on the disk.

        Called after a publication, so `tail` is under a signed head and all its tiles are written.

        Raises:
            OSError: the tiles could not be written back; what the disk holds is unknown.
        """
        if self._turn is not None:
            if self._turn.running():
                return
            self._turn.check()
            self._turn = None
            self.retire_other()
        if self._end > TURN_BYTES:
            try:
                self.begin(tail)
            except LogUnwritable:
                return  # no room: the present segment goes on, and the append that finds no room says so itself
            self._turn = _Turn(self._directory)

    def retire_other(self) -> None:
        """Zero the magic of the file that is not appended to: everything in it is in tiles on the disk."""
        descriptor = self._descriptors[1 - self._live]
        os.pwrite(descriptor, bytes(len(wal.MAGIC)), 0)
        os.fdatasync(descriptor)

    def close(self) -> None:
        """Release the files; a turn that is still going on ends by itself and is taken up at the next open."""
        for descriptor in self._descriptors:
            os.close(descriptor)
        self._descriptors = []

    def _write(self, descriptor: int, parts: Sequence[bytes], offset: int) -> None:
        written, length, reason = 0, sum(map(len, parts)), "disk full"
        try:
            written = os.pwritev(descriptor, parts, offset)
        except OSError as exc:
            reason = str(exc.strerror)
        if written != length:
            if written:  # what was written must not count, should it happen to be whole but for its end
                os.pwrite(descriptor, wal.END[:written], offset)
            raise LogUnwritable(f"{self._directory}: write-ahead file: {written} of {length} bytes written: {reason}")


class _Turn:
    """One `syncfs` under way. The thread touches only its own descriptor and `error`, which is read after it ended."""

    __slots__ = ("_error", "_thread")

    def __init__(self, directory: Path) -> None:
        self._error: OSError | None = None
        self._thread = threading.Thread(target=self._run, args=(directory,), daemon=True)
        self._thread.start()

    def running(self) -> bool:
        return self._thread.is_alive()

    def check(self) -> None:
        """Raises OSError when the tiles could not be written back."""
        if self._error is not None:
            raise self._error

    def _run(self, directory: Path) -> None:
        try:
            sync_file_system(directory)
        except OSError as exc:
            self._error = exc


def sync_file_system(directory: Path) -> None:
    """Bring everything written to the file system of `directory` to the disk (syncfs(2), which the os module lacks)."""
    syncfs = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)
    if syncfs is None:
        os.sync()
        return
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if syncfs(descriptor) != 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), str(directory))
    finally:
        os.close(descriptor)
