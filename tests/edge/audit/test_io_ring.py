"""The files behind the rings."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from edge.audit import io_ring
from edge.audit.ring import Ring
from edge.errors import UnsafeState


def test_ring_is_private_and_holds_its_room_on_the_disk(tmp_path: Path) -> None:
    ring = Ring.create(tmp_path / "w.ring", "w", slots=64)
    facts = (tmp_path / "w.ring").stat()
    assert stat.S_IMODE(facts.st_mode) == 0o600
    assert facts.st_blocks * 512 >= facts.st_size
    ring.close()


def test_no_room_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(UnsafeState, match="no room"):
        io_ring.create(tmp_path / "w.ring", 1 << 60)
    assert list(tmp_path.iterdir()) == []


def test_missing_directory_is_said(tmp_path: Path) -> None:
    with pytest.raises(UnsafeState, match="cannot be created"):
        io_ring.create(tmp_path / "no" / "w.ring", 4096)


def link(path: Path) -> None:
    path.with_suffix(".real").write_bytes(b"x")
    path.symlink_to(path.with_suffix(".real"))


def readable(path: Path) -> None:
    path.write_bytes(b"x")
    path.chmod(0o640)


def empty(path: Path) -> None:
    path.touch(0o600)


@pytest.mark.parametrize("make", [link, readable, empty, os.mkdir, os.mkfifo])
def test_anything_but_our_own_private_file_is_not_mapped(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "w.ring")
    with pytest.raises(UnsafeState):
        io_ring.attach(tmp_path / "w.ring")


def test_missing_ring_is_told_from_a_bad_one(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        io_ring.attach(tmp_path / "w.ring")


def test_leftovers_name_their_writer(tmp_path: Path) -> None:
    path = io_ring.ring_path(tmp_path, "worker-0")
    assert path != io_ring.ring_path(tmp_path, "worker-0")
    path.touch()
    path.with_suffix(".broken").touch()
    assert list(io_ring.leftovers(tmp_path)) == [("worker-0", path)]


def test_boot_id_holds_for_a_boot_and_instances_differ() -> None:
    assert io_ring.boot_id() == io_ring.boot_id()
    assert len(io_ring.boot_id()) == 16
    assert io_ring.instance() != io_ring.instance()


def test_nudge_never_blocks_nor_raises() -> None:
    ours, theirs = socket.socketpair()
    nudge = io_ring.Nudge(ours)
    for _ in range(2000):
        nudge()
    theirs.send(b"xx")
    nudge.clear()
    nudge.clear()
    theirs.close()
    nudge()
    nudge.clear()
    ours.close()
