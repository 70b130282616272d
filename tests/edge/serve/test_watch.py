"""Edits are noticed, however they are made."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edge.serve.children import Nursery
from edge.serve.reactor import Reactor
from edge.serve.report import Report
from edge.serve.watch import Watcher, directories


@pytest.fixture
def changes() -> list[int]:
    return []


@pytest.fixture
def watcher(reactor: Reactor, nursery: Nursery, changes: list[int]) -> Iterator[Watcher]:
    watcher = Watcher(reactor, nursery, Report("test"), lambda: changes.append(1))
    yield watcher
    watcher.stop()
    assert reactor.run_until(lambda: watcher.is_stopped, 5)


def edit(path: Path) -> None:
    path.write_text("new\n")


def replace(path: Path) -> None:
    (path.parent / ".new").write_text("new\n")
    os.replace(path.parent / ".new", path)


def armed(reactor: Reactor, watcher: Watcher, changes: list[int]) -> None:
    assert reactor.run_until(lambda: watcher.is_armed, 5)
    changes.clear()


@pytest.mark.parametrize("change", [edit, replace], ids=["written in place", "replaced"])
def test_edit_is_noticed(
    reactor: Reactor, watcher: Watcher, changes: list[int], tmp_path: Path, change: Callable[[Path], None]
) -> None:
    file = tmp_path / "routes.yaml"
    file.write_text("old\n")
    watcher.watch([file])
    armed(reactor, watcher, changes)
    change(file)
    assert reactor.run_until(lambda: bool(changes), 2)


def test_owner_looks_once_when_the_watch_is_in_place(
    reactor: Reactor, watcher: Watcher, changes: list[int], tmp_path: Path
) -> None:
    watcher.watch([tmp_path / "f"])
    assert reactor.run_until(lambda: changes == [1], 5)


def test_watcher_that_was_killed_is_replaced(
    reactor: Reactor, nursery: Nursery, watcher: Watcher, changes: list[int], tmp_path: Path
) -> None:
    file = tmp_path / "routes.yaml"
    file.write_text("old\n")
    watcher.watch([file])
    armed(reactor, watcher, changes)
    (pid,) = nursery.pids
    os.kill(pid, signal.SIGKILL)
    assert reactor.run_until(lambda: bool(nursery.pids) and nursery.pids != (pid,), 3)
    armed(reactor, watcher, changes)
    edit(file)
    assert reactor.run_until(lambda: bool(changes), 2)


def test_other_directories_are_watched_after_a_reload(
    reactor: Reactor, nursery: Nursery, watcher: Watcher, changes: list[int], tmp_path: Path
) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    watcher.watch([tmp_path / "a" / "f"])
    before = nursery.pids
    watcher.watch([tmp_path / "b" / "f"])
    assert reactor.run_until(lambda: bool(nursery.pids) and nursery.pids != before, 3)
    armed(reactor, watcher, changes)
    edit(tmp_path / "b" / "f")
    assert reactor.run_until(lambda: bool(changes), 2)


def test_same_directories_keep_the_watcher(nursery: Nursery, watcher: Watcher, tmp_path: Path) -> None:
    watcher.watch([tmp_path / "f"])
    before = nursery.pids
    watcher.watch([tmp_path / "g"])
    assert nursery.pids == before


def test_directories_follow_links_and_leave_out_what_is_missing(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "cert.pem").write_text("x")
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "cert.pem").symlink_to(tmp_path / "real" / "cert.pem")
    files = [tmp_path / "etc" / "cert.pem", tmp_path / "none" / "key.pem"]
    assert directories(files) == (tmp_path / "etc", tmp_path / "real")
