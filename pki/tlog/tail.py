"""The growing edge of the tree: what an append touches, and what of it must be written for the next head.

Pure state, owned by one `LogWriter`. Everything left of the edge is perfect subtrees that never change again; of each
level only the hashes of the tile that is not full yet are kept (fewer than 256), and the entries of the bundle that is
not full yet. A level-0 tile is hashed into level 1 once, when it is full: one hash per entry, no node objects.
"""

from __future__ import annotations

from collections.abc import Sequence

from pki.tlog.merkle import EMPTY_ROOT, HASH_BYTES, fold
from pki.tlog.tiles import WIDTH, bundle_path, partials, split_entries, split_hashes, tile_path


class Tail:
    """`size` leaves, of which the last ones are still in memory."""

    __slots__ = ("_chunks", "_full", "_levels", "size")

    def __init__(self, size: int = 0, levels: Sequence[list[bytes]] = (), bundle: bytes = b"") -> None:
        """`levels`: the hashes of the partial tile of each level, lowest first; `bundle`: the partial entry bundle."""
        self.size = size
        self._levels: list[list[bytes]] = [*levels] or [[]]
        self._chunks: list[bytes] = [bundle] if bundle else []
        self._full: dict[str, bytes] = {}

    def extend(self, hashes: Sequence[bytes], pieces: Sequence[bytes], joined: bytes) -> None:
        """Take leaves: their hashes, and their entries as `tiles.length_prefixed` pieces and joined."""
        begin, count = 0, len(hashes)
        leaves = self._levels[0]
        room = WIDTH - len(leaves)
        if count < room:
            leaves += hashes
            self._chunks.append(joined)
            self.size += count
            return
        while count - begin >= room:
            end = begin + room
            leaves += hashes[begin:end]
            self._chunks.append(b"".join(pieces[2 * begin : 2 * end]))
            self.size += room
            self._close_bundle()
            leaves, begin, room = self._levels[0], end, WIDTH
        if begin < count:
            leaves += hashes[begin:]
            self._chunks.append(b"".join(pieces[2 * begin :]))
            self.size += count - begin

    def root(self) -> bytes:
        """Root hash of all `size` leaves."""
        right = None
        for hashes in self._levels:
            right = fold(hashes, right)
        return EMPTY_ROOT if right is None else right

    def full_files(self) -> dict[str, bytes]:
        """Path → content of the full tiles and bundles completed since `forget_full`, in order of completion."""
        return self._full

    def forget_full(self) -> None:
        """They are on disk now."""
        self._full = {}

    def partial_files(self) -> dict[str, bytes]:
        """Path → content of the partial tiles and the partial bundle that a head of this size needs."""
        files = {}
        for level, index, width in partials(self.size):
            if level == 0:
                files[bundle_path(index, width)] = b"".join(self._chunks)
            files[tile_path(level, index, width)] = b"".join(self._levels[level])
        return files

    def snapshot(self) -> bytes:
        """The growing edge as bytes, for `restore`: the partial tiles, lowest level first, then the partial bundle."""
        hashes = [value for level in self._levels for value in level]
        return b"".join([*hashes, *self._chunks])

    @classmethod
    def restore(cls, size: int, raw: bytes) -> Tail:
        """The edge of the tree of `size` leaves out of its snapshot.

        Raises:
            TileMalformed: not a snapshot of a tree of this size.
        """
        levels: list[list[bytes]] = []
        for level, _, width in partials(size):
            levels += [[] for _ in range(level + 1 - len(levels))]
            levels[level] = split_hashes(raw[: width * HASH_BYTES], width)
            raw = raw[width * HASH_BYTES :]
        split_entries(raw, size % WIDTH)
        return cls(size, levels, raw)

    def _close_bundle(self) -> None:
        count = self.size // WIDTH
        self._full[bundle_path(count - 1)] = b"".join(self._chunks)
        self._chunks = []
        level = 0
        while True:
            hashes = self._levels[level]
            self._full[tile_path(level, count - 1)] = b"".join(hashes)
            self._levels[level] = []
            above = fold(hashes, None)
            assert above is not None
            level += 1
            if level == len(self._levels):
                self._levels.append([])
            self._levels[level].append(above)
            if len(self._levels[level]) < WIDTH:
                return
            count //= WIDTH
