"""Addresses take turns, whatever their crowds; of each only so many are under way."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.accept.turns import Turns


def taken(turns: Turns[str]) -> str:
    found = ""
    while turns:
        found += turns.take()
    return found


def test_one_does_not_stand_behind_anothers_crowd() -> None:
    turns = Turns[str](9)
    for prefix, item in ("aA", "ab", "ac", "ad", "bB", "be", "cC"):
        turns.put(prefix, item)
    assert taken(turns) == "ABCbecd"


def test_within_an_address_who_came_first_is_first() -> None:
    turns = Turns[str](9)
    for item in "12345":
        turns.put("a", item)
    assert taken(turns) == "12345"


def test_an_address_that_has_all_it_may_waits_and_nobody_for_it() -> None:
    turns = Turns[str](2)
    for item in "1234":
        turns.put("a", item)
    turns.put("b", "x")
    assert taken(turns) == "1x2"
    turns.put("b", "y")
    assert taken(turns) == "y"
    turns.end("a")
    assert taken(turns) == "3"
    for _ in range(2):
        turns.end("a")
    assert taken(turns) == "4"


def test_nobody_waits_and_nobody_is_taken() -> None:
    turns = Turns[str](1)
    assert not turns
    with pytest.raises(IndexError):
        turns.take()


@given(st.lists(st.tuples(st.sampled_from(["a", "b", "c", "take", "end"]), st.integers(0, 99)), max_size=60))
def test_nobody_is_lost_or_overtaken_and_the_bound_holds(said: list[tuple[str, int]]) -> None:
    turns = Turns[tuple[str, int]](2)
    put: list[tuple[str, int]] = []
    under_way: list[str] = []
    found: list[tuple[str, int]] = []
    for what, number in said:
        if what == "end" and under_way:
            turns.end(under_way.pop(number % len(under_way)))
        elif what == "take" and turns:
            found.append(turns.take())
            under_way.append(found[-1][0])
        elif what in "abc":
            put.append((what, number))
            turns.put(what, put[-1])
        waits = {each[0] for each in put if put.count(each) > found.count(each)}
        assert max(map(under_way.count, "abc")) <= 2
        assert [turns.count(each) for each in "abc"] == [
            len([item for item in put if item[0] == each])
            - len([item for item in found if item[0] == each])
            + under_way.count(each)
            for each in "abc"
        ]
        assert bool(turns) == any(under_way.count(prefix) < 2 for prefix in waits)
    for prefix in "abc":
        came, went = ([each for each in some if each[0] == prefix] for some in (put, found))
        assert went == came[: len(went)]
