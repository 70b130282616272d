from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pki.tlog import merkle
from pki.tlog.errors import TileMalformed
from pki.tlog.tail import Tail
from pki.tlog.tiles import length_prefixed, partials, split_entries


def _entries(first: int, count: int) -> list[bytes]:
    return [str(number).encode() for number in range(first, first + count)]


def _extend(tail: Tail, count: int) -> None:
    entries = _entries(tail.size, count)
    pieces = length_prefixed(entries)
    tail.extend(merkle.leaf_hashes(entries), pieces, b"".join(pieces))


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 700), min_size=1, max_size=5))
def test_batches_of_any_size_give_the_tree_and_the_files_of_one_batch(batches: list[int]) -> None:
    parts, whole = Tail(), Tail()
    for count in batches:
        _extend(parts, count)
    _extend(whole, sum(batches))
    assert parts.root() == whole.root() == merkle.root(merkle.leaf_hashes(_entries(0, sum(batches))))
    assert parts.full_files() == whole.full_files()
    assert parts.partial_files() == whole.partial_files()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1100), st.integers(1, 300))
def test_restored_tail_goes_on_as_the_first_would(size: int, more: int) -> None:
    tail = Tail()
    if size:
        _extend(tail, size)
    restored = Tail.restore(size, tail.snapshot())
    tail.forget_full()
    _extend(tail, more)
    _extend(restored, more)
    assert (restored.root(), restored.snapshot()) == (tail.root(), tail.snapshot())
    assert restored.full_files() == tail.full_files()


def test_level_1_is_made_of_the_roots_of_full_tiles() -> None:
    tail = Tail()
    _extend(tail, 256 * 256 + 1)
    leaves = merkle.leaf_hashes(_entries(0, 256))
    files = {**tail.full_files(), **tail.partial_files()}
    assert files["tile/0/000"] == b"".join(leaves)
    assert files["tile/1/000"][:32] == merkle.root(leaves)
    assert len(files["tile/1/000"]) == 8192
    assert files["tile/2/000.p/1"] == merkle.root(merkle.leaf_hashes(_entries(0, 256 * 256)))
    assert split_entries(files["tile/entries/255"], 256) == _entries(255 * 256, 256)
    assert [(level, width) for level, _, width in partials(tail.size)] == [(0, 1), (2, 1)]


@pytest.mark.parametrize("change", [lambda raw: raw[:-1], lambda raw: raw + b"x", lambda raw: raw[32:], lambda _: b""])
def test_snapshot_of_another_size_is_refused(change: object) -> None:
    tail = Tail()
    _extend(tail, 300)
    assert callable(change)
    with pytest.raises(TileMalformed):
        Tail.restore(300, change(tail.snapshot()))
