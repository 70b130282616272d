"""A reload from its cause to its answer: real files, a real judging child, workers that answer as the test says."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from edge.config.io_load import load
from edge.config.sources import Sources
from edge.serve.children import Nursery
from edge.serve.control_socket import Answer
from edge.serve.messages import Kind, Note
from edge.serve.outline import Outline, digest, judge, read_verdict
from edge.serve.reactor import Reactor
from edge.serve.reload import Current, Event, Reload
from edge.serve.renewal import Renewed
from edge.serve.report import Report

POLICIES = Path(__file__).parents[3] / "policies"
EDGE_YAML = """\
trust_domain: mesh.internal
listeners:
  public: {bind: "127.0.0.1:8443", hosts: [localhost]}
"""


class Scene:
    """One supervisor without processes: the workers' side of the agreement is played by the test."""

    def __init__(
        self,
        directory: Path,
        reactor: Reactor,
        nursery: Nursery,
        workers: Sequence[int],
        *,
        prepare_within_s: float = 10,
    ) -> None:
        self.edge_yaml = directory / "edge.yaml"
        self.policies = directory / "policies"
        shutil.copytree(POLICIES, self.policies)
        self.edge_yaml.write_text(EDGE_YAML)
        self.reactor = reactor
        self.workers = list(workers)
        self.starting: set[int] = set()
        self.transcript: list[str] = []
        self.answers: list[Answer] = []
        self.renewals: list[Outline] = []
        self.renewed = Renewed(changed=("public",))
        sources = self.load()
        verdict = read_verdict(judge(sources), "edge.yaml")
        assert verdict.outline is not None, verdict.faults
        self.first = Current(sources, verdict.outline)
        self.reload = Reload(
            reactor,
            nursery,
            self,
            self.first,
            Report("test"),
            load=self.load,
            renew=self.renew,
            record=self.record,
            on_applied=lambda current: None,
            prepare_within_s=prepare_within_s,
        )

    def load(self) -> Sources:
        return load(self.edge_yaml, os.environ)

    def renew(self, outline: Outline, done: Callable[[Renewed], None]) -> None:
        self.renewals.append(outline)
        done(self.renewed)

    def record(self, event: Event, bundle_hash: str, previous: str, failed: str | None) -> None:
        self.transcript.append(f"log {event.value}" + (f" {failed}" if failed else ""))

    def living(self) -> tuple[int, ...]:
        return tuple(self.workers)

    def serving(self) -> tuple[int, ...]:
        return tuple(set(self.workers) - self.starting)

    def send(self, index: int, kind: Kind, sources: Sources | None = None) -> None:
        self.transcript.append(f"{kind.name} {index}")

    def kill(self, indices: tuple[int, ...] | None = None) -> None:
        self.transcript.append(f"kill {indices}")

    def request(self) -> None:
        self.reload.request(self.answers.append)

    def until(self, line: str) -> None:
        assert self.reactor.run_until(lambda: line in self.transcript, 10), self.transcript

    def until_answered(self, count: int = 1) -> Answer:
        assert self.reactor.run_until(lambda: len(self.answers) >= count, 10), self.transcript
        return self.answers[count - 1]

    def say(self, index: int, kind: Kind, detail: str = "") -> None:
        self.reload.heard(index, kind, Note(bundle_hash=digest(self.load()), detail=detail))

    def edit(self, text: str = "# a comment\n") -> None:
        routes = self.policies / "routes.yaml"
        routes.write_text(routes.read_text() + text)


MakeScene = Callable[..., Scene]


@pytest.fixture
def scene(tmp_path: Path, reactor: Reactor, nursery: Nursery) -> MakeScene:
    return lambda *workers, **within: Scene(tmp_path, reactor, nursery, workers, **within)


def test_bundle_is_logged_before_it_is_sent_and_again_before_it_decides(scene: MakeScene) -> None:
    it = scene(0, 1)
    it.edit()
    it.request()
    it.until("PREPARE 1")
    it.say(0, Kind.PREPARED)
    assert it.reload.current is it.first
    it.say(1, Kind.PREPARED)
    assert it.reload.current is not it.first
    it.say(0, Kind.COMMITTED)
    it.say(1, Kind.COMMITTED)
    assert it.transcript == [
        "log config.prepare",
        "PREPARE 0",
        "PREPARE 1",
        "log config.reload",
        "COMMIT 0",
        "COMMIT 1",
    ]
    assert it.until_answered() == Answer(ok=True, bundle_hash=it.load().bundle_hash, changed=True)


def test_nothing_new_is_nothing_done(scene: MakeScene) -> None:
    it = scene(0)
    it.request()
    assert it.until_answered() == Answer(ok=True, bundle_hash=it.first.sources.bundle_hash, changed=False)
    assert it.transcript == []


def test_broken_file_changes_nothing_and_every_fault_is_one_line(
    scene: MakeScene, capsys: pytest.CaptureFixture[str]
) -> None:
    it = scene(0)
    it.edit("nonsense: [1\n")
    it.request()
    answer = it.until_answered()
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("policies/routes.yaml:")]
    assert not answer.ok
    assert list(answer.faults) == lines
    assert it.reload.current is it.first
    assert [line for line in it.transcript if not line.startswith("log config.refused")] == []


