"""Workers that hang: real forks that stop saying how they are."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edge.observe import Gauge, Observer
from edge.serve.board import Board
from edge.serve.children import Exit, Nursery
from edge.serve.messages import Kind, Note, encode_note
from edge.serve.notary_link import NotaryLink
from edge.serve.pool import Boot, Pool
from edge.serve.reactor import Reactor
from edge.serve.report import Report
from edge.serve.run_state import RunState
from edge.serve.watchdog import Watchdog
from tests.edge.serve.test_pool import SOURCES, notary

EVERY_S, LOOKS = 0.05, 12


def beats(boot: Boot, times: int) -> None:
    """Serve, and say so on the board as often as that."""
    boot.channel.setblocking(True)
    boot.channel.sendall(encode_note(Kind.SERVING, Note()))
    observer = Observer(boot.row.memory)
    for _ in range(times):
        observer.show(Gauge.UPDATED_NS, time.monotonic_ns())
        time.sleep(EVERY_S / 2)


def hangs(boot: Boot) -> int:
    beats(boot, 2)
    while True:
        pass


def hangs_in_a_system_call(boot: Boot) -> int:
    beats(boot, 2)
    signal.pause()
    return 0


def is_stopped(boot: Boot) -> int:
    beats(boot, 2)
    os.kill(os.getpid(), signal.SIGSTOP)
    return 0


def works(boot: Boot) -> int:
    beats(boot, 1 << 20)
    return 0


Watch = Callable[[Callable[[Boot], int]], list[Exit]]


@pytest.fixture
def watched(reactor: Reactor, nursery: Nursery, tmp_path: Path) -> Iterator[Watch]:
    """A pool of one worker whose body is given, and those that ended."""
    run = RunState.claim(tmp_path / "state")
    link = NotaryLink(reactor, nursery, notary, Report("test"))
    link.start()
    listener = socket.create_server(("127.0.0.1", 0))
    board, lost, pools = Board(1), list[Exit](), list[Pool]()

    def watch(main: Callable[[Boot], int]) -> list[Exit]:
        pool = Pool(
            reactor,
            nursery,
            link,
            run,
            Report("test"),
            listeners={"public": [listener]},
            board=board,
            pseudonym_key=bytes(32),
            main=main,
            current=lambda: SOURCES,
            on_forked=lambda number: None,
            on_note=lambda number, kind, note: None,
            on_lost=lambda worker, ended: lost.append(ended),
            on_recovered=lambda name, unknown: None,
        )
        pools.append(pool)
        pool.start(0)
        Watchdog(reactor, nursery, board, pool, Report("test"), every_s=EVERY_S, hangs_after=LOOKS)
        return lost

    yield watch
    for pool in pools:
        pool.drain()
        pool.kill()
    assert reactor.run_until(lambda: not nursery.pids[1:] and not link.writers, 5)
    link.abandon()
    assert reactor.run_until(lambda: link.is_stopped, 5)
    listener.close()
    run.close()


@pytest.mark.parametrize("main", [hangs, hangs_in_a_system_call])
def test_a_worker_that_hangs_is_ended_and_replaced(
    reactor: Reactor, nursery: Nursery, watched: Watch, capfd: pytest.CaptureFixture[str], main: Callable[[Boot], int]
) -> None:
    lost = watched(main)
    assert reactor.run_until(lambda: bool(lost), 10)
    assert str(lost[0]) == "SIGABRT"
    assert reactor.run_until(lambda: len(nursery.pids) == 2, 5)  # the notary, and the next worker
    assert "worker hangs" in capfd.readouterr().err


def test_one_that_cannot_even_take_a_signal_is_killed(reactor: Reactor, watched: Watch) -> None:
    lost = watched(is_stopped)
    assert reactor.run_until(lambda: bool(lost), 10)
    assert str(lost[0]) == "SIGKILL"


def test_one_that_says_how_it_is_stays(reactor: Reactor, watched: Watch) -> None:
    lost = watched(works)
    assert not reactor.run_until(lambda: bool(lost), EVERY_S * LOOKS * 4)
