"""The writer on a real disk: what it writes, what it takes up after a crash, and what it refuses to go on from."""

from __future__ import annotations

import os
import resource
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edge.audit.verify import verify
from pki.errors import UnsafeFile
from pki.tlog import checkpoint, io_segments, merkle, note, wal
from pki.tlog.errors import (
    LogInconsistent,
    LogLocked,
    LogUnwritable,
    NoteMalformed,
    ProofInvalid,
    TileMalformed,
)
from pki.tlog.io_log import LogWriter, head_copy_of, open_signer
from pki.tlog.io_reader import LogReader
from pki.tlog.tail import Tail
from pki.tlog.tiles import length_prefixed, split_entries

ORIGIN = "home.example/edge"
SIGNER = note.Signer(ORIGIN, b"\x01" * 32)


def entries(first: int, count: int) -> list[bytes]:
    return [f"entry {number}".encode() for number in range(first, first + count)]


class Log:
    """A log in a temporary directory, opened as often as a test likes; closed writers are closed for good."""

    def __init__(self, root: Path) -> None:
        self.directory = root / "log"
        self.head_copy = head_copy_of(self.directory)
        self.writers: list[LogWriter] = []

    def open(self) -> LogWriter:
        self.close()
        self.writers.append(LogWriter.open(self.directory, origin=ORIGIN, signer=SIGNER, head_copy=self.head_copy))
        return self.writers[-1]

    def close(self) -> None:
        for writer in self.writers:
            writer.close()

    def filled(self, count: int, *, batch: int = 64) -> LogWriter:
        writer = self.open()
        for first in range(0, count, batch):
            writer.append(entries(first, min(batch, count - first)))
        writer.publish()
        return writer


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    found = Log(tmp_path)
    yield found
    found.close()


def test_new_log_has_a_signed_empty_head_in_both_places(log: Log) -> None:
    writer = log.open()
    assert (writer.size, writer.head.size, writer.head.root) == (0, 0, merkle.EMPTY_ROOT)
    assert (log.directory / "checkpoint").read_bytes() == log.head_copy.read_bytes() == writer.head.raw_note
    assert (log.directory / "verifier.key").read_text() == f"{SIGNER.verifier}\n"


def test_published_head_covers_all_entries(log: Log) -> None:
    writer = log.filled(700, batch=100)
    assert writer.head == checkpoint.verify((log.directory / "checkpoint").read_bytes(), SIGNER.verifier)
    assert (writer.head.size, writer.head.root) == (700, merkle.root(merkle.leaf_hashes(entries(0, 700))))
    raw = LogReader(log.directory).bundle(2, 188)
    assert raw is not None
    assert split_entries(raw, 188) == entries(512, 188)


def test_append_gives_the_index_of_the_first_and_nothing_appends_nothing(log: Log) -> None:
    writer = log.open()
    assert [writer.append(entries(0, 3)), writer.append([]), writer.append(entries(3, 1))] == [0, 3, 3]
    assert writer.size == 4


def test_publishing_without_news_keeps_the_head(log: Log) -> None:
    writer = log.filled(5)
    assert writer.publish() is writer.head


def test_partial_tiles_go_when_the_full_one_is_published(log: Log) -> None:
    writer = log.open()
    for first, count in ((0, 10), (10, 20), (30, 226)):
        writer.append(entries(first, count))
        writer.publish()
    names = {str(path.relative_to(log.directory)) for path in log.directory.rglob("tile/**/*") if path.is_file()}
    assert names == {"tile/0/000", "tile/entries/000", "tile/1/000.p/1"}


