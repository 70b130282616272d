"""A loop and its children for each test; none of them outlives it."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from edge.serve.children import Nursery
from edge.serve.reactor import Reactor
from tests.edge.serve.registries import views, world

__all__ = ["views", "world"]


@pytest.fixture
def reactor() -> Iterator[Reactor]:
    reactor = Reactor()
    yield reactor
    reactor.close()


@pytest.fixture
def nursery(reactor: Reactor) -> Iterator[Nursery]:
    nursery = Nursery()
    before = signal.getsignal(signal.SIGCHLD)
    reactor.catch((signal.SIGCHLD,), lambda _: nursery.reap())
    yield nursery
    for _ in range(3):  # an owner may replace one child more
        for pid in nursery.pids:
            nursery.kill(pid)
        assert reactor.run_until(lambda: not nursery.pids, 5)
    signal.signal(signal.SIGCHLD, before)
