from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pki.tlog import tiles
from pki.tlog.errors import TileMalformed


@pytest.mark.parametrize(
    ("index", "width", "path"),
    [
        (0, 256, "000"),
        (0, 7, "000.p/7"),
        (999, 256, "999"),
        (1000, 256, "x001/000"),
        (1234067, 256, "x001/x234/067"),
        (1234067, 255, "x001/x234/067.p/255"),
    ],
)
def test_paths_are_those_of_tlog_tiles(index: int, width: int, path: str) -> None:
    assert tiles.tile_path(3, index, width) == f"tile/3/{path}"
    assert tiles.bundle_path(index, width) == f"tile/entries/{path}"


def test_partial_tiles_of_the_specification_s_example() -> None:
    assert list(tiles.partials(70_000)) == [(0, 273, 112), (1, 1, 17), (2, 0, 1)]
    assert list(tiles.partials(256)) == [(1, 0, 1)]
    assert list(tiles.partials(0)) == []


@settings(max_examples=50, deadline=None)
@given(st.lists(st.binary(max_size=300), max_size=20))
def test_bundle_round_trips(entries: list[bytes]) -> None:
    raw = b"".join(tiles.length_prefixed(entries))
    assert tiles.split_entries(raw, len(entries)) == entries == tiles.split_entries(raw)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=60), st.integers(0, 8))
def test_any_bytes_are_a_bundle_or_malformed(raw: bytes, count: int) -> None:
    try:
        entries = tiles.split_entries(raw, count)
    except TileMalformed:
        return
    assert b"".join(tiles.length_prefixed(entries)) == raw
    assert len(entries) == count


@pytest.mark.parametrize("raw", [b"\x00", b"\x00\x03on", b"\x00\x03one\x00", b"\x00\x03one\x00\x01"])
def test_cut_off_bundle_is_refused_at_every_byte(raw: bytes) -> None:
    with pytest.raises(TileMalformed):
        tiles.split_entries(raw)


@pytest.mark.parametrize("count", [0, 2])
def test_another_number_of_entries_is_refused(count: int) -> None:
    with pytest.raises(TileMalformed):
        tiles.split_entries(b"\x00\x03one", count)


def test_longest_entry_fits_and_one_byte_more_does_not() -> None:
    assert tiles.length_prefixed([b"x" * 65_535])[0] == b"\xff\xff"
    with pytest.raises(TileMalformed):
        tiles.length_prefixed([b"", b"x" * 65_536])


@pytest.mark.parametrize("length", [0, 63, 65, 96])
def test_tile_of_another_length_is_refused(length: int) -> None:
    assert tiles.split_hashes(b"a" * 32 + b"b" * 32, 2) == [b"a" * 32, b"b" * 32]
    with pytest.raises(TileMalformed):
        tiles.split_hashes(bytes(length), 2)
