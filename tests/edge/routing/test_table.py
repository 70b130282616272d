"""The order of routes, and which pairs have none."""

from __future__ import annotations

import pytest

from edge.model.route import Route
from edge.routing.table import compile, in_order, overlaps
from tests.edge.routing.house import route


def test_order_is_literal_then_wildcard_then_rest_then_conditions_then_host() -> None:
    routes = [
        route("rest", "/**"),
        route("any-host", "/a"),
        route("capture", "/{x}/b"),
        route("host", "/a", hosts=("localhost",)),
        route("condition", "/a", headers=(("x-v", "1"),)),
        route("below", "/a/**"),
        route("deep", "/a/b"),
    ]
    assert [each.name for each in in_order(routes)] == [
        "condition", "host", "any-host", "deep", "below", "capture", "rest",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (route("a", "/x"), route("b", "/x")),
        (route("a", "/x/{id}"), route("b", "/x/*")),
        (route("a", "/x/{id}/**"), route("b", "/x/{name}/**", ("POST", "GET"))),
        (route("a", "/x", hosts=("h1", "h2")), route("b", "/x", hosts=("h2",))),
        (route("a", "/x", headers=(("x-v", "1"),)), route("b", "/x", headers=(("x-w", "1"),))),
        (route("a", "/x", headers=(("x-v", "1"),)), route("b", "/x", query=(("v", "1"),))),
    ],
)
def test_two_routes_for_one_request_without_an_order_overlap(a: Route, b: Route) -> None:
    assert list(overlaps([a, b])) == [(a, b)]


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (route("a", "/x"), route("b", "/X")),
        (route("a", "/x"), route("b", "/x/")),
        (route("a", "/x/*"), route("b", "/x/**")),
        (route("a", "/x"), route("b", "/x", ("POST",))),
        (route("a", "/x", hosts=("h1",)), route("b", "/x", hosts=("h2",))),
        (route("a", "/x", hosts=("h1",)), route("b", "/x")),
        (route("a", "/x", headers=(("x-v", "1"),)), route("b", "/x")),
        (route("a", "/x", headers=(("x-v", "1"),)), route("b", "/x", headers=(("x-v", "2"),))),
        (route("a", "/x", query=(("v", "1"),)), route("b", "/x", query=(("v", "2"),))),
    ],
)
def test_routes_that_exclude_or_order_each_other_do_not_overlap(a: Route, b: Route) -> None:
    assert list(overlaps([a, b])) == []


def test_table_keeps_routes_in_the_order_of_the_file_and_the_hosts() -> None:
    routes = [route("b", "/b"), route("a", "/**")]
    table = compile(routes, ["localhost"])
    assert (table.routes, table.hosts) == (tuple(routes), frozenset({"localhost"}))
