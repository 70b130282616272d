"""A rolling restart against workers that do as the test says."""

from __future__ import annotations

from edge.serve.reactor import Reactor
from edge.serve.rolling import Done, Rolling


class Workers:
    """What a pool would do, one step at a time."""

    def __init__(self) -> None:
        self.steps: list[str] = []
        self.tried: list[Done] = []
        self.is_retiring = False

    def start(self, index: int, tried: Done) -> None:
        self.steps.append(f"start {index}")
        self.tried.append(tried)

    def retire(self, index: int) -> None:
        self.steps.append(f"retire {index}")
        self.is_retiring = True


def test_workers_are_succeeded_one_by_one_and_the_answer_waits_for_the_old(reactor: Reactor) -> None:
    workers, answers = Workers(), list[str | None]()
    Rolling(reactor, workers, 2).request(answers.append)
    assert workers.steps == ["start 0"]
    workers.tried[0](None)
    workers.tried[1](None)
    assert workers.steps == ["start 0", "retire 0", "start 1", "retire 1"]
    assert answers == []
    workers.is_retiring = False
    assert reactor.run_until(lambda: bool(answers), 2)
    assert answers == [None]


def test_successor_that_does_not_serve_ends_the_restart_before_anybody_retires(reactor: Reactor) -> None:
    workers, answers = Workers(), list[str | None]()
    Rolling(reactor, workers, 2).request(answers.append)
    workers.tried[0]("no certificate")
    assert workers.steps == ["start 0"]
    assert answers == ["the successor of worker 0 does not serve: no certificate; the one before goes on"]


def test_second_request_joins_the_restart_under_way(reactor: Reactor) -> None:
    workers, answers = Workers(), list[str | None]()
    rolling = Rolling(reactor, workers, 1)
    rolling.request(answers.append)
    rolling.request(answers.append)
    assert workers.steps == ["start 0"]
    workers.tried[0]("no")
    assert len(answers) == 2
    rolling.request(answers.append)  # and a later one begins anew
    assert workers.steps == ["start 0", "start 0"]
