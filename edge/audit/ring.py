"""A writer's mapped slots: transport to the notary and crash record at once. This file is the writer's half.

The ring is one MAP_SHARED file per writer. What was stored in it survives kill -9 of the writer, of the notary and of
both, because the pages belong to the kernel. Laws:

1. A slot goes FREE → TAKEN (prefix) → COMPLETE (suffix) → acknowledged → FREE. Only the writer moves it, except that
   the notary completes what a *dead* writer left open.
2. Every store that gives a meaning to bytes comes after these bytes: header and prefix in one copy guarded by its CRC,
   completion header and suffix in one copy guarded by its CRC, then the queue entry, then the head counter.
   A kill between two of them leaves the earlier state, which is valid.
3. Each word of the header has exactly one author (table below), so no lock is needed. Words are 8 bytes, aligned,
   native: one store instruction each. Nothing relies on the order in which another core sees two stores: a reader that
   finds a CRC wrong waits (`drain.py`).
4. The newest freed slot is reused first, so few pages are dirty whatever the size of the ring.

Layout, native byte order (the file never leaves the machine):

    0     magic, version, slots, slot bytes, instance, boot id (2 words), length of the name        fixed at creation
    64    head (completions queued), waiting (an ack is awaited)                                    by the writer
    128   heartbeat (CLOCK_MONOTONIC ns), acked (completions durable), level, sleeping,
          batch from, batch first, batch count                                                      by the notary
    512   name of the writer, ≤ 64 bytes
    4096  queue: slots × u32 slot index, entry n at n mod slots
    …     slots, from the next page on

    slot: u64 sequence | u32 prefix bytes | u32 crc32(prefix) | prefix
          | u64 sequence | u64 completion | u32 suffix bytes | u32 crc32(prefix + suffix) | suffix
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

from isal.isal_zlib import crc32

from edge.audit import io_ring
from edge.errors import NotRecordable

MAGIC = 0x676E695265676445  # "EdgeRing", read as bytes on a little-endian machine
VERSION = 1
PAGE = 4096

# Words of the header.
W_MAGIC, W_VERSION, W_SLOTS, W_SLOT_BYTES, W_INSTANCE, W_BOOT, W_NAME = 0, 1, 2, 3, 4, 5, 7
W_HEAD, W_WAITING = 8, 9
W_HEARTBEAT, W_ACKED, W_LEVEL, W_SLEEPING = 16, 17, 18, 19
W_BATCH_FROM, W_BATCH_FIRST, W_BATCH_COUNT = 20, 21, 22
NAME_OFFSET, NAME_MAX = 512, 64
NOTARY_OFFSET = W_HEARTBEAT * 8

# Native sizes and alignment: the standard ("<") codes of struct copy byte by byte, which another process can see half done.
NOTARY_WORDS = struct.Struct("@QQQ")
TAKEN = struct.Struct("@QII")
COMPLETE = struct.Struct("@QQII")

PREFIX_ROOM = 72
"""Bytes of a slot a prefix must leave free: both headers and the shortest suffix, the unknown outcome."""

MAX_SILENCE_NS = 1_000_000_000
"""The notary beats at least every 50 ms; after this much silence nothing is admitted (design §3)."""

LEVEL_OK, LEVEL_LOW, LEVEL_FULL = 0, 1, 2
"""Disk headroom: all may write | only authenticated traffic may | nobody may."""


def geometry(slots: int, slot_bytes: int) -> tuple[int, int]:
    """(offset of the first slot, size of the file)."""
    base = (PAGE + 4 * slots + PAGE - 1) // PAGE * PAGE
    return base, base + slots * slot_bytes


class Ring:
    """The writer's side. One per process, one thread; built in `assemble` or the supervisor, closed in reverse order."""

    __slots__ = (
        "_base",
        "_free",
        "_head",
        "_map",
        "_mask",
        "_nudge",
        "_nudged",
        "_open",
        "_queue",
        "_reclaimed",
        "_reserve",
        "_slot_bytes",
        "_words",
        "instance",
        "mapping",
        "sequence",
        "writer",
    )

    def __init__(
        self, mapping: io_ring.Mapping, writer: str, slots: int, slot_bytes: int, nudge: Callable[[], None]
    ) -> None:
        self.mapping = mapping
        self.writer = writer
        self.sequence = 1
        """Sequence the next take will get; without a gap as long as the writer lives."""
        self.instance = ""
        self._map = mapping.map
        self._words = mapping.words("Q", 0, PAGE)
        self._queue = mapping.words("I", PAGE, PAGE + 4 * slots)
        self._base = geometry(slots, slot_bytes)[0]
        self._mask = slots - 1
        self._slot_bytes = slot_bytes
        self._reserve = slots // 8  # kept for authenticated traffic
        self._free = list(range(slots - 1, -1, -1))
        self._open: list[tuple[int, int, int] | None] = [None] * slots  # (end of prefix, crc of it, sequence)
        self._head = 0
        self._reclaimed = 0
        self._nudge = nudge
        self._nudged = 0

    @classmethod
    def create(
        cls,
        path: Path,
        writer: str,
        slots: int = 4096,
        slot_bytes: int = 4096,
        nudge: Callable[[], None] = lambda: None,
    ) -> Ring:
        """A new ring at `path` (mode 0600; the directory is the caller's, 0700). `slots` is a power of two.

        `nudge` wakes the notary: `io_ring.Nudge(end of the socket pair)`. The mapping is shared by a fork, the state of
        this object is not: whoever forks uses it on one side only.

        Raises: UnsafeState when the file is there already or the disk is full; ValueError for a bad shape or name.
        """
        name = writer.encode("ascii")
        if slots < 8 or slots & (slots - 1) or slot_bytes % 64 or slot_bytes < 512:
            raise ValueError("slots must be a power of two ≥ 8, slot_bytes a multiple of 64 ≥ 512")
        if not 0 < len(name) <= NAME_MAX or not writer.replace("-", "").isalnum():
            raise ValueError("a writer's name is 1 to 64 letters, digits and '-'")
        mapping = io_ring.create(path, geometry(slots, slot_bytes)[1])
        ring = cls(mapping, writer, slots, slot_bytes, nudge)
        words = ring._words
        mapping.map[NAME_OFFSET : NAME_OFFSET + len(name)] = name
        words[W_VERSION], words[W_SLOTS], words[W_SLOT_BYTES], words[W_NAME] = VERSION, slots, slot_bytes, len(name)
        words[W_INSTANCE] = instance = io_ring.instance()
        ring.instance = f"{instance:016x}"
        mapping.map[W_BOOT * 8 : W_BOOT * 8 + 16] = io_ring.boot_id()
        words[W_MAGIC] = MAGIC  # last: a reader refuses a header that is not finished
        return ring

    def take(self, prefix: bytes, now_mono_ns: int, *, reserved: bool = False) -> int:
        """Mark one slot with the decision and return its index. `reserved`: may use the slots kept for authenticated traffic.

        Raises: NotRecordable when the notary is silent, no slot is free, the disk is short, or the prefix is too long.
        """
        heartbeat, acked, level = NOTARY_WORDS.unpack_from(self._map, NOTARY_OFFSET)
        if now_mono_ns - heartbeat > MAX_SILENCE_NS:
            raise NotRecordable("notary-silent")
        if level and (level != LEVEL_LOW or not reserved):
            raise NotRecordable("disk-headroom")
        free = self._free
        if acked != self._reclaimed:
            self._reclaim(acked)
        if len(free) <= (0 if reserved else self._reserve):
            raise NotRecordable("ring-full")
        length = len(prefix)
        slot_bytes = self._slot_bytes
        if length > slot_bytes - PREFIX_ROOM:
            raise NotRecordable("record-too-long", f"prefix of {length} bytes")
        slot = free.pop()
        sequence = self.sequence
        self.sequence = sequence + 1
        crc = crc32(prefix)
        start = self._base + slot * slot_bytes
        end = start + 16 + length
        self._map[start:end] = TAKEN.pack(sequence, length, crc) + prefix
        self._open[slot] = (end, crc, sequence)
        return slot

    def complete(self, slot: int, suffix: bytes) -> int:
        """Close a taken slot and queue it; returns the number of this completion (see `is_acked`).

        Raises: ValueError for a slot that is not taken; NotRecordable when the suffix does not fit (the slot stays open).
        """
        taken = self._open[slot]
        if taken is None:
            raise ValueError(f"slot {slot} is not taken")
        end, crc, sequence = taken
        length = len(suffix)
        if end + 24 + length > self._base + (slot + 1) * self._slot_bytes:
            raise NotRecordable("record-too-long", f"suffix of {length} bytes")
        self._open[slot] = None
        head = self._head
        self._map[end : end + 24 + length] = COMPLETE.pack(sequence, head, length, crc32(suffix, crc)) + suffix
        self._queue[head & self._mask] = slot
        self._head = head + 1
        words = self._words
        words[W_HEAD] = head + 1
        asleep = words[W_SLEEPING]
        if asleep and asleep != self._nudged:  # once per sleep of the notary
            self._nudged = asleep
            self._nudge()
        return head

    def is_acked(self, completion: int) -> bool:
        """Whether the leaf of this completion is on the disk."""
        return bool(self._words[W_ACKED] > completion)

    def await_ack(self, *, waiting: bool) -> None:
        """Tell the notary whether an ack must be announced by a byte on the socket pair."""
        self._words[W_WAITING] = int(waiting)

    def is_recordable(self, now_mono_ns: int) -> bool:
        """Whether authenticated traffic would get a slot now; for readiness."""
        words = self._words
        alive = now_mono_ns - words[W_HEARTBEAT] <= MAX_SILENCE_NS and words[W_LEVEL] != LEVEL_FULL
        return bool(alive and (self._free or words[W_ACKED] != self._reclaimed))

    @property
    def slots(self) -> int:
        return len(self._open)

    @property
    def free_slots(self) -> int:
        """Slots that a take could get now, the reserve included."""
        return len(self._free) + int(self._words[W_ACKED]) - self._reclaimed

    @property
    def level(self) -> int:
        """Disk headroom as the notary sees it: LEVEL_OK, LEVEL_LOW or LEVEL_FULL."""
        return int(self._words[W_LEVEL])

    def close(self) -> None:
        """Unmap. The file stays: the notary deletes it once everything in it is in the log."""
        self.mapping.close()

    def _reclaim(self, acked: int) -> None:
        queue, mask, free = self._queue, self._mask, self._free
        for completion in range(self._reclaimed, acked):
            free.append(queue[completion & mask])
        self._reclaimed = acked
