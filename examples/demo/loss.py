"""Promise 6: a process is killed, and nothing is lost."""

from __future__ import annotations

import json
import os
import signal
from contextlib import ExitStack
from typing import Any

from examples.demo.caller import Steady
from examples.demo.mesh import Mesh
from examples.demo.promise import Promises, expect, require
from examples.demo.stage import wait_for

_CALLERS = 4
_BACK_WITHIN_S = 3.0
_SERVED_WITHIN_S = 3.0
_LEAF_WITHIN_S = 5.0


def show(promises: Promises, mesh: Mesh) -> None:
    """kill -9 of a worker that is answering."""
    promises.chapter("A worker is killed, and nothing is lost")
    token = mesh.token("dave")
    lost = mesh.journal.lost
    with ExitStack() as stack:
        steady = [
            stack.enter_context(Steady(mesh.caller, "/billing/7", token, reconnects=True)) for _ in range(_CALLERS)
        ]
        wait_for("steady answers", lambda: all(len(each.statuses) > 5 for each in steady), _SERVED_WITHIN_S)
        with promises.promise(f"kill -9 of a worker under load → replaced within {_BACK_WITHIN_S:g} s") as facts:
            facts.append(_killed(mesh))
            before = [len(each.statuses) for each in steady]
            wait_for(
                "answers for every caller",
                lambda: all(len(each.statuses) > count + 5 for each, count in zip(steady, before, strict=True)),
                _SERVED_WITHIN_S,
            )
    with promises.promise("every answer it gave is a leaf, and what it was about to answer is one too") as facts:
        expect("statuses", {status for each in steady for status in each.statuses}, {200})
        broken = mesh.journal.lost - lost
        require(f"at most one request of each caller got no answer: {broken}", broken <= _CALLERS)
        unanswered = _unanswered(mesh)
        require(f"no more leaves without an answer than callers without one: {unanswered}", len(unanswered) <= broken)
        answered = sum(len(each.statuses) for each in steady)
        facts.append(f"{answered} answered, {broken} not; in the log without an answer: {unanswered or 'none'}")


def _status(mesh: Mesh) -> dict[str, Any]:
    # Any exit code: 1 while a worker is missing, which is what is waited for.
    found: dict[str, Any] = json.loads(mesh.stage.edge("status", "--json", "-c", mesh.config, code=None).stdout)
    return found


def _killed(mesh: Mesh) -> str:
    """Kill the worker with most connections; → who came in its place."""
    workers = _status(mesh)["workers"]
    victim = max(workers, key=lambda worker: int(worker["connections"]))
    os.kill(victim["pid"], signal.SIGKILL)
    name = f"worker{victim['worker']}"
    successor: list[int] = []

    def is_back() -> bool:
        processes = _status(mesh)["processes"]
        successor[:] = [
            process["pid"]
            for process in processes
            if process["name"] == name and process["state"] == "serving" and process["pid"] != victim["pid"]
        ]
        return bool(successor)

    took_s = wait_for(f"{name} is replaced", is_back, _BACK_WITHIN_S)
    return f"{name}: pid {victim['pid']}, then {successor[0]} after {took_s * 1000:.0f} ms"


def _unanswered(mesh: Mesh) -> list[str]:
    """Outcomes of the leaves nobody was answered for. Raises: Broken when an answer has none."""
    outcomes: dict[str, str] = {}

    def look() -> bool:
        leaves = [leaf for leaf in mesh.leaves() if leaf["event.action"] == "request"]
        outcomes.update((leaf["event.id"], leaf["event.outcome"]) for leaf in leaves)
        return mesh.journal.answers.keys() <= outcomes.keys()

    wait_for("a leaf for each answer", look, _LEAF_WITHIN_S)
    return [outcome for decision, outcome in outcomes.items() if decision not in mesh.journal.answers]
