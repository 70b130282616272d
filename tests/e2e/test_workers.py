"""Three workers on one port, as an operator meets them: spread, killed, reloaded, replaced under load; one limit, one log."""

from __future__ import annotations

import http.client
import itertools
import json
import os
import signal
import threading
import time
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from edge.serve.control_socket import Answer, ask
from edge.serve.status import Status
from tests.e2e.load import Call, Load
from tests.e2e.upstream import Upstream
from tests.e2e.whole_gateway import EDGE_YAML, Gateway, Variant, eventually, records, requests_in_log, routes, run

WORKERS = 3
PAUSE_S = 0.012
"""Between two requests of one caller: with six of them about 300 requests a second."""


@pytest.fixture(scope="module")
def variant() -> Variant:
    return Variant(edge=EDGE_YAML + f"workers: {WORKERS}\n")


def command(gateway: Gateway, name: str) -> Answer:
    return ask(gateway.directory / "state" / "run", name, 30)


def status(gateway: Gateway) -> Status:
    found = command(gateway, "status").status
    assert found is not None
    return found


def workers(gateway: Gateway) -> dict[str, int]:
    """Name → pid of the workers that serve."""
    return {process.name: process.pid for process in status(gateway).processes if process.state == "serving"}


def metrics(gateway: Gateway) -> dict[tuple[str, str], float]:
    """(name of a sample, route or worker) → value."""
    with closing(http.client.HTTPConnection("127.0.0.1", gateway.admin, timeout=15)) as connection:
        connection.request("GET", "/metrics")
        answer = connection.getresponse()
        text = answer.read().decode()
    assert (answer.status, answer.headers["content-type"]) == (200, "text/plain; version=0.0.4; charset=utf-8"), text
    found: dict[tuple[str, str], float] = defaultdict(float)
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found[sample.name, sample.labels.get("edge_route", sample.labels.get("worker", ""))] += sample.value
    return found


def steady(gateway: Gateway) -> Load:
    """Six callers, about 300 requests a second together."""
    load = Load(gateway, 6, pause_s=PAUSE_S)
    eventually(lambda: len(load.calls) > 50, 15)
    return load


def test_connections_are_spread_and_every_worker_speaks_for_all(gateway: Gateway, directory: Path) -> None:
    with ThreadPoolExecutor(4) as callers:
        answers = Counter(status for status, _ in callers.map(lambda _: gateway.get("/orders/7"), range(240)))
    assert answers == {200: 240}
    before = status(gateway)
    assert (before.ok, before.generation, before.workers_wanted) == (True, 1, WORKERS)
    # 80 each when all is even, with a deviation of 7.3: four of these, and the test fails once in 5 000 runs.
    assert all(50 <= worker.requests <= 110 for worker in before.workers), before.workers
    eventually(lambda: metrics(gateway)["http_server_request_duration_seconds_count", "orders"] == 240, 15)
    found = metrics(gateway)
    assert found["edge_workers", ""] == WORKERS
    assert {worker for name, worker in found if name == "edge_audit_ring_free_slots"} == {"0", "1", "2"}
    assert found["edge_certificate_expiry_timestamp_seconds", ""] > 3 * time.time()
    shown = run("status", "-c", directory / "edge.yaml")
    assert (shown.returncode, shown.stdout.splitlines()[0]) == (0, "ok")
    facts = json.loads(run("status", "--json", "-c", directory / "edge.yaml").stdout)
    assert facts["requests"]["2xx"] >= 240
    assert {"supervisor", "notary", "store", "watcher", "worker0", "worker2"} <= {p["name"] for p in facts["processes"]}


def test_killed_worker_is_replaced_while_the_others_serve(gateway: Gateway, directory: Path) -> None:
    load = steady(gateway)
    before = workers(gateway)
    killed_s = time.monotonic()
    os.kill(before["worker1"], signal.SIGKILL)
    eventually(lambda: workers(gateway).get("worker1") not in (None, before["worker1"]), 15)
    after = workers(gateway)
    served = len(load.calls)
    eventually(lambda: len(load.calls) > served + 100, 15)
    load.end()
    assert (after["worker0"], after["worker2"]) == (before["worker0"], before["worker2"])
    assert {call.status for call in load.calls} == {200}
    assert len(load.failures) <= 6  # what was in flight in the worker that died
    slowest = max(call.ended_s - call.began_s for call in load.calls if call.began_s > killed_s)
    assert slowest < 3  # connections that came to its socket waited for the replacement
    now = status(gateway)
    assert (now.workers_replaced, now.ok) == (1, True)
    counted = metrics(gateway)["http_server_request_duration_seconds_count", "orders"]
    assert len(load.calls) <= counted <= len(load.calls) + 6  # the counts of the dead are not lost
    assert gateway.stop() == 0
    records(directory)
    leaves = {leaf["event.id"]: leaf for leaf in requests_in_log(directory)}
    assert {call.decision for call in load.calls} <= leaves.keys()


