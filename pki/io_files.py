"""Files that must stay private, and directories that must change as a whole.

Laws of this file:
- A private file belongs to us, nobody else may read or write it, and it is not a symbolic link: whoever can put a link
  where a key is written, or read a key that is read, has the key (attacks P55, P56). Refused with the remedy.
- A file is written as: new file beside it, fsync, rename over, fsync of the directory. A reader sees old or new.
- A directory is written as: a stage beside it, every file and the stage fsynced, then one exchange of names.
  If we were to crash before the exchange, the old directory stands and the next run clears the stage `.name.*`.
- What is replaced is deleted, so only a directory of a certificate's files is: `--out ~ --force` must cost nobody a home.
  These files are deleted by their names: what comes into the directory meanwhile stays, and the directory with it.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import glob
import os
import re
import secrets
import shutil
import stat
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from pki.errors import AuthorityBusy, UnsafeFile, WouldOverwrite

MAX_BYTES = 4 << 20
_RENAME_EXCHANGE = 2
_STAGE = re.compile(r"\..+\.[0-9a-f]{12}\Z")
_OF_A_CERTIFICATE = frozenset(
    f"{prefix}{name}"
    for prefix in ("", "public-")
    for name in (
        "cert.pem",
        "chain.pem",
        "key.pem",
        "bundle.pem",
        "trusted.json",
        "identity.json",
        "issuance.tlog-proof",
    )
)
"""What stands in directories that are replaced as a whole."""


def read_regular(path: Path, *, limit: int) -> tuple[bytes, os.stat_result]:
    """A regular file, or what a link leads to, and what was known of it when it was read. Whoever may have put something else
    there holds nobody up: a pipe would be waited for without end, a device read without end.

    Raises:
        OSError: also for what is no file, or has more than `limit` bytes.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as file:
        facts = os.fstat(descriptor)
        if not stat.S_ISREG(facts.st_mode):
            raise OSError(0, "not a regular file")
        if facts.st_size > limit:
            raise OSError(0, f"larger than {limit} bytes")
        return file.read(limit), facts


def read_private(path: Path, *, limit: int = MAX_BYTES, forbidden: int = 0o077) -> bytes:
    """Read a secret file after checking what was opened (the descriptor, not the name: no race).

    `forbidden`: permission bits that make it unsafe.

    Raises:
        UnsafeFile: a link, not a regular file, not ours, readable or writable by others, or larger than `limit`.
        FileNotFoundError: nothing there.
    """
    descriptor = _open(path, os.O_RDONLY)
    try:
        facts = os.fstat(descriptor)
        if not stat.S_ISREG(facts.st_mode):
            raise UnsafeFile(f"{path}: not a regular file")
        _check_owner_and_mode(path, facts, forbidden=forbidden)
        return _read(descriptor, path, limit)
    finally:
        os.close(descriptor)


def read_public(path: Path, *, limit: int = MAX_BYTES) -> bytes:
    """Read a file that others may read but not write.

    Raises:
        UnsafeFile: a link, not a regular file, writable by others, or larger than `limit`.
        FileNotFoundError: nothing there.
    """
    return read_private(path, limit=limit, forbidden=0o022)


def if_there(read: Callable[[Path], bytes], path: Path) -> bytes:
    """What `read` finds; empty when there is nothing. Raises: UnsafeFile."""
    try:
        return read(path)
    except FileNotFoundError:
        return b""


def private_directory(path: Path) -> None:
    """Make `path` a directory of mode 0700 that belongs to us, or accept one that already is.

    Raises:
        UnsafeFile: a link, not a directory, not ours, or open to others.
    """
    try:
        os.mkdir(path, 0o700)
        os.chmod(path, 0o700)  # mkdir's mode passes through the umask, which may take bits we need
    except FileExistsError:
        pass
    facts = os.lstat(path)
    if not stat.S_ISDIR(facts.st_mode):
        raise UnsafeFile(f"{path}: expected a directory, found something else (a link?); move it away")
    _check_owner_and_mode(path, facts, forbidden=0o077)


