"""A whole log written by transparency-dev/tessera: we read it, we verify it, and we would have written the same bytes."""

from __future__ import annotations

import pytest

from edge.audit.verify import verify
from pki.tlog import checkpoint, merkle, note
from pki.tlog.io_reader import LogReader
from pki.tlog.tail import Tail
from pki.tlog.tiles import length_prefixed, split_entries
from tests.vectors.place import VECTORS

LOG = VECTORS / "tessera-log"
KEY = note.Verifier.parse("example.com/log/testdata+33d7b496+AeHTu4Q3hEIMHNqc6fASMsq3rKNx280NI+oO5xCFkkSx")
SIZE = 15


def _head(size: int) -> checkpoint.Checkpoint:
    return checkpoint.verify((LOG / f"checkpoint.{size}").read_bytes(), KEY)


def _entries() -> list[bytes]:
    raw = LogReader(LOG).bundle(0, SIZE)
    assert raw is not None
    return split_entries(raw, SIZE)


def test_the_log_verifies_against_each_of_its_own_heads() -> None:
    for size in range(SIZE + 1):
        report = verify(LOG, KEY, _head(size))
        assert (report.ok, report.size, report.kind) == (True, SIZE, None)


@pytest.mark.parametrize("size", range(1, SIZE + 1))
def test_appending_the_entries_gives_the_same_heads_and_files(size: int) -> None:
    entries = _entries()[:size]
    tail = Tail()
    pieces = length_prefixed(entries)
    tail.extend(merkle.leaf_hashes(entries), pieces, b"".join(pieces))
    assert tail.root() == _head(size).root
    assert {path: (LOG / path).read_bytes() for path in tail.partial_files()} == tail.partial_files()


def test_every_entry_is_proven_under_every_head_that_has_it() -> None:
    reader, entries = LogReader(LOG), _entries()
    for size in range(1, SIZE + 1):
        node = reader.node_source(size)
        for index in range(size):
            path = merkle.inclusion_proof(index, size, node)
            merkle.verify_inclusion(index, size, merkle.leaf_hash(entries[index]), path, _head(size).root)


def test_every_head_extends_every_older_one() -> None:
    reader = LogReader(LOG)
    for new in range(1, SIZE + 1):
        for old in range(1, new + 1):
            path = merkle.consistency_proof(old, new, reader.node_source(new))
            merkle.verify_consistency(old, new, _head(old).root, _head(new).root, path)
