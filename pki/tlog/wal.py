"""The write-ahead file: entries that were appended and whose tiles are perhaps not on the disk yet.

A segment is a snapshot of the tree's growing edge, and then one frame per append. All numbers big-endian.

    segment   magic 8 bytes · base size uint64 · base root 32 bytes · length of the snapshot uint32 · check 16 bytes
              snapshot (`tail.Tail.snapshot`)
    frame     length of the entries uint32 · number of entries uint32 · index of the first uint64 · check 16 bytes
              entries, as in an entry bundle
    end       32 zero bytes, overwritten by the next frame

A segment's check is SHA-256 over its other bytes, cut; a frame's is SHA-256(check before it ‖ its 16 bytes ‖ its leaf
hashes), cut. So a frame is valid only whole, at its place, after its predecessors, in this very segment. That lets the
writer start over at offset 0 without erasing (rewriting a file's pages in place costs a tenth of growing a file): old
frames behind the new ones never chain. The leaf hashes are needed anyway: the check costs one short hash per append and
no second pass over the entries.

The checks find torn writes, not forgery: until a head is signed nothing vouches for these entries.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from struct import Struct

from pki.tlog.errors import TileMalformed
from pki.tlog.merkle import leaf_hashes
from pki.tlog.tiles import split_entries

NAMES = ("wal.0", "wal.1")
MAGIC = b"tlogwal1"
CHECK_BYTES = 16
_segment = Struct(">8sQ32sI")
_frame = Struct(">IIQ")
_SEGMENT_BYTES = _segment.size + CHECK_BYTES
_FRAME_BYTES = _frame.size + CHECK_BYTES
END = bytes(_FRAME_BYTES)


@dataclass(frozen=True, slots=True)
class Frame:
    """One append: its entries and their leaf hashes."""

    first: int
    entries: list[bytes]
    hashes: list[bytes]


@dataclass(frozen=True, slots=True)
class Segment:
    """What a write-ahead file holds. `end`: offset behind the last valid frame; `check`: what the next one chains to."""

    size: int
    root: bytes
    snapshot: bytes
    frames: list[Frame]
    end: int
    check: bytes

    @property
    def next_index(self) -> int:
        """Index of the entry that would come next."""
        return self.size + sum(len(frame.entries) for frame in self.frames)


def open_segment(size: int, root: bytes, snapshot: bytes) -> bytes:
    """The start of a segment on top of the tree of `size` leaves; its check is in bytes 52 to 68."""
    head = _segment.pack(MAGIC, size, root, len(snapshot))
    return b"".join([head, _cut(head, snapshot), snapshot])


def first_check(segment: bytes) -> bytes:
    """What the first frame of a segment chains to."""
    return segment[_segment.size : _SEGMENT_BYTES]


def frame_prefix(previous_check: bytes, first: int, hashes: Sequence[bytes], length: int) -> bytes:
    """The 32 bytes that precede `length` bytes of entries; its last 16 are the check."""
    head = _frame.pack(length, len(hashes), first)
    return head + _cut(previous_check, head, *hashes)


def scan(raw: bytes) -> Segment | None:
    """The segment in a write-ahead file; None when there is none (never begun, torn at its very start, or retired).

    Frames end silently at the first that is cut off, torn, or left over from an older segment: that is how a file
    normally ends.
    """
    if len(raw) < _SEGMENT_BYTES:
        return None
    magic, size, root, length = _segment.unpack_from(raw)
    position = _SEGMENT_BYTES + length
    check = first_check(raw)
    if magic != MAGIC or _cut(raw[: _segment.size], raw[_SEGMENT_BYTES:position]) != check:
        return None
    frames: list[Frame] = []
    expected = size
    while (found := _scan_frame(raw, position, check, expected)) is not None:
        frames.append(found[0])
        position, check = found[1], found[2]
        expected += len(found[0].entries)
    return Segment(size, root, raw[_SEGMENT_BYTES : _SEGMENT_BYTES + length], frames, position, check)


def is_damaged(raw: bytes) -> bool:
    """Does the file hold something that was a segment or its next frame, and is not valid now?

    Behind the last valid frame stand zeros, or nothing; anything else was torn, or changed by somebody.
    """
    segment = scan(raw)
    behind = raw[: len(MAGIC)] if segment is None else raw[segment.end : segment.end + _FRAME_BYTES]
    return behind.strip(b"\x00") != b""


def _scan_frame(raw: bytes, position: int, check: bytes, expected: int) -> tuple[Frame, int, bytes] | None:
    start = position + _FRAME_BYTES
    if start > len(raw):
        return None
    length, count, first = _frame.unpack_from(raw, position)
    end = start + length
    if first != expected or count == 0 or end > len(raw):
        return None
    try:
        entries = split_entries(raw[start:end], count)
    except TileMalformed:
        return None
    hashes = leaf_hashes(entries)
    if frame_prefix(check, first, hashes, length) != raw[position:start]:
        return None
    return Frame(first, entries, hashes), end, raw[start - CHECK_BYTES : start]


def _cut(*parts: bytes) -> bytes:
    return sha256(b"".join(parts)).digest()[:CHECK_BYTES]
