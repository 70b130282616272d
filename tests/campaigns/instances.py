"""Instances that stop, come back, fail and hang under load, while callers leave: what is under way returns to nothing, every
answer is in the log, and whoever is well serves. And what the choice costs a request with many services."""

from __future__ import annotations

import gc
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from edge.forward.balance import BalanceSettings, Policy
from edge.model.http import Request
from edge.model.instance import Instance
from edge.model.route import PathPattern, Route, Upstream
from edge.routing import pattern, table
from edge.routing.match import match
from edge.serve.control_socket import ask as ask_control
from edge.serve.instances import ServiceCounts
from tests.campaigns.scale import quiet
from tests.e2e.load import Load
from tests.e2e.upstream import Upstream as Service
from tests.e2e.whole_gateway import eventually
from tests.edge.forward.pools import Dialling
from tests.wire.rig import Rig
from tests.wire.speaker import SPEAKERS, Http1Speaker

SERVICES = """\
services:
  orders:
    may_serve: ["/orders/**"]
    balance: POLICY
    slow_start_s: 1
    max_in_flight: {instance: 50}
    ejection: {failures: 2, counts_5xx: true, first_s: 0.3, longest_s: 1}
    health: {path: /up, every_s: 0.5, timeout_s: 10, healthy_after: 1, unhealthy_after: 2}
"""
ROUTES = """\
routes:
  - name: orders
    match: {{path: /orders/**, methods: [GET]}}
    upstream: {{service: orders, endpoints: [{endpoints}], timeout_s: 10}}
    public: {{reason: a test without tokens}}
"""
BROKEN = b"HTTP/1.1 500 Internal Server Error\r\ncontent-length: 2\r\n\r\nno"
INSTANCES = 4
CALLERS = 3
"""Over each protocol."""
_PATIENCE_S = 60.0


class Troubled(Rig):
    """One service of several instances."""

    policy = "least_requests"

    def prepare(self, directory: Path) -> None:
        self.services = [self.upstream, *(Service(directory / "orders") for _ in range(INSTANCES - 1))]
        endpoints = ", ".join(f'"127.0.0.1:{each.port}"' for each in self.services)
        (directory / "policies" / "services.yaml").write_text(SERVICES.replace("POLICY", self.policy))
        (directory / "policies" / "routes.yaml").write_text(ROUTES.format(endpoints=endpoints))

    def counts(self) -> ServiceCounts:
        status = ask_control(self.gateway.directory / "state" / "run", "status", 30).status
        assert status is not None
        return status.services["orders"]

    def close(self) -> None:
        super().close()
        for each in self.services[1:]:
            each.close()


def _stop(service: Service) -> Callable[[], None]:
    service.stop()
    return service.start


def _fail(service: Service) -> Callable[[], None]:
    service.by_target[b"/orders/7"] = BROKEN
    return service.by_target.clear


def _fail_checks(service: Service) -> Callable[[], None]:
    service.by_target[b"/up"] = BROKEN
    return service.by_target.clear


def _hang(service: Service) -> Callable[[], None]:
    service.let.clear()
    return service.let.set


TROUBLES = {"stop": _stop, "fail": _fail, "fail checks": _fail_checks, "hang": _hang}


@dataclass
class Outcome:
    """What one run saw."""

    rounds: int
    statuses: Counter[int] = field(default_factory=Counter)
    left: int = 0
    troubles: Counter[str] = field(default_factory=Counter)
    quiet_after_s: float = 0.0
    """From the last trouble's end to everybody healthy."""


