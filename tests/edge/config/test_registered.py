"""Declared routes: inside the grant, taking nothing from anybody, the same on every gateway."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from edge.config.registered import MAX_ROUTES, Composed, compose, declare
from edge.model.route import PathPattern, Route, Upstream
from edge.registry.entry import Declared
from edge.registry.grant import Grant
from edge.routing.pattern import parse

NOTHING = Composed()


def pattern(text: str) -> PathPattern:
    found = parse(text)
    assert isinstance(found, PathPattern)
    return found


def grant(service: str = "orders", *may_serve: str, methods: tuple[str, ...] = ("GET", "POST")) -> Grant:
    paths = tuple(map(pattern, may_serve or (f"/{service}/**",)))
    return Grant(service, f"spiffe://mesh.internal/svc/{service}", paths, ("localhost", "api"), methods, ())


def grants(*found: Grant) -> dict[str, Grant]:
    return {each.service: each for each in found or (grant(),)}


def claim(path: str, service: str = "orders", methods: tuple[str, ...] = ("GET",)) -> tuple[str, Declared]:
    return service, Declared(path, methods, ("localhost",))


def file_route(path: str, name: str = "mine") -> Route:
    return Route(name, pattern(path), ("localhost",), ("GET",), Upstream("web", "spiffe://x/svc/web"), ("jwt",))


def test_what_is_not_said_is_all_of_the_grant() -> None:
    assert declare("/orders/**", None, None, grant()) == Declared("/orders/**", ("GET", "POST"), ("localhost", "api"))
    assert declare("/orders/x", ["GET", "GET"], ["LOCALHOST"], grant()) == Declared(
        "/orders/x", ("GET",), ("localhost",)
    )


@pytest.mark.parametrize(
    ("path", "methods", "hosts", "what"),
    [
        ("/billing/**", None, None, "the path /billing/**"),  # P48
        ("/orders-admin/**", None, None, "the path /orders-admin/**"),  # P52
        ("/Orders/**", None, None, "the path /Orders/**"),
        ("/**", None, None, "the path /**"),
        ("/*/7", None, None, "the path /*/7"),
        ("/orders/**", ["DELETE"], None, "the method DELETE"),
        ("/orders/**", ["get"], None, "the method get"),
        ("/orders/**", None, ["other"], "the host other"),
        ("/orders/**", None, ["a b"], "a host that is none"),
        ("/orders/../billing/**", None, None, "a path that is no canonical pattern"),
        ("/orders/%2e%2e/billing", None, None, "a path that is no canonical pattern"),
        ("/orders/%2fx", None, None, "a path that is no canonical pattern"),
        ("/orders//x", None, None, "a path that is no canonical pattern"),
        ("orders", None, None, "a path that is no canonical pattern"),
        ("/orders/" + "x" * 200, None, None, "a path that is no canonical pattern"),
    ],
)  # fmt: skip
def test_what_is_not_granted_is_named(path: str, methods: list[str] | None, hosts: list[str] | None, what: str) -> None:
    assert declare(path, methods, hosts, grant()) == what


def test_a_declared_route_asks_for_a_token_and_is_a_resource_in_its_service() -> None:
    (route,) = compose([claim("/orders/{id}")], grants(), [], NOTHING).routes
    assert (route.name, route.auth, route.public_reason) == ("orders:/orders/{id}", ("jwt",), None)
    assert (route.upstream.service, route.upstream.spiffe_id) == ("orders", "spiffe://mesh.internal/svc/orders")
    assert (route.upstream.endpoints, route.upstream.assertion) == ((), None)
    assert (route.hosts, route.methods) == (("localhost",), ("GET",))


def test_E3_a_route_of_the_file_loses_nothing() -> None:
    composed = compose([claim("/orders/7"), claim("/orders/**")], grants(), [file_route("/orders/{id}")], NOTHING)
    assert [route.name for route in composed.routes] == ["orders:/orders/**"]
    assert composed.reasons == {("orders", "/orders/7"): "owned-by-route: mine"}


def test_between_services_the_operators_order_decides_and_not_who_was_first() -> None:
    both = grants(grant("a", "/x/**"), grant("b", "/x/**"))
    claims = [claim("/x/**", "b"), claim("/x/special", "b"), claim("/x/**", "a")]
    for order in itertools.permutations(claims):
        composed = compose(order, both, [], NOTHING)
        assert [route.name for route in composed.routes] == ["a:/x/**"]
        assert composed.reasons == {("b", "/x/**"): "owned-by-service: a", ("b", "/x/special"): "owned-by-service: a"}


def test_what_comes_after_the_rival_in_matching_takes_nothing_and_lives() -> None:
    both = grants(grant("a", "/x/**"), grant("b", "/x/**"))
    composed = compose([claim("/x/**", "b"), claim("/x/special", "a")], both, [], NOTHING)
    assert [route.name for route in composed.routes] == ["a:/x/special", "b:/x/**"]


def test_instances_of_one_service_share_a_route_with_what_all_declare() -> None:
    claims = [claim("/orders/{id}"), claim("/orders/*", methods=("POST",)), claim("/orders/{id}")]
    for order in itertools.permutations(claims):
        (route,) = compose(order, grants(), [], NOTHING).routes
        assert (route.name, route.methods) == ("orders:/orders/*", ("GET", "POST"))


def test_a_grant_that_was_narrowed_or_taken_away_takes_the_route() -> None:
    claims = [claim("/orders/**"), claim("/gone/**", "gone")]
    composed = compose(claims, grants(grant("orders", "/orders/*")), [], NOTHING)
    assert composed.routes == ()
    assert composed.reasons == {("orders", "/orders/**"): "outside-grant: the path /orders/**"}


def test_a_service_has_so_many_routes_and_no_more() -> None:
    claims = [claim(f"/orders/{at:03}") for at in range(MAX_ROUTES + 1)]
    composed = compose(claims, grants(), [], NOTHING)
    assert len(composed.routes) == MAX_ROUTES
    assert composed.reasons == {("orders", f"/orders/{MAX_ROUTES:03}"): "too-many-routes"}


def test_a_route_that_stays_is_the_same_object() -> None:
    first = compose([claim("/orders/a"), claim("/orders/b")], grants(), [], NOTHING)
    second = compose([claim("/orders/a"), claim("/orders/b", methods=("GET", "POST"))], grants(), [], first)
    assert second.routes[0] is first.routes[0]
    assert second.routes[1] is not first.routes[1]
    signed = compose([claim("/orders/a")], grants(replace(grant(), assertion="subject")), [], first)
    assert signed.routes[0].upstream.assertion == "subject"
