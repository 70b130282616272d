from __future__ import annotations

from collections import Counter

import pytest

from edge.errors import StoreUnavailable
from edge.limit.lease import Answer, Lease, Ticket
from edge.limit.limiter import Asked, Attempt, Limiter
from edge.limit.rules import LimitSettings
from edge.model.decision import Admission, Exhausted, Permit, QuotaState
from edge.model.identity import ANONYMOUS, Peer, Principal
from edge.model.recent import Recent
from edge.model.route import PathPattern, Route, RouteMatch, Upstream, Wildcard

S = 1_000_000_000


class FarSide:
    """A store in memory: one fixed window per key that never ends, and a clock moved by hand."""

    def __init__(self) -> None:
        self.leases: Recent[str, Lease] = Recent(1_000)
        self.is_down = False
        self.replicas = 1
        self.used: Counter[str] = Counter()
        self.questions = 0
        self.now_ns = S
        self.excess_us = 0

    async def settle(self, attempt: Attempt) -> None:
        ticket: Ticket | None = None
        while lacking := attempt(self.now_ns, ticket):
            if self.is_down:
                raise StoreUnavailable("store-away")
            ticket = Ticket(lacking)
            ticket.present = 1
            self.answer(ticket)

    def answer(self, ticket: Ticket) -> None:
        self.questions += 1
        asked = ticket.questions(self.now_ns, self.replicas)
        free = [q.limit.quota - self.used[q.key] for q in asked]
        rows = []
        for question, left in zip(asked, free, strict=True):
            units = 0 if min(free) < 1 else min(left, max(1, question.ahead))
            self.used[question.key] += units
            window_us = question.limit.window_s * 1_000_000 + self.excess_us
            rows.append(Answer(units, left - units, window_us, window_us, window_us if left < 1 else 0, 0))
        ticket.settle(rows, 1, self.now_ns, self.now_ns)


def route(name: str = "read", service: str = "orders") -> Route:
    pattern = PathPattern("/**", (Wildcard.REST,))
    return Route(name, pattern, ("h",), ("GET",), Upstream(service, f"spiffe://t/svc/{service}"), ("jwt",))


READ = route()
PEER = Peer("192.0.2.7", 1, "192.0.2.7", None, "", "")
ELSEWHERE = Peer("192.0.2.8", 1, "192.0.2.8", None, "", "")
ALICE = Principal("jwt", "i", "alice")
BOB = Principal("jwt", "i", "bob")


def permit(principal: Principal = ALICE, at: Route = READ) -> Permit:
    return Permit(principal, RouteMatch(at, {}), ("p",))


def drive(limiter: Limiter, far: FarSide, asked: Permit, peer: Peer = PEER) -> Admission | Exhausted:
    """What the line does: admit, fetch what is needed, look at the verdict. A coroutine that never waits needs no loop."""
    step = limiter.admit(asked, peer, far.now_ns)
    if isinstance(step, Asked):
        assert step.what == "quota"
        fetch = step.fetch().__await__()
        with pytest.raises(StopIteration):
            next(fetch)
        assert step.verdict is not None
        return step.verdict
    return step


def count(limiter: Limiter, far: FarSide, times: int, principal: Principal = ALICE, peer: Peer = PEER) -> int:
    return sum(isinstance(drive(limiter, far, permit(principal), peer), Admission) for _ in range(times))


def test_without_a_limit_nothing_is_asked() -> None:
    far = FarSide()
    limiter = Limiter([LimitSettings("l", 1, 1, service="billing")], far)
    asked = permit()
    answer = limiter.admit(asked, PEER, 0)
    assert isinstance(answer, Admission)
    assert (asked, (), False) == (answer.permit, answer.quotas, answer.degraded)


@pytest.mark.parametrize("quota", [1, 5, 99, 1_000])
def test_exactly_the_quota_is_admitted(quota: int) -> None:
    far = FarSide()
    assert quota == count(Limiter([LimitSettings("l", quota, 60)], far), far, quota + 20)


