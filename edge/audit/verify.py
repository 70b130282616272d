"""Is this log what was signed? Finds any edit, deletion, insertion, reorder, truncation, rollback and fork.

    report = verify(Path("state/log"), note.Verifier.parse(key), remembered)

What each is held against:
- every entry against its leaf hash in the level-0 tiles, so that the first bad one can be named;
- the tree over all entries against the root in the signed checkpoint: this is what decides;
- every stored tile against that tree, because proofs are made from tiles;
- the partial tiles that older checkpoints needed, as far as they are still there, against their successors;
- the checkpoint against one that was remembered elsewhere, if given: it alone shows that the log was put back to an older
  state (rollback) or that there are two histories (fork).

The tiles are as changeable as the entries. When they lead to the signed root they are right and the entry is wrong; when
the entries lead to it, only the tiles are damaged (`tile`). When somebody changed both alike, the tiles one level up
give the bundle; when he changed all levels, only the root differs (`root`) and no index can be named.

Entries behind the last checkpoint (a second's worth, in the write-ahead files) are counted as `unpublished`; nothing
vouches for them yet, but a frame that is not whole is reported (`write-ahead`).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

from pki.errors import LogError
from pki.tlog import checkpoint as checkpoints
from pki.tlog.checkpoint import Checkpoint
from pki.tlog.errors import TileMalformed
from pki.tlog.io_reader import CHECKPOINT, LogReader
from pki.tlog.merkle import EMPTY_ROOT, HASH_BYTES, fold, leaf_hashes
from pki.tlog.note import Verifier
from pki.tlog.tiles import MAX_ENTRY_BYTES, WIDTH, bundle_path, length_prefixed, partials, split_entries, tile_path

KINDS = {
    "missing": "the log has no checkpoint, or cannot be read",
    "checkpoint": "the checkpoint is malformed, of another log, or not signed by the key",
    "edit": "an entry is not the one that was logged",
    "deletion": "an entry was taken out",
    "insertion": "an entry was put in",
    "reorder": "entries were exchanged",
    "truncation": "the end of the log is missing",
    "tile": "the entries are right, and a tile that proofs are made from is not",
    "write-ahead": "entries behind the checkpoint were torn by a crash, or changed",
    "root": "the entries do not lead to the signed root, and no tile tells which one is wrong",
    "rollback": "the log is older than the remembered checkpoint",
    "fork": "the log and the remembered checkpoint are two histories",
}
"""Every `Report.kind`, and what it means."""


@dataclass(frozen=True, slots=True)
class Report:
    """`ok`, or the first thing that is wrong. `size`: entries the checkpoint speaks of; `first_bad_index`: the first one
    that is not as logged (for `truncation` and `rollback` the first that is gone), None when it cannot be told."""

    ok: bool
    size: int
    unpublished: int = 0
    first_bad_index: int | None = None
    kind: str | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True)
class _Fault:
    index: int
    kind: str
    detail: str


def verify(directory: Path, key: Verifier, checkpoint: Checkpoint | None = None) -> Report:
    """Check the whole log against its key and, if given, against a checkpoint remembered elsewhere. Changes nothing."""
    reader = LogReader(directory)
    try:
        raw = reader.read(CHECKPOINT)
        if raw is None:
            return Report(False, 0, kind="missing", detail=f"{directory / CHECKPOINT} is not there")
        try:
            head = checkpoints.verify(raw, key)
        except LogError as exc:
            return Report(False, 0, kind="checkpoint", detail=str(exc))
        unpublished = len(reader.pending(head.size))
        fault = _check_entries(reader, head, checkpoint)
    except LogError as exc:
        return Report(False, 0, kind="missing", detail=str(exc))
    if fault is None:
        return Report(True, head.size, unpublished)
    return Report(False, head.size, unpublished, None if fault.index < 0 else fault.index, fault.kind, fault.detail)


def _check_entries(reader: LogReader, head: Checkpoint, remembered: Checkpoint | None) -> _Fault | None:
    """The first fault, in the order that says most: what the entries show, then tiles, then the remembered head."""
    walk = _Walk(reader, head.size, None if remembered is None else remembered.size)
    walk.run()
    if walk.entries.root != head.root:
        return walk.blame(head.root)
    if walk.tile_fault is not None:
        return walk.tile_fault
    if remembered is not None and remembered.size > head.size:
        return _Fault(head.size, "rollback", f"{remembered.size} entries were seen before, {head.size} are left")
    if remembered is not None and walk.remembered_root != remembered.root:
        return _Fault(-1, "fork", f"another history within the first {remembered.size} entries")
    return _check_leftovers(reader, head.size)


def _check_leftovers(reader: LogReader, size: int) -> _Fault | None:
    """Files that the checkpoint does not need: older partial tiles, and the write-ahead files."""
    for level, index, width in partials(size):
        tile = reader.tile(level, index, width) or b""
        for each, raw in reader.superseded(tile_path(level, index)):
            if each < width and raw != tile[: each * HASH_BYTES]:
                first = index * WIDTH ** (level + 1)
                return _Fault(first, "tile", f"{tile_path(level, index, each)}, of an older checkpoint, is wrong")
        if level == 0:
            pieces = length_prefixed(split_entries(reader.bundle(index, width) or b"", width))
            for each, raw in reader.superseded(bundle_path(index)):
                if each < width and raw != b"".join(pieces[: 2 * each]):
                    return _Fault(
                        index * WIDTH, "edit", f"{bundle_path(index, each)}, of an older checkpoint, is wrong"
                    )
    damaged = reader.damaged_segments(size)
    return _Fault(size, "write-ahead", f"{', '.join(damaged)}: a frame is torn or changed") if damaged else None


class _Tree:
    """A tree built from level-0 tiles; keeps every hash of level 1 and above, 32 bytes per 256 entries."""

    def __init__(self) -> None:
        self.levels: list[list[bytes]] = []
        self.root = EMPTY_ROOT

    def add(self, full_tile: bytes) -> None:
        """Take the root of the next full level-0 tile."""
        level = 0
        while True:
            if level == len(self.levels):
                self.levels.append([])
            hashes = self.levels[level]
            hashes.append(full_tile)
            if len(hashes) % WIDTH:
                return
            folded = fold(hashes[-WIDTH:], None)
            assert folded is not None
            full_tile = folded
            level += 1

    def root_with(self, leaves: list[bytes]) -> bytes:
        """Root when the partial level-0 tile holds `leaves`."""
        right = fold(leaves, None)
        for hashes in self.levels:
            right = fold(hashes[len(hashes) // WIDTH * WIDTH :], right)
        return EMPTY_ROOT if right is None else right


class _Walk:
    """One pass over all bundles and tiles, building the tree of the entries and, where they differ, that of the tiles."""

    def __init__(self, reader: LogReader, size: int, remembered_size: int | None) -> None:
        self._reader = reader
        self._size = size
        self._remembered_size = remembered_size
        self.remembered_root: bytes | None = EMPTY_ROOT if remembered_size == 0 else None
        self.entries = _Tree()
        self._tiles = _Tree()
        self._content_fault: _Fault | None = None
        self.tile_fault: _Fault | None = None

    def run(self) -> None:
        """Fill the trees and note the first fault of each sort."""
        entry_leaves: list[bytes] = []
        tile_leaves: list[bytes] = []
        for index in range((self._size + WIDTH - 1) // WIDTH):
            width = min(WIDTH, self._size - index * WIDTH)
            found, whole = self._bundle(index, width)
            tile = self._reader.tile(0, index, width)
            entry_leaves = tile_leaves = leaf_hashes(found)
            if not whole or tile != b"".join(entry_leaves):
                tile_leaves = self._differ(index, width, found, entry_leaves, tile, whole)
            self._note_remembered(index, entry_leaves)
            if width == WIDTH:
                above = fold(entry_leaves, None) or EMPTY_ROOT
                self.entries.add(above)
                self._tiles.add(above if tile_leaves is entry_leaves else fold(tile_leaves, None) or EMPTY_ROOT)
                entry_leaves, tile_leaves = [], []
        self.entries.root = self.entries.root_with(entry_leaves)
        self._tiles.root = self._tiles.root_with(tile_leaves)
        self._check_upper_tiles()

    def blame(self, root: bytes) -> _Fault:
        """Which entry is wrong, when the entries do not lead to the signed root."""
        content = self._content_fault
        if self._tiles.root == root and content is not None:
            return content
        upper = self._first_wrong_bundle()
        if content is not None and (upper is None or content.index < upper.index + WIDTH):
            return content
        return upper or _Fault(-1, "root", f"somewhere in the {self._size} entries")

    def _bundle(self, index: int, width: int) -> tuple[list[bytes], bool]:
        """The entries that are there, and whether the bundle has the form and number it should have."""
        try:
            raw = self._reader.bundle(index, width)
        except TileMalformed:
            raw = self._reader.bundle(index)
        if raw is None:
            return [], False
        try:
            return split_entries(raw, width), True
        except TileMalformed:
            return _readable(raw), False

    def _differ(
        self, index: int, width: int, found: list[bytes], leaves: list[bytes], tile: bytes | None, whole: bool
    ) -> list[bytes]:
        """Entries and tile disagree: note both possible faults; → the tile's leaf hashes."""
        first = index * WIDTH
        expected = (
            [tile[place : place + HASH_BYTES] for place in range(0, len(tile or b""), HASH_BYTES)] if tile else []
        )
        if self.tile_fault is None:
            offset = _first_difference(expected, leaves)
            self.tile_fault = _Fault(first + offset, "tile", f"{tile_path(0, index, width)} is missing or wrong")
        if self._content_fault is None and len(expected) == width:
            offset, kind = _classify(expected, leaves)
            if len(leaves) < width and leaves == expected[: len(leaves)] and not self._anything_behind(index):
                kind = "truncation"
            self._content_fault = _Fault(first + offset, kind, f"{bundle_path(index, width)}, entry {offset}")
        elif self._content_fault is None and not whole:
            kind = "deletion" if self._anything_behind(index) else "truncation"
            self._content_fault = _Fault(first + len(found), kind, f"{bundle_path(index, width)} is missing or cut off")
        return expected

    def _anything_behind(self, index: int) -> bool:
        last = (self._size - 1) // WIDTH
        return any(
            self._reader.bundle_exists(later, min(WIDTH, self._size - later * WIDTH))
            for later in range(index + 1, last + 1)
        )

    def _note_remembered(self, index: int, leaves: list[bytes]) -> None:
        if self._remembered_size is not None and index * WIDTH < self._remembered_size <= (index + 1) * WIDTH:
            count = self._remembered_size - index * WIDTH
            self.remembered_root = self.entries.root_with(leaves[:count])

    def _check_upper_tiles(self) -> None:
        for level, hashes in enumerate(self.entries.levels, 1):
            for index in range((len(hashes) + WIDTH - 1) // WIDTH):
                if self.tile_fault is not None:
                    return
                wanted = hashes[index * WIDTH : (index + 1) * WIDTH]
                stored = self._reader.tile(level, index, len(wanted))
                if stored != b"".join(wanted):
                    first = index * WIDTH ** (level + 1)
                    path = tile_path(level, index, len(wanted))
                    self.tile_fault = _Fault(first, "tile", f"{path} is missing or wrong")

    def _first_wrong_bundle(self) -> _Fault | None:
        """The first full bundle whose entries are not what level 1 says, for when level 0 was changed with them."""
        hashes = self.entries.levels[0] if self.entries.levels else []
        for tile in range((len(hashes) + WIDTH - 1) // WIDTH):
            wanted = hashes[tile * WIDTH : (tile + 1) * WIDTH]
            stored = self._reader.tile(1, tile, len(wanted)) or b""
            for place, value in enumerate(wanted):
                if stored[place * HASH_BYTES : (place + 1) * HASH_BYTES] != value:
                    index = (tile * WIDTH + place) * WIDTH
                    return _Fault(
                        index, "edit", f"an entry of {bundle_path(index // WIDTH)}; its tile was changed with it"
                    )
        return None


def _readable(raw: bytes) -> list[bytes]:
    """The entries of a damaged bundle as far as they can be read."""
    entries: list[bytes] = []
    position = 0
    while position + 2 <= len(raw) and len(entries) <= WIDTH:
        end = position + 2 + int.from_bytes(raw[position : position + 2], "big")
        if end > len(raw) or end - position > MAX_ENTRY_BYTES + 2:
            break
        entries.append(raw[position + 2 : end])
        position = end
    return entries


def _first_difference(expected: list[bytes], found: list[bytes]) -> int:
    for place, (wanted, got) in enumerate(zip_longest(expected, found)):
        if wanted != got:
            return place
    return len(expected)


def _classify(expected: list[bytes], found: list[bytes]) -> tuple[int, str]:
    """Where two lists of leaf hashes first differ, and what makes the one out of the other."""
    place = _first_difference(expected, found)
    if place >= len(expected):
        return place, "insertion"
    if sorted(expected) == sorted(found):
        return place, "reorder"
    if place >= len(found) or found[place : place + 3] == expected[place + 1 : place + 4]:
        return place, "deletion"
    if found[place + 1 : place + 3] == expected[place : place + 2]:
        return place, "insertion"
    return place, "edit"
