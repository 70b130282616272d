"""Workers as the supervisor sees them: real forks, real rings, a notary that only says yes."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edge.config.sources import RawFile, Sources
from edge.serve.board import Board
from edge.serve.children import Exit, Nursery
from edge.serve.messages import MAX_DOWN_BYTES, Decoder, Kind, Note, encode_note
from edge.serve.notary_link import NotaryLink
from edge.serve.pool import Boot, Pool
from edge.serve.reactor import Reactor
from edge.serve.report import Report
from edge.serve.run_state import RunState

SOURCES = Sources(Path("/e/edge.yaml"), RawFile("edge.yaml", b"x"), "policies", (), (), {}, {}, {})


def notary(commands: socket.socket) -> None:
    commands.send(b'{"ready":0}')
    while True:
        raw, descriptors, _, _ = socket.recv_fds(commands, 65536, 4)
        for descriptor in descriptors:
            os.close(descriptor)
        match json.loads(raw) if raw else None:
            case {"attach": str(_), "writer": str(writer)}:
                commands.send(json.dumps({"attached": writer}).encode())
            case {"gone": str(writer)}:
                commands.send(json.dumps({"recovered": writer, "unknown": 2}).encode())
            case _:
                return


def obedient(boot: Boot) -> int:
    """Serves at once and does what it is told."""
    boot.channel.setblocking(True)
    boot.channel.sendall(encode_note(Kind.SERVING, Note()))
    decoder = Decoder(MAX_DOWN_BYTES)
    while received := boot.channel.recv(65536):
        for kind, payload in decoder.feed(received):
            if kind in (Kind.DRAIN, Kind.RETIRE):
                return 0
            boot.channel.sendall(encode_note(Kind.PREPARED, Note(bundle_hash=str(len(payload)))))
    return 0


def unable(boot: Boot) -> int:
    boot.channel.sendall(encode_note(Kind.FAILED, Note(detail="no certificate", exit_code=4)))
    return 4


def rude(boot: Boot) -> int:
    boot.channel.sendall(b"\xff\xff\xff\xff")
    signal.pause()
    return 0


class Seen:
    """What the pool told its owner."""

    def __init__(self) -> None:
        self.forked: list[int] = []
        self.notes: list[tuple[int, Kind, Note]] = []
        self.lost: list[Exit] = []
        self.recovered: list[int] = []


MakePool = Callable[[Callable[[Boot], int]], Pool]


@pytest.fixture
def seen() -> Seen:
    return Seen()


@pytest.fixture
def make(reactor: Reactor, nursery: Nursery, tmp_path: Path, seen: Seen) -> Iterator[MakePool]:
    run = RunState.claim(tmp_path / "state")
    link = NotaryLink(reactor, nursery, notary, Report("test"))
    link.start()
    listener = socket.create_server(("127.0.0.1", 0))
    pools = []

    def make(main: Callable[[Boot], int]) -> Pool:
        pool = Pool(
            reactor,
            nursery,
            link,
            run,
            Report("test"),
            listeners={"public": [listener]},
            board=Board(1),
            pseudonym_key=bytes(32),
            main=main,
            current=lambda: SOURCES,
            on_forked=seen.forked.append,
            on_note=lambda number, kind, note: seen.notes.append((number, kind, note)),
            on_lost=lambda worker, ended: seen.lost.append(ended),
            on_recovered=lambda name, unknown: seen.recovered.append(unknown),
        )
        pools.append(pool)
        pool.start(0)
        return pool

    yield make
    for pool in pools:
        pool.drain()
        pool.kill()
    assert reactor.run_until(lambda: not nursery.pids[1:] and not link.writers, 5)
    link.abandon()
    assert reactor.run_until(lambda: link.is_stopped, 5)
    listener.close()
    run.close()


def worker_pid(pool: Pool, nursery: Nursery) -> int:
    return max(nursery.pids)


def test_worker_is_forked_when_its_ring_is_attached_and_says_when_it_serves(reactor: Reactor, make: MakePool) -> None:
    pool = make(obedient)
    assert pool.is_empty  # no fork before the notary answered
    assert reactor.run_until(lambda: pool.serving() == (1,), 5)


def test_killed_worker_is_recovered_and_replaced(
    reactor: Reactor, nursery: Nursery, make: MakePool, seen: Seen
) -> None:
    pool = make(obedient)
    assert reactor.run_until(lambda: pool.serving() == (1,), 5)
    os.kill(worker_pid(pool, nursery), signal.SIGKILL)
    assert reactor.run_until(lambda: bool(seen.lost), 3)
    assert reactor.run_until(lambda: pool.serving() == (2,) and seen.recovered == [2], 3)
    assert str(seen.lost[0]) == "SIGKILL"


def test_sources_travel_whole(reactor: Reactor, make: MakePool, seen: Seen) -> None:
    pool = make(obedient)
    assert reactor.run_until(lambda: pool.serving() == (1,), 5)
    big = Sources(SOURCES.source, RawFile("edge.yaml", bytes(2 << 20)), "policies", (), (), {}, {}, {})
    pool.send(1, Kind.PREPARE, big)
    assert reactor.run_until(lambda: len(seen.notes) > 1, 5)
    assert seen.notes[1][1] is Kind.PREPARED
    assert int(seen.notes[1][2].bundle_hash) > 2 << 20


def test_frame_to_nobody_is_dropped(make: MakePool) -> None:
    make(obedient).send(5, Kind.COMMIT)


def test_worker_that_cannot_start_says_why(reactor: Reactor, make: MakePool) -> None:
    pool = make(unable)
    assert reactor.run_until(lambda: pool.first_failure is not None, 5)
    assert pool.first_failure == Note(detail="no certificate", exit_code=4)


def test_worker_that_breaks_the_framing_is_killed(reactor: Reactor, make: MakePool, seen: Seen) -> None:
    make(rude)
    assert reactor.run_until(lambda: bool(seen.lost), 5)
    assert str(seen.lost[0]) == "SIGKILL"


def test_process_is_told_of_before_it_can_serve(reactor: Reactor, make: MakePool, seen: Seen) -> None:
    def hangs(boot: Boot) -> int:
        signal.pause()
        return 0

    pool = make(hangs)
    assert reactor.run_until(lambda: bool(seen.forked), 5)
    assert (seen.forked, pool.living(), pool.serving()) == ([1], (1,), ())


def test_drained_workers_are_not_replaced(reactor: Reactor, make: MakePool, seen: Seen) -> None:
    pool = make(obedient)
    assert reactor.run_until(lambda: pool.serving() == (1,), 5)
    pool.drain()
    assert reactor.run_until(lambda: pool.is_empty and bool(seen.recovered), 5)
    assert seen.lost[0].status == 0
    pool.start(0)
    assert not reactor.run_until(lambda: not pool.is_empty, 0.05)


def test_successor_serves_before_the_one_before_retires(reactor: Reactor, make: MakePool, seen: Seen) -> None:
    pool = make(obedient)
    assert reactor.run_until(lambda: pool.serving() == (1,), 5)
    tried: list[str | None] = []
    pool.start(0, tried.append)
    assert reactor.run_until(lambda: bool(tried), 5)
    assert (tried, pool.serving(), pool.is_retiring) == ([None], (1, 2), False)
    pool.retire(0)
    assert [worker.state for worker in pool.workers] == ["retiring", "serving"]
    assert pool.serving() == (1, 2)  # it takes part in reloads until it has left
    assert reactor.run_until(lambda: bool(seen.lost), 5)
    assert not reactor.run_until(lambda: pool.serving() != (2,), 0.05)  # nobody takes its place a second time


def test_successor_that_cannot_serve_leaves_the_one_before_alone(reactor: Reactor, make: MakePool, seen: Seen) -> None:
    pool = make(lambda boot: (obedient if boot.row is boot.board.rows[0] else unable)(boot))
    assert reactor.run_until(lambda: pool.serving() == (1,), 5)
    tried: list[str | None] = []
    pool.start(0, tried.append)
    assert reactor.run_until(lambda: bool(tried), 5)
    assert (tried, pool.serving()) == (["no certificate"], (1,))
    assert not reactor.run_until(lambda: len(pool.workers) > 1, 0.05)


def test_worker_that_dies_while_its_successor_starts_is_not_replaced_twice(
    reactor: Reactor, nursery: Nursery, make: MakePool, seen: Seen
) -> None:
    pool = make(obedient)
    assert reactor.run_until(lambda: pool.serving() == (1,), 5)
    tried: list[str | None] = []
    first = worker_pid(pool, nursery)
    pool.start(0, tried.append)
    os.kill(first, signal.SIGKILL)
    assert reactor.run_until(lambda: bool(tried) and bool(seen.lost), 5)
    assert tried == [None]
    assert not reactor.run_until(lambda: len(pool.workers) > 1, 0.05)
    assert pool.serving() == (2,)


def test_third_generation_waits_for_the_first_to_leave(reactor: Reactor, make: MakePool) -> None:
    def stays(boot: Boot) -> int:
        boot.channel.setblocking(True)
        boot.channel.sendall(encode_note(Kind.SERVING, Note()))
        while boot.channel.recv(65536):
            pass  # told to leave, it still has something to finish
        return 0

    pool, tried = make(stays), list[str | None]()
    assert reactor.run_until(lambda: pool.serving() == (1,), 5)
    for done in (1, 2):
        pool.start(0, tried.append)
        assert reactor.run_until(lambda: len(tried) == done, 5)  # noqa: B023 - used at once
        pool.retire(0)
    pool.start(0, tried.append)
    assert tried[:2] == [None, None]
    assert "2 processes before it" in str(tried[2])
    assert pool.serving() == (1, 2, 3)
