"""The script inside a real store, under a clock moved by hand, against what a window promises."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from valkey import Valkey

from edge.limit.lease import Answer, Question
from edge.limit.rules import LimitSettings, Strategy
from edge.limit.script import TAKE, answers, arguments
from tests.e2e.limit_server import (
    Server,
)

_AT = TAKE.replace("redis.call('TIME')", "{tonumber(ARGV[#ARGV - 1]), tonumber(ARGV[#ARGV])}")
WINDOW_S = 100
W = WINDOW_S * 1_000_000


class Clockwork:
    """The script in a real store, told what time it is."""

    def __init__(self, server: Server) -> None:
        self.client: Any = Valkey(unix_socket_path=server.socket_path)
        self.script = self.client.register_script(_AT)

    def ask(self, now_us: int, questions: list[Question], waiting: int = 1) -> list[Answer]:
        keys, args = arguments(1, [(waiting, questions)])
        reply = self.script(keys=keys, args=[*args, str(now_us // 1_000_000), str(now_us % 1_000_000)])
        found = answers(reply, 1, [(waiting, questions)])
        assert found is not None
        return found[0]


@pytest.fixture(scope="module")
def clockwork(server: Server) -> Iterator[Clockwork]:
    clockwork = Clockwork(server)
    yield clockwork
    clockwork.client.connection_pool.disconnect()


STEPS = st.lists(st.tuples(st.integers(0, W // 4), st.integers(1, 9), st.integers(0, 3)), max_size=25)
ROLLING: list[Strategy] = ["moving-window", "sliding-window"]


@pytest.mark.parametrize("strategy", ROLLING)
@settings(max_examples=40, deadline=None)
@given(steps=STEPS, quota=st.integers(1, 30))
def test_no_window_one_percent_shorter_ever_holds_more_than_the_quota(
    clockwork: Clockwork, strategy: Strategy, steps: list[tuple[int, int, int]], quota: int
) -> None:
    clockwork.client.flushdb()
    limit = LimitSettings("m", quota, WINDOW_S, strategy=strategy)
    # From a real clock's range: there the numbers are as large as they will ever be.
    now, taken, back, stamp = 1_900_000_000_000_000, [], 0, 0
    for pause, waiting, unused in steps:
        now += pause
        (answer,) = clockwork.ask(now, [Question("k", limit, 0, back, stamp)], waiting)
        # The unused ones are given back with the next question, which may come too late to count.
        back, stamp = min(unused, answer.granted), answer.stamp
        taken += [now] * (answer.granted - back)
        shorter = W if strategy == "moving-window" else W - -(-W // 256)
        assert sum(now - shorter < at <= now for at in taken) <= quota
        assert answer.granted <= waiting


@pytest.mark.parametrize("strategy", ROLLING)
def test_a_rolling_window_gives_everything_again_after_one_window(clockwork: Clockwork, strategy: Strategy) -> None:
    clockwork.client.flushdb()
    limit = LimitSettings("m", 10, WINDOW_S, strategy=strategy)
    question = Question("k", limit, 0, 0, 0)
    assert [clockwork.ask(W, [question], 10)[0].granted, clockwork.ask(W + 1, [question])[0].granted] == [10, 0]
    assert clockwork.ask(2 * W + W // 250, [question], 10)[0].granted == 10


@pytest.mark.parametrize("strategy", ROLLING)
def test_a_refusal_says_when_a_unit_is_free(clockwork: Clockwork, strategy: Strategy) -> None:
    clockwork.client.flushdb()
    question = Question("k", LimitSettings("m", 10, WINDOW_S, strategy=strategy), 0, 0, 0)
    clockwork.ask(W, [question], 4)
    clockwork.ask(W + W // 2, [question], 6)
    now = W + W // 2 + 77
    refusal = clockwork.ask(now, [question])[0]
    assert (refusal.granted, refusal.free) == (0, 0)
    assert clockwork.ask(now + refusal.retry_us - 1, [question])[0].granted == 0
    assert clockwork.ask(now + refusal.retry_us, [question])[0].granted == 1


@pytest.mark.parametrize("strategy", ROLLING)
def test_units_given_back_can_be_taken_again_at_once(clockwork: Clockwork, strategy: Strategy) -> None:
    clockwork.client.flushdb()
    limit = LimitSettings("m", 10, WINDOW_S, strategy=strategy)
    (first,) = clockwork.ask(W, [Question("k", limit, 0, 0, 0)], 10)
    (again,) = clockwork.ask(W + 5, [Question("k", limit, 0, 4, first.stamp)], 10)
    assert (first.granted, again.granted) == (10, 4)
    (unknown,) = clockwork.ask(W + 9, [Question("k", limit, 0, 4, 12345)], 10)
    assert unknown.granted == 0


def test_a_steady_stream_uses_a_rolling_window_fully(clockwork: Clockwork) -> None:
    clockwork.client.flushdb()
    for strategy in ROLLING:
        question = Question(strategy, LimitSettings("m", 100, WINDOW_S, strategy=strategy), 0, 0, 0)
        granted = sum(clockwork.ask(W + at * W // 130, [question])[0].granted for at in range(4 * 130))
        assert 396 <= granted <= 401


def test_the_log_of_a_window_is_bounded(clockwork: Clockwork) -> None:
    clockwork.client.flushdb()
    for strategy, most in zip(ROLLING, (1026, 259), strict=True):
        question = Question(strategy, LimitSettings("m", 10**6, WINDOW_S, strategy=strategy), 0, 0, 0)
        for at in range(0, W, W // 1500):
            clockwork.ask(W + at, [question])
        assert clockwork.client.execute_command("LLEN", strategy) <= most


def test_near_the_end_of_a_window_leases_get_small_and_waiting_requests_come_first(clockwork: Clockwork) -> None:
    clockwork.client.flushdb()
    limit = LimitSettings("f", 1_000, WINDOW_S)
    asked = [clockwork.ask(W, [Question("k", limit, 100, 0, 0)], 3)[0].granted for _ in range(30)]
    assert asked[0] == 100
    assert asked == sorted(asked, reverse=True)
    assert sum(asked) <= 1_000


def test_a_group_grants_what_its_scarcest_limit_allows(clockwork: Clockwork) -> None:
    clockwork.client.flushdb()
    wide, narrow = LimitSettings("w", 100, WINDOW_S), LimitSettings("n", 3, WINDOW_S, strategy="sliding-window")
    questions = [Question("w", wide, 0, 0, 0), Question("n", narrow, 0, 0, 0)]
    assert [answer.granted for answer in clockwork.ask(W, questions, 8)] == [3, 3]
    refusal = clockwork.ask(W + 1, questions, 8)
    assert [(answer.granted, answer.free) for answer in refusal] == [(0, 97), (0, 0)]
    assert [answer.retry_us == 0 for answer in refusal] == [True, False]


@settings(max_examples=40, deadline=None)
@given(steps=st.lists(st.tuples(st.integers(0, W), st.integers(0, 9), st.integers(0, 40)), max_size=25))
def test_no_fixed_window_grants_more_than_the_quota_however_much_is_taken_of_later_ones(
    clockwork: Clockwork, steps: list[tuple[int, int, int]]
) -> None:
    clockwork.client.flushdb()
    limit = LimitSettings("f", 300, WINDOW_S)
    now, granted = 1_900_000_000_000_000, Counter[int]()
    for pause, waiting, later in steps:
        now += pause
        (answer,) = clockwork.ask(now, [Question("k", limit, 0, 0, 0, 3, later)], waiting)
        assert 0 < answer.life_us <= W or not answer.granted
        if answer.stamp:  # else it was refused
            assert answer.stamp - W <= now < answer.stamp
            granted[answer.stamp] += answer.granted
        for number, units in enumerate(answer.later, 1):
            granted[answer.stamp + number * W] += units
        assert max(granted.values(), default=0) <= limit.quota


def test_later_windows_follow_each_other_and_a_key_nobody_asks_about_begins_anew(clockwork: Clockwork) -> None:
    clockwork.client.flushdb()
    limit = LimitSettings("f", 1_000, WINDOW_S)
    (first,) = clockwork.ask(5 * W, [Question("k", limit, 10, 0, 0, 2, 30)], 1)
    assert (first.granted, first.later, first.stamp) == (10, (30, 30), 6 * W)
    (second,) = clockwork.ask(6 * W + 7, [Question("k", limit, 0, 0, 0)], 4)
    assert (second.granted, second.free, second.stamp, second.life_us) == (4, 1_000 - 34, 7 * W, W - 7)
    (renewal,) = clockwork.ask(7 * W + 9, [Question("k", limit, 0, 0, 0, 2, 5)], 0)
    assert (renewal.granted, renewal.later, renewal.stamp) == (0, (5, 5), 8 * W)
    assert clockwork.client.execute_command("GET", "k") == b"%d:30:5:5" % (7 * W)
    (anew,) = clockwork.ask(10 * W + 9, [Question("k", limit, 0, 0, 0)], 1)
    assert (anew.free, anew.stamp) == (999, 11 * W + 9)


def test_a_window_that_is_used_up_refuses_and_grants_nothing_later(clockwork: Clockwork) -> None:
    clockwork.client.flushdb()
    question = Question("k", LimitSettings("f", 8, WINDOW_S), 0, 0, 0, 1, 1)
    assert clockwork.ask(W, [question], 8)[0].granted == 8
    refusal = clockwork.ask(W + 5, [question], 1)[0]
    assert (refusal.granted, refusal.free, refusal.retry_us, refusal.later) == (0, 0, W - 5, (0,))