def campaign(directory: Path, rounds: int, seed: int) -> Outcome:
    """One trouble after the other, for a moment each."""
    draw, outcome = Random(seed), Outcome(rounds)
    rig = Troubled(directory)
    try:
        loads = [Load(rig.gateway, CALLERS, pause_s=0.005, speaks=speaks) for speaks in SPEAKERS.values()]
        for _ in range(rounds):
            name, service = draw.choice(list(TROUBLES.items())), draw.choice(rig.services)
            outcome.troubles[name[0]] += 1
            mend = name[1](service)
            answered = sum(len(load.calls) for load in loads)
            eventually(lambda answered=answered: sum(len(load.calls) for load in loads) > answered + 20, _PATIENCE_S)  # type: ignore[misc]
            outcome.left += _leave(rig)
            mend()
        for load in loads:
            load.end()
        outcome.quiet_after_s = eventually(lambda: rig.counts().instances["healthy"] == INSTANCES, _PATIENCE_S)
        _nothing_else_is_under_way(rig)
        for speaks in SPEAKERS.values():
            speaker = speaks(rig.gateway)
            assert {speaker.ask().status for _ in range(20)} == {200}
            speaker.close()
        calls = [call for load in loads for call in load.calls]
        failures = [failure for load in loads for failure in load.failures]
        assert not failures, failures
        outcome.statuses.update(call.status for call in calls)
        assert set(outcome.statuses) <= {200, 500, 502, 503, 504}, outcome
        assert outcome.statuses[200] * 2 > len(calls), outcome
        eventually(lambda: {call.decision for call in calls} <= {str(leaf["event.id"]) for leaf in rig.leaves()}, 20)
    finally:
        rig.close()
    return outcome


def _nothing_else_is_under_way(rig: Troubled) -> None:
    """With one request held there is exactly one; what is shown may be a second old, so nothing at all would prove little."""
    for each in rig.services:
        each.go_on.clear()
        each.by_target[b"/orders/held"] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nWAITok"
    holder = Http1Speaker(rig.gateway)
    holder.begin("GET", b"/orders/held")
    eventually(lambda: rig.counts().in_flight == 1, _PATIENCE_S)
    for each in rig.services:
        each.go_on.set()
    assert holder.answer().status == 200
    holder.close()
    eventually(lambda: rig.counts().in_flight == 0, _PATIENCE_S)


def _leave(rig: Rig) -> int:
    """Callers over each protocol that ask and do not wait; → how many."""
    for speaks in SPEAKERS.values():
        speaker = speaks(rig.gateway)
        speaker.begin("GET", b"/orders/8")
        speaker.leave()
        speaker.close()
    return len(SPEAKERS)


# -- what it costs -----------------------------------------------------------------------------------

FEW = 10


class _Requests:
    """Requests in turn for each of so many services of three registered instances. One object whose path changes, as in
    `campaigns.scale`; so many paths, however few the services."""

    def __init__(self, services: int, paths: int, settings: BalanceSettings) -> None:
        self.pool = pool = Dialling()
        upstreams = []
        for at in range(services):
            for each in range(3):
                pool.roster.put(Instance(f"s{at}", str(each), (f"10.0.{at // 250}.{at % 250}", 9000 + each)))
            upstreams.append(Upstream(f"s{at}", f"spiffe://mesh.internal/svc/s{at}"))
        pool.configure(dict.fromkeys((each.service for each in upstreams), settings), upstreams)
        self.table = table.compile([_route(each) for each in upstreams], ["localhost"], pool.fleet.turns)
        self.request = Request("GET", "/", b"", False, "localhost", "localhost", (), None, None, False)
        self.paths = [f"/s{at % services}/{at}" for at in range(paths)]

    def run(self, turns: int) -> float:
        """CPU of one request's match and choice, in ns."""
        addresses, routes, request, paths, count = (
            self.pool.addresses, self.table, self.request, self.paths, len(self.paths),
        )  # fmt: skip
        began = time.process_time_ns()
        for turn in range(turns):
            request.path = paths[turn % count]
            addresses(match(routes, request, None))
        return (time.process_time_ns() - began) / turns


def _route(upstream: Upstream) -> Route:
    path = pattern.parse(f"/{upstream.service}/**")
    assert isinstance(path, PathPattern)
    return Route(upstream.service, path, (), ("GET",), upstream, ("jwt",))


async def costs(services: int, turns: int) -> dict[str, tuple[float, float, float]]:
    """By policy: CPU of a request among few services and among many, in ns, and the ratio of the two, by turns."""
    found = {}
    for policy in Policy:
        few, many = (_Requests(count, services, BalanceSettings(policy)) for count in (FEW, services))
        gc.collect()
        few_ns, many_ns = list[float](), list[float]()
        for _ in range(100):
            for each, turns_ns in ((few, few_ns), (many, many_ns)):
                each.run(3 * services)  # what the other took out of the caches comes back
                turns_ns.append(each.run(turns))
        found[policy.value] = quiet(few_ns), quiet(many_ns), quiet(many_ns) / quiet(few_ns)
    return found
