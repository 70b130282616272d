"""Promise 2: what changes while it runs, and what does not."""

from __future__ import annotations

import re

from examples.demo.caller import Steady
from examples.demo.mesh import Mesh, route
from examples.demo.promise import Promises, expect, require
from examples.demo.stage import wait_for

_SERVED_WITHIN_S = 1.0
_SAID_WITHIN_S = 5.0
_DIAGNOSTIC = re.compile(r"^\S+:\d+:\d+: .+$", re.MULTILINE)


def diagnostics(text: str) -> list[str]:
    """The lines of the form `file:line:column: …`."""
    return _DIAGNOSTIC.findall(text)


def show(promises: Promises, mesh: Mesh) -> None:
    """A route is added, then a mistake is made, both under steady traffic."""
    promises.chapter("Routes appear while it runs; a broken edit changes nothing")
    token = mesh.token("dave")
    with Steady(mesh.caller, "/billing/steady", token) as steady:
        _route_added(promises, mesh, token, steady)
        _broken_edit(promises, mesh, token, steady)
    with promises.promise("one connection carried steady requests through all of it") as facts:
        expect("failure of the connection", steady.failure, None)
        expect("statuses", set(steady.statuses), {200})
        facts.append(f"{len(steady.statuses)} requests, none lost")


def _route_added(promises: Promises, mesh: Mesh, token: str, steady: Steady) -> None:
    with promises.promise("routes.yaml gains /reports/** → served within 1 s") as facts:
        expect("status before", mesh.caller.ask("GET", "/reports/2026", token).status, 404)
        text = mesh.routes.read_text() + route("reports", "/reports/**", "billing", mesh.addresses["billing"])
        mesh.write_routes(text)
        took_s = wait_for(
            "/reports/** is served",
            lambda: mesh.caller.ask("GET", "/reports/2026", token).status == 200,
            _SERVED_WITHIN_S,
        )
        facts.append(f"after {took_s * 1000:.0f} ms")
        _goes_on(steady)


def _broken_edit(promises: Promises, mesh: Mesh, token: str, steady: Steady) -> None:
    good = mesh.routes.read_text()
    with promises.promise("a broken edit → one line file:line:column, the old state serves on") as facts:
        before = len(mesh.gateway.errors)
        broken = good + route("typo", "/typo/**", "billing", mesh.addresses["billing"]).replace("auth:", "auht:")
        place = f"{len(broken.splitlines())}:5"  # the last line, behind its indentation
        mesh.write_routes(broken)
        wait_for("a line on stderr", lambda: "refused" in mesh.gateway.errors[before:], _SAID_WITHIN_S)
        checked = mesh.stage.edge("check", "-c", mesh.config, code=1)
        _goes_on(steady)
        said = diagnostics(mesh.gateway.errors[before:])
        expect(f"number of diagnostics in {said}", len(said), 1)
        require(f"routes.yaml:{place} is named: {said[0]}", f"routes.yaml:{place}: " in said[0])
        expect("status of the new route", mesh.caller.ask("GET", "/reports/2026", token).status, 200)
        expect("status of the broken route", mesh.caller.ask("GET", "/typo/1", token).status, 404)
        expect("diagnostics of edge check", len(diagnostics(checked.stdout + checked.stderr)), 1)
        facts.append(said[0].partition("; ")[0].rpartition("/")[2])
    with promises.promise("the edit undone, edge reload → exit 0, nothing left to change"):
        mesh.write_routes(good)
        reloaded = mesh.stage.edge("reload", "-c", mesh.config)
        require(f"it says `unchanged`: {reloaded.stdout}", reloaded.stdout.startswith("unchanged"))


def _goes_on(steady: Steady) -> None:
    """The steady caller gets answers now, not only earlier."""
    answered = len(steady.statuses)
    wait_for("the next steady answers", lambda: len(steady.statuses) >= answered + 3, 2.0)