@pytest.mark.parametrize("count", [1, 255, 256, 257, 700])
def test_every_entry_can_be_proven(log: Log, count: int) -> None:
    writer = log.filled(count)
    for index in {0, count // 2, count - 1}:
        proof = writer.inclusion(index)
        assert proof.verify(f"entry {index}".encode(), SIGNER.verifier) == writer.head


def test_entry_that_is_not_under_a_head_has_no_proof(log: Log) -> None:
    writer = log.filled(3)
    writer.append(entries(3, 1))
    with pytest.raises(ProofInvalid):
        writer.inclusion(3)


def test_too_long_entry_is_refused_and_nothing_of_its_batch_is_kept(log: Log) -> None:
    writer = log.open()
    with pytest.raises(TileMalformed):
        writer.append([b"good", b"x" * 65_536])
    assert (writer.size, writer.append([b"x" * 65_535])) == (0, 0)


def test_latest_reads_behind_and_before_the_head(log: Log) -> None:
    writer = log.filled(300)
    writer.append(entries(300, 5))
    assert writer.latest(7) == list(enumerate(entries(298, 7), 298))
    assert writer.latest(1000) == list(enumerate(entries(0, 305)))
    assert LogReader(log.directory).published_since(298) == list(enumerate(entries(298, 2), 298))


def test_second_writer_is_refused(log: Log) -> None:
    log.open()
    with pytest.raises(LogLocked):
        LogWriter.open(log.directory, origin=ORIGIN, signer=SIGNER, head_copy=log.head_copy)


def test_closed_writer_refuses_everything_and_closing_twice_is_fine(log: Log) -> None:
    writer = log.open()
    writer.close()
    writer.close()
    for use in (lambda: writer.append([b"x"]), writer.sync, writer.publish):
        with pytest.raises(LogUnwritable):
            use()


# -- after a crash -----------------------------------------------------------------------------------


@pytest.mark.parametrize("published", [0, 10, 256, 300])
@pytest.mark.parametrize("pending", [0, 1, 600])
def test_entries_that_were_appended_survive_a_kill(log: Log, published: int, pending: int) -> None:
    writer = log.filled(published) if published else log.open()
    writer.append(entries(published, pending))
    again = log.open()
    assert (again.size, again.head.size, again.repaired) == (published + pending, published, ())
    again.append(entries(again.size, 3))
    assert again.publish().root == merkle.root(merkle.leaf_hashes(entries(0, published + pending + 3)))


@pytest.mark.parametrize("cut", [1, 20, 51])
def test_torn_frame_is_dropped_whole(log: Log, cut: int) -> None:
    writer = log.filled(10)
    writer.append(entries(10, 2))
    end = _live_end(log)
    writer.append(entries(12, 2))
    path = log.directory / wal.NAMES[_live(log)]
    os.truncate(path, end + cut)
    again = log.open()
    assert (again.size, os.path.getsize(path)) == (12, end)
    again.append(entries(12, 1))
    assert log.open().size == 13


def test_crash_between_second_place_and_checkpoint_is_completed(log: Log) -> None:
    writer = log.filled(10)
    old = (log.directory / "checkpoint").read_bytes()
    writer.append(entries(10, 300))
    head = writer.publish()
    (log.directory / "checkpoint").write_bytes(old)
    assert log.open().head == head
    assert (log.directory / "checkpoint").read_bytes() == head.raw_note


@pytest.mark.parametrize("name", ["tile/0/000", "tile/entries/000", "tile/1/000.p/1", "tile/entries/001.p/44"])
@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(bytes(50))])
def test_tiles_that_a_power_cut_took_are_made_anew(log: Log, name: str, damage: Callable[[Path], None]) -> None:
    log.filled(300)
    before = (log.directory / name).read_bytes()
    damage(log.directory / name)
    again = log.open()
    assert again.repaired == (name,)
    assert (log.directory / name).read_bytes() == before


@pytest.mark.parametrize(("signed", "pending", "more"), [(12, 1, 1), (250, 10, 1), (254, 1, 600), (0, 3, 1)])
def test_a_publication_that_was_killed_within_a_tile_leaves_nothing_of_it(
    log: Log, signed: int, pending: int, more: int
) -> None:
    writer = log.filled(signed)
    writer.append(entries(signed, pending))
    index, width = divmod(signed + pending, 256)
    for place in ("0", "entries"):  # the tile was being written: a name, and nothing in it yet
        torn = log.directory / "tile" / place / f"{index:03}.p" / str(width)
        torn.parent.mkdir(parents=True, exist_ok=True)
        torn.write_bytes(b"")
    writer = log.open()
    writer.append(entries(signed + pending, more))
    writer.publish()
    assert not torn.exists() or torn.stat().st_size
    report = verify(log.directory, SIGNER.verifier)
    assert report.ok, report


