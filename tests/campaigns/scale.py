"""What a request costs to be matched and balanced with 10 and with 1000 services of three registered instances each.

CPU time of this process, in rounds that alternate, so that whatever else the machine does meets all; the median of the
rounds' ratios is the figure. The bound is on the same traffic, to ten services, whoever else is registered. What it costs
when the traffic itself goes to all thousand in turn is told beside it: the processor's caches hold ten services and not a
thousand. No head is remembered.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from edge.config.registered import Composed, compose
from edge.forward.fleet import Fleet
from edge.forward.io_pool import Pool
from edge.model.http import Request
from edge.model.instance import Instance
from edge.model.route import PathPattern
from edge.registry.entry import Declared
from edge.registry.grant import Grant
from edge.registry.roster import Roster
from edge.routing import table
from edge.routing.match import match
from edge.routing.pattern import parse

FEW, MANY = 10, 1000
MAX_RATIO = 1.1
_INSTANCES = 3
_REQUESTS = 20_000
_HOST = "localhost"


@dataclass(frozen=True)
class Outcome:
    """µs of CPU per request, and the median of the ratios."""

    few_us: float
    many_us: float
    all_us: float
    ratio: float

    def __str__(self) -> str:
        return (
            f"match + balance: {FEW} services {self.few_us:.2f} µs, {MANY} services {self.many_us:.2f} µs, "
            f"ratio {self.ratio:.3f} (median of rounds); traffic to all {MANY}: {self.all_us:.2f} µs"
        )


def campaign(rounds: int) -> Outcome:
    """One after the other, `rounds` times."""
    return asyncio.run(_measure(rounds))


async def _measure(rounds: int) -> Outcome:
    few, many, every = _serving(FEW, FEW), _serving(MANY, FEW), _serving(MANY, MANY)
    for ask in (few, many, every):
        ask()
    found = [(_cpu_s(few), _cpu_s(many), _cpu_s(every)) for _ in range(rounds)]
    per_request = 1e6 / _REQUESTS
    return Outcome(
        statistics.median(each[0] for each in found) * per_request,
        statistics.median(each[1] for each in found) * per_request,
        statistics.median(each[2] for each in found) * per_request,
        statistics.median(each[1] / each[0] for each in found),
    )


def _cpu_s(work: Callable[[], None]) -> float:
    began_s = time.process_time()
    work()
    return time.process_time() - began_s


def _serving(count: int, asked: int) -> Callable[[], None]:
    """Routing table and pool with so many services; → one turn of requests to so many of them."""
    roster = Roster()
    names = [f"service-{at}" for at in range(count)]
    for at, name in enumerate(names):
        for number in range(_INSTANCES):
            roster.put(Instance(name, f"i{number}", (f"10.{at >> 8}.{at & 255}.{number + 1}", 9101)))
    grants = {name: _grant(name) for name in names}
    claims = [(name, Declared(f"/{name}/**", ("GET",), (_HOST,))) for name in names]
    routes = table.compile(compose(claims, grants, [], Composed()).routes, [_HOST])
    pool = Pool(asyncio.get_running_loop(), Fleet(roster, Random(1).random), lambda *_: None)
    requests = [
        Request("GET", f"/{names[at * (count // asked) % count]}/7", b"", False, _HOST, _HOST, (), None, None, False)
        for at in range(MANY)  # the same number of objects, however many services there are
    ]

    def turn() -> None:
        for _ in range(_REQUESTS // MANY):
            for request in requests:
                pool.addresses(match(routes, request, _HOST).route.upstream)

    return turn


def _grant(service: str) -> Grant:
    path = parse(f"/{service}/**")
    assert isinstance(path, PathPattern)
    return Grant(service, f"spiffe://mesh.internal/svc/{service}", (path,), (_HOST,), ("GET",), ())
