"""The question's and the answer's spelling. What the script does inside a real store: tests/e2e/test_limit_store.py."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.limit.lease import Answer, Question
from edge.limit.rules import LimitSettings
from edge.limit.script import answers, arguments

A = Question("a", LimitSettings("a", 100, 60), 5, 0, 0, 2, 3)
B = Question("b", LimitSettings("b", 7, 1, strategy="sliding-window"), 0, 2, 99)
GROUPS = [(3, (A, B)), (1, (A,))]
GOOD = [9, 5, 1, 2, 3, 0, 4, 3, 0, 3, 1, 2, 3, 0, 4, 0, 0, 0, 8, 8, 0, 0, 0]


def test_a_question_is_spelled_group_by_group() -> None:
    keys, args = arguments(9, GROUPS)
    assert keys == ["a", "b", "a"]
    a, b = ["0", "100", "60000000", "5", "0", "0", "2", "3"], ["2", "7", "1000000", "0", "2", "99", "0", "0"]
    assert [" ".join(["9", "2", "2", "3", *a, *b, "1", "1", *a])] == args


def test_an_answer_is_read_group_by_group() -> None:
    expected = [[Answer(5, 1, 2, 3, 0, 4, (3, 0)), Answer(3, 1, 2, 3, 0, 4)], [Answer(0, 0, 0, 8, 8, 0, (0, 0))]]
    assert expected == answers(GOOD, 9, GROUPS)


@pytest.mark.parametrize(
    "reply",
    [
        None,
        b"OK",
        [],
        [9],
        GOOD[:-1],
        [*GOOD, 0],
        [8, *GOOD[1:]],
        [*GOOD[:-1], -1],
        [*GOOD[:-1], 1 << 53],
        [*GOOD[:-1], b"1"],
        [*GOOD[:-1], None],
        [9, 6, *GOOD[2:]],
        [*GOOD[:7], 4, *GOOD[8:]],
    ],
    ids=repr,
)
def test_what_is_not_the_answer_to_this_question_is_none(reply: object) -> None:
    assert answers(reply, 9, GROUPS) is None


def test_a_store_that_lies_locks_nobody_out_for_longer_than_a_window() -> None:
    ((answer,),) = answers([9, 0, 0, 1 << 52, 1 << 52, 1 << 52, 0], 9, [(1, (B,))]) or []
    assert (answer.life_us, answer.retry_us) == (1_000_000, 1_000_000 + (1_000_000 >> 6))


@settings(max_examples=60, deadline=None)
@given(st.recursive(st.none() | st.integers() | st.binary(max_size=4), st.lists, max_leaves=25))
def test_any_reply_gives_answers_or_none(reply: Any) -> None:
    found = answers(reply, 9, GROUPS)
    assert found is None or [len(row) for row in found] == [2, 1]
