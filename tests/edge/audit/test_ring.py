"""The writer's half of a ring, and both halves against a naive model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.audit.drain import RingReader
from edge.audit.ring import LEVEL_FULL, LEVEL_LOW, MAX_SILENCE_NS, PREFIX_ROOM, Ring
from edge.errors import NotRecordable, UnsafeState

SLOTS = 16
NOW = 10**12
BODY = b'"event.action":"request","event.sequence":%d'


class Pair:
    """A ring and its reader, both in this process; the notary has just beaten."""

    def __init__(self, directory: Path, name: str = "w.ring") -> None:
        self.nudges = 0
        self.path = directory / name
        self.ring = Ring.create(self.path, "worker-0", slots=SLOTS, slot_bytes=512, nudge=self._nudged)
        self.reader = RingReader.attach(self.path, "worker-0")
        self.reader.beat(NOW)

    def _nudged(self) -> None:
        self.nudges += 1

    def take(self, *, reserved: bool = True) -> int:
        return self.ring.take(BODY % self.ring.sequence, NOW, reserved=reserved)

    def drain(self) -> int:
        count = len(self.reader.read(SLOTS))
        self.reader.acknowledge(count)
        return count

    def close(self) -> None:
        self.ring.close()
        self.reader.close()


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    pair = Pair(tmp_path)
    yield pair
    pair.close()


def test_record_comes_out_as_prefix_and_suffix_behind_its_writer(pair: Pair) -> None:
    slot = pair.take()
    completion = pair.ring.complete(slot, b',"count":1}')
    assert pair.reader.read(9) == [pair.reader.stamp + BODY % 1 + b',"count":1}']
    assert not pair.ring.is_acked(completion)
    pair.drain()
    assert pair.ring.is_acked(completion)
    assert pair.reader.read(9) == []


def test_records_come_out_in_the_order_of_completion(pair: Pair) -> None:
    first, second = pair.take(), pair.take()
    pair.ring.complete(second, b"}")
    pair.ring.complete(first, b"}")
    assert [leaf[len(pair.reader.stamp) :] for leaf in pair.reader.read(9)] == [BODY % 2 + b"}", BODY % 1 + b"}"]


def test_silent_notary_means_that_nothing_is_admitted(pair: Pair) -> None:
    pair.ring.take(BODY % 1, NOW + MAX_SILENCE_NS, reserved=True)
    with pytest.raises(NotRecordable, match="notary-silent"):
        pair.ring.take(BODY % 2, NOW + MAX_SILENCE_NS + 1, reserved=True)
    assert not pair.ring.is_recordable(NOW + MAX_SILENCE_NS + 1)


def test_ring_without_a_notary_admits_nothing(tmp_path: Path) -> None:
    ring = Ring.create(tmp_path / "x.ring", "w", slots=8, slot_bytes=512)
    with pytest.raises(NotRecordable):
        ring.take(b"", NOW, reserved=True)
    ring.close()


def test_last_slots_are_kept_for_authenticated_traffic(pair: Pair) -> None:
    for _ in range(SLOTS - 2):
        pair.take(reserved=False)
    with pytest.raises(NotRecordable, match="ring-full"):
        pair.take(reserved=False)
    pair.take()
    pair.take()
    with pytest.raises(NotRecordable, match="ring-full"):
        pair.take()
    assert not pair.ring.is_recordable(NOW)


def test_refused_take_uses_no_sequence(pair: Pair) -> None:
    slots = [pair.take() for _ in range(SLOTS)]
    with pytest.raises(NotRecordable):
        pair.take()
    pair.ring.complete(slots[0], b"}")
    pair.drain()
    assert pair.ring.is_recordable(NOW)
    pair.take()
    assert pair.ring.sequence == SLOTS + 2


def test_completed_slot_is_not_free_before_it_is_acknowledged(pair: Pair) -> None:
    for _ in range(SLOTS):
        pair.ring.complete(pair.take(), b"}")
    with pytest.raises(NotRecordable, match="ring-full"):
        pair.take()


@pytest.mark.parametrize(
    ("level", "reserved", "admits"),
    [(LEVEL_LOW, True, True), (LEVEL_LOW, False, False), (LEVEL_FULL, True, False), (LEVEL_FULL, False, False)],
)
def test_short_disk_admits_authenticated_traffic_only_and_then_nothing(
    pair: Pair, level: int, reserved: bool, admits: bool
) -> None:
    pair.reader.set_level(level)
    assert pair.ring.level == level
    if admits:
        assert pair.take(reserved=reserved) >= 0
    else:
        with pytest.raises(NotRecordable, match="disk-headroom"):
            pair.take(reserved=reserved)


def test_prefix_must_leave_room_for_the_unknown_outcome(pair: Pair) -> None:
    pair.ring.take(b"x" * (512 - PREFIX_ROOM), NOW, reserved=True)
    with pytest.raises(NotRecordable, match="record-too-long"):
        pair.ring.take(b"x" * (512 - PREFIX_ROOM + 1), NOW, reserved=True)


def test_suffix_that_does_not_fit_leaves_the_slot_open(pair: Pair) -> None:
    slot = pair.take()
    with pytest.raises(NotRecordable, match="record-too-long"):
        pair.ring.complete(slot, b"x" * 512)
    assert pair.ring.complete(slot, b"}") == 0


def test_slot_is_completed_once(pair: Pair) -> None:
    slot = pair.take()
    pair.ring.complete(slot, b"}")
    with pytest.raises(ValueError, match="not taken"):
        pair.ring.complete(slot, b"}")
    with pytest.raises(ValueError, match="not taken"):
        pair.ring.complete(slot + 1, b"}")
    assert pair.reader.pending() == 1


def test_sleeping_notary_is_nudged_once_per_sleep(pair: Pair) -> None:
    pair.ring.complete(pair.take(), b"}")
    assert pair.nudges == 0
    pair.reader.set_sleeping(5)
    pair.ring.complete(pair.take(), b"}")
    pair.ring.complete(pair.take(), b"}")
    assert pair.nudges == 1
    pair.reader.set_sleeping(6)
    pair.ring.complete(pair.take(), b"}")
    assert pair.nudges == 2


def test_wish_to_hear_of_the_ack_reaches_the_notary(pair: Pair) -> None:
    pair.ring.complete(pair.take(), b"}")
    assert pair.reader.acknowledge(1) is False
    pair.ring.await_ack(waiting=True)
    pair.ring.complete(pair.take(), b"}")
    assert pair.reader.acknowledge(1) is True


@pytest.mark.parametrize(
    ("writer", "slots", "slot_bytes"),
    [
        ("", 16, 512),
        ("a.b", 16, 512),
        ("a" * 65, 16, 512),
        ("w", 15, 512),
        ("w", 4, 512),
        ("w", 16, 500),
        ("w", 16, 64),
    ],
)
def test_bad_shape_or_name_is_refused(tmp_path: Path, writer: str, slots: int, slot_bytes: int) -> None:
    with pytest.raises(ValueError):
        Ring.create(tmp_path / "x.ring", writer, slots=slots, slot_bytes=slot_bytes)


def test_ring_is_never_made_over_another(pair: Pair) -> None:
    with pytest.raises(UnsafeState, match="is an old one left"):
        Ring.create(pair.path, "worker-0")


@settings(max_examples=25, deadline=None)
@given(steps=st.lists(st.sampled_from("ttttcccdr"), max_size=120), data=st.data())
def test_ring_behaves_as_a_queue_of_what_was_completed(
    tmp_path_factory: pytest.TempPathFactory, steps: list[str], data: st.DataObject
) -> None:
    """Model: open slots, a queue of completed bodies, and what the log has."""
    pair = Pair(tmp_path_factory.mktemp("ring"))
    still_open: list[tuple[int, bytes]] = []
    expected: list[bytes] = []
    log: list[bytes] = []
    for step in steps:
        if step == "t":
            try:
                body = BODY % pair.ring.sequence
                still_open.append((pair.take(), body))
            except NotRecordable:
                assert len(still_open) + len(expected) - len(log) == SLOTS
        elif step == "c" and still_open:
            slot, body = still_open.pop(data.draw(st.integers(0, len(still_open) - 1)))
            pair.ring.complete(slot, b"}")
            expected.append(pair.reader.stamp + body + b"}")
        elif step == "d":
            batch = pair.reader.read(data.draw(st.integers(0, SLOTS)))
            pair.reader.acknowledge(len(batch))
            log += batch
        elif step == "r":  # the notary is replaced
            pair.reader.close()
            pair.reader = RingReader.attach(pair.path, "worker-0")
    unknown = pair.reader.finish()
    log += pair.reader.read(SLOTS)
    assert log == expected + [pair.reader.stamp + body + b',"event.outcome":"unknown"}' for _, body in still_open]
    assert unknown == len(still_open)
    pair.close()
