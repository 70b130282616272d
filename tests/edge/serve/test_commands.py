"""Commands over the control socket, against a reload and workers that do as the test says."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from edge.serve.board import Board
from edge.serve.commands import Commands
from edge.serve.control_socket import Answer, Command, Reply
from edge.serve.reactor import Reactor
from edge.serve.report import Report
from edge.serve.rolling import Done, Rolling
from edge.serve.status import Status, collect


class Reloads:
    def __init__(self, answer: Answer) -> None:
        self.answer = answer

    def request(self, reply: Reply) -> None:
        reply(self.answer)


class Workers:
    """Each successor serves, or fails as it is told."""

    is_retiring = False

    def __init__(self, failure: str | None) -> None:
        self.failure = failure
        self.started: list[int] = []

    def start(self, index: int, tried: Done) -> None:
        self.started.append(index)
        tried(self.failure)

    def retire(self, index: int) -> None:
        assert index in self.started


def status() -> Status:
    return collect(
        Board(1),
        bundle_hash="",
        listeners={},
        processes=[],
        store="",
        has_limits=False,
        certificates=(),
        log_directory=Path("/nowhere"),
    )


def ask(reactor: Reactor, command: str, reload: Answer, workers: Workers) -> Answer:
    answers: list[Answer] = []
    commands = Commands(Reloads(reload), Rolling(reactor, workers, 3), None, Report("test"), status)
    commands.handle(Command(command), answers.append)
    assert reactor.run_until(lambda: bool(answers), 2)
    [answer] = answers
    return answer


GOOD = Answer(ok=True, bundle_hash="ab", changed=True)


def test_status_is_asked_when_it_is_wanted(reactor: Reactor) -> None:
    before = time.time()
    answer = ask(reactor, "status", GOOD, Workers(None))
    assert answer.ok
    assert answer.status is not None
    assert answer.status.uptime_s >= int(before)  # the board of this test was never told when it started


def test_reload_alone_leaves_the_workers(reactor: Reactor) -> None:
    workers = Workers(None)
    assert ask(reactor, "reload", GOOD, workers) == GOOD
    assert workers.started == []


def test_workers_are_replaced_after_the_files_were_read(reactor: Reactor) -> None:
    workers = Workers(None)
    answer = ask(reactor, "reload-workers", GOOD, workers)
    assert (answer.ok, answer.bundle_hash, answer.restarted) == (True, "ab", 3)
    assert workers.started == [0, 1, 2]


def test_wrong_files_keep_the_workers(reactor: Reactor) -> None:
    workers, wrong = Workers(None), Answer(ok=False, faults=("routes.yaml:1:1: …",))
    assert ask(reactor, "reload-workers", wrong, workers) == wrong
    assert workers.started == []


def test_successor_that_does_not_serve_is_told(reactor: Reactor, capsys: pytest.CaptureFixture[str]) -> None:
    answer = ask(reactor, "reload-workers", GOOD, Workers("no memory"))
    assert (answer.ok, answer.restarted) == (False, 0)
    assert "no memory" in answer.faults[0]
    assert "workers not restarted" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["", "Reload", "reload-everything", "x" * 1000])
def test_unknown_command_is_refused(reactor: Reactor, command: str) -> None:
    answer = ask(reactor, command, GOOD, Workers(None))
    assert not answer.ok
    assert len(answer.faults[0]) < 100
