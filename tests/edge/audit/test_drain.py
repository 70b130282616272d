"""The notary's half of a ring: what a kill can leave in it, and what a stolen writer can."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edge.audit.drain import RingReader
from edge.audit.io_ring import Mapping, attach, boot_id
from edge.audit.ring import (
    PAGE,
    PREFIX_ROOM,
    TAKEN,
    W_ACKED,
    W_BATCH_COUNT,
    W_BATCH_FROM,
    W_BOOT,
    W_HEAD,
    W_MAGIC,
    W_NAME,
    W_SLOT_BYTES,
    W_SLOTS,
    W_VERSION,
    Ring,
    geometry,
)
from edge.errors import UnsafeState

SLOTS, SLOT_BYTES, NOW = 8, 512, 10**12
BASE = geometry(SLOTS, SLOT_BYTES)[0]
BODY = b'"event.action":"request","event.sequence":%d'


class Case:
    """A ring, its reader, and a third mapping through which a test plays kill or thief."""

    def __init__(self, path: Path, writer: str = "worker-0") -> None:
        self.path = path
        self.ring = Ring.create(path, writer, slots=SLOTS, slot_bytes=SLOT_BYTES)
        self.raw: Mapping = attach(path)
        self.words = self.raw.words("Q", 0, PAGE)
        self.queue = self.raw.words("I", PAGE, PAGE + 4 * SLOTS)
        self.reader = RingReader.attach(path, writer)
        self.reader.beat(NOW)

    def take(self, body: bytes = BODY) -> int:
        return self.ring.take(body % self.ring.sequence if b"%d" in body else body, NOW, reserved=True)

    def put(self, body: bytes = BODY) -> int:
        slot = self.take(body)
        self.ring.complete(slot, b',"event.outcome":"success"}')
        return slot

    def again(self) -> RingReader:
        """The reader of the next notary."""
        self.reader.close()
        self.reader = RingReader.attach(self.path, self.ring.writer)
        return self.reader

    def outcomes(self) -> list[tuple[int, str]]:
        """(sequence, outcome) of all that is pending; acknowledges it."""
        found = [json.loads(leaf) for leaf in self.reader.read(SLOTS)]
        self.reader.acknowledge(len(found))
        return [(leaf["event.sequence"], leaf["event.outcome"]) for leaf in found]

    def close(self) -> None:
        for thing in (self.ring, self.reader, self.raw):
            thing.close()


@pytest.fixture
def case(tmp_path: Path) -> Iterator[Case]:
    case = Case(tmp_path / "w.ring")
    yield case
    case.close()


def test_open_slots_of_a_dead_writer_become_unknown_in_the_order_they_were_taken(case: Case) -> None:
    first = case.take()
    case.put()
    third = case.take()
    assert first != third
    assert case.reader.finish() == 2
    assert case.outcomes() == [(2, "success"), (1, "unknown"), (3, "unknown")]


def test_finishing_twice_changes_nothing(case: Case) -> None:
    case.take()
    case.put()
    assert case.reader.finish() == 1
    assert case.again().finish() == 0
    assert case.outcomes() == [(2, "success"), (1, "unknown")]
    assert case.reader.finish() == 0
    assert case.outcomes() == []


def test_kill_between_completion_and_its_queue_entry_keeps_the_outcome(case: Case) -> None:
    case.put()
    case.put()
    case.words[W_HEAD] = 1  # the last store of the second one never happened
    assert case.reader.finish() == 0
    assert case.outcomes() == [(1, "success"), (2, "success")]


def test_kill_in_the_middle_of_a_suffix_is_an_unknown_outcome(case: Case) -> None:
    slot = case.put()
    case.words[W_HEAD] = 0
    end = BASE + slot * SLOT_BYTES + 16 + len(BODY % 1)
    case.raw.map[end + 24 + 5 : end + 24 + 9] = b"\0\0\0\0"
    assert case.reader.finish() == 1
    assert case.outcomes() == [(1, "unknown")]


def test_kill_in_the_middle_of_a_prefix_admitted_nothing(case: Case) -> None:
    slot = case.take()
    start = BASE + slot * SLOT_BYTES
    case.raw.map[start + 20 : start + 24] = b"\0\0\0\0"
    assert case.reader.finish() == 0
    assert case.outcomes() == []


def test_slot_used_again_after_an_ack_does_not_bring_its_old_record_back(case: Case) -> None:
    for _ in range(3 * SLOTS):
        case.put()
        case.outcomes()
    slot = case.take()
    assert case.reader.finish() == 1
    assert case.outcomes() == [(3 * SLOTS + 1, "unknown")]
    assert slot < SLOTS


def test_bytes_that_are_not_all_visible_yet_are_waited_for(case: Case) -> None:
    case.put()
    slot = case.put()
    at = BASE + slot * SLOT_BYTES + 20
    kept = case.raw.map[at]
    case.raw.map[at] = kept ^ 1
    assert len(case.reader.read(SLOTS)) == 1
    case.raw.map[at] = kept
    assert len(case.reader.read(SLOTS)) == 2


def test_queue_entry_that_is_not_visible_yet_is_waited_for(case: Case) -> None:
    case.put()
    case.outcomes()
    case.put()
    case.queue[1] = (case.queue[1] + 1) % SLOTS
    assert case.reader.read(SLOTS) == []


def test_batch_of_a_killed_notary_is_known_to_its_successor(case: Case) -> None:
    case.put()
    case.put()
    case.put()
    case.reader.arm(100, 2)
    reader = case.again()
    assert reader.armed() == (100, 2)
    reader.resume(2)
    assert case.outcomes() == [(3, "success")]
    assert case.again().armed() is None


def test_batch_that_did_not_land_is_read_again(case: Case) -> None:
    case.put()
    case.reader.arm(100, 1)
    reader = case.again()
    reader.resume(0)
    assert reader.armed() is None
    assert case.outcomes() == [(1, "success")]


def test_acknowledged_batch_needs_no_resuming(case: Case) -> None:
    case.put()
    case.reader.arm(100, 1)
    case.reader.acknowledge(1)
    assert case.again().armed() is None


@pytest.mark.parametrize(("word", "value"), [(W_BATCH_FROM, 7), (W_BATCH_COUNT, 0)])
def test_batch_half_described_is_no_batch(case: Case, word: int, value: int) -> None:
    case.put()
    case.reader.arm(100, 1)
    case.words[word] = value
    assert case.again().armed() is None


def test_after_a_reboot_what_the_log_has_is_passed_over(case: Case) -> None:
    for _ in range(3):
        case.put()
    case.take()
    case.take()
    case.raw.map[W_BOOT * 8 : W_BOOT * 8 + 16] = bytes(16)
    assert not case.reader.is_of_boot(boot_id())
    assert case.reader.finish(written={1, 3, 4}) == 1
    assert case.outcomes() == [(2, "success"), (5, "unknown")]


def test_after_a_reboot_torn_entries_in_the_middle_do_not_hide_the_later_ones(case: Case) -> None:
    slots = [case.put() for _ in range(4)]
    case.raw.map[BASE + slots[1] * SLOT_BYTES + 20] ^= 1
    assert case.reader.finish() == 0
    assert case.outcomes() == [(1, "success"), (3, "success"), (4, "success")]


def test_has_open_sees_what_is_taken_or_pending(case: Case) -> None:
    assert not case.reader.has_open()
    case.put()
    assert case.reader.has_open()
    case.outcomes()
    assert not case.reader.has_open()
    case.take()
    assert case.reader.has_open()


def test_last_sequence_is_the_highest_used(case: Case) -> None:
    assert case.reader.last_sequence() == 0
    case.put()
    case.take()
    assert case.reader.last_sequence() == 2


@pytest.mark.parametrize(
    "body",
    [
        b'"event.action":"pki.issued"',
        b'"event.id":"1"',
        b'"event.action":"request","gateway.writer":"ca.1"',
        b"\xff\x00",
    ],
)
def test_forbidden_record_of_a_stolen_worker_becomes_a_leaf_that_says_so(case: Case, body: bytes) -> None:
    case.put(body)
    assert case.reader.read(9) == case.reader.read(9)
    (leaf,) = (json.loads(raw) for raw in case.reader.read(9))
    assert (leaf["event.action"], leaf["event.sequence"]) == ("log.rejected", 1)
    assert leaf["gateway.writer"].startswith("worker-0.")


def test_only_the_writer_named_ca_may_speak_of_certificates(tmp_path: Path) -> None:
    case = Case(tmp_path / "ca.ring", "ca")
    case.put(b'"event.action":"pki.issued"')
    assert json.loads(case.reader.read(1)[0])["event.action"] == "pki.issued"
    case.close()


@pytest.mark.parametrize(
    "spoil",
    [
        lambda case: case.words.__setitem__(W_HEAD, SLOTS + 2),
        lambda case: case.words.__setitem__(W_HEAD, 1 << 63),
        lambda case: case.queue.__setitem__(0, SLOTS),
        lambda case: case.queue.__setitem__(0, 0xFFFFFFFF),
    ],
)
def test_counters_and_indices_that_make_no_sense_break_this_ring_only(
    case: Case, spoil: Callable[[Case], None]
) -> None:
    case.put()
    spoil(case)
    with pytest.raises(UnsafeState):
        case.reader.read(9)


@pytest.mark.parametrize("length", [SLOT_BYTES, 0xFFFFFFFF, SLOT_BYTES - PREFIX_ROOM + 1])
def test_length_outside_the_slot_is_never_followed(case: Case, length: int) -> None:
    slot = case.put()
    TAKEN.pack_into(case.raw.map, BASE + slot * SLOT_BYTES, 1, length, 0)
    assert case.reader.read(9) == []
    assert case.reader.finish() == 0
    assert case.outcomes() == []


@pytest.mark.parametrize(
    ("word", "value"),
    [
        (W_MAGIC, 0),
        (W_VERSION, 2),
        (W_SLOTS, 16),
        (W_SLOTS, 7),
        (W_SLOTS, 0),
        (W_SLOT_BYTES, 1024),
        (W_SLOT_BYTES, 0),
        (W_NAME, 3),
        (W_NAME, 1 << 60),
        (W_ACKED, 1),
    ],
)
def test_header_that_does_not_fit_is_refused(case: Case, word: int, value: int) -> None:
    case.words[word] = value
    with pytest.raises(UnsafeState):
        RingReader.attach(case.path, "worker-0")


def test_ring_of_another_writer_is_refused(case: Case) -> None:
    with pytest.raises(UnsafeState, match="announced for 'ca'"):
        RingReader.attach(case.path, "ca")


def test_file_too_short_for_a_ring_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.ring"
    path.write_bytes(b"x" * 100)
    path.chmod(0o600)
    with pytest.raises(UnsafeState, match="too short"):
        RingReader.attach(path, "w")
