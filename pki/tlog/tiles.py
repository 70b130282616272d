"""How the tree lies on disk: C2SP tlog-tiles.

    checkpoint                      the signed head
    tile/0/000                      leaf hashes 0…255, 32 bytes each
    tile/0/x001/234.p/7             the 7 leaf hashes 1234·256 … +6: a partial tile, superseded as the tree grows
    tile/1/000                      roots of the first 256 full level-0 tiles
    tile/entries/000                entries 0…255, each a big-endian uint16 length and its bytes

A hash enters level n+1 only when its tile at level n is full. The parsers take exactly what the place demands: a bundle
of width 7 holds 7 entries and not one byte more.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from struct import Struct, error

from pki.tlog.errors import TileMalformed
from pki.tlog.merkle import HASH_BYTES

WIDTH = 256
MAX_ENTRY_BYTES = 0xFFFF

_length = Struct(">H").pack


def tile_path(level: int, index: int, width: int = WIDTH) -> str:
    """`tile/<level>/<index>[.p/<width>]`."""
    return f"tile/{level}/{_place(index, width)}"


def bundle_path(index: int, width: int = WIDTH) -> str:
    """`tile/entries/<index>[.p/<width>]`."""
    return f"tile/entries/{_place(index, width)}"


def partials(size: int) -> Iterator[tuple[int, int, int]]:
    """(level, index, width) of each partial tile that the tree of `size` leaves has, lowest level first."""
    level = 0
    while size:
        size, width = divmod(size, WIDTH)
        if width:
            yield level, size, width
        level += 1


def length_prefixed(entries: Sequence[bytes]) -> list[bytes]:
    """The pieces of a bundle: length, entry, length, entry …; joined by whoever writes them.

    Raises:
        TileMalformed: an entry is longer than 65,535 bytes.
    """
    pieces = [b""] * (2 * len(entries))
    pieces[1::2] = entries
    try:
        pieces[::2] = map(_length, map(len, entries))
    except error as exc:
        raise TileMalformed(f"an entry has more than {MAX_ENTRY_BYTES} bytes") from exc
    return pieces


def split_entries(raw: bytes, count: int | None = None) -> list[bytes]:
    """The entries of a bundle; `count` None takes as many as there are.

    Raises:
        TileMalformed: cut off, or another number of entries than `count`.
    """
    entries = []
    position, end = 0, len(raw)
    while position + 2 <= end:
        start = position + 2
        position = start + (raw[position] << 8 | raw[position + 1])
        entries.append(raw[start:position])
    if position != end or (count is not None and len(entries) != count):
        raise TileMalformed(f"entry bundle holds {len(entries)} entries in {end} bytes, expected {count or 'a whole'}")
    return entries


def split_hashes(raw: bytes, count: int) -> list[bytes]:
    """The hashes of a tile.

    Raises:
        TileMalformed: not `count` hashes.
    """
    if len(raw) != count * HASH_BYTES:
        raise TileMalformed(f"tile holds {len(raw)} bytes, expected {count} hashes")
    return [raw[place : place + HASH_BYTES] for place in range(0, len(raw), HASH_BYTES)]


def _place(index: int, width: int) -> str:
    groups = [f"{index % 1000:03}"]
    while index := index // 1000:
        groups.append(f"x{index % 1000:03}")
    place = "/".join(reversed(groups))
    return place if width == WIDTH else f"{place}.p/{width}"
