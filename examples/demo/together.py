"""Promise 5: a second gateway joins, and a limit is one limit."""

from __future__ import annotations

import shutil
import sys
import threading
from collections import Counter

from examples.demo.caller import Caller, Journal
from examples.demo.mesh import GATEWAYS, SHARED_QUOTA, Mesh
from examples.demo.promise import Promises, expect, require
from examples.demo.stage import ROOT, Actor, wait_for

_NAME = "edge-b"
_CALLERS = 3
"""Of each gateway."""
_ENOUGH_REFUSALS = 3
_MOST = SHARED_QUOTA + 100
"""Requests of one caller, if nobody ever refused it."""
_LEAF_WITHIN_S = 3.0


class Second:
    """Another gateway of the same mesh, with an identity, a state directory and a log of its own."""

    def __init__(self, mesh: Mesh) -> None:
        self._mesh = mesh
        self.home = mesh.stage.directory / _NAME
        self.config = self.home / "edge.yaml"
        self.journal = Journal(verbose=mesh.stage.is_verbose)

    def join(self) -> Actor:
        """With what the first one's CA issues; configured like the first, but for the name of its log."""
        mesh = self._mesh
        issue = (sys.executable, ROOT / "scripts" / "issue-cert.py", _NAME, "--role", "gateway", "-q")
        mesh.stage.run(*issue, "-c", mesh.config)
        self.home.mkdir()
        shutil.copytree(mesh.policies, self.home / "policies")
        text = mesh.config.read_text()
        self.config.write_text(text.replace("origin: mesh.internal/log,", f"origin: mesh.internal/log/{_NAME},"))
        mesh.stage.edge("init", self.home, "--join", mesh.state / "issued" / f"gateway-{_NAME}")
        actor = mesh.serve(_NAME, self.config)
        self.caller = Caller(actor.port("public"), mesh.anchors, self.journal)
        return actor

    def each_request_once(self) -> int:
        """Its log holds the requests it answered, and no other; → how many."""
        made = self.journal.answers

        def look() -> bool:
            leaves = self._mesh.leaves(self.config)
            found = Counter(leaf["event.id"] for leaf in leaves if leaf["event.action"] == "request")
            return found == Counter(made.keys())

        wait_for("its leaves are its requests", look, _LEAF_WITHIN_S)
        return len(made)


def show(promises: Promises, mesh: Mesh) -> None:
    """It joins, shares a limit, and goes."""
    promises.chapter("Two gateways, one limit")
    second = Second(mesh)
    with promises.promise("issue-cert.py --role gateway, edge init --join → a second gateway; the same token → 200"):
        actor = second.join()
        require("it holds no CA", not (second.home / "state" / "ca").exists())
        answer = second.caller.ask("GET", "/orders/7", mesh.token("alice"))
        expect("status", answer.status, 200)
        expect("who the service says asked it", answer.seen["gateway"], GATEWAYS[1])
    lowest = SHARED_QUOTA * 99 // 100
    text = f"both asked at once for more than {SHARED_QUOTA} an hour → never one more, at least {lowest}"
    with promises.promise(text) as facts:
        facts.append(_both_at_once(mesh, second))
    with promises.promise("each wrote its own log; the second one stops, and its log verifies") as facts:
        facts.append(f"{second.each_request_once()} requests, as many leaves")
        expect("exit code", actor.end(), 0)
        mesh.stage.edge("audit", "verify", "-c", second.config)


def _both_at_once(mesh: Mesh, second: Second) -> str:
    """Callers of both, until each is refused again and again; → who admitted how many."""
    token = mesh.token("erin")
    statuses: dict[str, list[int]] = {"first": [], "second": []}

    def ask(caller: Caller, found: list[int]) -> None:
        with caller.connect() as connection:
            refused = 0
            for _ in range(_MOST):
                answer = connection.ask("GET", "/shared/7", token)
                found.append(answer.status)
                refused += answer.status != 200
                if refused == _ENOUGH_REFUSALS:
                    return

    pairs = [(mesh.caller, statuses["first"]), (second.caller, statuses["second"])] * _CALLERS
    callers = [threading.Thread(target=ask, args=pair, daemon=True) for pair in pairs]
    for thread in callers:
        thread.start()
    for thread in callers:
        thread.join()
    admitted = {name: found.count(200) for name, found in statuses.items()}
    total = sum(admitted.values())
    expect("statuses", {status for found in statuses.values() for status in found}, {200, 429})
    require(f"at most {SHARED_QUOTA}: {total}", total <= SHARED_QUOTA)
    require(f"at least 99 %: {total}", total * 100 >= SHARED_QUOTA * 99)
    require(f"both took part: {admitted}", min(admitted.values()) > 0)
    return f"{total}: {admitted['first']} by the first, {admitted['second']} by the second"
