"""A fleet in memory: a roster, two addresses and what a test needs to say about them."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from edge.forward.balance import BalanceSettings
from edge.forward.endpoint import Endpoint
from edge.forward.fleet import Fleet
from edge.forward.health import EjectionSettings
from edge.model.instance import Instance
from edge.model.route import PathPattern, Route, RouteMatch, Upstream
from edge.registry.roster import Roster

A, B = ("127.0.0.1", 9101), ("127.0.0.1", 9102)
ID = "spiffe://mesh.internal/svc/orders"
QUICK = EjectionSettings(failures=2, first_s=10, longest_s=40)


def addresses(count: int) -> tuple[tuple[str, int], ...]:
    return tuple(("127.0.0.1", 9101 + at) for at in range(count))


def upstream(*endpoints: tuple[str, int], weights: Sequence[int] = ()) -> Upstream:
    return Upstream("orders", ID, endpoints=endpoints, weights=tuple(weights))


def instance(
    name: str, port: int, weight: int = 1, *, is_draining: bool = False, health: str | None = None
) -> Instance:
    return Instance("orders", name, ("10.0.0.1", port), weight, health, is_draining=is_draining)


def to(where: Upstream) -> RouteMatch:
    """A request matched the one route that leads there."""
    return RouteMatch(Route("orders", PathPattern("/**", ()), (), ("GET",), where, ("jwt",)), {})


class House:
    """One service, orders, and its fleet. `ask` is what the pool does for each request."""

    def __init__(
        self, settings: BalanceSettings, *upstreams: Upstream, roster: Roster | None = None, seed: int = 1
    ) -> None:
        self.roster = roster if roster is not None else Roster()
        self.fleet = Fleet(self.roster, Random(seed).random)
        self.upstream = upstreams[0]
        self.fleet.configure({"orders": settings}, upstreams, 0.0)

    def order(self, now_s: float = 0.0) -> tuple[Endpoint, ...]:
        turns = self.fleet.turns(self.upstream)
        if turns.generation != self.roster.generation:
            turns = self.fleet.arranged(self.upstream, now_s).turns
        return turns.order()

    def first(self, now_s: float = 0.0) -> Endpoint:
        return self.order(now_s)[0]

    def ports(self, count: int, now_s: float = 0.0) -> list[int]:
        """Where so many requests go, one after another."""
        return [self.first(now_s).address[1] for _ in range(count)]

    def at(self, port: int) -> Endpoint:
        return next(each for each in self.fleet.endpoints() if each.address[1] == port)

    def fail(self, port: int, times: int, now_s: float) -> None:
        for _ in range(times):
            self.fleet.failed(self.at(port), now_s)

    def states(self) -> dict[str, str]:
        return {each.name: each.state for each in self.fleet.endpoints()}
