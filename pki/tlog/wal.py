"""The write-ahead file: entries that were appended and are not yet under a signed head.

A sequence of frames, one per append:

    length of the entries   uint32      all big-endian
    number of entries       uint32
    index of the first      uint64
    check                   16 bytes    SHA-256(check before ‖ the 16 bytes above ‖ leaf hashes), cut
    entries                 as in an entry bundle

The first check is preceded by the root hash of the head the frames extend. So a frame is valid only whole, at its place,
after its predecessors and on top of that tree. This lets the writer start over at offset 0 after each head without
erasing (rewriting pages in place costs a tenth of growing a file): old frames behind the new ones never chain. The leaf
hashes are needed anyway, so the check costs one short hash and no second pass over the entries.

The check finds torn writes, not forgery: until a head is signed nothing vouches for these entries.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from struct import Struct

from pki.tlog.errors import TileMalformed
from pki.tlog.merkle import leaf_hashes
from pki.tlog.tiles import split_entries

CHECK_BYTES = 16
_head = Struct(">IIQ")
_OVERHEAD = _head.size + CHECK_BYTES


@dataclass(frozen=True, slots=True)
class Frame:
    """One append: its entries and their leaf hashes."""

    first: int
    entries: list[bytes]
    hashes: list[bytes]


@dataclass(frozen=True, slots=True)
class Scan:
    """What a write-ahead file holds on top of a head. `end`: offset behind the last valid frame; `check`: its check."""

    frames: list[Frame]
    end: int
    check: bytes

    @property
    def entries(self) -> list[bytes]:
        """The entries of all frames, in order."""
        return [entry for frame in self.frames for entry in frame.entries]


def prefix(previous_check: bytes, first: int, hashes: list[bytes], length: int) -> bytes:
    """The 32 bytes that precede `length` bytes of entries; its last 16 are the check."""
    head = _head.pack(length, len(hashes), first)
    return head + sha256(b"".join([previous_check, head, *hashes])).digest()[:CHECK_BYTES]


def scan(raw: bytes, root: bytes, size: int) -> Scan:
    """The valid frames at the start of `raw` that extend the tree of `size` leaves with this root.

    Stops silently at the first frame that is cut off, torn, or of another tree: that is how a file normally ends.
    """
    frames: list[Frame] = []
    check, position = root, 0
    while position + _OVERHEAD <= len(raw):
        length, count, first = _head.unpack_from(raw, position)
        start = position + _OVERHEAD
        if first != size or count == 0 or start + length > len(raw):
            break
        try:
            entries = split_entries(raw[start : start + length], count)
        except TileMalformed:
            break
        hashes = leaf_hashes(entries)
        if prefix(check, first, hashes, length) != raw[position:start]:
            break
        frames.append(Frame(first, entries, hashes))
        check = raw[start - CHECK_BYTES : start]
        size += count
        position = start + length
    return Scan(frames, position, check)
