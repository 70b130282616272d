"""What a request costs to be matched and balanced with 10 and with 1000 services of three instances each.

CPU time of this process, in short turns that alternate, so that whatever else the machine does meets all. The figure is that
of the quietest tenth of the turns of each, with the median of the rounds' ratios beside it: what others take out of the
caches adds to some turns, and what is ours is in every one (decision 0093). Each turn begins with requests that are not
measured, three for each service: they bring back what the turns before took out of the caches. Asked are ten services,
whoever else is registered, and all thousand: in turn, and in an order that nothing in the processor can guess. Each has the
same bound, though the caches of first level hold ten services and not a thousand.

What runs is what the line runs: `match` and `Pool.addresses`, with the route that was found. No head is remembered. The
request is one object whose path changes, as in a gateway, where each is made in the place of the last.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Callable, Iterable
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
_REQUESTS = 6_000
_HOST = "localhost"


@dataclass(frozen=True)
class Outcome:
    """µs of CPU per request, and how much more it is beside that."""

    few_us: float
    """Ten services."""
    ratios: dict[str, float]
    """By who is asked, of the quietest tenth of turns."""
    medians: dict[str, float]
    """Of all rounds' ratios."""

    def __str__(self) -> str:
        found = ", ".join(
            f"{asked} {ratio:.3f} (median {self.medians[asked]:.3f})" for asked, ratio in self.ratios.items()
        )
        return f"match + balance: {FEW} services {self.few_us:.3f} µs; {MANY} services, ratio by who is asked: {found}"


def campaign(rounds: int) -> Outcome:
    """One after the other, `rounds` times."""
    return asyncio.run(_measure(rounds))


async def _measure(rounds: int) -> Outcome:
    shuffled = Random(1).sample(range(MANY), MANY)
    few, many = _gateway(FEW), _gateway(MANY)
    works = {
        "few": _asking(few, [at % FEW for at in shuffled]),
        "the same ten": _asking(many, [at % FEW * (MANY // FEW) for at in shuffled]),
        "all in turn": _asking(many, list(range(MANY))),
        "all in any order": _asking(many, shuffled),
    }
    found = [{asked: _cpu_s(ask) for asked, ask in works.items()} for _ in range(rounds)]
    quiet_s = {asked: quiet(each[asked] for each in found) for asked in works}
    others = [asked for asked in works if asked != "few"]
    return Outcome(
        quiet_s["few"] * 1e6 / _REQUESTS,
        {asked: quiet_s[asked] / quiet_s["few"] for asked in others},
        {asked: statistics.median(each[asked] / each["few"] for each in found) for asked in others},
    )


def quiet(turns: Iterable[float]) -> float:
    """What a turn costs when nobody else is in the way: the slowest of the quickest tenth."""
    found = sorted(turns)
    return found[len(found) // 10]


def _cpu_s(ask: Callable[[int], None]) -> float:
    ask(_INSTANCES * MANY)
    began_s = time.process_time()
    ask(_REQUESTS)
    return time.process_time() - began_s


def _gateway(count: int) -> tuple[table.Table, Pool]:
    """Routing table and pool with so many services."""
    roster = Roster()
    names = [f"service-{at}" for at in range(count)]
    for at, name in enumerate(names):
        for number in range(_INSTANCES):
            roster.put(Instance(name, f"i{number}", (f"10.{at >> 8}.{at & 255}.{number + 1}", 9101)))
    grants = {name: _grant(name) for name in names}
    claims = [(name, Declared(f"/{name}/**", ("GET",), (_HOST,))) for name in names]
    pool = Pool(asyncio.get_running_loop(), Fleet(roster, Random(1).random), lambda *_: None)
    routes = table.compile(compose(claims, grants, [], Composed()).routes, [_HOST], pool.fleet.turns)
    return routes, pool


def _asking(gateway: tuple[table.Table, Pool], asked: list[int]) -> Callable[[int], None]:
    """So many requests to the services that are `asked`, one after another."""
    routes, pool = gateway
    paths = [f"/service-{at}/7" for at in asked]
    request = Request("GET", "/", b"", False, _HOST, _HOST, (), None, None, False)

    def ask(count: int) -> None:
        for _ in range(count // len(paths)):
            for path in paths:
                request.path = path
                pool.addresses(match(routes, request, _HOST))

    return ask


def _grant(service: str) -> Grant:
    path = parse(f"/{service}/**")
    assert isinstance(path, PathPattern)
    return Grant(service, f"spiffe://mesh.internal/svc/{service}", (path,), (_HOST,), ("GET",), ())
