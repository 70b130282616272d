"""A declared route takes nothing from a route that is there (attacks E3, P52)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.errors import RouteNotFound
from edge.model.http import Request
from edge.model.route import PathPattern, Route, Upstream
from edge.routing.match import match
from edge.routing.ownership import Owners, contested, meets, takes_from
from edge.routing.pattern import parse
from edge.routing.table import compile


def pattern(text: str) -> PathPattern:
    found = parse(text)
    assert isinstance(found, PathPattern)
    return found


def request_for(path: str) -> Request:
    return Request("GET", path, b"", False, "localhost", "localhost", (), None, None, False)


def route(
    path: str,
    *,
    hosts: tuple[str, ...] = (),
    methods: tuple[str, ...] = ("GET",),
    name: str = "",
    service: str = "orders",
) -> Route:
    upstream = Upstream(service, f"spiffe://mesh.internal/svc/{service}")
    return Route(name or path, pattern(path), hosts, methods, upstream, ("jwt",))


@pytest.mark.parametrize(
    ("new", "old"),
    [
        ("/orders/**", "/orders/**"),
        ("/orders/{id}", "/orders/*"),
        ("/orders/7", "/orders/{id}"),
        ("/orders/export", "/orders/**"),
        ("/orders", "/orders/**"),
        ("/orders/", "/orders/**"),
        ("/orders/*/lines", "/orders/**"),
        ("/orders/x/**", "/**"),
        ("/*/special", "/**"),
    ],
)
def test_what_is_more_specific_than_its_owner_takes_from_it(new: str, old: str) -> None:
    assert takes_from(route(new), route(old))
    assert Owners([route("/other/**"), route(old)]).owner(route(new)) is not None


@pytest.mark.parametrize(
    ("new", "old"),
    [
        ("/orders-admin/**", "/orders/**"),  # P52: no prefix of strings
        ("/Orders/**", "/orders/**"),
        ("/orders%2F**", "/orders/**"),
        ("/orders/**", "/orders/export"),  # the old one decides first, whoever came later
        ("/orders/{id}", "/orders/"),  # a wildcard is never empty
        ("/**", "/orders/**"),
        ("/orders/*", "/orders/7"),
        ("/orders/*/a", "/orders/*/b"),
        ("/a/b", "/a"),
    ],
)
def test_what_meets_nothing_or_comes_later_takes_nothing(new: str, old: str) -> None:
    if "**" in new and "%2F" in new:
        new = "/orders%2F/**"
    assert not takes_from(route(new), route(old))
    assert Owners([route("/other/**"), route(old)]).owner(route(new)) is None


def test_hosts_that_differ_never_meet() -> None:
    a, b = route("/orders/**", hosts=("a",)), route("/orders/**", hosts=("b",))
    assert not takes_from(a, b)
    assert takes_from(a, route("/orders/**"))
    assert not takes_from(route("/orders/**"), a)  # who names the host decides there


def test_another_method_of_the_same_path_would_answer_in_the_owners_place() -> None:
    assert takes_from(route("/orders/7", methods=("POST",)), route("/orders/{id}", methods=("GET",)))


def test_what_was_added_owns() -> None:
    owners = Owners()
    assert owners.owner(route("/a/**")) is None
    owners.add(route("/a/**", name="first"))
    owners.add(route("/*/b", name="second"))
    found = owners.owner(route("/a/b"))
    assert found is not None
    assert found.name == "first"
    assert owners.owner(route("/a/b"), besides="orders") is None
    assert owners.owner(route("/{x}/b")) is not None


_PARTS = st.lists(st.sampled_from(["a", "b", "*", "{x}"]), min_size=1, max_size=3).map("/".join)
_PATTERNS = st.one_of(_PARTS, _PARTS.map(lambda p: p + "/**"), st.just("**"), _PARTS.map(lambda p: p + "/")).map(
    lambda p: "/" + p
).filter(lambda p: p.count("{x}") < 2)  # fmt: skip
_PATHS = st.lists(st.sampled_from("abc"), min_size=1, max_size=4).map(lambda p: "/" + "/".join(p))


@given(_PATTERNS, _PATTERNS, st.lists(_PATHS | _PATHS.map(lambda p: p + "/"), min_size=1, max_size=30))
def test_whoever_takes_nothing_changes_no_decision_of_the_owner(new: str, old: str, paths: list[str]) -> None:
    if takes_from(route(new), route(old, name="owner")):
        assert meets(pattern(new).segments, pattern(old).segments)
        return
    owner = route(old, name="owner")
    alone, both = compile([owner], None), compile([owner, route(new, name="new")], None)
    for path in paths:
        try:
            before = match(alone, request_for(path), None).route.name
        except RouteNotFound:
            continue
        assert match(both, request_for(path), None).route.name == before


def test_what_two_services_both_match_is_told_once_with_who_has_it() -> None:
    routes = [
        route("/orders/**", service="orders"),
        route("/orders/export", service="export"),
        route("/orders/{id}", service="orders"),
        route("/billing/**", service="billing"),
        route("/**", service="web", hosts=("a.example",)),
        route("/billing/**", service="old", hosts=("b.example",)),
    ]
    assert [(first.name, first.upstream.service, second.name) for first, second in contested(routes)] == [
        ("/orders/export", "export", "/orders/**"),
        ("/orders/export", "export", "/orders/{id}"),
        ("/orders/**", "orders", "/**"),
        ("/orders/export", "export", "/**"),
        ("/orders/{id}", "orders", "/**"),
        ("/billing/**", "billing", "/**"),
        ("/billing/**", "old", "/billing/**"),
    ]
