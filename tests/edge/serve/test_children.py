"""Forked children: a clean slate, death with the parent, replacement."""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from edge.serve.children import Backoff, Exit, Nursery, collect, fork
from edge.serve.reactor import Reactor


def wait_for_a_signal() -> int:
    signal.pause()
    return 0


def outcome(reactor: Reactor, nursery: Nursery, body: Callable[[], int], keep: tuple[int, ...] = ()) -> int:
    ended: list[Exit] = []
    nursery.start("edge-test", body, lambda exit_, _: ended.append(exit_), keep=keep)
    assert reactor.run_until(lambda: bool(ended), 5)
    return ended[0].status


def said(body: Callable[[], bytes]) -> bytes:
    """What a child wrote into a pipe it kept."""
    read_end, write_end = os.pipe()
    pid = fork("edge-a-long-process-name", lambda: os.write(write_end, body()) * 0, keep=(write_end,))
    os.close(write_end)
    with os.fdopen(read_end, "rb") as pipe:
        text = pipe.read()
    os.waitpid(pid, 0)
    return text


def test_result_of_the_body_is_the_exit_code(reactor: Reactor, nursery: Nursery) -> None:
    assert outcome(reactor, nursery, lambda: 7) == 7


def test_exception_of_the_body_is_exit_code_70(
    reactor: Reactor, nursery: Nursery, capfd: pytest.CaptureFixture[str]
) -> None:
    def body() -> int:
        sys.stderr = os.fdopen(2, "w", closefd=False)  # the test runner's own is a file that was closed
        raise RuntimeError("what went wrong")

    assert outcome(reactor, nursery, body) == 70
    assert "what went wrong" in capfd.readouterr().err


def test_child_never_returns_into_the_parents_frames(reactor: Reactor, nursery: Nursery) -> None:
    parent = os.getpid()

    def body() -> int:
        raise SystemExit(3)

    assert outcome(reactor, nursery, body) == 3
    assert os.getpid() == parent


def test_signal_that_ended_it_is_named() -> None:
    assert str(Exit(1, -9)) == "SIGKILL"
    assert str(Exit(1, 4)) == "exit code 4"
    assert str(Exit(1, -63)) == "signal 63"


def test_child_keeps_only_what_it_is_given() -> None:
    secret_read, secret_write = os.pipe()
    try:
        listed = said(lambda: " ".join(os.listdir("/proc/self/fd")).encode())
        open_fds = {int(each) for each in listed.split()}
        assert secret_read not in open_fds
        assert secret_write not in open_fds
        assert len(open_fds) <= 5  # 0, 1, 2, the pipe, and the listing itself
    finally:
        os.close(secret_read)
        os.close(secret_write)


def test_standard_input_is_empty() -> None:
    assert said(lambda: os.read(0, 10) + b"end") == b"end"


def test_name_is_cut_to_what_the_kernel_keeps() -> None:
    assert said(Path("/proc/self/comm").read_bytes) == b"edge-a-long-pro\n"


def test_child_stays_in_session_and_process_group() -> None:
    assert said(lambda: f"{os.getsid(0)} {os.getpgid(0)}".encode()) == f"{os.getsid(0)} {os.getpgid(0)}".encode()


def test_parents_wakeup_does_not_hear_the_childs_signals(reactor: Reactor, nursery: Nursery) -> None:
    heard: list[int] = []
    before = signal.getsignal(signal.SIGTERM)
    reactor.catch((signal.SIGCHLD, signal.SIGTERM), heard.append)
    ended: list[Exit] = []
    pid = nursery.start("edge-test", wait_for_a_signal, lambda exit_, _: ended.append(exit_))
    os.kill(pid, signal.SIGTERM)
    assert reactor.run_until(lambda: bool(heard), 5)
    nursery.reap()
    signal.signal(signal.SIGTERM, before)
    assert (heard, [each.status for each in ended]) == ([signal.SIGCHLD], [-signal.SIGTERM])


def test_ignored_signal_does_not_end_it(reactor: Reactor, nursery: Nursery) -> None:
    ours, theirs = socket.socketpair()

    def body() -> int:
        theirs.send(b"up")
        return len(theirs.recv(1))

    ended: list[Exit] = []
    pid = nursery.start(
        "edge-test",
        body,
        lambda exit_, _: ended.append(exit_),
        keep=(theirs.fileno(),),
        ignore=(signal.SIGTERM, signal.SIGINT),
    )
    theirs.close()
    ours.recv(2)
    os.kill(pid, signal.SIGTERM)
    os.kill(pid, signal.SIGINT)
    ours.send(b"!")
    assert reactor.run_until(lambda: bool(ended), 5)
    assert ended[0].status == 1
    ours.close()


def test_children_die_with_a_parent_that_is_killed() -> None:
    read_end, write_end = os.pipe()

    def middle() -> int:
        fork("edge-grandchild", wait_for_a_signal, keep=(write_end,))
        os.kill(os.getpid(), signal.SIGKILL)
        return 0

    pid = fork("edge-middle", middle, keep=(write_end,))
    os.close(write_end)
    os.waitpid(pid, 0)
    with os.fdopen(read_end, "rb") as pipe:
        assert pipe.read() == b""  # ends when the last holder of the other end is gone: the grandchild


def test_pid_that_is_not_ours_counts_as_gone() -> None:
    assert collect(1) == Exit(1, 0)


def test_replacements_come_at_once_then_slower_and_never_after_more_than_a_second() -> None:
    backoff = Backoff()
    waits = [backoff.next_wait_s(0.1) for _ in range(20)]
    assert waits[0] == 0
    assert waits == sorted(waits)
    assert max(waits) <= 1.0


def test_a_long_life_forgives() -> None:
    backoff = Backoff()
    for _ in range(10):
        backoff.next_wait_s(0.1)
    assert backoff.next_wait_s(11.0) == 0
