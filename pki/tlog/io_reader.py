"""Read a log's directory, as the writer left it or as somebody else did: nothing read here is trusted.

A missing file is None; who asks decides what that means. A partial tile that was superseded is answered from the full
one, as C2SP tlog-tiles allows, so a reader with a slightly older head still finds what it needs.
"""

from __future__ import annotations

from pathlib import Path

from pki.io_files import read_regular
from pki.tlog import checkpoint, note, wal
from pki.tlog.errors import LogInconsistent, LogUnreadable, NoteMalformed, TileMalformed
from pki.tlog.merkle import HASH_BYTES, NodeSource, fold
from pki.tlog.tiles import WIDTH, bundle_path, length_prefixed, split_entries, split_hashes, tile_path

CHECKPOINT = "checkpoint"
VERIFIER_KEY = "verifier.key"
_ATTEMPTS = 5
MAX_FILE_BYTES = 256 << 20
"""Of one file of a log. Tiles and bundles have 17 MiB at most, a write-ahead file turns at a tenth of this."""


def read_file(path: Path) -> bytes:
    """One file of a log, or its key. Raises: OSError; as `read_regular`."""
    return read_regular(path, limit=MAX_FILE_BYTES)[0]


class LogReader:
    """The files of one log."""

    __slots__ = ("directory",)

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def read(self, name: str) -> bytes | None:
        """Content of a file of the log, None when it is not there.

        Raises:
            LogUnreadable: it is there and cannot be read.
        """
        try:
            return read_file(self.directory / name)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as exc:
            raise LogUnreadable(f"{self.directory / name}: {exc.strerror}") from exc

    def tile(self, level: int, index: int, width: int = WIDTH) -> bytes | None:
        """The first `width` hashes of a tile (fewer bytes when the file is cut off)."""
        raw = self.read(tile_path(level, index, width))
        if raw is None and width < WIDTH:
            full = self.read(tile_path(level, index))
            raw = None if full is None else full[: width * HASH_BYTES]
        return raw

    def bundle(self, index: int, width: int = WIDTH) -> bytes | None:
        """The first `width` entries of a bundle, in its own form."""
        raw = self.read(bundle_path(index, width))
        if raw is None and width < WIDTH:
            full = self.read(bundle_path(index))
            raw = None if full is None else b"".join(length_prefixed(split_entries(full)[:width]))
        return raw

    def bundle_exists(self, index: int, width: int = WIDTH) -> bool:
        """Is there a bundle that has, or should have, these entries?"""
        return any((self.directory / bundle_path(index, each)).exists() for each in {width, WIDTH})

    def node_source(self, size: int) -> NodeSource:
        """Perfect subtrees of the tree of `size` leaves, from its tiles; keeps the tiles it read.

        Raises (when called):
            LogInconsistent: a tile is missing or malformed.
        """
        kept: dict[tuple[int, int], list[bytes]] = {}

        def node(height: int, index: int) -> bytes:
            level, rise = divmod(height, 8)
            tile, place = divmod(index << rise, WIDTH)
            hashes = kept.get((level, tile))
            if hashes is None:
                width = min(WIDTH, (size >> (8 * level)) - tile * WIDTH)
                hashes = kept[level, tile] = self._hashes(level, tile, width)
            value = fold(hashes[place : place + (1 << rise)], None)
            if value is None:
                raise LogInconsistent("missing", f"no subtree {index} of height {height} in a tree of {size}")
            return value

        return node

    def segments(self) -> list[wal.Segment | None]:
        """What the two write-ahead files hold, in the order of `wal.NAMES`."""
        return [wal.scan(self.read(name) or b"") for name in wal.NAMES]

    def pending(self, size: int) -> list[bytes]:
        """The entries behind the first `size` ones that are in the write-ahead files. **Nothing vouches for them yet.**"""
        entries: list[bytes] = []
        for segment in sorted(filter(None, self.segments()), key=lambda found: found.size):
            for frame in segment.frames:
                if frame.first == size + len(entries):
                    entries += frame.entries
        return entries

    def damaged_segments(self, size: int) -> list[str]:
        """Names of the write-ahead files that hold a torn or changed frame; looks twice, a writer may be at work.

        `size`: entries under the head. A live segment reaches at least that far, or something in it is gone.
        """
        damaged = [name for name in wal.NAMES if all(wal.is_damaged(self.read(name) or b"") for _ in range(2))]
        live = [(found.next_index, name) for found, name in zip(self.segments(), wal.NAMES, strict=True) if found]
        if not damaged and live and max(live)[0] < size:
            damaged.append(max(live)[1])
        return damaged

    def superseded(self, path: str) -> list[tuple[int, bytes]]:
        """(width, content) of every stored partial form of the full tile or bundle at `path`."""
        directory = self.directory / f"{path}.p"
        widths = sorted(int(each.name) for each in directory.glob("*") if each.name.isascii() and each.name.isdigit())
        return [(width, self.read(f"{path}.p/{width}") or b"") for width in widths]

    def latest(self, count: int) -> list[tuple[int, bytes]]:
        """The last `count` (≥ 1) entries with their indices, oldest first, published or not. **Unverified.**

        Raises:
            LogError: no checkpoint, or the files it speaks of are missing or malformed.
        """
        size, pending = self.unverified_state()
        first = max(0, size + len(pending) - count)
        return [*self._entries(first, size), *enumerate(pending, size)][-count:]

    def published_since(self, first: int) -> list[tuple[int, bytes]]:
        """The entries from index `first` on that are under the head, with their indices. **Unverified.**

        Raises:
            LogError: no checkpoint, or the files it speaks of are missing or malformed.
        """
        return self._entries(first, self._unverified_head()[1])

    def entry(self, index: int, size: int) -> bytes:
        """Entry `index` of the tree of `size` leaves. **Unverified.**

        Raises:
            LogInconsistent: it is missing, or there is none of this index.
            TileMalformed: its bundle is not one.
        """
        bundle, place = divmod(index, WIDTH)
        width = min(WIDTH, size - bundle * WIDTH)
        raw = self.bundle(bundle, width) if 0 <= place < width else None
        if raw is None:
            raise LogInconsistent("missing", f"entry {index} is not there")
        return split_entries(raw, width)[place]

    def unverified_state(self) -> tuple[int, list[bytes]]:
        """Size of the head, and the entries behind it; neither is verified.

        A writer may publish between the two reads; then they may not fit together and are read again.

        Raises:
            NoteMalformed: there is no readable checkpoint.
        """
        for _ in range(_ATTEMPTS):
            raw, size = self._unverified_head()
            pending = self.pending(size)
            if self.read(CHECKPOINT) == raw:
                break
        return size, pending

    def _unverified_head(self) -> tuple[bytes, int]:
        raw = self.read(CHECKPOINT)
        if raw is None:
            raise NoteMalformed(f"{self.directory / CHECKPOINT} is not there")
        return raw, checkpoint.parse(note.split(raw)[0])[1]

    def _entries(self, first: int, size: int) -> list[tuple[int, bytes]]:
        found: list[tuple[int, bytes]] = []
        for index in range(first // WIDTH, (size + WIDTH - 1) // WIDTH):
            width = min(WIDTH, size - index * WIDTH)
            raw = self.bundle(index, width)
            if raw is None:
                raise LogInconsistent("missing", f"{bundle_path(index, width)} is not there")
            found += enumerate(split_entries(raw, width), index * WIDTH)
        return [pair for pair in found if pair[0] >= first]

    def _hashes(self, level: int, index: int, width: int) -> list[bytes]:
        raw = self.tile(level, index, width) if width > 0 else None
        if raw is None:
            raise LogInconsistent("missing", f"{tile_path(level, index)} is not there")
        try:
            return split_hashes(raw, width)
        except TileMalformed as exc:
            raise LogInconsistent("edit", f"{tile_path(level, index)}: {exc}") from exc
