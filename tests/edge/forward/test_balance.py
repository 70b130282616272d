"""Who gets the next request: rounds by weight, fewest under way, two drawn, and nobody beyond his limit."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.errors import Shedding, UpstreamUnreachable
from edge.forward.balance import DEFAULT, MAX_TRIES, MAX_TURNS, BalanceSettings, Policy, spread
from tests.edge.forward.house import House, addresses, upstream

EVEN = DEFAULT
LEAST = BalanceSettings(Policy.LEAST_REQUESTS)
TWO = BalanceSettings(Policy.POWER_OF_TWO)
POLICIES = pytest.mark.parametrize("policy", list(Policy))
WEIGHTS = st.lists(st.integers(1, 1000), min_size=1, max_size=12)


# -- rounds ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ([1], [0]),
        ([7], [0]),
        ([1, 1, 1], [0, 1, 2]),
        ([500, 500], [0, 1]),
        ([2, 1], [0, 1, 0]),
        ([3, 1], [0, 0, 1, 0]),
        ([5, 1, 1], [0, 0, 0, 1, 2, 0, 0]),
        ([40, 20], [0, 1, 0]),
    ],
)
def test_a_round_spreads_each_evenly(weights: list[int], expected: list[int]) -> None:
    assert spread(weights) == expected


@given(WEIGHTS)
def test_a_round_gives_everybody_his_share_and_nobody_nothing(weights: list[int]) -> None:
    turns = Counter(spread(weights))
    whole, length = sum(weights), turns.total()
    assert set(turns) == set(range(len(weights)))
    assert length <= MAX_TURNS + len(weights)
    for index, weight in enumerate(weights):
        assert abs(turns[index] / length - weight / whole) <= len(weights) / MAX_TURNS


@given(st.lists(st.integers(1, 20), min_size=1, max_size=8))
def test_within_a_round_nobody_waits_much_longer_than_his_weight_asks(weights: list[int]) -> None:
    turns = spread(weights)
    for index, weight in enumerate(weights):
        places = [at for at, each in enumerate(turns + turns) if each == index]
        gaps = [later - earlier for earlier, later in pairwise(places)]
        assert max(gaps) <= 2 * sum(weights) / weight + len(weights)


def test_a_thousand_instances_make_one_round_quickly() -> None:
    assert len(spread([1] * 999 + [1000])) <= 2 * MAX_TURNS


# -- the next one ------------------------------------------------------------------------------------


def test_in_turn() -> None:
    house = House(EVEN, upstream(*addresses(3)))
    assert house.ports(6) == [9101, 9102, 9103, 9101, 9102, 9103]


def test_behind_the_first_come_the_next_in_turn() -> None:
    house = House(EVEN, upstream(*addresses(3)))
    assert [[each.address[1] for each in house.order()] for _ in range(2)] == [[9101, 9102, 9103], [9102, 9103, 9101]]


def test_one_request_tries_a_bounded_number() -> None:
    house = House(EVEN, upstream(*addresses(100)))
    assert len(house.order()) == MAX_TRIES


@POLICIES
@settings(deadline=None)
@given(weights=WEIGHTS)
def test_idle_instances_get_requests_by_weight(policy: Policy, weights: list[int]) -> None:
    house = House(replace(EVEN, policy=policy), upstream(*addresses(len(weights)), weights=weights))
    rounds = 3 * (MAX_TURNS + len(weights))
    got = Counter(house.ports(rounds))
    for at, weight in enumerate(weights):
        share, fair = got[9101 + at] / rounds, weight / sum(weights)
        # Two drawn at random scatter: five standard deviations of a draw.
        slack = 5 * (fair * (1 - fair) / rounds) ** 0.5 if policy is Policy.POWER_OF_TWO else 0.0
        assert abs(share - fair) <= len(weights) / MAX_TURNS + slack


@POLICIES
@given(counts=st.lists(st.integers(0, 50), min_size=2, max_size=8))
def test_nobody_starves(policy: Policy, counts: list[int]) -> None:
    """Each request stays under way for as many others as are under way now; whoever is free is asked soon."""
    house = House(replace(EVEN, policy=policy), upstream(*addresses(len(counts))))
    for at, count in enumerate(counts):
        house.at(9101 + at).in_flight = count
    for _ in range(60 * len(counts)):  # all of them come to be as busy as the busiest, and everybody is asked
        house.first().in_flight += 1
    assert all(house.at(9101 + at).in_flight > count for at, count in enumerate(counts))


def test_least_requests_asks_who_has_the_fewest_for_his_weight() -> None:
    house = House(LEAST, upstream(*addresses(3), weights=[1, 1, 4]))
    for port, count in ((9101, 2), (9102, 1), (9103, 3)):
        house.at(port).in_flight = count
    assert house.ports(3) == [9103, 9103, 9103]  # 2, 1, 0.75


@given(st.lists(st.integers(0, 9), min_size=2, max_size=9), st.integers(0, 20))
def test_least_requests_never_asks_one_with_more(counts: list[int], before: int) -> None:
    house = House(LEAST, upstream(*addresses(len(counts))))
    house.ports(before)
    for at, count in enumerate(counts):
        house.at(9101 + at).in_flight = count
    assert house.first().in_flight == min(counts)


def test_least_requests_evens_out_what_round_robin_does_not() -> None:
    """One instance answers never, the other at once."""
    house = House(LEAST, upstream(*addresses(2)))
    stuck = house.at(9101)
    for _ in range(100):
        if house.first() is stuck:
            stuck.in_flight += 1
    assert stuck.in_flight == 1


def test_power_of_two_nearly_evens_out() -> None:
    house = House(TWO, upstream(*addresses(10)))
    for _ in range(1000):
        house.first().in_flight += 1
    counts = [house.at(port).in_flight for _, port in addresses(10)]
    assert max(counts) - min(counts) <= 8  # drawn singly it would be about 60


def test_power_of_two_draws_by_weight_also_where_one_has_nearly_all() -> None:
    house = House(TWO, upstream(*addresses(2), weights=[9, 1]))
    assert 50 < house.ports(1000).count(9102) < 150


# -- nobody ------------------------------------------------------------------------------------------


@POLICIES
def test_no_endpoint_is_no_answer(policy: Policy) -> None:
    house = House(replace(EVEN, policy=policy), upstream())
    with pytest.raises(UpstreamUnreachable, match="no-endpoint"):
        house.order()


# -- limits ------------------------------------------------------------------------------------------


@POLICIES
def test_a_full_instance_is_passed_over_and_when_all_are_full_it_is_said(policy: Policy) -> None:
    house = House(BalanceSettings(policy, max_in_flight_each=2), upstream(*addresses(3)))
    for _ in range(6):
        house.first().in_flight += 1
    assert [house.at(port).in_flight for _, port in addresses(3)] == [2, 2, 2]
    with pytest.raises(Shedding, match="instance-in-flight"):
        house.order()
    house.at(9102).in_flight -= 1
    assert house.ports(3) == [9102] * 3


def test_the_only_instance_has_a_limit_too() -> None:
    house = House(BalanceSettings(max_in_flight_each=1), upstream(*addresses(1)))
    house.first().in_flight += 1
    with pytest.raises(Shedding):
        house.order()


def test_a_service_is_full_over_all_its_routes() -> None:
    house = House(BalanceSettings(max_in_flight=3), upstream(*addresses(1)), upstream(("127.0.0.1", 9200)))
    house.at(9200).in_flight = 2
    house.first().in_flight += 1
    with pytest.raises(Shedding, match="service-in-flight"):
        house.order()


def test_no_limit_is_no_limit() -> None:
    house = House(EVEN, upstream(*addresses(1)))
    house.at(9101).in_flight = 1_000_000
    assert house.ports(1) == [9101]


@given(st.integers(1, 100_000), st.integers(1, 64))
def test_workers_share_a_limit_and_together_keep_it(limit: int, workers: int) -> None:
    share = BalanceSettings(max_in_flight=limit, max_in_flight_each=limit).share(workers)
    assert share.max_in_flight is not None
    assert share.max_in_flight == share.max_in_flight_each
    assert share.max_in_flight * workers <= max(limit, workers)
    assert EVEN.share(workers) == EVEN
