"""The supervisor's loop."""

from __future__ import annotations

import os
import signal
import socket

import pytest

from edge.serve.reactor import READ, WRITE, Reactor


def test_timers_come_in_the_order_of_their_moments(reactor: Reactor) -> None:
    seen: list[str] = []
    reactor.after(0.02, lambda: seen.append("later"))
    reactor.after(0.0, lambda: seen.append("now"))
    reactor.after(0.0, lambda: seen.append("now too"))
    assert reactor.run_until(lambda: len(seen) == 3, 2)
    assert seen == ["now", "now too", "later"]


def test_cancelled_timer_stays_silent(reactor: Reactor) -> None:
    seen: list[int] = []
    reactor.after(0.0, lambda: seen.append(1)).cancel()
    reactor.after(0.001, lambda: seen.append(2))
    assert reactor.run_until(lambda: bool(seen), 2)
    assert seen == [2]


def test_time_limit_is_told(reactor: Reactor) -> None:
    assert not reactor.run_until(lambda: False, 0.01)


def test_hang_up_counts_as_readable(reactor: Reactor) -> None:
    ours, theirs = socket.socketpair()
    seen: list[int] = []
    reactor.watch(ours.fileno(), READ, seen.append)
    theirs.close()
    assert reactor.run_until(lambda: bool(seen), 2)
    assert seen[0] & READ
    reactor.forget(ours.fileno())
    ours.close()


def test_forgotten_descriptor_is_not_called_even_in_the_same_turn(reactor: Reactor) -> None:
    pairs = [socket.socketpair() for _ in range(2)]
    seen: list[int] = []

    def first(_: int) -> None:
        seen.append(1)
        for ours, _theirs in pairs:
            reactor.forget(ours.fileno())

    for ours, theirs in pairs:
        theirs.send(b"x")
        reactor.watch(ours.fileno(), READ, first)
    assert reactor.run_until(lambda: bool(seen), 2)
    assert not reactor.run_until(lambda: len(seen) > 1, 0.01)
    for pair in pairs:
        for end in pair:
            end.close()


def test_forgetting_twice_is_harmless(reactor: Reactor) -> None:
    reactor.forget(99)


def test_watching_again_replaces(reactor: Reactor) -> None:
    ours, theirs = socket.socketpair()
    seen: list[int] = []
    reactor.watch(ours.fileno(), READ, lambda _: pytest.fail("replaced"))
    reactor.watch(ours.fileno(), READ | WRITE, seen.append)
    assert reactor.run_until(lambda: bool(seen), 2)
    assert seen[0] & WRITE
    for end in (ours, theirs):
        reactor.forget(end.fileno())
        end.close()


def test_signal_becomes_one_call_in_the_loop(reactor: Reactor) -> None:
    heard: list[int] = []
    before = signal.getsignal(signal.SIGUSR1)
    reactor.catch((signal.SIGUSR1,), heard.append)
    os.kill(os.getpid(), signal.SIGUSR1)
    os.kill(os.getpid(), signal.SIGUSR1)
    assert heard == []  # not from wherever the process happens to be
    assert reactor.run_until(lambda: bool(heard), 2)
    signal.signal(signal.SIGUSR1, before)
    assert heard == [signal.SIGUSR1]
