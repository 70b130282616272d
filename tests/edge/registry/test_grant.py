"""What lies inside a grant. Attack ids are those of SECURITY.md."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from edge.model.route import Capture, PathPattern, Segment, Wildcard
from edge.registry.grant import Grant, is_covered


def pattern(text: str) -> PathPattern:
    special: dict[str, Segment] = {"*": Wildcard.ONE, "**": Wildcard.REST, "{id}": Capture("id")}
    return PathPattern(text, tuple(special.get(part, part) for part in text.split("/")[1:]))


def grant(*may_serve: str) -> Grant:
    return Grant("orders", "spiffe://m/svc/orders", tuple(map(pattern, may_serve)), ("localhost",), ("GET",), ())


@pytest.mark.parametrize(
    ("inner", "may_serve"),
    [
        ("/orders/**", ["/orders/**"]),
        ("/orders/{id}/lines/*", ["/orders/**"]),
        ("/orders", ["/orders/**"]),
        ("/orders/", ["/orders/**"]),
        ("/orders/7", ["/orders/*"]),
        ("/orders/{id}", ["/orders/*"]),
        ("/orders/*", ["/x", "/orders/{id}"]),
        ("/**", ["/**"]),
        ("/", ["/**"]),
        ("/a/**", ["/a", "/a/", "/a/*/**"]),  # only all three together
        ("/a/{id}", ["/a/7", "/a/*"]),
        ("/**", ["/", "/*/**"]),  # no path is without a segment
    ],
)
def test_route_inside_the_grant_is_covered(inner: str, may_serve: list[str]) -> None:
    assert grant(*may_serve).covers(pattern(inner))


@pytest.mark.parametrize(
    ("inner", "may_serve"),
    [
        ("/orders-admin/**", ["/orders/**"]),
        ("/orders-admin", ["/orders/**"]),
        ("/Orders/**", ["/orders/**"]),
        ("/**", ["/orders/**"]),
        ("/*/**", ["/orders/**"]),
        ("/{id}", ["/orders/**"]),
        ("/*/7", ["/orders/**"]),
        ("/orders/**", ["/orders/*"]),
        ("/orders/**", ["/orders", "/orders/*"]),
        ("/orders/*", ["/orders/7", "/orders/8"]),
        ("/orders/", ["/orders"]),
        ("/orders", ["/orders/"]),
        ("/", ["/*"]),
        ("/**", ["/", "/*"]),  # /x/y is left
        ("/**", ["/*/**"]),  # / is left
        ("/a/**", ["/a", "/a/*/**"]),  # /a/ is left
        ("/a/**", ["/a/", "/a/*/**"]),  # /a is left
        ("/orders", []),
    ],
)
def test_E3_P48_P52_route_that_can_match_one_path_more_is_not_covered(inner: str, may_serve: list[str]) -> None:
    assert not grant(*may_serve).covers(pattern(inner))


@pytest.mark.parametrize(
    ("path", "is_allowed"),
    [
        ("/orders", True),
        ("/orders/", True),
        ("/orders/7", True),
        ("/orders-admin", False),
        ("/", False),
        ("/x/orders", False),
    ],
)
def test_single_path_is_held_against_the_grant(path: str, is_allowed: bool) -> None:
    assert grant("/orders/**").allows(path) is is_allowed


def test_A6_literal_that_looks_like_a_wildcard_is_only_text_in_a_path() -> None:
    assert not grant("/orders/7").allows("/orders/**")
    assert not grant("/orders/7").allows("/orders/*")


def _matches(segments: tuple[Segment, ...], parts: tuple[str, ...]) -> bool:
    if segments == (Wildcard.REST,):
        return True
    if not segments or not parts:
        return not segments and not parts
    first = segments[0]
    return (parts[0] == first if isinstance(first, str) else bool(parts[0])) and _matches(segments[1:], parts[1:])


def _all_paths() -> list[tuple[str, ...]]:
    """Every path of at most four segments over two literals and a stranger, with and without final slash."""
    paths: list[tuple[str, ...]] = [()]
    for _ in range(4):
        paths += [(*path, part) for path in paths for part in ("a", "b", "?") if (*path, part) not in paths]
    return [("",), *(path for path in paths if path), *((*path, "") for path in paths if path)]


PATHS = _all_paths()
_patterns = st.lists(st.sampled_from(["a", "b", "*"]), max_size=2).flatmap(
    lambda parts: st.sampled_from([parts, [*parts, "**"], [*parts, ""]])
).map(lambda parts: pattern("/" + "/".join(parts)).segments)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(inner=_patterns, outer=st.lists(_patterns, max_size=4))
@example(inner=(Wildcard.REST,), outer=[("",), (Wildcard.ONE, Wildcard.REST)])
def test_covered_is_what_trying_every_path_says(inner: tuple[Segment, ...], outer: list[tuple[Segment, ...]]) -> None:
    tried = all(any(_matches(each, path) for each in outer) for path in PATHS if _matches(inner, path))
    assert is_covered(inner, outer) is tried
