from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pki.tlog import merkle, wal
from pki.tlog.tail import Tail
from pki.tlog.tiles import length_prefixed

ROOT = b"r" * 32


def _file(batches: list[list[bytes]], *, size: int = 7, snapshot: bytes = b"snap") -> bytes:
    raw = wal.open_segment(size, ROOT, snapshot)
    check = wal.first_check(raw)
    for batch in batches:
        joined = b"".join(length_prefixed(batch))
        prefix = wal.frame_prefix(check, size, merkle.leaf_hashes(batch), len(joined))
        check, size, raw = prefix[-16:], size + len(batch), raw + prefix + joined
    return raw


BATCHES = [[b"one", b"two"], [b""], [b"three" * 30]]
FILE = _file(BATCHES)


def test_frames_are_found_in_order() -> None:
    segment = wal.scan(FILE)
    assert segment is not None
    assert (segment.size, segment.root, segment.snapshot, segment.end) == (7, ROOT, b"snap", len(FILE))
    assert [(frame.first, frame.entries) for frame in segment.frames] == [
        (7, BATCHES[0]),
        (9, BATCHES[1]),
        (10, BATCHES[2]),
    ]
    assert segment.frames[0].hashes == merkle.leaf_hashes(BATCHES[0])


@settings(max_examples=80, deadline=None)
@given(st.integers(0, len(FILE)))
def test_cut_off_at_any_byte_leaves_the_frames_before(length: int) -> None:
    segment = wal.scan(FILE[:length])
    if length < len(_file([])):
        assert segment is None
        return
    assert segment is not None
    whole = [count for count in range(4) if len(_file(BATCHES[:count])) <= length]
    assert [frame.entries for frame in segment.frames] == BATCHES[: whole[-1]]
    assert segment.end == len(_file(BATCHES[: whole[-1]]))


@settings(max_examples=80, deadline=None)
@given(st.integers(0, len(FILE) - 1), st.integers(1, 255))
def test_torn_byte_ends_the_file_before_its_frame(place: int, flip: int) -> None:
    segment = wal.scan(FILE[:place] + bytes([FILE[place] ^ flip]) + FILE[place + 1 :])
    if segment is not None:
        assert segment.end <= place
        assert [frame.entries for frame in segment.frames] == BATCHES[: len(segment.frames)]


def test_frames_of_an_older_segment_behind_the_new_ones_never_count() -> None:
    # The new segment's first frame is as long as the old one's, so the old second frame stands exactly behind it.
    new = _file([[b"ONE", b"TWO"]])
    overwritten = new + FILE[len(new) :]
    segment = wal.scan(overwritten)
    assert segment is not None
    assert ([frame.entries for frame in segment.frames], segment.end) == ([[b"ONE", b"TWO"]], len(new))


@pytest.mark.parametrize("raw", [b"", bytes(100), b"tlogwal1", bytes(8) + FILE[8:]])
def test_no_segment_in_an_empty_or_retired_file(raw: bytes) -> None:
    assert wal.scan(raw) is None


def test_torn_or_changed_frame_is_told_from_a_normal_end() -> None:
    ended = FILE + wal.END
    for good in (b"", bytes(80), FILE, ended, ended + b"left over from an older segment", FILE + bytes(5)):
        assert not wal.is_damaged(good)
    for place in (0, 20, 60, 75, 90, len(FILE) - 1, len(FILE) + 5):
        assert wal.is_damaged(ended[:place] + b"\x9f" + ended[place + 1 :])
    assert wal.is_damaged(FILE[:-1])


def test_frame_of_no_entries_is_not_a_frame() -> None:
    start = wal.open_segment(0, ROOT, b"")
    raw = start + wal.frame_prefix(wal.first_check(start), 0, [], 0)
    segment = wal.scan(raw)
    assert segment is not None
    assert segment.frames == []


def test_frame_whose_lengths_do_not_add_up_is_not_a_frame() -> None:
    start = wal.open_segment(0, ROOT, Tail().snapshot())
    body = b"\x00\x09one"
    raw = start + wal.frame_prefix(wal.first_check(start), 0, [merkle.leaf_hash(b"one")], len(body)) + body
    segment = wal.scan(raw)
    assert segment is not None
    assert segment.frames == []
