"""Each kind of finding, on a small log; `tests/e2e/test_tamper.py` draws them at random."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from edge.audit.verify import KINDS, Report, verify
from pki.tlog import note, wal
from pki.tlog.checkpoint import Checkpoint
from pki.tlog.io_log import LogWriter, head_copy_of
from pki.tlog.merkle import leaf_hashes
from pki.tlog.tiles import length_prefixed, split_entries

SIGNER = note.Signer("home.example/edge", b"\x01" * 32)
KEY = SIGNER.verifier
SIZE = 600
ENTRIES = [f"entry {number}".encode() for number in range(SIZE + 50)]


def _grow(directory: Path, entries: list[bytes], *, publish: bool = True) -> Checkpoint:
    writer = LogWriter.open(directory, origin=KEY.name, signer=SIGNER, head_copy=head_copy_of(directory))
    writer.append(entries)
    head = writer.publish() if publish else writer.head
    writer.close()
    return head


@pytest.fixture
def log(tmp_path: Path) -> Path:
    _grow(tmp_path / "log", ENTRIES[:550])
    _grow(tmp_path / "log", ENTRIES[550:SIZE])
    return tmp_path / "log"


def _put(log: Path, name: str, change: Callable[[list[bytes]], list[bytes]]) -> None:
    path = log / "tile/entries" / name
    path.write_bytes(b"".join(length_prefixed(change(split_entries(path.read_bytes())))))


def _finding(report: Report) -> tuple[str | None, int | None]:
    assert not report.ok
    assert report.kind in KINDS
    assert report.detail
    return report.kind, report.first_bad_index


def test_good_log_is_good_also_against_every_head_it_had(log: Path, tmp_path: Path) -> None:
    heads = [_grow(tmp_path / "again", ENTRIES[first : first + 100]) for first in range(0, SIZE, 100)]
    assert verify(log, KEY) == Report(True, SIZE)
    assert [verify(log, KEY, head).ok for head in heads] == [True] * 6


def test_empty_log_is_good_and_extends_only_the_empty_head(tmp_path: Path) -> None:
    empty = _grow(tmp_path / "log", [])
    assert verify(tmp_path / "log", KEY, empty) == Report(True, 0)
    other = Checkpoint(KEY.name, 0, bytes(32), b"")
    assert _finding(verify(tmp_path / "log", KEY, other)) == ("fork", None)


def test_entries_behind_the_checkpoint_are_counted(log: Path) -> None:
    _grow(log, ENTRIES[SIZE:], publish=False)
    assert verify(log, KEY) == Report(True, SIZE, unpublished=50)


@pytest.mark.parametrize(
    ("name", "change", "found"),
    [
        ("000", lambda e: [*e[:7], b"forged", *e[8:]], ("edit", 7)),
        ("002.p/88", lambda e: [*e[:87], b"forged"], ("edit", 599)),
        ("001", lambda e: e[:9] + e[10:], ("deletion", 265)),
        ("001", lambda e: [*e[:9], b"forged", *e[9:]], ("insertion", 265)),
        ("002.p/88", lambda e: [*e, b"forged"], ("insertion", 600)),
        ("000", lambda e: [*e[:3], e[4], e[3], *e[5:]], ("reorder", 3)),
        ("000", lambda e: e[::-1], ("reorder", 0)),
        ("000", lambda e: e[:100], ("deletion", 100)),
        ("002.p/88", lambda e: e[:40], ("truncation", 552)),
        ("002.p/88", lambda e: [], ("truncation", 512)),
    ],
)
def test_changed_bundle_is_found_with_its_first_bad_index(
    log: Path, name: str, change: Callable[[list[bytes]], list[bytes]], found: tuple[str, int]
) -> None:
    _put(log, name, change)
    assert _finding(verify(log, KEY)) == found


@pytest.mark.parametrize(("name", "found"), [("001", ("deletion", 256)), ("002.p/88", ("truncation", 512))])
def test_missing_bundle_is_found(log: Path, name: str, found: tuple[str, int]) -> None:
    (log / "tile/entries" / name).unlink()
    assert _finding(verify(log, KEY)) == found
    (log / "tile/0" / name).unlink()
    assert _finding(verify(log, KEY)) == found


def test_bundle_cut_inside_an_entry_is_found_there(log: Path) -> None:
    path = log / "tile/entries/000"
    raw = path.read_bytes()
    path.write_bytes(raw[: len(b"".join(length_prefixed(ENTRIES[:30]))) + 5])
    assert _finding(verify(log, KEY)) == ("deletion", 30)


def test_entry_changed_together_with_its_tile_is_found_by_the_tile_above(log: Path) -> None:
    forged = [*ENTRIES[256:300], b"forged", *ENTRIES[301:512]]
    _put(log, "001", lambda _: forged)
    (log / "tile/0/001").write_bytes(b"".join(leaf_hashes(forged)))
    assert _finding(verify(log, KEY)) == ("edit", 256)


def test_entry_changed_together_with_all_tiles_is_found_by_the_root(log: Path) -> None:
    forged = [*ENTRIES[512:599], b"forged"]
    _put(log, "002.p/88", lambda _: forged)
    (log / "tile/0/002.p/88").write_bytes(b"".join(leaf_hashes(forged)))
    assert _finding(verify(log, KEY)) == ("root", None)


@pytest.mark.parametrize(
    ("name", "index"),
    [("0/000", 5), ("0/002.p/88", 517), ("1/000.p/2", 0), ("0/002.p/38", 512), ("entries/002.p/38", 512)],
)
def test_damaged_tile_is_found_although_the_entries_are_right(log: Path, name: str, index: int) -> None:
    path = log / "tile" / name
    raw = path.read_bytes()
    place = min(5 * 32, len(raw) - 1)
    path.write_bytes(raw[:place] + bytes([raw[place] ^ 1]) + raw[place + 1 :])
    assert _finding(verify(log, KEY)) == ("edit" if "entries" in name else "tile", index)


@pytest.mark.parametrize("name", ["0/001", "1/000.p/2"])
def test_missing_tile_is_found(log: Path, name: str) -> None:
    (log / "tile" / name).unlink()
    assert _finding(verify(log, KEY))[0] == "tile"


def test_rollback_and_fork_are_found_by_what_was_remembered(log: Path, tmp_path: Path) -> None:
    old = tmp_path / "old"
    _grow(old, ENTRIES[:400])
    remembered = _grow(tmp_path / "again", ENTRIES[:SIZE])
    assert verify(old, KEY).ok
    assert _finding(verify(old, KEY, remembered)) == ("rollback", 400)
    _grow(old, [b"another", *ENTRIES[401:SIZE]])
    assert verify(old, KEY).ok
    assert _finding(verify(old, KEY, remembered)) == ("fork", None)
    _grow(old, ENTRIES[:10])
    assert _finding(verify(old, KEY, remembered)) == ("fork", None)


def test_content_is_named_before_the_rollback(log: Path, tmp_path: Path) -> None:
    remembered = _grow(tmp_path / "again", [*ENTRIES])
    _put(log, "000", lambda e: [b"forged", *e[1:]])
    assert _finding(verify(log, KEY, remembered)) == ("edit", 0)


def test_checkpoint_of_another_key_or_none_is_found(log: Path) -> None:
    assert _finding(verify(log, note.Signer(KEY.name, b"\x02" * 32).verifier)) == ("checkpoint", None)
    (log / "checkpoint").write_bytes(b"nonsense")
    assert _finding(verify(log, KEY)) == ("checkpoint", None)
    (log / "checkpoint").unlink()
    assert _finding(verify(log, KEY)) == ("missing", None)


def test_directory_that_is_not_a_log_is_not_good(tmp_path: Path) -> None:
    assert _finding(verify(tmp_path / "nothing", KEY)) == ("missing", None)
    (tmp_path / "checkpoint").mkdir()
    assert _finding(verify(tmp_path, KEY)) == ("missing", None)


@pytest.mark.parametrize("place", [0, 60, -3])
def test_changed_write_ahead_file_is_found(log: Path, place: int) -> None:
    _grow(log, ENTRIES[SIZE:], publish=False)
    path = max((log / name for name in wal.NAMES), key=lambda each: each.stat().st_size)
    raw = bytearray(path.read_bytes())
    raw[place] ^= 1
    path.write_bytes(raw)
    assert _finding(verify(log, KEY)) == ("write-ahead", SIZE)


def test_log_of_more_than_one_full_level_1_tile_is_good_and_its_damage_is_found(tmp_path: Path) -> None:
    log = tmp_path / "log"
    _grow(log, [b"%d" % number for number in range(65_536 + 300)])
    assert verify(log, KEY).ok
    raw = (log / "tile/1/000").read_bytes()
    (log / "tile/1/000").write_bytes(raw[:-1] + bytes([raw[-1] ^ 1]))
    assert _finding(verify(log, KEY)) == ("tile", 0)


def test_older_checkpoint_over_a_grown_log_is_good_by_the_full_tiles(log: Path) -> None:
    old = (log / "checkpoint").read_bytes()
    _grow(log, [b"more"] * 300)
    (log / "checkpoint").write_bytes(old)
    assert verify(log, KEY) == Report(True, SIZE, unpublished=300)
    path = log / "tile/entries/002"
    path.write_bytes(path.read_bytes()[:-1])
    assert _finding(verify(log, KEY))[0] in {"edit", "truncation", "deletion", "insertion"}


def test_copy_without_the_writer_s_own_files_is_good(log: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(log, copy)
    for name in (*wal.NAMES, "lock", "verifier.key"):
        (copy / name).unlink()
    assert verify(copy, KEY).ok


@pytest.mark.parametrize("name", ["checkpoint", "tile/0/000", "tile/entries/001", "wal.0"])
@pytest.mark.parametrize("kind", ["pipe", "device", "endless"])
def test_what_is_no_file_neither_hangs_nor_fills_who_verifies(log: Path, name: str, kind: str) -> None:
    """The auditor's machine is not the one that was broken into; what he is given to read may be."""
    path = log / name
    path.unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        with path.open("wb") as file:
            file.truncate(1 << 40)
    report = verify(log, KEY)
    assert (report.ok, report.kind, name in report.detail) == (False, "missing", True)
