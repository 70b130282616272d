"""From a table that does not fit to a diagnostic."""

from __future__ import annotations

from typing import Annotated, Literal

import pytest
from pydantic import Field

from edge.config.document import read
from edge.config.shape import Expect, Shape, check, fit, pattern
from edge.errors import Fault


class Inner(Shape):
    timeout_s: Annotated[float, Field(gt=0), Expect("a number of seconds > 0", "5.0")] = 1.0
    names: Annotated[
        tuple[Annotated[str, pattern("[a-z]+"), Expect("a word", "abc")], ...],
        Field(min_length=1),
        Expect("words", "[abc]"),
    ] = ("x",)
    mode: Literal["a", "b"] = "a"
    is_on: bool = False
    count: int = 0
    even: Annotated[str, check(lambda text: "odd" if len(text) % 2 else None), Expect("an even text", "ab")] = "ab"
    labels: dict[str, str] = Field(default_factory=dict)
    short: Annotated[tuple[int, ...], Field(max_length=2)] = ()


class Outer(Shape):
    inner: Inner
    many: tuple[Inner, ...] = ()
    maybe: Inner | None = None
    wide: Annotated[Inner | None, Field()] = None
    by_name: dict[str, Inner] = Field(default_factory=dict)


def faults(text: str) -> list[str]:
    found: list[Fault] = []
    assert fit(Outer, read("f.yaml", text.encode()), (), found) is None
    return [str(fault) for fault in sorted(found)]


def test_table_that_fits_is_a_value() -> None:
    found: list[Fault] = []
    outer = fit(Outer, read("f.yaml", b"inner: {timeout_s: 5, names: [a, b]}\n"), (), found)
    assert outer is not None
    assert (outer.inner.timeout_s, outer.inner.names, found) == (5.0, ("a", "b"), [])


@pytest.mark.parametrize(
    ("text", "place", "said"),
    [
        (
            'inner: {timeout_s: "5s"}',
            "1:20: wrong-value: inner.timeout_s",
            'expected a number of seconds > 0, got "5s"; write 5.0',
        ),
        (
            "inner: {timeout_s: 0}",
            "1:20: wrong-value: inner.timeout_s",
            "expected a number of seconds > 0, got 0; write 5.0",
        ),
        (
            "inner: {timeout_s: true}",
            "1:20: wrong-value: inner.timeout_s",
            "expected a number of seconds > 0, got true; write 5.0",
        ),
        (
            "inner: {names: [a, B]}",
            "1:20: wrong-value: inner.names[1]",
            'expected a word, got "B" (characters outside the allowed set); write abc',
        ),
        ("inner: {names: []}", "1:16: wrong-value: inner.names", "expected words, got a list; write [abc]"),
        ("inner: {names: a}", "1:16: wrong-value: inner.names", 'expected words, got "a"; write [abc]'),
        ("inner: {even: abc}", "1:15: wrong-value: inner.even", 'expected an even text, got "abc" (odd); write ab'),
        ("inner: {mode: c}", "1:15: wrong-value: inner.mode", 'expected a or b, got "c"; write one of these words'),
        ("inner: {is_on: 1}", "1:16: wrong-type: inner.is_on", "expected true or false, got 1; write true or false"),
        (
            "inner: {count: 1.5}",
            "1:16: wrong-type: inner.count",
            "expected a whole number, got 1.5; write digits without quotes",
        ),
        (
            "inner: {labels: [a]}",
            "1:17: wrong-type: inner.labels",
            "expected a table of keys and values, got a list; write {key: value}",
        ),
        ("inner: {labels: {a: 1}}", "1:21: wrong-type: inner.labels.a", "expected a text, got 1; put it into quotes"),
        ("inner: 5", "1:8: wrong-type: inner", "expected a table of keys and values, got 5; write {key: value}"),
        ("{}", "1:1: missing-key: inner", "this key is required; add inner:"),
        ("inner: {timeout: 5}", "1:9: unknown-key: inner.timeout", "no such setting; did you mean timeout_s?"),
        ("inner: {}\nmany: [{}, {mod: a}]", "2:13: unknown-key: many[1].mod", "no such setting; did you mean mode?"),
        ("inner: {}\nmaybe: {isOn: true}", "2:9: unknown-key", "maybe.isOn: no such setting; did you mean is_on?"),
        ("inner: {}\nwide: {cont: 1}", "2:8: unknown-key: wide.cont", "no such setting; did you mean count?"),
        (
            "inner: {}\nby_name: {x: {evn: ab}}",
            "2:15: unknown-key: by_name.x.evn",
            "no such setting; did you mean even?",
        ),
        ("inner: {}\nzzz: 1", "2:1: unknown-key: zzz", "no such setting; allowed: inner, many, maybe, wide, by_name"),
        ("", "1:1: wrong-type", "expected a table of keys and values, got null; write {key: value}"),
    ],
)
def test_each_misfit_is_one_line_with_place_rule_value_and_remedy(text: str, place: str, said: str) -> None:
    assert faults(text) == [f"f.yaml:{place}: {said}"]


def test_rule_without_own_words_uses_those_of_the_validator() -> None:
    (said,) = faults("inner: {short: [1, 2, 3]}")
    assert said.startswith("f.yaml:1:16: wrong-value: inner.short: Tuple should have at most 2 items")


def test_all_misfits_are_reported_together() -> None:
    assert len(faults("inner: {timeout_s: a, names: [A, B], mode: x, foo: 1}\nmany: 7\n")) == 6


def test_long_value_is_cut() -> None:
    (said,) = faults("inner: {even: " + "a" * 99 + "}")
    assert 'a…" (odd)' in said