def write_private(path: Path, content: bytes, *, replace: bool = False) -> None:
    """Write a file of mode 0600 atomically and durably.

    Raises:
        WouldOverwrite: something is there and `replace` is false.
        UnsafeFile: the directory can be changed by others.
    """
    _check_parent(path.parent)
    if not replace and os.path.lexists(path):
        raise WouldOverwrite(f"{path} exists")
    stage = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
    try:
        _write_new(stage, content, 0o600)
        os.rename(stage, path)
    finally:
        stage.unlink(missing_ok=True)
    sync_directory(path.parent)


def replace_directory(target: Path, files: Mapping[str, tuple[bytes, int]], *, replace: bool) -> None:
    """Make `target` a directory (0700) of exactly `files` (name → bytes, mode), all at once.

    Raises:
        WouldOverwrite: `target` exists and `replace` is false, or it holds anything but a certificate's files.
        UnsafeFile: `target` is a link or not a directory, or its parent can be changed by others.
    """
    check_target(target, replace=replace)
    exists = os.path.lexists(target)
    parent = target.parent
    clear_stages(target)
    stage = parent / f".{target.name}.{secrets.token_hex(6)}"
    os.mkdir(stage, 0o700)
    try:
        for name, (content, mode) in files.items():
            _write_new(stage / name, content, mode)
        sync_directory(stage)
        if exists:
            _exchange(stage, target)
        else:
            os.rename(stage, target)
        sync_directory(parent)
    finally:
        _discard(stage)  # the old content after an exchange, or the failed stage


def check_target(target: Path, *, replace: bool) -> None:
    """Could `replace_directory` write here? Asked before anything is signed that could then not be put down.

    Raises:
        WouldOverwrite, UnsafeFile: as there; also when the parent is missing.
    """
    _check_parent(target.parent)
    if os.path.lexists(target):
        if not stat.S_ISDIR(os.lstat(target).st_mode):
            raise UnsafeFile(f"{target}: not a directory (a link?); move it away or choose another place")
        if not replace:
            raise WouldOverwrite(f"{target} exists")
        with os.scandir(target) as entries:
            foreign = sorted(each.name for each in entries if not _is_of_a_certificate(each))
        if foreign:
            held = f"{foreign[0]!r}" + (f" and {len(foreign) - 1} more" if len(foreign) > 1 else "")
            raise WouldOverwrite(f"{target} holds {held}, which would be deleted; choose a directory for this alone")


def _is_of_a_certificate(entry: os.DirEntry[str]) -> bool:
    return entry.is_file(follow_symlinks=False) and entry.name in _OF_A_CERTIFICATE


def clear_stages(target: Path) -> None:
    """Remove what a crash during `replace_directory` may have left. Only call while no other writer can run."""
    for left in _stages(target):
        _discard(left)


def clear_trees(target: Path) -> None:
    """The same after the making of a whole tree, such as an authority's."""
    for left in _stages(target):
        shutil.rmtree(left, ignore_errors=True)


def clear_leftovers(directory: Path) -> None:
    """Remove the new files that a crash of `write_private` left in `directory`. Only call while no other writer can run."""
    for left in directory.iterdir():
        if _STAGE.match(left.name) and stat.S_ISREG(left.lstat().st_mode):
            left.unlink(missing_ok=True)


