"""What services declare for themselves → routes, held against their grants, the file and each other.

A route of routes.yaml is written by the operator; a declared one is written by the service, and so may only add. In this
order:

1. It lies inside the grant: its path, its methods, its hosts (`declare`, when it comes; again here, as grants change).
2. It takes no request from a route of the file (`owned-by-route`), nor from what a service declares that stands before its
own
   in services.yaml (`owned-by-service`). That order is the operator's: nobody gains by being early, and all workers agree.
3. A service has at most MAX_ROUTES of them.

What the instances of one service declare for the same paths is one route with the methods and hosts of all: the grant is a
product of the three, so their union lies inside as well. A declared route always asks for a token, and is a resource in its
service: policies decide, and deny by default. No policy and no limit can name it, since its name is `SERVICE:PATH`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from edge.config.edge_file import parse_host
from edge.config.policy_files import METHODS, pattern_flaw
from edge.config.services import pattern
from edge.model.route import Route, Upstream, Wildcard
from edge.registry.entry import Declared
from edge.registry.grant import Grant
from edge.routing.ownership import Owners
from edge.routing.pattern import shape
from edge.routing.table import in_order

MAX_ROUTES = 200
MAX_PATH = 200
"""Characters of a declared path: it is a name in the log and in metrics."""
AUTH = ("jwt",)
_flaw = lru_cache(maxsize=4096)(pattern_flaw)
"""The same few thousand paths are asked about whenever one of them changes."""
_Shape = tuple[str | Wildcard, ...]


@dataclass(slots=True)
class Composed:
    """What became of all claims. Routes that did not change are the same objects as before: memories are kept by them."""

    routes: tuple[Route, ...] = ()
    reasons: dict[tuple[str, str], str] = field(default_factory=dict)
    """(service, path) → why it is not live."""


def declare(path: str, methods: Sequence[str] | None, hosts: Sequence[str] | None, grant: Grant) -> Declared | str:
    """A wish, written out; or what of it is not granted, in words."""
    if len(path) > MAX_PATH or _flaw(path) is not None:
        return "a path that is no canonical pattern"
    found = None if hosts is None else [parse_host(host) for host in hosts]
    if found is not None and None in found:
        return "a host that is none"
    declared = Declared(
        path,
        tuple(dict.fromkeys(methods)) if methods is not None else grant.methods,
        tuple(dict.fromkeys(host for host in found if host)) if found is not None else grant.hosts,
    )
    if not declared.methods or not declared.hosts:
        return "no method or no host"  # a route without hosts would be one of every host
    return grant.outside(pattern(path), declared.methods, declared.hosts) or declared


def compose(
    claims: Iterable[tuple[str, Declared]], grants: Mapping[str, Grant], file: Sequence[Route], before: Composed
) -> Composed:
    """`claims`: (service, what one living instance declares). `grants` in the order of services.yaml, `file` the routes of
    routes.yaml. `before` lends the routes that stay as they are."""
    reasons: dict[tuple[str, str], str] = {}
    routes: list[Route] = []
    kept = {route.name: route for route in before.routes}
    owners, taken = Owners(file), Owners()
    for service, wanted in _merged(claims, grants, reasons).items():
        for count, route in enumerate(wanted):
            owner, rival = owners.owner(route), taken.owner(route, besides=service)
            if owner is not None:
                reason = f"owned-by-route: {owner.name}"
            elif rival is not None:
                reason = f"owned-by-service: {rival.upstream.service}"
            elif count >= MAX_ROUTES:
                reason = "too-many-routes"
            else:
                live = _as_before(route, kept.get(route.name))
                taken.add(live)
                routes.append(live)
                continue
            reasons[service, route.pattern.text] = reason
    return Composed(tuple(routes), reasons)


def _merged(
    claims: Iterable[tuple[str, Declared]], grants: Mapping[str, Grant], reasons: dict[tuple[str, str], str]
) -> dict[str, list[Route]]:
    """The routes of each service, most specific pattern first, services in the order of the grants."""
    by_service: dict[str, dict[_Shape, list[Declared]]] = {service: {} for service in grants}
    for service, declared in dict.fromkeys(claims):
        grant = grants.get(service)
        if grant is None:
            continue  # the instance itself is not sent anything
        # Judged when it came, by a gateway that may have been stolen since.
        again = declare(declared.path, declared.methods, declared.hosts, grant)
        if isinstance(again, Declared):
            by_service[service].setdefault(shape(pattern(again.path)), []).append(again)
        else:
            reasons[service, declared.path] = f"outside-grant: {again}"
    return {
        service: in_order(_route(grants[service], alike) for alike in shapes.values())
        for service, shapes in by_service.items()
        if shapes
    }


def _route(grant: Grant, alike: list[Declared]) -> Route:
    """One route of all declarations for the same paths, in an order that does not depend on who came first."""
    path = min(each.path for each in alike)
    methods = {method for each in alike for method in each.methods}
    return Route(
        name=f"{grant.service}:{path}",
        pattern=pattern(path),
        hosts=tuple(sorted({host for each in alike for host in each.hosts})),
        methods=tuple(method for method in METHODS if method in methods),
        upstream=Upstream(grant.service, grant.spiffe_id, assertion=grant.assertion),
        auth=AUTH,
        place=("registered", 1, 1),
    )


def _as_before(route: Route, known: Route | None) -> Route:
    """The same object as before where nothing changed."""
    return known if known is not None and _facts(known) == _facts(route) else route


def _facts(route: Route) -> tuple[object, ...]:
    return route.pattern, route.hosts, route.methods, route.upstream.spiffe_id, route.upstream.assertion
