"""Which refusals become leaves."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from pki.refusals import Pace, told

NOW = datetime(2026, 11, 21, tzinfo=UTC)


def test_the_first_of_a_kind_are_recorded_and_the_next_one_counts_the_others() -> None:
    pace = Pace(most=2, window_s=60)
    assert [pace.dropped("a", NOW) for _ in range(5)] == [0, 0, None, None, None]
    assert pace.dropped("b", NOW) == 0
    assert [pace.dropped("a", NOW + timedelta(seconds=60)) for _ in range(3)] == [3, 0, None]


def test_a_clock_that_was_set_back_silences_nobody() -> None:
    pace = Pace(most=1, window_s=60)
    assert [pace.dropped("a", NOW), pace.dropped("a", NOW)] == [0, None]
    assert pace.dropped("a", NOW - timedelta(hours=1)) == 1


def test_kinds_are_bounded_and_a_flood_of_them_records_no_less() -> None:
    pace = Pace(most=1, window_s=60)
    assert all(pace.dropped(kind, NOW) == 0 for kind in range(10_000))


def test_the_detail_tells_of_the_others() -> None:
    assert (told("no", 0), told("no", 3)) == ("no", "no; 3 more before it")
