"""A writer's mapped slots, the notary's half: read what is complete, acknowledge it, close what a dead writer left open.

Exactly once, through kill -9 of the notary at any instruction, by three words of the header:

1. *arm*: before a batch goes to the log, write which completions it holds and the index its first leaf will get.
2. *acknowledge*: after the log has it, move `acked`.
3. *resume*: the next notary looks at that index. If the leaf there is the one the ring would give now, the whole
   batch is in the log (an append is all or none) and is acknowledged without being written again.

That reasoning holds while the page cache lives. After a reboot (another boot id) ring and log may be from different
moments; then `finish` is told which sequences were found in the log itself.

The writer is not trusted to be sane: a stolen worker may write anything into its own ring. Counters and indices are
checked, and a ring that makes no sense is UnsafeState for this ring alone.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from isal.isal_zlib import crc32

from edge.audit import io_ring
from edge.audit.record import UNKNOWN_SUFFIX, rejection, seal, stamp
from edge.audit.ring import (
    COMPLETE,
    MAGIC,
    NAME_MAX,
    NAME_OFFSET,
    PAGE,
    PREFIX_ROOM,
    TAKEN,
    VERSION,
    W_ACKED,
    W_BATCH_COUNT,
    W_BATCH_FIRST,
    W_BATCH_FROM,
    W_BOOT,
    W_HEAD,
    W_HEARTBEAT,
    W_INSTANCE,
    W_LEVEL,
    W_MAGIC,
    W_NAME,
    W_SLEEPING,
    W_SLOT_BYTES,
    W_SLOTS,
    W_VERSION,
    W_WAITING,
    geometry,
)
from edge.errors import UnsafeState


class RingReader:
    """One attached ring. Owned by the notary."""

    def __init__(self, mapping: io_ring.Mapping, writer: str) -> None:
        """`writer` is who the supervisor says it is; it must be the name in the file.

        Raises: UnsafeState when the file is not a finished ring of that writer.
        """
        self.mapping = mapping
        self.writer = writer
        self._map = mapping.map
        size = len(self._map)
        if size < 2 * PAGE:
            raise UnsafeState(f"{mapping.path}: too short for a ring")
        self._words = words = mapping.words("Q", 0, PAGE)
        self._slots, self._slot_bytes = slots, slot_bytes = int(words[W_SLOTS]), int(words[W_SLOT_BYTES])
        if words[W_MAGIC] != MAGIC or words[W_VERSION] != VERSION:
            raise UnsafeState(f"{mapping.path}: not a finished ring of version {VERSION}")
        if slots < 8 or slots & (slots - 1) or slot_bytes < 512 or geometry(slots, slot_bytes)[1] != size:
            raise UnsafeState(f"{mapping.path}: the shape in its header does not fit its {size} bytes")
        name = self._map[NAME_OFFSET : NAME_OFFSET + min(words[W_NAME], NAME_MAX)]
        if name != writer.encode("ascii"):
            raise UnsafeState(f"{mapping.path}: belongs to {name!r}, announced for {writer!r}")
        self._queue = mapping.words("I", PAGE, PAGE + 4 * slots)
        self._base = geometry(slots, slot_bytes)[0]
        self.run = f"{writer}.{words[W_INSTANCE]:016x}"
        """The writer and its run: what its leaves say in `gateway.writer`."""
        self.stamp = stamp(self.run)
        self._may_pki = writer == "ca"
        self.acked = int(words[W_ACKED])
        self.pending()

    @classmethod
    def attach(cls, path: Path, writer: str) -> RingReader:
        """Map the ring at `path`. Raises: UnsafeState; FileNotFoundError when there is none."""
        mapping = io_ring.attach(path)
        try:
            return cls(mapping, writer)
        except UnsafeState:
            mapping.close()
            raise

    def is_of_boot(self, boot_id: bytes) -> bool:
        """Whether the ring was made since the machine was started."""
        return self._map[W_BOOT * 8 : W_BOOT * 8 + 16] == boot_id

    def pending(self) -> int:
        """Completions not yet acknowledged. Raises: UnsafeState when the counters make no sense."""
        count = int(self._words[W_HEAD]) - self.acked
        if not 0 <= count <= self._slots:
            raise UnsafeState(f"{self.mapping.path}: {count} completions pending in {self._slots} slots")
        return count

    def read(self, limit: int) -> list[bytes]:
        """The next completions in order, at most `limit`, each as its leaf; they stay pending until `acknowledge`.

        A record its writer must not write gives a leaf that says so: it, too, appears exactly once.

        Stops early at one whose bytes are not all visible yet (another core's stores may arrive out of order).

        Raises: UnsafeState as `pending`, or for a queue entry or length outside the ring.
        """
        count = min(self.pending(), limit)
        if not count:
            return []
        queue, mask, slots, slot_bytes, base = self._queue, self._slots - 1, self._slots, self._slot_bytes, self._base
        mapped, head, run, may_pki = self._map, self.stamp, self.run, self._may_pki
        read_taken, read_complete = TAKEN.unpack_from, COMPLETE.unpack_from  # bound once: this loop is on every request
        leaves: list[bytes] = []
        for completion in range(self.acked, self.acked + count):
            slot = queue[completion & mask]
            if slot >= slots:
                raise UnsafeState(f"{self.mapping.path}: completion {completion} names slot {slot} of {slots}")
            start = base + slot * slot_bytes + 16
            sequence, prefix_bytes, _ = read_taken(mapped, start - 16)
            end = start + prefix_bytes
            if prefix_bytes > slot_bytes - PREFIX_ROOM:
                break
            again, number, suffix_bytes, crc = read_complete(mapped, end)
            if again != sequence or number != completion or prefix_bytes + suffix_bytes > slot_bytes - 40:
                break
            prefix = mapped[start:end]
            suffix = mapped[end + 24 : end + 24 + suffix_bytes]
            if crc32(suffix, crc32(prefix)) != crc:
                break
            leaf = seal(head, run, prefix, suffix, may_pki=may_pki)
            leaves.append(rejection(head, sequence) if leaf is None else leaf)
        return leaves

    def arm(self, first: int, count: int) -> None:
        """The next `count` completions are about to be appended, the first of them as leaf `first` of the log."""
        words = self._words
        words[W_BATCH_COUNT] = 0
        words[W_BATCH_FROM] = self.acked
        words[W_BATCH_FIRST] = first
        words[W_BATCH_COUNT] = count  # last: a batch half described is no batch

    def acknowledge(self, count: int) -> bool:
        """`count` more completions are durable; says whether the writer waits to hear it."""
        self.acked += count
        self._words[W_ACKED] = self.acked
        return bool(self._words[W_WAITING])

    def armed(self) -> tuple[int, int] | None:
        """(index of the first leaf, count) of the batch a killed notary was about to append or had just appended."""
        words = self._words
        if words[W_BATCH_FROM] != self.acked or not words[W_BATCH_COUNT]:
            return None
        return int(words[W_BATCH_FIRST]), min(int(words[W_BATCH_COUNT]), self.pending())

    def resume(self, landed: int) -> None:
        """Close that batch: its first `landed` completions are in the log."""
        self._words[W_BATCH_COUNT] = 0
        if landed:
            self.acknowledge(landed)

    def finish(self, written: Collection[int] = ()) -> int:
        """Close all slots of a dead writer: queue what it completed without queuing, complete the rest as unknown.

        Call it only when the writer is gone; the second time it changes nothing. `written`: sequences that are in the
        log already (asked for after a reboot only); they are passed over. Returns how many slots became unknown.
        """
        queued = self._compact(written)
        unqueued: list[tuple[int, int]] = []
        still_open: list[tuple[int, int]] = []
        for slot in range(self._slots):
            sequence = self._taken(slot)
            if sequence is None or slot in queued or sequence in written:
                continue
            completion = self._completion(slot)
            if completion is None:
                still_open.append((sequence, slot))
            elif completion >= self._words[W_HEAD]:  # the others were acknowledged long ago
                unqueued.append((completion, slot))
        for _, slot in sorted(unqueued):
            self._enqueue(slot)
        for sequence, slot in sorted(still_open):
            self._complete_unknown(slot, sequence)
            self._enqueue(slot)
        return len(still_open)

    def has_open(self) -> bool:
        """Whether a slot is taken and not completed, or something is pending."""
        if self.pending():
            return True
        return any(self._taken(slot) is not None and self._completion(slot) is None for slot in range(self._slots))

    def last_sequence(self) -> int:
        """The highest sequence the writer used."""
        return max((self._taken(slot) or 0 for slot in range(self._slots)), default=0)

    def beat(self, now_mono_ns: int) -> None:
        """Tell the writer that it is being read."""
        self._words[W_HEARTBEAT] = now_mono_ns

    def set_level(self, level: int) -> None:
        """Tell the writer how much disk is left (LEVEL_OK, LEVEL_LOW, LEVEL_FULL)."""
        self._words[W_LEVEL] = level

    def set_sleeping(self, epoch: int) -> None:
        """Ask for a nudge at the next completion (a number never used before), or 0: none is needed."""
        self._words[W_SLEEPING] = epoch

    def close(self) -> None:
        self.mapping.close()

    def _taken(self, slot: int) -> int | None:
        """Sequence of the slot's last use, None when it has none or the writer died while taking it."""
        start = self._base + slot * self._slot_bytes
        sequence, prefix_bytes, crc = TAKEN.unpack_from(self._map, start)
        if not sequence or prefix_bytes > self._slot_bytes - PREFIX_ROOM:
            return None
        return int(sequence) if crc32(self._map[start + 16 : start + 16 + prefix_bytes]) == crc else None

    def _completion(self, slot: int) -> int | None:
        """Number under which a taken slot was completed, None when it is open."""
        start = self._base + slot * self._slot_bytes
        sequence, prefix_bytes, crc = TAKEN.unpack_from(self._map, start)
        end = start + 16 + prefix_bytes
        again, completion, suffix_bytes, whole_crc = COMPLETE.unpack_from(self._map, end)
        if again != sequence or prefix_bytes + suffix_bytes > self._slot_bytes - 40:
            return None
        suffix = self._map[end + 24 : end + 24 + suffix_bytes]
        return int(completion) if crc32(suffix, crc) == whole_crc else None

    def _compact(self, written: Collection[int]) -> set[int]:
        """Rebuild the queue from its valid entries and return their slots.

        Only after a reboot is there anything to leave out: entries whose slot never reached the disk, or is in the log.
        Elsewhere every store repeats what is there, so a kill in the middle does no harm.
        """
        first, head = self.acked, int(self._words[W_HEAD])
        slots = [int(self._queue[n & (self._slots - 1)]) for n in range(first, head)]
        place = first
        kept: set[int] = set()
        for number, slot in enumerate(slots, first):
            sequence = self._taken(slot) if slot < self._slots else None
            if sequence is None or sequence in written or self._completion(slot) != number:
                continue
            self._put(slot, place)
            kept.add(slot)
            place += 1
        self._words[W_HEAD] = place
        return kept

    def _complete_unknown(self, slot: int, sequence: int) -> None:
        start = self._base + slot * self._slot_bytes
        _, prefix_bytes, crc = TAKEN.unpack_from(self._map, start)
        end = start + 16 + prefix_bytes
        suffix = UNKNOWN_SUFFIX
        whole = COMPLETE.pack(sequence, self._words[W_HEAD], len(suffix), crc32(suffix, crc)) + suffix
        self._map[end : end + len(whole)] = whole

    def _enqueue(self, slot: int) -> None:
        head = int(self._words[W_HEAD])
        self._put(slot, head)
        self._words[W_HEAD] = head + 1

    def _put(self, slot: int, number: int) -> None:
        """Make a completed slot entry `number` of the queue."""
        start = self._base + slot * self._slot_bytes
        end = start + 16 + TAKEN.unpack_from(self._map, start)[1]
        sequence, _, suffix_bytes, crc = COMPLETE.unpack_from(self._map, end)
        COMPLETE.pack_into(self._map, end, sequence, number, suffix_bytes, crc)
        self._queue[number & (self._slots - 1)] = slot
