"""The key of the pseudonyms, and a recorder on the real clocks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from edge.audit.drain import RingReader
from edge.audit.io_recorder import KEY_FILE, load_pseudonym_key, open_recorder
from edge.audit.record import AuditSettings
from edge.audit.ring import Ring
from edge.errors import UnsafeState


def test_key_is_made_once_and_private(tmp_path: Path) -> None:
    key = load_pseudonym_key(tmp_path)
    assert len(key) == 32
    assert load_pseudonym_key(tmp_path) == key
    assert (tmp_path / KEY_FILE).stat().st_mode & 0o777 == 0o600


def readable(path: Path) -> None:
    path.chmod(0o644)


def short(path: Path) -> None:
    path.write_bytes(b"short")


def long(path: Path) -> None:
    path.write_bytes(b"x" * 33)


def linked(path: Path) -> None:
    path.rename(path.with_suffix(".real"))
    path.symlink_to(path.with_suffix(".real"))


@pytest.mark.parametrize("spoil", [readable, short, long, linked])
def test_key_that_is_not_private_or_not_a_key_is_refused(tmp_path: Path, spoil: Callable[[Path], None]) -> None:
    load_pseudonym_key(tmp_path)
    spoil(tmp_path / KEY_FILE)
    with pytest.raises(UnsafeState, match=KEY_FILE):
        load_pseudonym_key(tmp_path)


def test_key_needs_its_directory(tmp_path: Path) -> None:
    with pytest.raises(UnsafeState, match="cannot be made"):
        load_pseudonym_key(tmp_path / "no")


def test_recorder_without_an_event_loop_waits_for_nothing_even_under_strict(tmp_path: Path) -> None:
    ring = Ring.create(tmp_path / "s.ring", "supervisor", slots=8)
    reader = RingReader.attach(tmp_path / "s.ring", "supervisor")
    recorder = open_recorder(ring, AuditSettings("home.example/log", durability="strict"), bytes(32))
    assert recorder.synced(0) is None
    assert not recorder.is_recordable()
    assert recorder.next_id() < recorder.next_id()
    reader.close()
    ring.close()