def test_the_excess_is_told_how_long_to_wait() -> None:
    far = FarSide()
    limiter = Limiter([LimitSettings("l", 1, 60)], far)
    drive(limiter, far, permit())
    assert Exhausted("l", 1, 60, 60) == drive(limiter, far, permit())
    far.now_ns += 59 * S + 1
    assert Exhausted("l", 1, 60, 1) == drive(limiter, far, permit())


def test_nobody_is_told_to_wait_longer_than_the_window() -> None:
    far = FarSide()
    far.excess_us = 900  # what rolling windows count longer than they are
    limiter = Limiter([LimitSettings("l", 1, 1)], far)
    answer = drive(limiter, far, permit())
    assert isinstance(answer, Admission)
    assert (1, Exhausted("l", 1, 1, 1)) == (answer.quotas[0].reset_s, drive(limiter, far, permit()))


def test_a_limit_known_to_be_used_up_is_not_asked_again() -> None:
    far = FarSide()
    limiter = Limiter([LimitSettings("l", 1, 60)], far)
    count(limiter, far, 50)
    assert far.questions == 2


def test_a_leased_quota_is_rarely_asked_for() -> None:
    far = FarSide()
    limiter = Limiter([LimitSettings("l", 1_000_000, 60)], far)
    assert (count(limiter, far, 50_000), far.questions < 20) == (50_000, True)


def test_the_downstream_sees_what_is_left() -> None:
    far = FarSide()
    limiter = Limiter([LimitSettings("l", 5, 60)], far)
    left = []
    for _ in range(3):
        answer = drive(limiter, far, permit())
        assert isinstance(answer, Admission)
        (state,) = answer.quotas
        assert (state.limit, state.quota, state.window_s, state.reset_s) == ("l", 5, 60, 60)
        left.append(state.remaining)
    assert left == [4, 3, 2]


def test_subjects_do_not_take_from_each_other() -> None:
    far = FarSide()
    limiter = Limiter([LimitSettings("l", 3, 60)], far)
    assert (count(limiter, far, 9), count(limiter, far, 9, BOB)) == (3, 3)


def test_two_tokens_of_one_subject_share_its_quota() -> None:
    far = FarSide()
    limiter = Limiter([LimitSettings("l", 3, 60)], far)
    assert count(limiter, far, 2) + count(limiter, far, 9, Principal("jwt", "i", "alice")) == 3


def test_one_subject_under_two_issuers_is_two() -> None:
    far = FarSide()
    limiter = Limiter([LimitSettings("l", 3, 60)], far)
    assert count(limiter, far, 9) + count(limiter, far, 9, Principal("jwt", "other", "alice")) == 6


def test_anonymous_callers_are_counted_by_address() -> None:
    far = FarSide()
    limiter = Limiter([LimitSettings("l", 3, 60)], far)
    assert (count(limiter, far, 5, ANONYMOUS), count(limiter, far, 5, ANONYMOUS, ELSEWHERE)) == (3, 3)


def test_a_key_without_parts_is_one_quota_for_everybody() -> None:
    far = FarSide()
    limiter = Limiter([LimitSettings("l", 3, 60, key=())], far)
    assert count(limiter, far, 2) + count(limiter, far, 9, BOB) == 3


def test_of_several_limits_all_are_taken_or_none() -> None:
    far = FarSide()
    wide, narrow = LimitSettings("wide", 50, 60, key=()), LimitSettings("narrow", 2, 60)
    limiter = Limiter([wide, narrow], far)
    assert count(limiter, far, 30) == 2
    assert Exhausted("narrow", 2, 60, 60) == drive(limiter, far, permit())
    wide_key = next(key for key in far.used if ":wide:" in key)
    assert far.used[wide_key] == 2
    assert count(limiter, far, 30, BOB) == 2


