"""The pattern language."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.model.route import Capture, PathPattern, Segment, Wildcard
from edge.routing.pattern import Flaw, parse, sample, shape


def parsed(text: str) -> PathPattern:
    found = parse(text)
    assert isinstance(found, PathPattern), found
    return found


@pytest.mark.parametrize(
    ("text", "segments"),
    [
        ("/", ("",)),
        ("/orders", ("orders",)),
        ("/orders/", ("orders", "")),
        ("/**", (Wildcard.REST,)),
        ("/orders/*/x", ("orders", Wildcard.ONE, "x")),
        ("/orders/{id}/**", ("orders", Capture("id"), Wildcard.REST)),
        ("/{tenant_1}/{id}", (Capture("tenant_1"), Capture("id"))),
    ],
)
def test_pattern_is_read_segment_by_segment(text: str, segments: tuple[Segment, ...]) -> None:
    assert parsed(text) == PathPattern(text, segments)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "starts with"),
        ("orders", "starts with"),
        ("*", "starts with"),
        ("/a//b", '"//"'),
        ("//", '"//"'),
        ("/**/a", "before the end"),
        ("/**/", "before the end"),
        ("/a*", "mixes"),
        ("/a/**x", "mixes"),
        ("/{id}x", "mixes"),
        ("/{}", "mixes"),
        ("/{Id}", "mixes"),
        ("/{1a}", "mixes"),
        ("/{a/b}", "mixes"),
        ("/{a}/{a}", "used twice"),
        ("/a" * 33, "33 segments"),
        ("/" + "a" * 1024, "1025 characters"),
    ],
)
def test_what_is_no_pattern_says_why(text: str, said: str) -> None:
    flaw = parse(text)
    assert isinstance(flaw, Flaw)
    assert said in flaw.message
    assert flaw.remedy


def test_sample_is_a_path_with_every_wildcard_filled() -> None:
    assert sample(parsed("/a/{id}/*/**")) == "/a/x/x/x"


def test_shape_forgets_only_the_names_of_captures() -> None:
    assert shape(parsed("/a/{id}/**")) == shape(parsed("/a/{other}/**")) == shape(parsed("/a/*/**"))
    assert shape(parsed("/a/{id}")) != shape(parsed("/a/id"))


@settings(max_examples=100, deadline=None)
@given(st.text(alphabet="/*{}ab_%", max_size=12))
def test_any_text_gives_a_pattern_or_a_flaw(text: str) -> None:
    found = parse(text)
    assert isinstance(found, Flaw) or found.text == text