@dataclass(frozen=True)
class Generation:
    """One configuration, and when it was put in force."""

    asked_s: float
    applied_s: float
    bundle: str
    route: str


def edit(gateway: Gateway, service: Upstream, number: int) -> Generation:
    """Another name for the route, so that each generation can be told in the log also by what it decided."""
    file, asked_s = gateway.directory / "policies" / "routes.yaml", time.monotonic()
    staged = file.with_suffix(".new")
    staged.write_text(routes("orders", port=service.port).replace("name: orders", f"name: orders-{number}"))
    staged.rename(file)
    answer = command(gateway, "reload")
    assert answer.ok, answer
    return Generation(asked_s, time.monotonic(), answer.bundle_hash, f"orders-{number}")


def test_reloads_and_a_rolling_restart_lose_no_request_and_mix_no_generations(
    gateway: Gateway, directory: Path, service: Upstream
) -> None:
    load = steady(gateway)
    first = Generation(0, 0, status(gateway).bundle_hash, "orders")
    generations = [first, *(edit(gateway, service, number) for number in range(20))]
    before = workers(gateway)
    with ThreadPoolExecutor(1) as operator:
        restart = operator.submit(run, "reload", "--workers", "-c", directory / "edge.yaml")
        number = itertools.count(20)
        while not restart.done():  # edits do not wait for an operator who restarts
            generations.append(edit(gateway, service, next(number)))
            restart_is_over = threading.Event()
            restart_is_over.wait(0.3)
    assert restart.result().returncode == 0, restart.result().stderr
    assert "restarted: 3 workers" in restart.result().stdout
    after = workers(gateway)
    load.end()
    assert load.failures == []
    assert {call.status for call in load.calls} == {200}
    assert after.keys() == before.keys()
    assert not set(after.values()) & set(before.values())
    assert status(gateway).generation == len(generations)
    assert gateway.stop() == 0
    records(directory)
    leaves = {str(leaf["event.id"]): leaf for leaf in requests_in_log(directory)}
    assert {leaf.get("event.outcome") for leaf in leaves.values()} == {"success"}
    check_generations(load.calls, leaves, generations)


def check_generations(calls: list[Call], leaves: dict[str, dict[str, object]], generations: list[Generation]) -> None:
    route_of = {generation.bundle: generation.route for generation in generations}
    assert len(route_of) == len(generations)
    seen = set()
    for call in calls:
        leaf = leaves[call.decision]
        bundle = str(leaf["policy.version"])
        assert leaf["route.name"] == route_of[bundle]  # one request, one generation, from route to leaf
        begun = [generation for generation in generations if generation.asked_s <= call.ended_s]
        over = [generation for generation in generations if generation.applied_s <= call.began_s]
        possible = {generation.bundle for generation in begun[len(over) - 1 :]}
        assert bundle in possible  # after the answer to a reload nobody decides by what was before
        seen.add(bundle)
    assert len(seen) > 15


def test_successor_that_cannot_serve_changes_nothing(gateway: Gateway, directory: Path) -> None:
    (directory / "policies" / "routes.yaml").write_text("routes: broken\n")
    before = workers(gateway)
    refused = run("reload", "--workers", "-c", directory / "edge.yaml")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert workers(gateway) == before
    assert gateway.get("/orders/7") == (200, "ok")


def test_signal_restarts_the_workers(gateway: Gateway) -> None:
    before = workers(gateway)
    gateway.process.send_signal(signal.SIGUSR2)
    gateway.line(r"workers restarted \(restarted=3\)")
    assert not set(workers(gateway).values()) & set(before.values())
    assert gateway.get("/orders/7") == (200, "ok")


def test_limit_is_exact_across_workers(gateway: Gateway, directory: Path) -> None:
    quota = 600
    limit = f"{{name: all, match: {{service: orders}}, key: [], rate: {quota}/day}}"
    (directory / "policies" / "limits.yaml").write_text(f"limits:\n  - {limit}\n")
    assert command(gateway, "reload").ok

    def burst(_: int) -> Counter[int]:
        """A connection of its own, so that every worker gets some; ten requests on it."""
        connection, answers = gateway.connect(), Counter[int]()
        for _ in range(10):
            connection.request("GET", "/orders/7")
            answer = connection.getresponse()
            answer.read()
            answers[answer.status] += 1
        connection.close()
        return answers

    with ThreadPoolExecutor(6) as callers:
        answers = sum(callers.map(burst, range(80)), Counter[int]())
    assert set(answers) == {200, 429}
    assert quota * 0.99 <= answers[200] <= quota
