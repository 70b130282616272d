"""Who is refused when a worker has too much, and who is not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.accept.pressure import LAG_OF_KNOWN_S, LAG_S, Pressure, Reading

MIB = 1 << 20
CALM = Reading(lag_s=0.0, held_bytes=0, free_slots=4096, slots=4096)
LATE = Reading(lag_s=LAG_S * 2, held_bytes=0, free_slots=4096, slots=4096)
VERY_LATE = Reading(lag_s=LAG_OF_KNOWN_S * 2, held_bytes=0, free_slots=4096, slots=4096)


def after(*readings: Reading) -> Pressure:
    pressure = Pressure(100 * MIB)
    for reading in readings:
        pressure.weigh(reading)
    return pressure


def served(pressure: Pressure, *, is_known: bool) -> int:
    """Of eighty."""
    return sum(pressure.admits(is_known=is_known) for _ in range(80))


def test_a_calm_worker_refuses_nobody() -> None:
    pressure = after(CALM)
    assert not pressure.is_high
    assert served(pressure, is_known=False) == 80


def test_the_unknown_wait_first_and_in_shares() -> None:
    assert [served(after(*[LATE] * turns), is_known=False) for turns in range(6)] == [80, 60, 40, 20, 0, 0]
    assert served(after(*[LATE] * 6), is_known=True) == 80


def test_the_known_wait_when_that_was_not_enough_and_never_all() -> None:
    assert served(after(*[VERY_LATE] * 4), is_known=True) == 60
    assert served(after(*[VERY_LATE] * 100), is_known=True) == 20


def test_it_goes_back_more_slowly_than_it_came() -> None:
    assert [served(after(LATE, LATE, *[CALM] * turns), is_known=False) for turns in range(6)] == [
        40,
        50,
        60,
        70,
        80,
        80,
    ]
    assert not after(LATE, *[CALM] * 2).is_high


@pytest.mark.parametrize(
    ("held", "free", "unknown", "known"),
    [(74 * MIB, 4096, 80, 80), (75 * MIB, 4096, 0, 80), (100 * MIB, 4096, 0, 0), (0, 1024, 80, 80), (0, 1023, 0, 80)],
)
def test_memory_and_slots_count_at_once(held: int, free: int, unknown: int, known: int) -> None:
    pressure = after(Reading(0.0, held, free, 4096))
    assert (served(pressure, is_known=False), served(pressure, is_known=True)) == (unknown, known)


def test_when_memory_is_back_the_known_are_served_again_at_once_in_part() -> None:
    pressure = after(Reading(0.0, 100 * MIB, 4096, 4096), CALM)
    assert served(pressure, is_known=True) == 20


_READINGS = st.builds(
    Reading,
    st.floats(-1, 100),
    st.integers(0, 200 * MIB),
    st.integers(0, 4096),
    st.just(4096),
)


@given(st.lists(_READINGS, max_size=20))
def test_the_known_are_never_worse_off_than_the_unknown(readings: list[Reading]) -> None:
    pressure, again = after(*readings), after(*readings)
    assert served(pressure, is_known=True) >= served(again, is_known=False)


@given(st.lists(_READINGS, max_size=20))
def test_it_always_ends(readings: list[Reading]) -> None:
    assert not after(*readings, *[CALM] * 20).is_high
