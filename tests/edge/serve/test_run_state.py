"""`state/run`: one gateway, owned by one user."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest

from edge.errors import UnsafeState
from edge.serve.run_state import RunState, open_directory, unix_address


def test_makes_private_directories(tmp_path: Path) -> None:
    run = RunState.claim(tmp_path / "state")
    modes = {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "state", run.path, run.rings)}
    assert modes == {0o700}
    run.close()


def test_second_gateway_on_the_same_state_is_refused_with_the_pid_of_the_first(tmp_path: Path) -> None:
    run = RunState.claim(tmp_path / "state")
    with pytest.raises(UnsafeState, match=f"pid {os.getpid()}"):
        RunState.claim(tmp_path / "state")
    run.close()
    RunState.claim(tmp_path / "state").close()


@pytest.mark.parametrize("mode", [0o750, 0o701, 0o777])
def test_state_that_others_may_enter_is_refused(tmp_path: Path, mode: int) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state").chmod(mode)
    with pytest.raises(UnsafeState, match="chmod 0700"):
        RunState.claim(tmp_path / "state")


def test_link_in_the_place_of_the_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    (tmp_path / "state").symlink_to("elsewhere")
    with pytest.raises(UnsafeState, match="not a directory"):
        RunState.claim(tmp_path / "state")


def test_link_in_the_place_of_the_lock_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "state" / "run").mkdir(parents=True, mode=0o700)
    (tmp_path / "state").chmod(0o700)
    (tmp_path / "state" / "run" / "lock").symlink_to(tmp_path / "victim")
    with pytest.raises(OSError, match="lock"):
        RunState.claim(tmp_path / "state")
    assert not (tmp_path / "victim").exists()


def test_missing_parent_is_said_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(UnsafeState, match="correct `state:`"):
        RunState.claim(tmp_path / "no" / "state")


def test_socket_below_a_directory_deeper_than_an_address_may_be(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 120) / ("e" * 120)
    deep.mkdir(parents=True)
    directory_fd = open_directory(deep)
    address = unix_address(directory_fd, "control.sock")
    assert len(address) < 108
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as caller:
        listener.bind(address)
        listener.listen()
        caller.connect(address)
    assert (deep / "control.sock").is_socket()
    os.close(directory_fd)
