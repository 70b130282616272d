"""Files behind the rings: create one, map one, force one to the disk, wake its reader.

`ring.py` knows the layout and no file; this file knows files and no layout.

A ring is fully allocated before it is mapped: a store into a hole of a sparse file on a full disk is SIGBUS, not an
exception. It is created under its final name with O_EXCL, and readers refuse one whose header is not finished.
"""

from __future__ import annotations

import mmap
import os
import secrets
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from edge.errors import UnsafeState

SUFFIX = ".ring"


class Mapping:
    """One mapped file (MAP_SHARED); owned by the Ring or RingReader that was built on it."""

    __slots__ = ("fd", "map", "path", "views")

    def __init__(self, path: Path, fd: int, size: int) -> None:
        self.path = path
        self.fd = fd
        self.map = mmap.mmap(fd, size, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
        self.views: list[memoryview[int]] = []

    def words(self, code: Literal["Q", "I"], start: int, stop: int) -> memoryview[int]:
        """Bytes [start, stop) as native integers: an aligned store or load of one item is one machine instruction."""
        view = memoryview(self.map)[start:stop].cast(code)
        self.views.append(view)
        return view

    def sync(self) -> None:
        """Force every page written so far to the disk. Blocking, without the interpreter lock."""
        os.fdatasync(self.fd)

    def close(self) -> None:
        for view in self.views:
            view.release()
        self.views.clear()
        self.map.close()
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def create(path: Path, size: int) -> Mapping:
    """A new file of zeros, mode 0600.

    Raises: UnsafeState when something is there already or the disk cannot hold it.
    """
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as exc:
        raise UnsafeState(f"{path}: the ring cannot be created ({exc.strerror}); is an old one left there?") from exc
    try:
        os.posix_fallocate(fd, 0, size)
        return Mapping(path, fd, size)
    except OSError as exc:
        os.close(fd)
        path.unlink(missing_ok=True)
        raise UnsafeState(f"{path}: no room for a ring of {size} bytes ({exc.strerror}); free some disk") from exc


def attach(path: Path) -> Mapping:
    """Map what is there.

    Raises: UnsafeState for anything but our own regular 0600 file; FileNotFoundError when there is none.
    """
    try:
        fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        raise
    except OSError as exc:
        raise UnsafeState(f"{path}: the ring cannot be opened ({exc.strerror})") from exc
    facts = os.fstat(fd)
    if not stat.S_ISREG(facts.st_mode) or facts.st_uid != os.geteuid() or facts.st_mode & 0o077 or not facts.st_size:
        os.close(fd)
        raise UnsafeState(f"{path}: not a ring of ours: want a regular file with mode 0600 owned by uid {os.geteuid()}")
    return Mapping(path, fd, facts.st_size)


def leftovers(directory: Path) -> Iterator[tuple[str, Path]]:
    """(writer, path) of every ring a dead gateway left behind, for the supervisor to announce as `attach`, `gone`.

    The writer's name is the file's name up to the first dot, as `ring_path` makes it.
    """
    for path in sorted(directory.glob(f"*{SUFFIX}")):
        yield path.name.partition(".")[0], path


def ring_path(directory: Path, writer: str) -> Path:
    """A fresh name for a ring of `writer`: never one that an earlier process of that name used."""
    return directory / f"{writer}.{secrets.token_hex(4)}{SUFFIX}"


def instance() -> int:
    """A random u64 that tells this run of a writer from every other run under the same name."""
    return secrets.randbits(64)


def boot_id() -> bytes:
    """16 bytes that change with each boot of the machine; what a ring says about the log holds within one boot only."""
    text = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")
    return bytes.fromhex(text.strip().replace("-", ""))


class Nudge:
    """The writer's end of the socket pair that wakes the notary; bytes in the other direction announce acks."""

    __slots__ = ("socket",)

    def __init__(self, end: socket.socket) -> None:
        end.setblocking(False)
        self.socket = end

    def __call__(self) -> None:
        """Wake the other side. A full buffer means it has wakes enough; a dead peer shows in the heartbeat."""
        try:
            self.socket.send(b"\x01")
        except (BlockingIOError, BrokenPipeError, ConnectionError):
            pass

    def clear(self) -> None:
        """Take all bytes that arrived."""
        try:
            while self.socket.recv(512):
                pass
        except (BlockingIOError, ConnectionError):
            pass
