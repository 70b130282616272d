"""The supervisor's end of the notary, against a small process that keeps the same agreement."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge.serve.children import Nursery
from edge.serve.notary_link import NotaryLink
from edge.serve.reactor import Reactor
from edge.serve.report import Report


def notary(commands: socket.socket) -> None:
    """What the real one answers; a ring whose path says so makes it die, hang or complain."""

    def tell(message: dict[str, object]) -> None:
        commands.send(json.dumps(message).encode())

    tell({"ready": 7})
    while True:
        raw, descriptors, _, _ = socket.recv_fds(commands, 65536, 4)
        if not raw:
            return
        match json.loads(raw):
            case {"attach": "die", "writer": _}:
                os.kill(os.getpid(), signal.SIGKILL)
            case {"attach": "garbage", "writer": _}:
                commands.send(b"{")
            case {"attach": "broken", "writer": str(writer)}:
                tell({"broken": writer, "why": "torn"})
            case {"attach": str(_), "writer": str(writer)}:
                if descriptors:
                    os.write(descriptors[0], b"attached")
                    os.close(descriptors[0])
                tell({"attached": writer})
            case {"gone": str(writer)}:
                tell({"recovered": writer, "unknown": 3})
            case {"seal": True}:
                tell({"sealed": 9})
                return


@pytest.fixture
def link(reactor: Reactor, nursery: Nursery) -> Iterator[NotaryLink]:
    link = NotaryLink(reactor, nursery, notary, Report("test"))
    yield link
    link.abandon()
    assert reactor.run_until(lambda: link.is_stopped, 5)


def ready(reactor: Reactor, link: NotaryLink) -> None:
    link.start()
    assert reactor.run_until(lambda: link.is_ready, 5)


def test_size_of_the_log_comes_with_ready(reactor: Reactor, link: NotaryLink) -> None:
    ready(reactor, link)
    assert link.size == 7


def test_writer_announced_before_ready_is_attached_after_it(reactor: Reactor, link: NotaryLink) -> None:
    attached: list[int] = []
    ours, theirs = socket.socketpair()
    link.attach("w", Path("ring"), theirs, on_attached=lambda: attached.append(1))
    ready(reactor, link)
    assert reactor.run_until(lambda: bool(attached), 5)
    assert ours.recv(20) == b"attached"
    ours.close()
    theirs.close()


def test_killed_notary_is_replaced_and_given_the_same_descriptors(reactor: Reactor, link: NotaryLink) -> None:
    attached: list[int] = []
    ours, theirs = socket.socketpair()
    ready(reactor, link)
    link.attach("w", Path("ring"), theirs, on_attached=lambda: attached.append(1))
    assert reactor.run_until(lambda: len(attached) == 1, 5)
    link.kill()
    assert reactor.run_until(lambda: len(attached) == 2, 3)
    assert ours.recv(20) == b"attachedattached"
    ours.close()
    theirs.close()


def test_dead_writer_is_recovered_once_even_if_the_notary_died_in_between(reactor: Reactor, link: NotaryLink) -> None:
    recovered: list[int] = []
    ours, theirs = socket.socketpair()
    ready(reactor, link)
    link.attach("w", Path("ring"), theirs, on_recovered=recovered.append)
    link.kill()
    link.gone("w")
    link.gone("w")
    assert reactor.run_until(lambda: not link.writers, 5)
    reactor.run_until(lambda: False, 0.02)
    assert recovered == [3]
    assert theirs.fileno() == -1  # our copy of its end is closed
    ours.close()


def test_ring_of_an_earlier_run_is_recovered(reactor: Reactor, link: NotaryLink) -> None:
    recovered: list[int] = []
    link.attach("old", Path("ring"), None, on_recovered=recovered.append)
    link.gone("old")
    ready(reactor, link)
    assert reactor.run_until(lambda: recovered == [3], 5)


def test_writer_of_a_broken_ring_is_told(reactor: Reactor, link: NotaryLink) -> None:
    broken: list[int] = []
    ready(reactor, link)
    link.attach("w", Path("broken"), None, on_broken=lambda: broken.append(1))
    assert reactor.run_until(lambda: broken == [1], 5)


@pytest.mark.parametrize("path", ["die", "garbage"])
def test_notary_that_dies_or_talks_nonsense_is_replaced(
    reactor: Reactor, nursery: Nursery, link: NotaryLink, path: str
) -> None:
    ready(reactor, link)
    (pid,) = nursery.pids
    link.attach("w", Path(path), None)
    assert reactor.run_until(lambda: nursery.pids != (pid,), 5)
    link.abandon()
    assert reactor.run_until(lambda: link.is_stopped, 5)


def test_seal_is_known_by_its_last_word(reactor: Reactor, link: NotaryLink) -> None:
    ready(reactor, link)
    link.seal()
    assert reactor.run_until(lambda: link.is_stopped, 5)
    assert (link.is_sealed, link.size) == (True, 9)


def test_notary_killed_while_sealing_is_replaced_and_told_again(reactor: Reactor, link: NotaryLink) -> None:
    ready(reactor, link)
    link.kill()
    link.seal()
    assert reactor.run_until(lambda: link.is_stopped and link.is_sealed, 5)


def test_sigterm_to_everybody_leaves_it_at_work(reactor: Reactor, nursery: Nursery, link: NotaryLink) -> None:
    ready(reactor, link)
    os.kill(nursery.pids[0], signal.SIGTERM)
    os.kill(nursery.pids[0], signal.SIGINT)
    link.seal()
    assert reactor.run_until(lambda: link.is_sealed, 5)


def test_log_that_cannot_be_opened_is_counted_and_can_be_given_up(reactor: Reactor, nursery: Nursery) -> None:
    def broken(_: socket.socket) -> None:
        raise SystemExit(4)

    link = NotaryLink(reactor, nursery, broken, Report("test"))
    link.start()
    assert reactor.run_until(lambda: link.failed_starts >= 2, 5)
    link.abandon()
    reactor.run_until(lambda: not nursery.pids, 2)
    assert not link.is_ready
