"""What lies under `state/run` while a gateway runs, and the proof that only one does.

    lock           flock held by the supervisor; the pid inside is for people
    control.sock   0600, `edge reload`
    store.sock     0700, the embedded store, and store.pid for its survivor
    rings/         one mapped file per writer of the access log

Unix socket addresses end at 107 bytes while a state directory may lie deeper, so sockets are always named through a
descriptor of the directory: `/proc/self/fd/N/control.sock` is short and follows no path that could have been exchanged.
"""

from __future__ import annotations

import fcntl
import os
import stat
from pathlib import Path

from edge.config import document
from edge.config.sources import resolve
from edge.errors import UnsafeState


class RunState:
    """`state/run`, opened and locked. Create one with `claim`."""

    def __init__(self, path: Path, directory_fd: int, lock_fd: int) -> None:
        self.path = path
        self.directory_fd = directory_fd
        self._lock_fd = lock_fd

    @classmethod
    def claim(cls, state: Path) -> RunState:
        """Make what is missing, check who owns it and take the lock.

        Raises: UnsafeState when others may write there or another gateway runs on the same state.
        """
        for directory in (state, state / "run", state / "run" / "rings"):
            _private_directory(directory)
        path = state / "run"
        lock_fd = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            holder = os.pread(lock_fd, 32, 0).decode("ascii", "replace").strip()
            os.close(lock_fd)
            raise UnsafeState(
                f"{path}: another `edge serve` (pid {holder or 'unknown'}) runs on this state; "
                "stop it, or give this one its own `state:`"
            ) from exc
        os.ftruncate(lock_fd, 0)
        os.pwrite(lock_fd, f"{os.getpid()}\n".encode(), 0)
        return cls(path, open_directory(path), lock_fd)

    @property
    def rings(self) -> Path:
        return self.path / "rings"

    def close(self) -> None:
        """Release the lock, last of all."""
        os.close(self.directory_fd)
        os.close(self._lock_fd)


def run_of(edge_yaml: Path) -> Path:
    """`state/run` of the gateway that was started with `edge_yaml`, whatever else is wrong with the file by now.

    Raises: UnsafeState when it cannot be read.
    """
    try:
        raw = edge_yaml.read_bytes()
    except OSError as exc:
        raise UnsafeState(f"{edge_yaml}: cannot be read ({exc.strerror}); name the file with -c FILE") from exc
    node = document.read(edge_yaml.name, raw).node(("state",))
    text = node.value if node is not None and isinstance(node.value, str) else "state"
    return Path(resolve(edge_yaml, text)) / "run"


def open_directory(path: Path) -> int:
    """A descriptor to name sockets through. Raises: OSError."""
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)


def unix_address(directory_fd: int, name: str) -> str:
    """An address for bind and connect in this process, or in one that inherited the descriptor; always < 108 bytes."""
    return f"/proc/self/fd/{directory_fd}/{name}"


def _private_directory(path: Path) -> None:
    try:
        path.mkdir(mode=0o700)
    except FileExistsError:
        pass
    except OSError as exc:
        raise UnsafeState(f"{path}: cannot be made ({exc.strerror}); create it, or correct `state:`") from exc
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode):
        raise UnsafeState(f"{path}: is not a directory; remove it, or correct `state:`")
    if found.st_uid != os.geteuid():
        raise UnsafeState(f"{path}: belongs to uid {found.st_uid}; run as its owner, or chown it")
    if found.st_mode & 0o077:
        raise UnsafeState(f"{path}: others may enter it (mode {stat.S_IMODE(found.st_mode):04o}); chmod 0700 it")
