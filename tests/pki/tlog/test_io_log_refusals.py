"""A log that does not go on from where it was, or that the disk refuses, is opened by nobody, and left as it was."""

from __future__ import annotations

import resource
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from pki.errors import UnsafeFile
from pki.tlog import checkpoint, io_segments, merkle, note, wal
from pki.tlog.errors import (
    LogInconsistent,
    LogUnwritable,
)
from pki.tlog.io_log import LogWriter
from pki.tlog.io_reader import LogReader
from pki.tlog.tail import Tail
from pki.tlog.tiles import length_prefixed
from tests.pki.tlog.written import ORIGIN, SIGNER, Log, entries, live_end, live_file, log

__all__ = ["log"]  # fixtures


def _back_to(log: Log, count: int, more: int) -> Path:
    """A copy of the log as it was at `count`, before it grew by `more`."""
    writer = log.filled(count)
    copy = log.directory.with_name("copy")
    shutil.copytree(log.directory, copy)
    writer.append(entries(count, more))
    writer.publish()
    log.close()
    return copy


@pytest.mark.parametrize(("count", "more"), [(10, 1), (10, 300), (256, 256)])
def test_rolled_back_directory_is_refused(log: Log, count: int, more: int) -> None:
    copy = _back_to(log, count, more)
    shutil.rmtree(log.directory)
    shutil.copytree(copy, log.directory)
    with pytest.raises(LogInconsistent):
        log.open()


def test_rolled_back_second_place_is_refused(log: Log) -> None:
    copy = _back_to(log, 10, 5)
    shutil.copy(copy / "checkpoint", log.head_copy)
    with pytest.raises(LogInconsistent) as caught:
        log.open()
    assert caught.value.kind == "rollback"


def test_checkpoint_and_second_place_rolled_back_together_are_refused_by_the_write_ahead_file(log: Log) -> None:
    copy = _back_to(log, 10, 5)
    log.open()  # without a live segment of the older base the base is the present head
    log.close()
    for name in wal.NAMES:
        (log.directory / name).unlink()
    log.open()
    log.close()
    for place in (log.head_copy, log.directory / "checkpoint"):
        shutil.copy(copy / "checkpoint", place)
    with pytest.raises(LogInconsistent) as caught:
        log.open()
    assert caught.value.kind == "rollback"


def test_write_ahead_files_of_another_history_are_refused(log: Log) -> None:
    log.filled(10)
    log.close()
    path = log.directory / wal.NAMES[live_file(log)]
    other = Tail()
    other.extend([merkle.leaf_hash(b"x")] * 10, length_prefixed([b"x"] * 10), b"".join(length_prefixed([b"x"] * 10)))
    path.write_bytes(wal.open_segment(10, other.root(), other.snapshot()))
    with pytest.raises(LogInconsistent) as caught:
        log.open()
    assert caught.value.kind == "fork"
    for start in (wal.open_segment(10, other.root(), b""), wal.open_segment(10, bytes(32), other.snapshot())):
        path.write_bytes(start)
        with pytest.raises(LogInconsistent):
            log.open()


def test_missing_second_place_is_refused(log: Log) -> None:
    log.filled(10)
    log.head_copy.unlink()
    with pytest.raises(LogInconsistent) as caught:
        log.open()
    assert caught.value.kind == "missing"


def test_fork_at_the_same_size_is_refused(log: Log) -> None:
    log.filled(10)
    log.head_copy.write_bytes(checkpoint.seal(ORIGIN, 10, b"f" * 32, SIGNER).raw_note)
    with pytest.raises(LogInconsistent) as caught:
        log.open()
    assert caught.value.kind == "fork"


def test_directory_with_entries_and_no_head_at_all_is_refused(log: Log) -> None:
    log.filled(10)
    log.head_copy.unlink()
    (log.directory / "checkpoint").unlink()
    with pytest.raises(LogInconsistent):
        log.open()


@pytest.mark.parametrize("name", ["tile/0/001.p/44", "tile/entries/001.p/44", "tile/1/000.p/1"])
@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(path.read_bytes()[:-1] + b"?")])
def test_damaged_edge_is_refused_when_nothing_can_make_it_anew(
    log: Log, name: str, damage: Callable[[Path], None]
) -> None:
    log.filled(300)
    log.close()
    for each in wal.NAMES:
        (log.directory / each).unlink()
    damage(log.directory / name)
    with pytest.raises(LogInconsistent):
        log.open()


