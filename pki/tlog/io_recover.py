"""Which state a writer may continue from.

The writer remembers each head it signs in a second place *before* it replaces the log's own checkpoint. So the second
place is never behind, and at most one head ahead (after a crash between the two writes). Anything else means that one of
the two was put back to an older state, or belongs to another log, and signing on would give the world two histories.
"""

from __future__ import annotations

from dataclasses import dataclass

from pki.errors import LogError
from pki.tlog import checkpoint, merkle, wal
from pki.tlog.checkpoint import Checkpoint
from pki.tlog.errors import LogInconsistent, TileMalformed
from pki.tlog.io_reader import LogReader
from pki.tlog.note import Verifier
from pki.tlog.tail import Tail
from pki.tlog.tiles import bundle_path, length_prefixed, partials, split_entries, split_hashes, tile_path


def settle(raw_stored: bytes | None, raw_remembered: bytes | None, verifier: Verifier) -> Checkpoint | None:
    """The head to continue from, out of the log's checkpoint and the copy in the second place; None for a new log.

    Raises:
        LogInconsistent: they contradict each other, or only the log's own is there.
        LogError: one of them is not a head signed by this log's key.
    """
    if raw_remembered is None:
        if raw_stored is None:
            return None
        raise LogInconsistent(
            "missing",
            "the remembered head is gone, so a rollback could not be noticed; verify the log against a head from "
            "elsewhere (edge audit verify --checkpoint), then copy its checkpoint to the second place",
        )
    remembered = _head(raw_remembered, verifier, "remembered head")
    if raw_stored is None:
        return remembered
    stored = _head(raw_stored, verifier, "checkpoint")
    if stored.size > remembered.size:
        raise LogInconsistent(
            "rollback", f"the remembered head ({remembered.size}) is older than the log's own ({stored.size})"
        )
    if stored.size == remembered.size and stored.root != remembered.root:
        raise LogInconsistent("fork", f"two heads of size {stored.size} with different roots")
    return remembered


@dataclass(frozen=True, slots=True)
class Recovered:
    """Where the writer goes on. `files`: path → content of what the head needs and the write-ahead files can still make;
    `live`: which write-ahead file holds the newest segment, None when neither is of use; `other_live`: both are live."""

    tail: Tail
    files: dict[str, bytes]
    live: int | None
    segment: wal.Segment | None
    other_live: bool


def replay(reader: LogReader, head: Checkpoint) -> Recovered:
    """Rebuild the growing edge: from the write-ahead files when they reach the head, else from the head's tiles.

    Raises:
        LogInconsistent: neither reproduces the signed root, or the write-ahead files are of another history.
    """
    found = [(segment, place) for place, segment in enumerate(reader.segments()) if segment is not None]
    found.sort(key=lambda pair: pair[0].size)
    tail: Tail | None = None
    files: dict[str, bytes] | None = None
    for segment, _ in found:
        if segment.size > head.size:
            raise LogInconsistent(
                "rollback", f"the last head signed was of size {segment.size} or more, not {head.size}"
            )
        if tail is None or tail.size != segment.size:
            tail = _restore(segment)
        elif tail.root() != segment.root:
            raise LogInconsistent("fork", "the two write-ahead files are of different histories")
        files = _at_head(tail, head, files)
        for frame in segment.frames:
            pieces = length_prefixed(frame.entries)
            tail.extend(frame.hashes, pieces, b"".join(pieces))
            files = _at_head(tail, head, files)
    if tail is None or files is None:
        return Recovered(load(reader, head), {}, None, None, False)
    return Recovered(tail, files, found[-1][1], found[-1][0], len(found) > 1)


def _restore(segment: wal.Segment) -> Tail:
    try:
        tail = Tail.restore(segment.size, segment.snapshot)
    except TileMalformed as exc:
        raise LogInconsistent("edit", f"write-ahead file: {exc}") from exc
    if tail.root() != segment.root:
        raise LogInconsistent("edit", "write-ahead file: the snapshot does not have the root it names")
    return tail


def _at_head(tail: Tail, head: Checkpoint, files: dict[str, bytes] | None) -> dict[str, bytes] | None:
    """When the replay stands exactly at the head: compare roots, and note which files the head needs."""
    if files is not None or tail.size != head.size:
        return files
    if tail.root() != head.root:
        raise LogInconsistent("fork", f"the write-ahead file has another history of the first {head.size} entries")
    files = {**tail.full_files(), **tail.partial_files()}
    tail.forget_full()
    return files


def load(reader: LogReader, head: Checkpoint) -> Tail:
    """The growing edge at `head`, rebuilt from tiles; costs a few files, however long the log.

    Raises:
        LogInconsistent: the files do not reproduce the signed root.
    """
    levels: list[list[bytes]] = []
    bundle = b""
    try:
        for level, index, width in partials(head.size):
            levels += [[] for _ in range(level + 1 - len(levels))]
            levels[level] = split_hashes(
                _present(reader.tile(level, index, width), tile_path(level, index, width)), width
            )
            if level == 0:
                path = bundle_path(index, width)
                bundle = _present(reader.bundle(index, width), path)
                if merkle.leaf_hashes(split_entries(bundle, width)) != levels[0]:
                    raise LogInconsistent("edit", f"{path}: an entry is not the one that was hashed")
    except TileMalformed as exc:
        raise LogInconsistent("edit", str(exc)) from exc
    tail = Tail(head.size, levels, bundle)
    if tail.root() != head.root:
        raise LogInconsistent("edit", f"the tiles do not lead to the signed root of size {head.size}")
    return tail


def _present(raw: bytes | None, path: str) -> bytes:
    if raw is None:
        raise LogInconsistent("truncation", f"{path} of the last signed head is not there")
    return raw


def _head(raw: bytes, verifier: Verifier, what: str) -> Checkpoint:
    try:
        return checkpoint.verify(raw, verifier)
    except LogError as exc:
        raise LogInconsistent("fork", f"{what}: {exc}") from exc
