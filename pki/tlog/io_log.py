"""The one writer of a transparency log: append, sync, publish; and what it does after a crash.

    writer = LogWriter.open(directory, origin="home.example/edge", signer=signer, head_copy=head_copy_of(directory))
    first = writer.append([b"…", b"…"])    # in the write-ahead file: survives kill -9
    writer.sync()                          # on the disk: survives a power cut
    head = writer.publish()                # under a signed head: cannot be changed unnoticed

Order of a publication, and what a crash behind each step leaves:
1. the write-ahead file is synced: a head is never signed over entries that a power cut could take back. Crash: nothing.
2. tiles and bundles are written, not synced (see `io_segments`); the full ones were written when they became full.
   Crash: unsigned files that are written again, byte for byte.
3. the head is signed and put in the second place, synced. Crash: the next open finds the remembered head one ahead of the
   checkpoint, reproduces its root, and completes step 4. After a power cut it also makes the tiles anew.
4. the checkpoint. Crash: nothing to repair.
5. partial tiles that full ones replaced are deleted; the write-ahead file takes its turn when it is large.

Every method must be called by one thread of one process; the lock keeps other processes out.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from pki.io_files import private_directory, read_private, sync_directory, write_private
from pki.tlog import checkpoint, io_recover, merkle, note
from pki.tlog.checkpoint import Checkpoint
from pki.tlog.errors import LogInconsistent, LogLocked, LogUnwritable
from pki.tlog.io_reader import CHECKPOINT, VERIFIER_KEY, LogReader
from pki.tlog.io_segments import Segments, sync_file_system
from pki.tlog.proof import TlogProof
from pki.tlog.tail import Tail
from pki.tlog.tiles import WIDTH, bundle_path, length_prefixed, tile_path

LOCK = "lock"


def head_copy_of(directory: Path) -> Path:
    """The customary second place of the head: beside the log's directory, not in it, so that swapping the directory
    for an older copy is noticed. Another disk is better."""
    return directory.with_name(directory.name + ".head")


def open_signer(path: Path, name: str, new_seed: bytes) -> note.Signer:
    """The signing key kept in `path` (0600); made from `new_seed` (32 random bytes) when there is none.

    Raises:
        UnsafeFile: others can read or replace the file.
        LogInconsistent: the key belongs to another log.
        NoteMalformed: the file is not a signer key.
    """
    try:
        signer = note.Signer.parse(read_private(path).decode("utf-8", "replace").removesuffix("\n"))
    except FileNotFoundError:
        signer = note.Signer(name, new_seed)
        write_private(path, signer.encoded().encode() + b"\n")
    if signer.verifier.name != name:
        raise LogInconsistent("fork", f"{path} is the key of {signer.verifier.name!r}, expected {name!r}")
    return signer


class LogWriter:
    """The right to append to one log, held until `close`."""

    def __init__(self, directory: Path, signer: note.Signer, head_copy: Path, lock: int) -> None:
        """Use `open`. State below is owned by this object; `lock` is the descriptor that holds the flock."""
        self._directory = directory
        self._reader = LogReader(directory)
        self._signer = signer
        self._head_copy = head_copy
        self._lock = lock
        self._known_directories = {str(directory)}
        self._full: list[str] = []  # full tiles and bundles written since the head was signed
        self._partial: set[str] = set()  # partial ones of the head: those of higher levels often stay the same
        self._broken = False
        self.repaired: tuple[str, ...] = ()  # files of the head that the last open had to write again
        self.head, self._tail, self._segments = self._recover()
        self.size = self._tail.size

    @classmethod
    def open(cls, directory: Path, *, origin: str, signer: note.Signer, head_copy: Path) -> LogWriter:
        """Open or create the log; entries that a crash left in the write-ahead file are taken over.

        Raises:
            LogLocked: another process writes this log.
            LogInconsistent: what is on disk contradicts a signed head; nothing was changed.
            LogUnwritable: the disk refused.
            UnsafeFile: the directory is open to others.
        """
        if signer.verifier.name != origin:
            raise LogInconsistent("fork", f"the key is of the log {signer.verifier.name!r}, not of {origin!r}")
        private_directory(directory)
        lock = os.open(directory / LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        writer = None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            writer = cls(directory, signer, head_copy, lock)
        except BlockingIOError as exc:
            raise LogLocked(f"{directory}: another process writes this log") from exc
        except OSError as exc:
            raise LogUnwritable(f"{directory}: {exc.strerror}") from exc
        finally:
            if writer is None:
                os.close(lock)
        return writer

    def append(self, entries: Sequence[bytes]) -> int:
        """Add entries (≤ 65,535 bytes each) as one frame, all or none; → index of the first.

        Raises:
            TileMalformed: an entry is too long.
            LogUnwritable: the disk refused; nothing was added.
        """
        first = self.size
        if not entries:
            return first
        self._check_usable()
        pieces = length_prefixed(entries)
        joined = b"".join(pieces)
        hashes = merkle.leaf_hashes(entries)
        self._segments.append(first, hashes, joined)
        self._tail.extend(hashes, pieces, joined)
        self.size = first + len(hashes)
        if self._tail.full_files():
            with suppress(OSError):  # they stay queued: the publication that needs them says what is wrong
                self._write_full()
        return first

    def sync(self) -> None:
        """Make every appended entry survive a power cut.

        Raises:
            LogUnwritable: the disk refused. What it holds is unknown now, so this writer is of no further use.
        """
        self._check_usable()
        try:
            self._segments.sync()
        except OSError as exc:
            self._broken = True
            raise LogUnwritable(f"{self._directory}: write-ahead file: {exc.strerror}") from exc

    def publish(self) -> Checkpoint:
        """Put every appended entry under a signed head; → that head (the present one when nothing was added).

        Raises:
            LogUnwritable: the disk refused. The entries stay in the write-ahead file; this writer is of no further use.
        """
        self._check_usable()
        if self.size == self.head.size:
            return self.head
        self.sync()
        head = checkpoint.seal(self.head.origin, self.size, self._tail.root(), self._signer)
        try:
            self._write_full()
            self._write_partial()
            _replace(self._head_copy, head.raw_note)
            _replace(self._directory / CHECKPOINT, head.raw_note)
            self.head = head
            self._remove_replaced()
            self._segments.turn(self._tail)
        except OSError as exc:
            self._broken = True
            raise LogUnwritable(f"{self._directory}: {exc.strerror}") from exc
        return head

    def inclusion(self, index: int) -> TlogProof:
        """Proof that entry `index` is under the present head.

        Raises:
            ProofInvalid: the entry is not under a head yet (publish first), or does not exist.
            LogInconsistent: the tiles are damaged.
        """
        hashes = merkle.inclusion_proof(index, self.head.size, self._reader.node_source(self.head.size))
        return TlogProof(index, tuple(hashes), self.head.raw_note)

    @property
    def verifier(self) -> note.Verifier:
        """Of the checkpoints."""
        return self._signer.verifier

    def entry(self, index: int) -> bytes:
        """Entry `index` under the present head.

        Raises:
            LogInconsistent: it is missing, or there is none of this index.
        """
        return self._reader.entry(index, self.head.size)

    def latest(self, count: int) -> list[tuple[int, bytes]]:
        """The last `count` (≥ 1) entries with their indices, oldest first, published or not."""
        return self._reader.latest(count)

    def close(self) -> None:
        """Give up the log. Does not publish: entries appended since stay in the write-ahead file."""
        if self._lock >= 0:
            self._segments.close()
            os.close(self._lock)
        self._lock = -1
        self._broken = True

    def _recover(self) -> tuple[Checkpoint, Tail, Segments]:
        verifier = self._signer.verifier
        raw_key = self._reader.read(VERIFIER_KEY)
        if raw_key is not None and raw_key != f"{verifier}\n".encode():
            raise LogInconsistent("fork", f"{self._directory / VERIFIER_KEY} is not the public half of the signing key")
        raw_stored = self._reader.read(CHECKPOINT)
        head = io_recover.settle(raw_stored, _read_copy(self._head_copy), verifier)
        if head is None:
            head = self._create()
        found = io_recover.replay(self._reader, head)
        if raw_key is None:
            _replace(self._directory / VERIFIER_KEY, f"{verifier}\n".encode())
        self.repaired = tuple(path for path, content in found.files.items() if self._reader.read(path) != content)
        for path in self.repaired:
            self._write_tile(path, found.files[path])
        if raw_stored != head.raw_note:
            _replace(self._directory / CHECKPOINT, head.raw_note)
        self._remove_unsigned(head.size, found.tail.size)
        self._full = [path for path in found.files if ".p/" not in path]
        self._remove_replaced()
        segments = Segments(self._directory)
        if found.live is None or found.segment is None:
            segments.begin(found.tail)
        else:
            segments.resume(found.live, found.segment)
        if found.other_live or found.live is None:
            sync_file_system(self._directory)
            segments.retire_other()
        sync_directory(self._directory)
        return head, found.tail, segments

    def _create(self) -> Checkpoint:
        """Sign the empty head, so that from its first entry on a log has a history that can be missed."""
        if any(self._reader.segments()) or (self._directory / "tile").exists():
            raise LogInconsistent("missing", f"{self._directory} holds entries, and no signed head for them is left")
        head = checkpoint.seal(self._signer.verifier.name, 0, merkle.EMPTY_ROOT, self._signer)
        _replace(self._head_copy, head.raw_note)
        return head

    def _write_full(self) -> None:
        """Write full tiles as they come, not all at the publication: no memory for a second's worth, and no stall."""
        for name, content in self._tail.full_files().items():
            self._write_tile(name, content)
            self._full.append(name)
        self._tail.forget_full()

    def _write_partial(self) -> None:
        files = self._tail.partial_files()
        for name in files.keys() - self._partial:
            self._write_tile(name, files[name])
        self._partial = {*files}

    def _write_tile(self, name: str, content: bytes) -> None:
        path = f"{self._directory}/{name}"
        self._make_parent(path)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            _write_all(descriptor, content)
        finally:
            os.close(descriptor)

    def _make_parent(self, path: str) -> None:
        parent = path[: path.rindex("/")]
        if parent not in self._known_directories:
            os.makedirs(parent, 0o700, exist_ok=True)
            self._known_directories.add(parent)

    def _remove_replaced(self) -> None:
        """Delete the partial forms of what is full and published now (C2SP tlog-tiles: MAY)."""
        for name in self._full:
            partials = f"{self._directory}/{name}.p"
            if os.path.isdir(partials):
                for width in os.listdir(partials):
                    os.unlink(f"{partials}/{width}")
                os.rmdir(partials)
                self._known_directories.discard(partials)
        self._full = []

    def _remove_unsigned(self, signed: int, reached: int) -> None:
        """Delete partial files that no head covers: the publication that wrote them was cut short, perhaps within one, and
        the next may be wider and never write that width again."""
        level = 0
        while reached >> 8 * level:
            (first, width), last = divmod(signed >> 8 * level, WIDTH), (reached >> 8 * level) // WIDTH
            for index in range(first, last + 1):
                for name in (tile_path(level, index), *([bundle_path(index)] if level == 0 else [])):
                    partials = f"{self._directory}/{name}.p"
                    for left in os.listdir(partials) if os.path.isdir(partials) else ():
                        if index > first or int(left) > width:
                            os.unlink(f"{partials}/{left}")
            level += 1

    def _check_usable(self) -> None:
        if self._broken:
            raise LogUnwritable(f"{self._directory}: the writer is closed, or the disk refused a write before")


def _replace(path: Path, content: bytes) -> None:
    """Swap in a small file whole: new file, fsync, rename, fsync of the directory."""
    stage = f"{path}.new"
    descriptor = os.open(stage, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        _write_all(descriptor, content)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    os.rename(stage, path)
    sync_directory(path.parent)


def _write_all(descriptor: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(descriptor, view) :]


def _read_copy(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
