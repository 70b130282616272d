"""Which state a writer may continue from.

The writer remembers each head it signs in a second place *before* it replaces the log's own checkpoint. So the second
place is never behind, and at most one head ahead (after a crash between the two writes). Anything else means that one of
the two was put back to an older state, or belongs to another log, and signing on would give the world two histories.
"""

from __future__ import annotations

from pki.errors import LogError
from pki.tlog import checkpoint, merkle
from pki.tlog.checkpoint import Checkpoint
from pki.tlog.errors import LogInconsistent, TileMalformed
from pki.tlog.io_reader import LogReader
from pki.tlog.note import Verifier
from pki.tlog.tail import Tail
from pki.tlog.tiles import bundle_path, partials, split_entries, split_hashes, tile_path


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
