"""One endpoint's health: how long it is left alone, what checks change, how slowly it starts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.forward.health import TENTHS, CheckSettings, EjectionSettings, Health, ejectable

EJECTION = EjectionSettings(first_s=10, longest_s=60)
CHECK = CheckSettings(healthy_after=2, unhealthy_after=3)


def test_each_ejection_lasts_twice_as_long_up_to_the_longest() -> None:
    health, now_s, lasted = Health(), 0.0, []
    for _ in range(5):
        health.eject(now_s, EJECTION)
        lasted.append(health.until_s - now_s)
        now_s = health.until_s
        health.readmit(now_s)
    assert lasted == [10, 20, 40, 60, 60]


def test_long_good_conduct_makes_the_next_ejection_a_first_one() -> None:
    health = Health()
    health.eject(0, EJECTION)
    health.readmit(10)
    health.eject(69, EJECTION)
    assert health.until_s == 89
    health.readmit(89)
    health.eject(89 + 60, EJECTION)
    assert health.until_s == 89 + 60 + 10


def test_a_thousand_ejections_last_no_longer_than_the_longest() -> None:
    health = Health()
    for _ in range(1000):
        health.eject(0, EjectionSettings(first_s=1, longest_s=300))
    assert health.until_s == 300


def test_who_is_ejected_early_readmitted_counts_his_good_conduct_from_then() -> None:
    health = Health()
    health.eject(0, EJECTION)
    health.readmit(3)
    assert (health.is_ejected, health.until_s, health.is_due(100)) == (False, 3, False)


def test_an_ejection_is_due_at_its_end_and_not_before() -> None:
    health = Health()
    assert not health.is_due(1000)
    health.eject(5, EJECTION)
    assert (health.is_due(14.9), health.is_due(15)) == (False, True)


@pytest.mark.parametrize(
    ("checks", "failing"),
    [
        ("", False),
        ("ff", False),
        ("fff", True),
        ("ffpff", False),
        ("ffffff", True),
        ("fffp", True),
        ("fffpp", False),
        ("fffpfp", True),
        ("fffppff", False),
        ("pppppfff", True),
    ],
)
def test_so_many_checks_in_a_row_turn_it(checks: str, failing: bool) -> None:
    health = Health()
    for check in checks:
        health.checked(CHECK, 0, passed=check == "p")
    assert health.is_failing is failing


def test_a_check_that_changes_nothing_says_so_and_who_recovers_starts_slowly() -> None:
    health = Health()
    told = [health.checked(CHECK, 7, passed=passed) for passed in (True, False, False, False, False, True, True)]
    assert told == [False, False, False, True, False, False, True]
    assert (health.is_failing, health.tenths(7, 10), health.is_starting) == (False, 1, True)


def test_what_nobody_checks_is_not_failing() -> None:
    health = Health()
    for _ in range(3):
        health.checked(CHECK, 0, passed=False)
    health.forget_checks()
    assert not health.is_failing


def test_weight_grows_in_tenths_and_then_nothing_changes_any_more() -> None:
    health = Health()
    assert health.tenths(0, 10) == TENTHS
    health.start_slowly(100)
    assert [health.tenths(now_s, 10) for now_s in (100, 101.9, 105, 109.9, 110)] == [1, 1, 5, 9, 10]
    assert (health.tenths(101, 10), health.is_starting) == (TENTHS, False)


def test_without_slow_start_it_carries_everything_at_once() -> None:
    health = Health()
    health.start_slowly(100)
    assert health.tenths(100, 0) == TENTHS


@given(st.integers(1, 10_000))
def test_no_more_than_half_are_ejectable_and_never_the_last(members: int) -> None:
    assert ejectable(members) * 2 <= members
    assert ejectable(members) < members