@pytest.mark.parametrize("raw", [b"", b"no note", b"\n\n"])
def test_malformed_heads_are_refused(log: Log, raw: bytes) -> None:
    log.filled(10)
    log.close()
    kept = log.head_copy.read_bytes()
    for place in (log.head_copy, log.directory / "checkpoint"):
        place.write_bytes(raw)
        with pytest.raises(LogInconsistent):
            log.open()
        place.write_bytes(kept)


def test_another_log_s_directory_or_key_is_refused(log: Log, tmp_path: Path) -> None:
    log.filled(10)
    log.close()
    with pytest.raises(LogInconsistent):
        LogWriter.open(log.directory, origin="other", signer=SIGNER, head_copy=log.head_copy)
    other = note.Signer(ORIGIN, b"\x02" * 32)
    with pytest.raises(LogInconsistent):
        LogWriter.open(log.directory, origin=ORIGIN, signer=other, head_copy=log.head_copy)


def test_directory_that_others_can_read_is_refused(log: Log) -> None:
    log.open()
    log.close()
    log.directory.chmod(0o755)
    with pytest.raises(UnsafeFile):
        log.open()


def test_refused_open_leaves_the_log_as_it_was_and_unlocked(log: Log) -> None:
    log.filled(10)
    log.close()
    kept = log.head_copy.read_bytes()
    log.head_copy.unlink()
    before = {path: path.read_bytes() for path in log.directory.rglob("*") if path.is_file()}
    with pytest.raises(LogInconsistent):
        log.open()
    assert {path: path.read_bytes() for path in log.directory.rglob("*") if path.is_file()} == before
    log.head_copy.write_bytes(kept)
    assert log.open().size == 10


def test_disk_that_takes_no_tile_breaks_the_writer_and_loses_no_entry(log: Log) -> None:
    writer = log.filled(10)
    writer.append(entries(10, 5))
    (log.directory / "tile/0/000.p/15").mkdir()
    with pytest.raises(LogUnwritable):
        writer.publish()
    with pytest.raises(LogUnwritable):
        writer.append([b"more"])
    (log.directory / "tile/0/000.p/15").rmdir()
    assert (log.open().size, log.writers[-1].publish().size) == (15, 15)


def test_full_disk_adds_nothing_of_a_batch_and_the_next_one_takes_its_place(log: Log) -> None:
    writer = log.filled(10)
    used = live_end(log)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (used + 100, limits[1]))
    try:
        for _ in range(2):  # the first write is cut short; with nothing left at all the second kind is an error
            with pytest.raises(LogUnwritable):
                writer.append([b"x" * 200])
        resource.setrlimit(resource.RLIMIT_FSIZE, (used, limits[1]))
        with pytest.raises(LogUnwritable):
            writer.append([b"x" * 200])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (writer.size, writer.append(entries(10, 1))) == (10, 10)
    assert log.open().size == 11


def test_turn_without_room_is_put_off(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(io_segments, "TURN_BYTES", 10)
    writer = log.open()
    (writer_segments, live) = (LogReader(log.directory).segments, live_file(log))
    writer.append([b"x" * 3000])
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3050, limits[1]))
    try:
        writer.publish()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [place for place, segment in enumerate(writer_segments()) if segment] == [live]
    writer.append([b"y"])
    assert (writer.publish().size, log.open().size) == (2, 2)


def test_open_on_a_disk_that_refuses_is_unwritable(log: Log) -> None:
    log.filled(10)
    log.close()
    (log.directory / wal.NAMES[1 - live_file(log)]).unlink()
    (log.directory / wal.NAMES[1 - live_file(log)]).symlink_to("elsewhere")
    with pytest.raises(LogUnwritable):
        log.open()


def test_head_behind_the_write_ahead_files_of_an_unlinked_past_is_read_from_tiles(log: Log) -> None:
    log.filled(10)
    log.close()
    first = {name: (log.directory / name).read_bytes() for name in wal.NAMES}
    for name in wal.NAMES:
        (log.directory / name).unlink()
    writer = log.open()
    writer.append(entries(10, 5))
    writer.publish()
    log.close()
    live = live_file(log)
    older = next(raw for raw in first.values() if raw)
    # An old segment of 10 entries comes back beside the live one, which starts at 10: they follow each other.
    (log.directory / wal.NAMES[1 - live]).write_bytes(older)
    assert log.open().size == 15
    log.close()
    # Alone it does not reach the head; the tiles do.
    for name in wal.NAMES:
        (log.directory / name).write_bytes(b"")
    (log.directory / wal.NAMES[0]).write_bytes(older)
    assert log.open().size == 15
