"""How many refusals of strangers become leaves of their own."""

from __future__ import annotations

from edge.audit.flood import MAX_COUNTS, MAX_PREFIXES, SINGLE_PER_S, Flood


def test_budget_of_a_prefix_ends_within_the_second_and_begins_anew_in_the_next() -> None:
    flood = Flood()
    first = [flood.is_over("192.0.2.1", 7) for _ in range(SINGLE_PER_S + 2)]
    assert first == [False] * SINGLE_PER_S + [True, True]
    assert not flood.is_over("192.0.2.1", 8)


def test_one_prefix_does_not_use_up_the_budget_of_another() -> None:
    flood = Flood()
    for _ in range(SINGLE_PER_S + 1):
        flood.is_over("192.0.2.1", 7)
    assert not flood.is_over("192.0.2.2", 7)


def test_more_prefixes_in_one_second_than_are_kept_are_only_counted() -> None:
    flood = Flood()
    over = [flood.is_over(str(n), 7) for n in range(MAX_PREFIXES + 2)]
    assert over == [False] * MAX_PREFIXES + [True, True]
    assert not flood.is_over("0", 7)


def test_counts_are_due_once_their_second_is_over() -> None:
    flood = Flood()
    flood.count("192.0.2.1", "malformed-request", 10)
    flood.count("192.0.2.1", "malformed-request", 10)
    flood.count("192.0.2.1", "malformed-request", 11)
    assert flood.due(10, 9) == []
    assert flood.due(11, 9) == [((10, "192.0.2.1", "malformed-request"), 2)]
    assert len(flood.due(12, 1)) == 1
    flood.written((10, "192.0.2.1", "malformed-request"))
    assert flood.due(12, 9) == [((11, "192.0.2.1", "malformed-request"), 1)]


def test_counts_beyond_the_bound_share_one_prefix_and_none_is_lost() -> None:
    flood = Flood()
    for n in range(MAX_COUNTS + 5):
        flood.count(str(n), "no-route", 10)
    flood.count("0", "no-route", 10)
    counts = dict(flood.due(11, MAX_COUNTS + 9))
    assert counts[10, "*", "no-route"] == 5
    assert counts[10, "0", "no-route"] == 2
    assert sum(counts.values()) == MAX_COUNTS + 6