def test_missing_file_changes_nothing(scene: MakeScene) -> None:
    it = scene(0)
    it.edge_yaml.unlink()
    it.request()
    assert "unsafe-state" in it.until_answered().faults[0]


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("mesh.internal", "mash.internal", "trust_domain"),
        ("127.0.0.1:8443", "127.0.0.1:8444", "listeners"),
        ("listeners:", "state: elsewhere\nlisteners:", "state"),
        ("listeners:", "audit: {durability: strict}\nlisteners:", "audit"),
    ],
)
def test_what_is_made_once_cannot_be_reloaded(scene: MakeScene, old: str, new: str, named: str) -> None:
    it = scene(0)
    it.edge_yaml.write_text(EDGE_YAML.replace(old, new))
    it.request()
    answer = it.until_answered()
    assert any(f"needs-restart: {named}: " in fault for fault in answer.faults)
    assert it.reload.current is it.first


def test_worker_that_cannot_prepare_stops_it_for_all(scene: MakeScene) -> None:
    it = scene(0, 1)
    it.edit()
    it.request()
    it.until("PREPARE 1")
    it.say(0, Kind.PREPARED)
    it.say(1, Kind.FAILED, "no memory")
    assert "not-prepared: no memory" in it.until_answered().faults[0]
    assert it.transcript[-2:] == ["ABORT 0", "log config.refused not-prepared"]
    assert it.reload.current is it.first


def test_worker_forked_while_others_prepare_is_not_left_behind(scene: MakeScene) -> None:
    it = scene(0)
    it.edit()
    it.request()
    it.until("PREPARE 0")
    it.reload.joined(1)
    it.say(0, Kind.PREPARED)
    assert it.reload.current is it.first
    it.say(1, Kind.PREPARED)
    it.reload.joined(2)  # forked with the new state
    for worker in (0, 1):
        it.say(worker, Kind.COMMITTED)
    assert it.until_answered().changed
    assert it.transcript[1:] == ["PREPARE 0", "PREPARE 1", "log config.reload", "COMMIT 0", "COMMIT 1"]


def test_worker_forked_while_nothing_is_reloaded_is_asked_nothing(scene: MakeScene) -> None:
    it = scene(0)
    it.reload.joined(1)
    assert it.transcript == []


def test_worker_that_hangs_at_its_start_is_killed_and_the_others_go_on(scene: MakeScene) -> None:
    it = scene(0, 1, prepare_within_s=0.2)
    it.starting = {1}
    it.edit()
    it.request()
    it.until("PREPARE 1")
    it.say(0, Kind.PREPARED)
    it.until("kill (1,)")
    it.reload.lost(1)
    it.say(0, Kind.COMMITTED)
    assert it.until_answered().changed


def test_worker_that_serves_and_does_not_prepare_in_time_stops_it_for_all(scene: MakeScene) -> None:
    it = scene(0, prepare_within_s=0.1)
    it.edit()
    it.request()
    assert "not-prepared: workers (0,) did not prepare" in it.until_answered().faults[0]
    assert it.transcript[-2:] == ["ABORT 0", "log config.refused not-prepared"]


def test_without_a_worker_the_next_one_starts_with_the_new_state(scene: MakeScene) -> None:
    it = scene()
    it.edit()
    it.request()
    assert it.until_answered().changed
    assert it.reload.current is not it.first
    assert it.transcript == ["log config.prepare", "log config.reload"]


def test_worker_that_dies_after_preparing_does_not_undo_it(scene: MakeScene) -> None:
    it = scene(0)
    it.edit()
    it.request()
    it.until("PREPARE 0")
    it.say(0, Kind.PREPARED)
    it.reload.lost(0)
    assert it.until_answered().changed
    assert it.reload.current is not it.first


def test_causes_during_a_round_make_one_more_round(scene: MakeScene) -> None:
    it = scene()
    it.edit()
    it.request()
    it.request()
    it.request()
    it.until_answered(3)
    assert [answer.changed for answer in it.answers] == [True, False, False]


def test_new_hosts_get_their_certificate_first(scene: MakeScene) -> None:
    it = scene()
    it.edge_yaml.write_text(EDGE_YAML.replace("[localhost]", "[localhost, a.internal]"))
    it.request()
    assert it.until_answered().changed
    assert [outline.hosts for outline in it.renewals] == [("localhost", "a.internal")]


def test_hosts_that_cannot_be_certified_change_nothing(scene: MakeScene) -> None:
    it = scene()
    it.renewed = Renewed(failure="the authority is locked")
    it.edge_yaml.write_text(EDGE_YAML.replace("[localhost]", "[localhost, a.internal]"))
    it.request()
    assert "certificate: the authority is locked" in it.until_answered().faults[0]
    assert it.reload.current is it.first


def test_gateway_that_stops_takes_no_more(scene: MakeScene) -> None:
    it = scene(0)
    it.reload.close()
    it.request()
    assert it.until_answered() == Answer(ok=False, faults=("control: the gateway is stopping",))


def test_a_round_that_is_being_judged_when_the_gateway_stops_changes_and_records_nothing(scene: MakeScene) -> None:
    it = scene(0)
    it.edit()
    it.request()
    it.reload.close()
    assert it.until_answered().faults == ("control: the gateway is stopping",)
    assert it.transcript == []
    assert it.reload.current is it.first
