"""The notary as a real process, told what to do as the supervisor does; and the kill campaign at small counts."""

from __future__ import annotations

import os
import re
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edge.audit import io_ring, notary
from edge.audit.drain import RingReader
from edge.audit.place import NotarySettings
from edge.audit.ring import LEVEL_FULL, LEVEL_LOW, PAGE, W_BOOT, W_HEAD, W_HEARTBEAT, W_SLEEPING, Ring
from edge.audit.verify import verify
from edge.errors import UnsafeState
from pki.tlog.io_log import LogWriter, open_signer
from pki.tlog.note import Verifier
from tests.edge.audit import kill
from tests.edge.audit.kill import NotaryProcess, leaves, prefix

DONE = b',"event.outcome":"success"}'


class Desk:
    """A notary and one writer in this process."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self.settings = kill.settings(state)
        self.notary = NotaryProcess(self.settings)
        self.mine, self.its = socket.socketpair()
        self.ring, self.path = self.new_ring("worker-0")
        self.raw = io_ring.attach(self.path)
        self.words = self.raw.words("Q", 0, PAGE)

    def new_ring(self, writer: str) -> tuple[Ring, Path]:
        path = io_ring.ring_path(self.state, writer)
        return Ring.create(path, writer, slots=64, slot_bytes=1024, nudge=io_ring.Nudge(self.mine)), path

    def put(self, record_id: str, ring: Ring | None = None) -> int:
        ring = ring or self.ring
        return ring.complete(self.take(record_id, ring), DONE)

    def take(self, record_id: str, ring: Ring | None = None) -> int:
        ring = ring or self.ring
        return ring.take(prefix(ring, record_id), time.monotonic_ns(), reserved=True)

    def until_acked(self, completion: int) -> None:
        until(lambda: self.ring.is_acked(completion))

    def restart(self) -> None:
        self.notary.kill()
        self.notary = NotaryProcess(self.settings)

    def requests(self) -> list[tuple[object, object]]:
        return [
            (leaf["event.id"], leaf["event.outcome"])
            for leaf in leaves(self.state)
            if leaf["event.action"] == "request"
        ]

    def close(self) -> None:
        if self.notary.socket.fileno() >= 0:
            self.notary.kill()
        for end in (self.mine, self.its):
            end.close()
        self.ring.close()
        self.raw.close()


def until(is_so: Callable[[], bool]) -> None:
    """Look again and again for at most five seconds."""
    end = time.monotonic() + 5
    while not is_so():
        assert time.monotonic() < end, "it never happened"
        os.sched_yield()


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(tmp_path)
    yield desk
    desk.close()


def test_record_becomes_a_durable_leaf_of_a_log_that_verifies(desk: Desk) -> None:
    assert desk.notary.attach(desk.path, "worker-0", desk.its) == {"attached": "worker-0"}
    desk.until_acked(desk.put("a"))
    size = desk.notary.seal()
    assert desk.requests() == [("a", "success")]
    assert not desk.path.exists()
    key = Verifier.parse((desk.state / "log" / "verifier.key").read_text().strip())
    report = verify(desk.state / "log", key)
    assert (report.ok, report.size) == (True, size)


def test_sleeping_notary_is_woken_by_a_record(desk: Desk) -> None:
    desk.notary.attach(desk.path, "worker-0", desk.its)
    waited = []
    for n in range(5):
        until(lambda: bool(desk.words[W_SLEEPING]))  # the next heartbeat is 40 ms away
        begun = time.monotonic_ns()
        desk.until_acked(desk.put(str(n)))
        waited.append(time.monotonic_ns() - begun)
    assert min(waited) < notary.BEAT_NS // 2


def test_writer_without_a_socket_is_read_at_the_heartbeat(desk: Desk) -> None:
    ring, path = desk.new_ring("supervisor")
    desk.notary.attach(path, "supervisor")
    desk.put("a", ring)
    until(lambda: ring.is_acked(0))
    ring.close()


def test_heartbeat_goes_on_without_work_and_ends_with_the_notary(desk: Desk) -> None:
    assert not desk.ring.is_recordable(time.monotonic_ns())
    desk.notary.attach(desk.path, "worker-0", desk.its)
    first = desk.words[W_HEARTBEAT]
    until(lambda: desk.words[W_HEARTBEAT] > first + 2 * notary.BEAT_NS)
    desk.notary.kill()
    assert desk.ring.is_recordable(time.monotonic_ns())
    assert not desk.ring.is_recordable(time.monotonic_ns() + 2 * 10**9)


def test_dead_writer_leaves_unknown_outcomes_and_no_ring(desk: Desk) -> None:
    desk.notary.attach(desk.path, "worker-0", desk.its)
    desk.take("open")
    desk.put("done")
    assert desk.notary.ask({"gone": "worker-0"}) == {"recovered": "worker-0", "unknown": 1}
    desk.notary.seal()
    assert desk.requests() == [("done", "success"), ("open", "unknown")]
    recovered = leaves(desk.state)[-1]
    assert (recovered["event.action"], recovered["log.last_sequence"], recovered["log.unknown"]) == (
        "log.recovered",
        2,
        1,
    )
    assert not desk.path.exists()


def test_ring_of_a_dead_gateway_is_recovered_at_the_next_start(desk: Desk) -> None:
    desk.notary.attach(desk.path, "worker-0", desk.its)
    desk.take("open")
    desk.restart()
    for writer, path in io_ring.leftovers(desk.state):
        desk.notary.attach(path, writer)
        assert desk.notary.ask({"gone": writer}) == {"recovered": "worker-0", "unknown": 1}
    desk.notary.seal()
    assert desk.requests() == [("open", "unknown")]


def test_supervisor_may_repeat_what_a_killed_notary_had_done_already(desk: Desk) -> None:
    desk.notary.attach(desk.path, "worker-0", desk.its)
    desk.notary.ask({"gone": "worker-0"})
    desk.restart()
    assert desk.notary.attach(desk.path, "worker-0", desk.its) == {"attached": "worker-0", "missing": True}
    assert desk.notary.ask({"gone": "worker-0"}) == {"recovered": "worker-0", "unknown": 0}


def test_batch_that_another_batch_overtook_is_not_taken_for_landed(desk: Desk) -> None:
    """A notary armed a batch and was killed before the append; its successor wrote others first, and died, too."""
    desk.notary.attach(desk.path, "worker-0", desk.its)
    desk.until_acked(desk.put("a"))
    desk.notary.kill()
    desk.put("b")
    reader = RingReader.attach(desk.path, "worker-0")
    reader.arm(1, 1)
    reader.close()
    desk.notary = NotaryProcess(desk.settings)
    ring, path = desk.new_ring("worker-1")
    desk.notary.attach(path, "worker-1")
    desk.put("c", ring)
    until(lambda: ring.is_acked(0))
    desk.restart()
    desk.notary.attach(desk.path, "worker-0", desk.its)
    desk.notary.seal()
    assert sorted(desk.requests()) == [("a", "success"), ("b", "success"), ("c", "success")]
    ring.close()


def test_batch_that_landed_before_the_kill_is_not_written_again(desk: Desk) -> None:
    desk.notary.attach(desk.path, "worker-0", desk.its)
    desk.until_acked(desk.put("a"))
    desk.notary.kill()
    desk.put("b")
    reader = RingReader.attach(desk.path, "worker-0")
    reader.arm(1, 1)
    its = desk.settings
    log = LogWriter.open(
        its.directory,
        origin=its.origin,
        signer=open_signer(its.key_file, its.origin, bytes(32)),
        head_copy=its.head_copy,
    )
    log.append(reader.read(1))
    log.close()
    reader.close()
    desk.notary = NotaryProcess(its)
    desk.notary.attach(desk.path, "worker-0", desk.its)
    desk.notary.seal()
    assert desk.requests() == [("a", "success"), ("b", "success")]


def test_ring_older_than_the_log_after_a_power_cut_writes_nothing_twice(desk: Desk) -> None:
    desk.notary.attach(desk.path, "worker-0", desk.its)
    slot = desk.take("a")
    desk.take("b")
    older = desk.path.read_bytes()  # what the disk had
    desk.ring.complete(slot, DONE)
    desk.until_acked(0)
    desk.restart()
    boot = W_BOOT * 8
    desk.path.write_bytes(older[:boot] + bytes(16) + older[boot + 16 :])
    desk.notary.attach(desk.path, "worker-0")
    assert desk.notary.ask({"gone": "worker-0"}) == {"recovered": "worker-0", "unknown": 1}
    desk.notary.seal()
    assert desk.requests() == [("a", "success"), ("b", "unknown")]


@pytest.mark.parametrize("signal_number", [signal.SIGTERM, signal.SIGINT])
def test_signals_to_the_group_do_not_end_it(desk: Desk, signal_number: int) -> None:
    os.kill(desk.notary.pid, signal_number)
    desk.notary.attach(desk.path, "worker-0", desk.its)
    desk.until_acked(desk.put("a"))


def test_without_a_supervisor_it_signs_and_leaves_the_rings(desk: Desk) -> None:
    desk.notary.attach(desk.path, "worker-0", desk.its)
    desk.take("open")
    desk.put("done")
    desk.notary.socket.shutdown(socket.SHUT_RDWR)
    assert desk.notary.wait() == 0
    assert desk.requests() == [("done", "success")]
    assert desk.path.exists()


def test_seal_keeps_a_ring_that_holds_an_open_slot(desk: Desk) -> None:
    desk.notary.attach(desk.path, "worker-0", desk.its)
    desk.take("open")
    desk.notary.seal()
    assert desk.path.exists()


def test_heads_are_signed_while_records_come_in(desk: Desk) -> None:
    desk.notary.attach(desk.path, "worker-0", desk.its)
    checkpoint = desk.state / "log" / "checkpoint"
    before = checkpoint.read_bytes()
    desk.put("a")
    until(lambda: checkpoint.read_bytes() != before)


def test_ring_that_makes_no_sense_is_set_aside_and_others_go_on(desk: Desk) -> None:
    desk.notary.attach(desk.path, "worker-0", desk.its)
    ring, path = desk.new_ring("worker-1")
    desk.notary.attach(path, "worker-1")
    raw = io_ring.attach(path)
    raw.words("Q", 0, PAGE)[W_HEAD] = 1 << 40
    raw.close()
    answer = desk.notary.hear()
    assert answer["broken"] == "worker-1"
    assert path.with_suffix(".broken").exists()
    desk.until_acked(desk.put("a"))
    assert desk.notary.ask({"gone": "worker-1"}) == {"recovered": "worker-1", "unknown": 0}
    desk.notary.seal()
    assert "ring-broken" in [leaf.get("event.reason") for leaf in leaves(desk.state)]
    ring.close()


def test_broken_ring_of_a_dead_writer_is_still_answered(desk: Desk) -> None:
    desk.notary.attach(desk.path, "worker-0")
    desk.words[W_HEAD] = 1 << 40
    assert desk.notary.hear()["broken"] == "worker-0"
    assert desk.notary.ask({"gone": "worker-0"})["recovered"] == "worker-0"


@pytest.mark.parametrize(
    "message",
    [
        {},
        {"attach": 5, "writer": "w"},
        {"attach": "x"},
        {"seal": 1},
        {"gone": None},
        {"attach": "/dev/null", "writer": "w"},
    ],
)
def test_message_that_is_not_understood_is_answered_and_changes_nothing(desk: Desk, message: kill.Message) -> None:
    assert "error" in desk.notary.ask(message)
    desk.notary.attach(desk.path, "worker-0", desk.its)
    desk.until_acked(desk.put("a"))


def test_bytes_that_are_not_json_are_answered(desk: Desk) -> None:
    desk.notary.socket.send(b"\xff{")
    assert "error" in desk.notary.hear()


def test_writer_is_attached_once_and_by_its_own_name(desk: Desk) -> None:
    desk.notary.attach(desk.path, "worker-0", desk.its)
    assert "is attached" in str(desk.notary.attach(desk.path, "worker-0")["error"])
    assert "announced for" in str(desk.notary.attach(desk.path, "ca")["error"])


@pytest.mark.parametrize(("share", "level"), [(1.5, LEVEL_FULL), (0.7, LEVEL_LOW)])
def test_short_disk_is_told_to_the_writers(tmp_path: Path, share: float, level: int) -> None:
    disk = os.statvfs(tmp_path)
    reserve = int(disk.f_bavail * disk.f_frsize * share)
    its = kill.settings(tmp_path)
    desk = NotaryProcess(NotarySettings(its.directory, its.head_copy, its.key_file, its.origin, False, 1.0, reserve))
    path = io_ring.ring_path(tmp_path, "w")
    ring = Ring.create(path, "w", slots=8)
    desk.attach(path, "w")
    until(lambda: ring.level == level)
    desk.kill()
    ring.close()


def test_log_that_is_locked_or_forked_ends_the_process_before_ready(desk: Desk) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    kept = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    try:
        with pytest.raises(UnsafeState, match=re.escape(str(desk.settings.directory))):
            notary.run(theirs, desk.settings)
    finally:
        for number, handler in zip((signal.SIGTERM, signal.SIGINT), kept, strict=True):
            signal.signal(number, handler)
        ours.close()
        theirs.close()


@pytest.mark.parametrize("strict", [False, True])
def test_nothing_is_lost_or_doubled_by_kill_9_of_anything(tmp_path: Path, strict: bool) -> None:
    outcome = kill.run(tmp_path / "state", rounds=6, seed=strict, strict=strict)
    assert outcome.faults == ()
    assert outcome.taken > 0