def hold_directory(path: Path) -> int:
    """The lock of a directory, for who makes things in it; → descriptor, closing it releases the lock."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    return descriptor


def sync_directory(path: Path) -> None:
    """Make renames and creations in `path` survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def lock(path: Path, *, wait_s: float) -> int:
    """Take the exclusive lock of the file `path`, made when absent; → descriptor, closing it releases the lock.

    Raises:
        AuthorityBusy: another process holds it for longer than `wait_s`.
    """
    descriptor = _open(path, os.O_RDWR | os.O_CREAT)
    deadline = time.monotonic() + wait_s
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return descriptor
        except OSError as error:
            if error.errno not in {errno.EWOULDBLOCK, errno.EINTR} or time.monotonic() >= deadline:
                os.close(descriptor)
                raise AuthorityBusy(f"{path}: another process uses the authority; try again later") from error
        time.sleep(0.01)


def _stages(target: Path) -> list[Path]:
    found = target.parent.glob(f".{glob.escape(target.name)}.????????????")
    return [left for left in found if _STAGE.match(left.name) and not left.is_symlink() and left.is_dir()]


def _discard(directory: Path) -> None:
    """Remove a certificate's directory, if it is one; what it may hold besides stays."""
    try:
        for name in _OF_A_CERTIFICATE:
            (directory / name).unlink(missing_ok=True)
        directory.rmdir()
    except FileNotFoundError:
        pass  # the stage became the target
    except OSError as error:
        if error.errno != errno.ENOTEMPTY:
            raise


def _open(path: Path, flags: int) -> int:
    try:
        return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, 0o600)
    except OSError as error:
        if error.errno in {errno.ELOOP, errno.EMLINK}:
            raise UnsafeFile(f"{path}: is a symbolic link; put the file itself there") from error
        raise


def _check_owner_and_mode(path: Path, facts: os.stat_result, *, forbidden: int) -> None:
    # Root's files are accepted: a system may install a key that only root may change.
    if facts.st_uid not in {os.geteuid(), 0}:
        raise UnsafeFile(f"{path}: belongs to uid {facts.st_uid}; run: chown {os.geteuid()} {path}")
    if facts.st_mode & forbidden:
        mode = stat.S_IMODE(facts.st_mode)
        raise UnsafeFile(f"{path}: mode {mode:04o} is open to others; run: chmod {mode & ~forbidden:o} {path}")


def _check_parent(parent: Path) -> None:
    """Others must not be able to replace names in `parent`; a sticky directory like /tmp only lets owners do so."""
    try:
        facts = os.stat(parent)
    except FileNotFoundError as error:
        raise UnsafeFile(f"{parent}: no such directory; make it first") from error
    if facts.st_uid not in {os.geteuid(), 0}:
        raise UnsafeFile(f"{parent}: belongs to uid {facts.st_uid}; choose a directory of your own")
    if facts.st_mode & 0o022 and not facts.st_mode & stat.S_ISVTX:
        raise UnsafeFile(f"{parent}: others may write in it; run: chmod go-w {parent}")


def _read(descriptor: int, path: Path, limit: int) -> bytes:
    parts = []
    left = limit + 1
    while left > 0 and (part := os.read(descriptor, min(left, 1 << 16))):
        parts.append(part)
        left -= len(part)
    if left <= 0:
        raise UnsafeFile(f"{path}: larger than {limit} bytes")
    return b"".join(parts)


def _write_new(path: Path, content: bytes, mode: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with open(descriptor, "wb") as file:
        os.fchmod(descriptor, mode)
        file.write(content)
        file.flush()
        os.fsync(descriptor)


def _exchange(stage: Path, target: Path) -> None:
    """Swap two names in one step (renameat2). Where the file system cannot, in two: a reader may then find none."""
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    here = -100  # AT_FDCWD
    if renameat2 is None or renameat2(here, os.fsencode(stage), here, os.fsencode(target), _RENAME_EXCHANGE) != 0:
        exchange_in_two(stage, target)  # which fails by itself if the reason was another


def exchange_in_two(stage: Path, target: Path) -> None:
    """`target` becomes `stage`; the old content goes. Between the two renames the name is missing."""
    old = stage.with_name(f".{target.name}.{secrets.token_hex(6)}")
    os.rename(target, old)
    os.rename(stage, target)
    _discard(old)
