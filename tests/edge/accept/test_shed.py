from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.accept import shed as shed_module
from edge.accept.shed import Shed, ShedSettings

S = 1_000_000_000
SMALL = ShedSettings(max_connections=3, max_connections_per_prefix=2, failed_checks_per_s=10, failed_checks_burst=5)


def test_connections_of_one_prefix_are_refused_above_its_limit() -> None:
    shed = Shed(SMALL)
    assert [shed.open("a") for _ in range(3)] == [True, True, False]
    assert shed.open_total == 2


def test_a_proxy_has_no_share_but_that_of_all() -> None:
    shed = Shed(SMALL)
    assert [shed.open("a", is_proxy=True) for _ in range(4)] == [True, True, True, False]
    for _ in range(3):
        shed.close("a")
    assert [shed.open("a") for _ in range(3)] == [True, True, False]


def test_connections_are_refused_above_the_total_whoever_comes() -> None:
    shed = Shed(SMALL)
    assert [shed.open(prefix) for prefix in "abcd"] == [True, True, True, False]


def test_closing_makes_room_and_an_unmatched_close_is_a_bug() -> None:
    shed = Shed(SMALL)
    shed.open("a")
    shed.open("a")
    shed.close("a")
    assert shed.open("a")
    shed.close("a")
    shed.close("a")
    assert shed.open_total == 0
    with pytest.raises(KeyError):
        shed.close("a")


def test_checks_are_refused_after_a_burst_of_failures_and_allowed_again_at_the_rate() -> None:
    shed = Shed(SMALL)
    for _ in range(5):
        assert shed.may_check("a", S)
        shed.failed("a", S)
    assert not shed.may_check("a", S)
    assert not shed.may_check("a", S + S // 10 - 1)
    assert shed.may_check("a", S + S // 10)


def test_failures_of_one_prefix_cost_no_other() -> None:
    shed = Shed(SMALL)
    for _ in range(9):
        shed.failed("a", S)
    assert not shed.may_check("a", S)
    assert shed.may_check("b", S)


def test_checks_that_were_under_way_add_no_debt_beyond_one_period() -> None:
    shed = Shed(SMALL)
    for _ in range(1_000):
        shed.failed("a", S)
    assert shed.may_check("a", S + S // 2)


def test_a_debt_survives_the_rotation_of_the_table() -> None:
    shed = Shed(SMALL)
    shed.failed("z", 0)
    for _ in range(9):
        shed.failed("a", S // 2 - 1)
    shed.failed("z", S // 2 + 1)
    assert not shed.may_check("a", S // 2 + 1)


def test_when_the_table_is_full_strangers_share_one_bucket(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shed_module, "_MAX_BUCKETS", 3)
    shed = Shed(SMALL)
    for number in range(100):
        shed.failed(str(number), S)
    assert not shed.may_check("another", S)
    assert shed.may_check("1", S)
    assert shed.may_check("another", 3 * S)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, S // 3), st.booleans()), max_size=40))
def test_the_bucket_agrees_with_a_naive_model(steps: list[tuple[str, int, bool]]) -> None:
    shed = Shed(SMALL)
    levels = dict.fromkeys("ab", (5 * S, 0))  # tokens times S, and when counted
    now = S
    for prefix, pause, fails in steps:
        now += pause
        level, counted = levels[prefix]
        level = min(5 * S, level + (now - counted) * 10)
        assert shed.may_check(prefix, now) == (level >= S)
        if fails:
            shed.failed(prefix, now)
            level = max(0, level - S)
        levels[prefix] = (level, now)


def test_shares_of_all_workers_are_the_budget_of_the_gateway() -> None:
    settings = ShedSettings(20_000, 2_000, 20_000, 40_000)
    assert settings.share(1) == settings
    assert settings.share(4) == ShedSettings(5_000, 500, 5_000, 10_000, 64 << 20)
    assert ShedSettings(1, 1, 1, 1, 1).share(64) == ShedSettings(1, 1, 1, 1, 1)  # never nothing
