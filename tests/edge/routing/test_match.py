"""Which route a request gets. Attack ids are those of SECURITY.md."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.errors import MalformedRequest, MethodNotAllowed, Misdirected, RouteNotFound
from edge.forward.fleet import Fleet
from edge.model.http import RawField, Request
from edge.model.route import Capture, PathPattern, Route, RouteMatch, Segment, Wildcard
from edge.registry.roster import Roster
from edge.routing import match as matching
from edge.routing import table
from edge.routing.pattern import parse
from tests.edge.routing.house import route


def asked(
    path: str,
    method: str = "GET",
    host: str = "localhost",
    raw_query: bytes = b"",
    fields: tuple[RawField, ...] = (),
) -> Request:
    return Request(method, path, raw_query, bool(raw_query), host, host, fields, None, None, False)


def match(
    routes: Sequence[Route],
    path: str,
    method: str = "GET",
    host: str = "localhost",
    sni: str | None = None,
    raw_query: bytes = b"",
    fields: tuple[RawField, ...] = (),
) -> RouteMatch:
    request = asked(path, method, host, raw_query, fields)
    return matching.match(table.compile(routes, ["localhost", "api.example.com", "[::1]"]), request, sni)


@pytest.mark.parametrize(
    ("pattern", "matching_paths", "others"),
    [
        ("/orders/**", ["/orders", "/orders/", "/orders/7", "/orders/7/x"], ["/orders-admin", "/Orders", "/", "/x/orders"]),
        ("/orders/*", ["/orders/7", "/orders/orders"], ["/orders", "/orders/", "/orders/7/x", "/orders/7/"]),
        ("/orders/{id}", ["/orders/7"], ["/orders", "/orders/", "/orders/7/x"]),
        ("/orders", ["/orders"], ["/orders/", "/orders/7", "/orders;v=1", "/ORDERS"]),
        ("/orders/", ["/orders/"], ["/orders", "/orders/x"]),
        ("/", ["/"], ["/x"]),
        ("/**", ["/", "/x", "/x/"], []),
        ("/{a}/x/**", ["/1/x", "/1/x/2"], ["/x", "/1/2/x", "/1"]),
    ],
)  # fmt: skip
def test_P52_pattern_matches_whole_segments_only(pattern: str, matching_paths: list[str], others: list[str]) -> None:
    routes = [route("r", pattern)]
    for path in matching_paths:
        assert match(routes, path).route is routes[0]
    for path in others:
        with pytest.raises(RouteNotFound):
            match(routes, path)


@pytest.mark.parametrize(
    ("pattern", "others"),
    [
        ("/orders.json", ["/ordersXjson", "/orders-json"]),
        ("/orders.+", ["/orders.x", "/ordersxx", "/orders."]),
        ("/(orders|pay)", ["/orders", "/pay"]),
        ("/[a-z]", ["/a"]),
        ("/orders$", ["/orders"]),
        ("/`x`", ["/x"]),
        ("/$1", ["/1", "/"]),
    ],
)
def test_E6_marks_of_other_pattern_languages_are_text(pattern: str, others: list[str]) -> None:
    routes = [route("r", pattern)]
    assert match(routes, pattern).route is routes[0]
    for path in others:
        with pytest.raises(RouteNotFound):
            match(routes, path)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/a/b", "literal"),
        ("/a/c", "capture"),
        ("/a/b/c", "rest"),
        ("/a", "rest"),
        ("/x/b", "left-wildcard"),
        ("/x/c", "all"),
        ("/a/c/end", "capture-deep"),
        ("/a/b/end", "capture-deep"),  # the literal branch has no such end: back to the wildcard
    ],
)
def test_the_most_specific_pattern_decides_from_the_left(path: str, name: str) -> None:
    routes = [
        route("all", "/**"),
        route("left-wildcard", "/*/b"),
        route("rest", "/a/**"),
        route("capture", "/a/{x}"),
        route("capture-deep", "/a/{x}/end"),
        route("literal", "/a/b"),
    ]
    assert match(routes, path).route.name == name


def test_captured_segments_are_decoded_for_the_policy() -> None:
    routes = [route("r", "/{tenant}/{user}/**", encoded_slash=True)]
    assert match(routes, "/acme/a%40b%2Fc/x").params == {"tenant": "acme", "user": "a@b/c"}
    assert match([route("r", "/*")], "/x").params == {}


def test_what_captures_nothing_has_one_match_and_all_matches_of_a_route_one_turn() -> None:
    fleet = Fleet(Roster(), Random(1).random)
    bare, captures = route("bare", "/a/**"), route("captures", "/b/{id}")
    compiled = table.compile([bare, captures], ["localhost"], fleet.turns)
    bares, captured = (
        [matching.match(compiled, asked(path), None) for path in paths]
        for paths in (["/a/1", "/a/2"], ["/b/1", "/b/2"])
    )
    assert bares[0] is bares[1]
    assert [each.params for each in captured] == [{"id": "1"}, {"id": "2"}]
    assert {id(each.turns) for each in (*bares, *captured)} == {id(fleet.turns(bare.upstream))}
    assert {type(each) for each in (*bares, *captured)} == {table.Entry}  # else the interpreter is slow with both


@pytest.mark.parametrize("order", [*permutations(range(4))])
def test_routes_of_one_pattern_are_tried_in_their_order_however_the_file_has_them(order: tuple[int, ...]) -> None:
    routes = [
        route("condition", "/a", headers=(("x-v", "1"),)),
        route("host", "/a", hosts=("localhost",)),
        route("any-host", "/a"),
        route("other-method", "/a", ("POST",)),
    ]
    mixed = [routes[at] for at in order]
    assert match(mixed, "/a", fields=((b"x-v", b"1"),)).route.name == "condition"
    assert match(mixed, "/a").route.name == "host"
    assert match(mixed, "/a", host="[::1]").route.name == "any-host"
    assert match(mixed, "/a", "POST").route.name == "other-method"


def test_what_follows_a_route_follows_no_other_route_with_equal_terms() -> None:
    local = ("localhost",)
    routes = [route("a", "/a", hosts=local), route("a-any", "/a"), route("b", "/b", hosts=local)]
    assert match(routes, "/a", host="[::1]").route.name == "a-any"
    with pytest.raises(RouteNotFound):
        match(routes, "/b", host="[::1]")


def test_method_of_no_route_of_the_pattern_is_refused_with_what_is_allowed() -> None:
    routes = [route("read", "/a", ("GET", "HEAD")), route("write", "/a", ("POST",))]
    with pytest.raises(MethodNotAllowed) as refused:
        match(routes, "/a", "DELETE")
    assert refused.value.allow == ("GET", "HEAD", "POST")


@pytest.mark.parametrize("method", ["POST", "get", "GETX", ""])
def test_A13_weaker_route_is_not_reached_by_changing_the_method(method: str) -> None:
    with pytest.raises(MethodNotAllowed):
        match([route("strict", "/admin/**"), route("open", "/**", ("GET", "POST"))], "/admin/x", method)


def test_routes_of_one_pattern_are_told_apart_by_method() -> None:
    routes = [route("read", "/a"), route("write", "/a", ("POST",))]
    assert match(routes, "/a", "POST").route.name == "write"


def test_exact_host_comes_before_any_host() -> None:
    routes = [route("any", "/a"), route("exact", "/a", hosts=("localhost",))]
    assert match(routes, "/a").route.name == "exact"
    assert match(routes, "/a", host="api.example.com").route.name == "any"


def test_pattern_whose_hosts_do_not_fit_leaves_the_request_to_the_next_pattern() -> None:
    routes = [route("other", "/a", hosts=("api.example.com",)), route("rest", "/**")]
    assert match(routes, "/a").route.name == "rest"


def test_route_of_another_host_only_is_not_found() -> None:
    with pytest.raises(RouteNotFound):
        match([route("other", "/a/**", hosts=("api.example.com",))], "/a")


@pytest.mark.parametrize("host", ["evil.example", "localhost.", "LOCALHOST", ""])
def test_A11_host_that_is_not_listed_is_misdirected(host: str) -> None:
    with pytest.raises(Misdirected, match="host-not-served"):
        match([route("r", "/**")], "/", host=host)


def test_A12_host_must_be_the_tls_server_name() -> None:
    with pytest.raises(Misdirected, match="host-differs-from-server-name"):
        match([route("r", "/**")], "/", host="localhost", sni="api.example.com")
    assert match([route("r", "/**")], "/", host="localhost", sni="localhost")


def test_A12_without_a_server_name_the_listed_host_stands() -> None:
    assert match([route("r", "/**")], "/", host="[::1]", sni=None)


V1, V2 = (b"x-version", b"1"), (b"x-version", b"2")


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ((V1,), "one"),
        ((V2,), "plain"),
        ((), "plain"),
        ((V1, V2), "plain"),  # A8: neither the first nor the last wins
        ((V2, V1), "plain"),
        ((V1, V1), "plain"),
        (((b"x-version", b"1, 1"),), "plain"),
    ],
)
def test_A8_header_condition_holds_only_for_exactly_one_equal_value(fields: tuple[RawField, ...], name: str) -> None:
    routes = [route("one", "/a", headers=(("x-version", "1"),)), route("plain", "/a")]
    assert match(routes, "/a", fields=fields).route.name == name


@pytest.mark.parametrize(
    ("raw_query", "name"),
    [
        (b"v=1", "one"),
        (b"x=y&v=1&z", "one"),
        (b"%76=%31", "one"),
        (b"v=2", "plain"),
        (b"v=1&v=1", "plain"),
        (b"v=1&v=2", "plain"),
        (b"V=1", "plain"),
        (b"v", "plain"),
        (b"v=%ff", "plain"),
        (b"", "plain"),
    ],
)
def test_A8_query_condition_holds_only_for_exactly_one_equal_value(raw_query: bytes, name: str) -> None:
    routes = [route("one", "/a", query=(("v", "1"),)), route("plain", "/a")]
    assert match(routes, "/a", raw_query=raw_query).route.name == name


def test_A5_query_has_no_part_in_the_path() -> None:
    with pytest.raises(RouteNotFound):
        match([route("r", "/admin/**")], "/x", raw_query=b"/admin/y")


def test_A2_encoded_slash_needs_a_route_that_allows_it() -> None:
    assert match([route("r", "/a/*", encoded_slash=True)], "/a/b%2Fc")
    with pytest.raises(MalformedRequest, match="path-encoded-slash"):
        match([route("r", "/a/*")], "/a/b%2Fc")


def _fits(segments: tuple[Segment, ...], parts: list[str]) -> bool:
    """Ten naive lines: does the pattern match these path segments?"""
    if segments == (Wildcard.REST,):
        return True
    if not segments or not parts:
        return not segments and not parts
    first = segments[0]
    fits = bool(parts[0]) if first is Wildcard.ONE or isinstance(first, Capture) else parts[0] == first
    return fits and _fits(segments[1:], parts[1:])


_paths = st.lists(st.sampled_from(["a", "b", "*", "{x}"]), max_size=3).flatmap(
    lambda parts: st.sampled_from(["/" + "/".join([*parts, "**"]), "/" + "/".join(parts), "/" + "/".join([*parts, ""])])
)


@settings(max_examples=80, deadline=None)
@given(
    patterns=st.lists(_paths, max_size=6, unique=True),
    parts=st.lists(st.sampled_from(["a", "b", "c"]), max_size=4),
    has_final_slash=st.booleans(),
)
def test_match_is_the_first_of_the_ordered_list(patterns: list[str], parts: list[str], has_final_slash: bool) -> None:
    path = "/" + "/".join(parts) + ("/" if has_final_slash and parts else "")
    routes = [route(str(at), text) for at, text in enumerate(patterns) if isinstance(parse(text), PathPattern)]
    if list(table.overlaps(routes)):
        return
    expected = [each.name for each in table.in_order(routes) if _fits(each.pattern.segments, path.split("/")[1:])]
    try:
        assert match(routes, path).route.name == expected[0]
    except RouteNotFound:
        assert expected == []
