"""The writer on a real disk: what it writes, and what it takes up after a crash (what it refuses: test_io_log_refusals)."""

from __future__ import annotations

import os
from collections.abc import Callable
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
from pki.tlog.io_log import LogWriter, open_signer
from pki.tlog.io_reader import LogReader
from pki.tlog.tiles import split_entries
from tests.pki.tlog.written import ORIGIN, SIGNER, Log, drop_last_frame, entries, live_end, live_file, log, tail

__all__ = ["log"]  # fixtures


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
    end = live_end(log)
    writer.append(entries(12, 2))
    path = log.directory / wal.NAMES[live_file(log)]
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
            drop_last_frame(log)
            writer = log.open()
    assert writer.head.root == merkle.root(merkle.leaf_hashes(entries(0, 1500)))
    assert sum(os.path.getsize(log.directory / name) for name in wal.NAMES) < 40_000


def test_two_live_segments_are_read_one_after_the_other(log: Log) -> None:
    writer = log.filled(10)
    writer.append(entries(10, 5))
    writer.publish()
    log.close()
    # As a turn leaves them when it is killed in the middle: the older file whole, the newer one begun.
    other = log.directory / wal.NAMES[1 - live_file(log)]
    other.write_bytes(wal.open_segment(15, writer.head.root, tail(15).snapshot()))
    again = log.open()
    assert (again.size, [segment is None for segment in LogReader(log.directory).segments()].count(True)) == (15, 1)


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
