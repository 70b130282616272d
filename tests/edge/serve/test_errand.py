"""Work in a short-lived child: whatever it does costs one failure."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import pytest

from edge.serve.children import Nursery
from edge.serve.errand import Errand, Failure
from edge.serve.reactor import Reactor


def run(reactor: Reactor, nursery: Nursery, work: Callable[[], bytes], timeout_s: float = 5) -> bytes | Failure:
    results: list[bytes | Failure] = []
    Errand(reactor, nursery, "edge-errand", work, results.append, timeout_s=timeout_s)
    assert reactor.run_until(lambda: bool(results) and not nursery.pids, 10)
    assert len(results) == 1
    return results[0]


def crash() -> bytes:
    os.kill(os.getpid(), signal.SIGSEGV)
    return b"never"


def hang() -> bytes:
    signal.pause()
    return b"never"


def leave_early() -> bytes:
    os._exit(0)


@pytest.mark.parametrize("size", [0, 1, 1 << 16, 3 << 20])
def test_result_of_any_size_comes_back_whole(reactor: Reactor, nursery: Nursery, size: int) -> None:
    assert run(reactor, nursery, lambda: b"x" * size) == b"x" * size


def test_native_crash_is_a_failure(reactor: Reactor, nursery: Nursery) -> None:
    assert run(reactor, nursery, crash) == Failure("SIGSEGV")


def test_hang_is_a_failure(reactor: Reactor, nursery: Nursery) -> None:
    assert run(reactor, nursery, hang, timeout_s=0.05) == Failure("no result within 0.05 s")


def test_flood_is_a_failure(reactor: Reactor, nursery: Nursery) -> None:
    assert run(reactor, nursery, lambda: bytes(17 << 20)) == Failure("its result is too large")


def test_exit_code_other_than_zero_is_a_failure_whatever_was_written(reactor: Reactor, nursery: Nursery) -> None:
    def refuse() -> bytes:
        raise SystemExit(3)

    assert run(reactor, nursery, refuse) == Failure("exit code 3")


def test_child_that_says_nothing_gives_nothing(reactor: Reactor, nursery: Nursery) -> None:
    assert run(reactor, nursery, leave_early) == b""
