"""Whether a new route would take requests away from one that is there already.

A route that a service declares for itself may add to what the gateway serves and take nothing from anybody (attacks E3,
P52): it is held against each route that owns something. It takes away when one request could match both and the new one
would decide: a longer literal or a narrower host wins in the order of matching, whoever wrote it. That is decided exactly,
on the patterns. Methods do not count: the first pattern that fits decides, so a route for another method would answer 405
in the owner's place.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import zip_longest

from edge.model.route import PathPattern, Route, Segment, Wildcard
from edge.routing.table import rank


class Owners:
    """Routes that own what they match, found by how their paths begin: a thousand services are not compared in pairs."""

    def __init__(self, routes: Iterable[Route] = ()) -> None:
        self._by_literal: dict[str, list[Route]] = {}
        self._others: list[Route] = []
        for route in routes:
            self.add(route)

    def add(self, route: Route) -> None:
        first = route.pattern.segments[0]
        if isinstance(first, str):
            self._by_literal.setdefault(first, []).append(route)
        else:
            self._others.append(route)

    def owner(self, route: Route, *, besides: str = "") -> Route | None:
        """The first route from which `route` would take a request, of any service but `besides`; None: it takes nothing."""
        return next(
            (each for each in self.near(route.pattern) if each.upstream.service != besides and takes_from(route, each)),
            None,
        )

    def near(self, pattern: PathPattern) -> Iterator[Route]:
        """All that could match a path of this pattern, and some more; each once."""
        first = pattern.segments[0]
        if isinstance(first, str):
            yield from self._by_literal.get(first, ())
        else:
            for routes in self._by_literal.values():
                yield from routes
        yield from self._others


def contested(routes: Sequence[Route]) -> Iterator[tuple[Route, Route]]:
    """Pairs of routes to different services that one request could match both of: who has it, and who would without that one.

    An order there is, so it is legal; whoever wrote the second may not know of the first.
    """
    owners = Owners()
    for other in routes:
        for route in owners.near(other.pattern):
            if route.upstream.service != other.upstream.service and meets(
                route.pattern.segments, other.pattern.segments
            ):
                first, second = (route, other) if rank(route) <= rank(other) else (other, route)
                if takes_from(first, second):
                    yield first, second
        owners.add(other)


def takes_from(route: Route, owner: Route) -> bool:
    """Whether some request that `owner` would decide today would be decided by `route` (or by an accident of order)."""
    if route.hosts and owner.hosts and not set(route.hosts) & set(owner.hosts):
        return False
    return rank(route) <= rank(owner) and meets(route.pattern.segments, owner.pattern.segments)


def meets(a: tuple[Segment, ...], b: tuple[Segment, ...]) -> bool:
    """Whether one path is matched by both patterns."""
    for left, right in zip_longest(a, b):
        if left is Wildcard.REST or right is Wildcard.REST:
            return True  # it takes whatever the other one asks for from here on, nothing included
        if left is None or right is None or not _fit(left, right):
            return False
    return True


def _fit(a: Segment, b: Segment) -> bool:
    if isinstance(a, str) and isinstance(b, str):
        return a == b
    return a != "" and b != ""  # no wildcard matches the empty segment at the end of a path
