"""One process that is heard by bytes is kept, and what its keeper says of its end."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from functools import partial

import pytest

from edge.serve.children import Nursery
from edge.serve.kept import Kept
from edge.serve.reactor import Reactor
from edge.serve.report import Report


def write_and_stay(pipe: int) -> int:
    os.write(pipe, b"\n")
    time.sleep(60)
    return 0


class Owner:
    def __init__(self, reactor: Reactor, nursery: Nursery) -> None:
        self.started = self.heard = 0
        self.kept = Kept(reactor, nursery, Report("test"), "thing", self.body, self.on_bytes)

    def body(self, pipe: int) -> Callable[[], int]:
        self.started += 1
        return partial(write_and_stay, pipe)

    def on_bytes(self) -> None:
        self.heard += 1


def started(reactor: Reactor, nursery: Nursery) -> Owner:
    owner = Owner(reactor, nursery)
    owner.kept.start()
    assert reactor.run_until(lambda: owner.heard == 1, 5)
    return owner


def stopped(owner: Owner, reactor: Reactor) -> None:
    owner.kept.stop()
    assert reactor.run_until(lambda: owner.kept.is_stopped, 5)


def test_a_start_more_starts_nobody(reactor: Reactor, nursery: Nursery) -> None:
    owner, alive = started(reactor, nursery), nursery.pids
    owner.kept.start()
    assert nursery.pids == alive
    stopped(owner, reactor)


def test_who_is_renewed_or_killed_by_another_is_succeeded_and_the_other_is_told_of(
    reactor: Reactor, nursery: Nursery, capsys: pytest.CaptureFixture[str]
) -> None:
    owner = started(reactor, nursery)
    owner.kept.renew()
    assert reactor.run_until(lambda: owner.heard == 2, 5)
    assert capsys.readouterr().err == ""
    os.kill(nursery.pids[0], signal.SIGKILL)
    assert reactor.run_until(lambda: owner.heard == 3, 5)
    assert "thing ended; starting another (cause=SIGKILL" in capsys.readouterr().err
    stopped(owner, reactor)


def test_who_is_renewed_while_its_successor_waits_starts_once(reactor: Reactor, nursery: Nursery) -> None:
    """The second death in a row waits a tenth of a second."""
    owner = started(reactor, nursery)
    os.kill(nursery.pids[0], signal.SIGKILL)
    assert reactor.run_until(lambda: owner.heard == 2, 5)
    os.kill(nursery.pids[0], signal.SIGKILL)
    assert reactor.run_until(lambda: owner.kept.is_stopped, 5)
    owner.kept.renew()
    reactor.after(0.2, lambda: owner.kept.stop() if owner.started == 3 else None)
    assert reactor.run_until(lambda: owner.kept.is_stopped, 5)


def test_who_was_stopped_has_no_successor(reactor: Reactor, nursery: Nursery) -> None:
    owner = started(reactor, nursery)
    stopped(owner, reactor)
    owner.kept.start()
    assert (owner.kept.is_stopped, owner.started) == (True, 1)