def test_of_several_exhausted_limits_the_longest_is_named() -> None:
    far = FarSide()
    limiter = Limiter([LimitSettings("a", 1, 1), LimitSettings("b", 1, 9), LimitSettings("c", 1, 5)], far)
    drive(limiter, far, permit())
    assert Exhausted("b", 1, 9, 9) == drive(limiter, far, permit())


def test_leases_survive_a_new_limiter() -> None:
    far = FarSide()
    settings = [LimitSettings("l", 5, 60)]
    first = count(Limiter(settings, far), far, 3)
    assert (first, count(Limiter(settings, far), far, 9)) == (3, 2)


def test_with_the_store_away_a_closed_limit_refuses() -> None:
    far = FarSide()
    far.is_down = True
    with pytest.raises(StoreUnavailable):
        drive(Limiter([LimitSettings("l", 5, 60)], far), far, permit())


def test_with_the_store_away_units_in_hand_may_still_be_used() -> None:
    far = FarSide()
    limiter = Limiter([LimitSettings("l", 10_000, 60)], far)
    count(limiter, far, 100)
    in_hand = sum(far.used.values()) - 100
    far.is_down = True
    assert in_hand > 0
    assert in_hand == count(limiter, far, in_hand)
    with pytest.raises(StoreUnavailable):
        drive(limiter, far, permit())


def test_with_the_store_away_a_local_limit_allows_its_share_and_says_so() -> None:
    far = FarSide()
    far.is_down, far.replicas = True, 4
    limiter = Limiter([LimitSettings("l", 20, 60, on_store_failure="local")], far)
    answers = [limiter.admit(permit(), PEER, S) for _ in range(6)]
    assert [isinstance(answer, Admission) and answer.degraded for answer in answers[:5]] == [True] * 5
    assert Exhausted("l", 20, 60, 60) == answers[5]


def test_a_local_share_ends_when_the_store_is_back() -> None:
    far = FarSide()
    far.is_down = True
    limiter = Limiter([LimitSettings("l", 20, 60, on_store_failure="local")], far)
    drive(limiter, far, permit())
    far.is_down = False
    answer = drive(limiter, far, permit())
    assert isinstance(answer, Admission)
    assert not answer.degraded
    assert far.questions == 1


def test_with_the_store_away_one_closed_limit_is_enough_to_refuse() -> None:
    far = FarSide()
    far.is_down = True
    local = LimitSettings("l", 20, 60, on_store_failure="local")
    limiter = Limiter([local, LimitSettings("c", 20, 60)], far)
    with pytest.raises(StoreUnavailable):
        drive(limiter, far, permit())


def test_the_verdict_belongs_to_the_request_that_waited_even_if_another_has_the_same_permit() -> None:
    far = FarSide()
    limiter = Limiter([LimitSettings("l", 1, 60)], far)
    shared = permit()
    waiting = limiter.admit(shared, PEER, S)
    assert isinstance(waiting, Asked)
    with pytest.raises(StopIteration):
        next(waiting.fetch().__await__())
    assert isinstance(limiter.admit(shared, PEER, S), Asked)
    assert isinstance(waiting.verdict, Admission)


def test_a_changed_failure_rule_of_a_limit_takes_effect_at_once() -> None:
    far = FarSide()
    drive(Limiter([LimitSettings("l", 9, 60)], far), far, permit())
    far.is_down = True
    limiter = Limiter([LimitSettings("l", 9, 60, on_store_failure="local")], far)
    assert isinstance(limiter.admit(permit(), PEER, S), Admission)


def test_quota_states_are_values_of_the_model() -> None:
    far = FarSide()
    answer = drive(Limiter([LimitSettings("a", 9, 60), LimitSettings("b", 8, 60)], far), far, permit())
    assert isinstance(answer, Admission)
    assert [("a", QuotaState), ("b", QuotaState)] == [(state.limit, type(state)) for state in answer.quotas]