def test_log_goes_on_without_its_write_ahead_files(log: Log) -> None:
    log.filled(300)
    for name in wal.NAMES:
        (log.directory / name).unlink()
    again = log.open()
    again.append(entries(300, 300))
    assert again.publish().root == merkle.root(merkle.leaf_hashes(entries(0, 600)))


def test_long_log_takes_turns_and_recovers_at_every_moment(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(io_segments, "TURN_BYTES", 2000)
    writer = log.open()
    for first in range(0, 1500, 50):
        writer.append(entries(first, 50))
        writer.publish()
        if first % 300 == 250:
            writer.append(entries(first + 50, 1))
            writer = log.open()
            assert writer.size == first + 51
            writer.close()
            _drop_last_frame(log)
            writer = log.open()
    assert writer.head.root == merkle.root(merkle.leaf_hashes(entries(0, 1500)))
    assert sum(os.path.getsize(log.directory / name) for name in wal.NAMES) < 40_000


def test_two_live_segments_are_read_one_after_the_other(log: Log) -> None:
    writer = log.filled(10)
    writer.append(entries(10, 5))
    writer.publish()
    log.close()
    # As a turn leaves them when it is killed in the middle: the older file whole, the newer one begun.
    other = log.directory / wal.NAMES[1 - _live(log)]
    other.write_bytes(wal.open_segment(15, writer.head.root, _tail(15).snapshot()))
    again = log.open()
    assert (again.size, [segment is None for segment in LogReader(log.directory).segments()].count(True)) == (15, 1)


# -- refusals ----------------------------------------------------------------------------------------


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
    path = log.directory / wal.NAMES[_live(log)]
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
    used = _live_end(log)
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
    (writer_segments, live) = (LogReader(log.directory).segments, _live(log))
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
    (log.directory / wal.NAMES[1 - _live(log)]).unlink()
    (log.directory / wal.NAMES[1 - _live(log)]).symlink_to("elsewhere")
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
    live = _live(log)
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


# -- the signing key ---------------------------------------------------------------------------------


def test_signing_key_is_made_once_and_kept_private(tmp_path: Path) -> None:
    path = tmp_path / "signer.key"
    signer = open_signer(path, ORIGIN, b"\x07" * 32)
    assert signer.verifier == note.Signer(ORIGIN, b"\x07" * 32).verifier
    assert open_signer(path, ORIGIN, b"\x08" * 32).verifier == signer.verifier
    assert path.stat().st_mode & 0o777 == 0o600


def test_signing_key_of_another_log_or_open_to_others_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "signer.key"
    open_signer(path, ORIGIN, b"\x07" * 32)
    with pytest.raises(LogInconsistent):
        open_signer(path, "other", b"\x07" * 32)
    path.chmod(0o644)
    with pytest.raises(UnsafeFile):
        open_signer(path, ORIGIN, b"\x07" * 32)
    path.chmod(0o600)
    path.write_bytes(b"no key")
    with pytest.raises(NoteMalformed):
        open_signer(path, ORIGIN, b"\x07" * 32)


def _live(log: Log) -> int:
    segments = LogReader(log.directory).segments()
    return next(place for place, segment in enumerate(segments) if segment is not None)


def _live_end(log: Log) -> int:
    segment = LogReader(log.directory).segments()[_live(log)]
    assert segment is not None
    return segment.end


def _drop_last_frame(log: Log) -> None:
    segments = [
        (segment.size, place, segment) for place, segment in enumerate(LogReader(log.directory).segments()) if segment
    ]
    _, place, segment = max(segments)
    os.truncate(log.directory / wal.NAMES[place], segment.end - 1)


def _tail(size: int) -> Tail:
    tail, found = Tail(), entries(0, size)
    pieces = length_prefixed(found)
    tail.extend(merkle.leaf_hashes(found), pieces, b"".join(pieces))
    return tail
