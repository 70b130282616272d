from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from edge.model.recent import Recent


def test_what_was_never_put_is_not_found() -> None:
    assert Recent[int, str](2).find(1) is None


def test_what_was_not_used_for_two_generations_is_forgotten() -> None:
    recent = Recent[int, int](2)
    for number in range(5):
        recent.put(number, number)
    assert [recent.find(number) for number in range(5)] == [None, None, 2, 3, 4]


def test_what_is_discarded_is_forgotten_in_both_generations() -> None:
    recent = Recent[int, int](1)
    recent.put(1, 1)
    recent.put(2, 2)  # 1 is in the old generation now
    recent.discard(1)
    recent.discard(2)
    assert ([recent.find(1), recent.find(2)], len(recent)) == ([None, None], 0)


def test_a_thousand_in_turn_all_hit() -> None:
    recent = Recent[int, int](1000)
    for number in range(1000):
        recent.put(number, number)
    assert all(recent.find(number) == number for _ in range(3) for number in range(1000))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 9), max_size=60), st.integers(1, 4))
def test_the_last_used_are_kept_and_memory_is_bounded(keys: list[int], capacity: int) -> None:
    recent = Recent[int, int](capacity)
    for key in keys:
        if recent.find(key) is None:
            recent.put(key, key)
        assert len(recent) <= 2 * capacity
    last = list(dict.fromkeys(reversed(keys)))[:capacity]
    assert {key for key in last if recent.find(key) == key} == set(last)
