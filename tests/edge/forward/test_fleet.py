"""All endpoints of a service: who joins, who is left alone, and that the rest is always enough."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.errors import UpstreamUnreachable
from edge.forward.balance import DEFAULT, BalanceSettings, Policy
from edge.forward.health import CheckSettings
from edge.model.instance import Instance
from edge.registry.roster import Roster
from tests.edge.forward.house import ID, QUICK, A, B, House, addresses, instance, upstream

SETTINGS = BalanceSettings(ejection=QUICK)
CHECKED = replace(SETTINGS, check=CheckSettings("/ok", healthy_after=1, unhealthy_after=1))


# -- who there is ------------------------------------------------------------------------------------


def test_registered_instances_join_those_of_the_file() -> None:
    house = House(DEFAULT, upstream(A))
    assert house.ports(2) == [9101, 9101]
    house.roster.put(instance("one", 1))
    assert set(house.ports(12)) == {9101, 1}
    house.roster.remove("orders", "one")
    assert house.ports(2) == [9101, 9101]


def test_an_address_that_both_name_is_the_registered_ones() -> None:
    house = House(DEFAULT, upstream(A, B))
    house.roster.put(Instance("orders", "one", A, weight=3))
    assert Counter(house.ports(8)) == {9101: 6, 9102: 2}
    assert house.at(9101).name == "one"
    house.roster.remove("orders", "one")
    assert Counter(house.ports(8)) == {9101: 4, 9102: 4}
    assert house.at(9101).name == "127.0.0.1:9101"


def test_who_drains_gets_nothing_new_and_is_no_last_resort() -> None:
    house = House(DEFAULT, upstream())
    house.roster.put(instance("one", 1))
    house.roster.put(instance("two", 2))
    assert set(house.ports(4)) == {1, 2}
    house.roster.put(instance("one", 1, is_draining=True))
    assert house.ports(4) == [2] * 4
    assert [each.address[1] for each in house.order()] == [2]
    house.roster.put(instance("two", 2, is_draining=True))
    with pytest.raises(UpstreamUnreachable):
        house.order()
    assert house.states() == {"one": "draining", "two": "draining"}


def test_an_instance_of_another_service_is_nobody_here() -> None:
    house = House(DEFAULT, upstream(A))
    house.roster.put(Instance("billing", "one", B))
    assert house.ports(3) == [9101] * 3


def test_an_address_is_another_endpoint_for_another_identity() -> None:
    one, other = upstream(A), replace(upstream(A), spiffe_id=ID + "2")
    house = House(DEFAULT, one, other)
    house.at(9101).in_flight = 5
    house.upstream = other
    assert house.first().in_flight == 0


def test_what_is_under_way_is_known_over_a_reload_and_to_all_routes() -> None:
    house = House(SETTINGS, upstream(A, B), upstream(A))
    house.first().in_flight = 3
    house.fail(9102, 2, 0)
    again = upstream(B, A)
    house.fleet.configure({"orders": SETTINGS}, [again], 1)
    house.upstream = again
    assert (house.at(9101).in_flight, house.states()["127.0.0.1:9102"]) == (3, "ejected")
    assert house.ports(3) == [9101] * 3


def test_a_reload_takes_endpoints_away_and_those_without_work_are_forgotten() -> None:
    house = House(DEFAULT, upstream(A, B))
    house.at(9101).in_flight = 1
    house.upstream = upstream(("127.0.0.1", 9103))
    house.fleet.configure({}, [house.upstream], 0)
    assert house.ports(3) == [9103] * 3
    assert [each.address[1] for each in house.fleet.forget_departed()] == [9102]
    assert house.states() == {"127.0.0.1:9101": "gone", "127.0.0.1:9103": "healthy"}
    house.at(9101).in_flight = 0
    house.fleet.forget_departed()
    assert list(house.states()) == ["127.0.0.1:9103"]


def test_a_service_that_the_configuration_dropped_leaves_nothing() -> None:
    house = House(DEFAULT, upstream(A))
    house.fleet.configure({}, [], 0)
    house.fleet.forget_departed()
    assert house.states() == {}


def test_the_turn_goes_on_for_another_upstream_that_says_the_same() -> None:
    house = House(DEFAULT, upstream(A, B))
    before = house.fleet.turns(house.upstream)
    assert house.ports(1) == [9101]
    house.upstream = upstream(A, B)
    assert house.fleet.turns(house.upstream) is before
    assert house.ports(2) == [9102, 9101]


@pytest.mark.parametrize("policy", Policy)
def test_an_only_endpoint_is_the_answer_by_each_policy(policy: Policy) -> None:
    house = House(BalanceSettings(policy), upstream(A))
    assert house.ports(3) == [9101] * 3


# -- ejection ----------------------------------------------------------------------------------------


def test_failures_in_a_row_eject_and_time_brings_back_slowly() -> None:
    house = House(SETTINGS, upstream(A, B))
    house.fail(9101, 1, 0)
    house.fleet.answered(house.at(9101), 200, 0)
    house.fail(9101, 1, 0)
    assert set(house.ports(4)) == {9101, 9102}  # never two in a row
    house.fail(9101, 1, 5)
    assert house.ports(4) == [9102] * 4
    assert [each.address[1] for each in house.order()] == [9102, 9101]  # the last resort of a dial
    (out,) = [each.health for each in house.fleet.endpoints() if each.state == "ejected"]
    assert (out.ejected_s, out.until_s) == (5, 15)
    house.fleet.tick(14.9)
    assert house.ports(4) == [9102] * 4
    house.fleet.tick(15)
    assert (Counter(house.ports(11)), house.states()["127.0.0.1:9101"]) == ({9102: 10, 9101: 1}, "starting")
    house.fleet.tick(20)
    assert Counter(house.ports(15)) == {9102: 10, 9101: 5}
    house.fleet.tick(25)
    assert (Counter(house.ports(10)), house.states()["127.0.0.1:9101"]) == ({9102: 5, 9101: 5}, "healthy")


def test_an_error_of_the_server_is_a_failure_only_where_the_file_says_so() -> None:
    lenient, strict = House(SETTINGS, upstream(A, B)), None
    for _ in range(10):
        lenient.fleet.answered(lenient.at(9101), 500, 0)
    assert "ejected" not in lenient.states().values()
    strict = House(replace(SETTINGS, ejection=replace(QUICK, counts_5xx=True)), upstream(A, B))
    for _ in range(2):
        strict.fleet.answered(strict.at(9101), 503, 0)
    assert strict.states()["127.0.0.1:9101"] == "ejected"


def test_the_only_one_is_never_ejected_nor_anybody_where_the_file_says_so() -> None:
    house = House(SETTINGS, upstream(A))
    house.fail(9101, 100, 0)
    assert (house.ports(1), house.states()) == ([9101], {"127.0.0.1:9101": "healthy"})
    never = House(replace(SETTINGS, ejection=None), upstream(A, B))
    never.fail(9101, 100, 0)
    assert set(never.ports(2)) == {9101, 9102}


def test_who_is_the_last_of_one_route_stays_for_all() -> None:
    house = House(SETTINGS, upstream(A, B), upstream(A))
    house.fail(9101, 10, 0)
    assert "ejected" not in house.states().values()


def test_who_failed_while_half_were_out_follows_when_one_is_back() -> None:
    house = House(SETTINGS, upstream(*addresses(3)))
    house.fail(9101, 2, 0)
    house.fail(9102, 2, 1)
    assert Counter(house.states().values()) == {"healthy": 2, "ejected": 1}
    house.fleet.tick(10)
    house.fail(9102, 1, 11)
    assert house.states()["127.0.0.1:9102"] == "ejected"


def test_when_others_leave_the_ejected_come_back() -> None:
    house = House(SETTINGS, upstream())
    for port in (1, 2, 3, 4):
        house.roster.put(instance(str(port), port))
    house.first()
    house.fail(1, 2, 0)
    house.fail(2, 2, 1)
    assert Counter(house.states().values()) == {"ejected": 2, "healthy": 2}
    house.roster.remove("orders", "3")
    house.first(2)
    assert {name for name, state in house.states().items() if state == "ejected"} == {"2"}  # the first is back first
    house.roster.remove("orders", "4")
    house.roster.remove("orders", "1")
    house.first(3)
    assert house.ports(2) == [2, 2]


# -- checks ------------------------------------------------------------------------------------------


def test_who_fails_checks_gets_nothing_while_another_passes() -> None:
    house = House(CHECKED, upstream(*addresses(3)))
    for port in (9101, 9102):
        house.fleet.checked(house.at(port), 0, passed=False)
    assert house.ports(3) == [9103] * 3
    house.fleet.checked(house.at(9103), 0, passed=False)
    assert set(house.ports(3)) == {9101, 9102, 9103}  # nobody passes: then it is not known who can serve
    house.fleet.checked(house.at(9101), 1, passed=True)
    assert house.ports(3) == [9101] * 3


def test_who_fails_checks_makes_the_ejected_return_when_nobody_else_is_left() -> None:
    house = House(CHECKED, upstream(A, B))
    house.fail(9101, 2, 0)
    assert house.ports(2) == [9102] * 2
    house.fleet.checked(house.at(9102), 1, passed=False)
    assert house.ports(2) == [9101] * 2


def test_the_last_that_passes_is_not_ejected() -> None:
    house = House(CHECKED, upstream(*addresses(3)))
    for port in (9101, 9102):
        house.fleet.checked(house.at(port), 0, passed=False)
    house.fail(9103, 10, 0)
    assert house.states()["127.0.0.1:9103"] == "healthy"


def test_who_is_checked_and_how() -> None:
    house = House(DEFAULT, upstream(A))
    house.roster.put(instance("one", 1, health="/own"))
    house.roster.put(instance("two", 2))
    house.first()
    assert [(each.name, each.check_path, how) for each, how in house.fleet.checks()] == [
        ("one", "/own", CheckSettings())
    ]
    house.fleet.configure({"orders": CHECKED}, [house.upstream], 0)
    assert {each.name: how.path for each, how in house.fleet.checks()} == dict.fromkeys(
        ["127.0.0.1:9101", "one", "two"], "/ok"
    )


def test_what_is_checked_no_more_is_failing_no_more() -> None:
    house = House(CHECKED, upstream(A, B))
    house.fleet.checked(house.at(9101), 0, passed=False)
    house.fleet.configure({"orders": SETTINGS}, [house.upstream], 0)
    assert list(house.fleet.checks()) == []
    assert set(house.ports(2)) == {9101, 9102}


# -- slow start --------------------------------------------------------------------------------------


def test_who_comes_later_starts_slowly_who_was_there_from_the_beginning_does_not() -> None:
    house = House(DEFAULT, upstream(A, B))
    assert Counter(house.ports(20)) == {9101: 10, 9102: 10}
    house.roster.put(instance("one", 1, weight=2))
    assert Counter(house.ports(22, now_s=100)) == {9101: 10, 9102: 10, 1: 2}
    house.fleet.tick(105)
    assert Counter(house.ports(30)) == {9101: 10, 9102: 10, 1: 10}
    house.fleet.tick(110)
    assert Counter(house.ports(40)) == {9101: 10, 9102: 10, 1: 20}


def test_slow_start_can_be_turned_off() -> None:
    house = House(replace(DEFAULT, slow_start_s=0), upstream(A))
    house.roster.put(instance("one", 1))
    assert Counter(house.ports(20, now_s=100)) == {9101: 10, 1: 10}


def test_a_reload_that_adds_an_endpoint_lets_it_start_slowly() -> None:
    house = House(DEFAULT, upstream(A))
    house.upstream = upstream(A, B)
    house.fleet.configure({}, [house.upstream], 50)
    assert Counter(house.ports(22)) == {9101: 20, 9102: 2}


# -- whatever happens --------------------------------------------------------------------------------

EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["fail", "fail", "fail", "answer", "pass", "lose", "join", "leave", "drain", "wait", "reload"]),
        st.integers(0, 5),
    ),
    max_size=60,
)


@given(file=st.integers(0, 4), events=EVENTS)
def test_never_more_than_half_are_ejected_and_there_is_always_somebody(
    file: int, events: list[tuple[str, int]]
) -> None:
    roster = Roster()
    house, now_s = House(CHECKED, upstream(*addresses(file)), roster=roster), 0.0
    for what, who in events:
        now_s += 1
        known = list(house.fleet.endpoints())
        endpoint = known[who % len(known)] if known else None
        if what in ("join", "drain"):
            roster.put(instance(str(who), who, is_draining=what == "drain"))
        elif what == "leave":
            roster.remove("orders", str(who))
        elif what == "wait":
            now_s += 5 * who
            house.fleet.tick(now_s)
        elif what == "reload":
            house.fleet.configure({"orders": CHECKED}, [house.upstream], now_s)
        elif endpoint is not None and what == "fail":
            house.fail(endpoint.address[1], 2, now_s)
        elif endpoint is not None and what == "answer":
            house.fleet.answered(endpoint, 200, now_s)
        elif endpoint is not None:
            house.fleet.checked(endpoint, now_s, passed=what == "pass")
        members = house.fleet.arranged(house.upstream, now_s).members
        ejected = [each for each in members if each.health.is_ejected]
        assert len(ejected) * 2 <= len(members)
        if members:
            order = house.order(now_s)
            assert not order[0].health.is_ejected
            assert not order[0].is_draining
            assert order[0].is_member
            passing = any(not each.health.is_failing for each in members)
            assert order[0].health.is_failing is not passing
