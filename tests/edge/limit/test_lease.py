from __future__ import annotations

from edge.limit.lease import Answer, Lease, Ticket
from edge.limit.rules import LimitSettings

MS = 1_000_000
S = 1_000 * MS
FIXED = LimitSettings("f", 1_000, 60)
MOVING = LimitSettings("m", 1_000, 60, strategy="moving-window")
TINY = LimitSettings("t", 5, 1)


def granted(units: int, *, free: int = 500, life_us: int = 1_024_000, stamp: int = 0) -> Answer:
    return Answer(units, free, life_us, 2_000_000, 0, stamp)


def refused(retry_us: int = 3_000_000) -> Answer:
    return Answer(0, 0, 0, retry_us, retry_us, 0)


def ask(*leases: Lease, waiting: int = 1, now_ns: int = 0, replicas: int = 1) -> tuple[Ticket, list[int]]:
    """A ticket under way, and what it wants ahead for each lease."""
    ticket = Ticket(leases)
    ticket.present = waiting
    return ticket, [question.ahead for question in ticket.questions(now_ns, replicas)]


def refill(lease: Lease, units: int, *, at_ns: int = 0, stamp: int = 0) -> None:
    """One waiting request takes its unit, the lease keeps `units`."""
    ticket, _ = ask(lease, now_ns=at_ns)
    ticket.settle([granted(units + 1, stamp=stamp)], 1, at_ns, at_ns)
    ticket.claim(lease)
    ticket.leave(at_ns)


def test_a_new_lease_has_nothing() -> None:
    assert not Lease(FIXED, "k").is_ready(0, is_store_down=False)


def test_waiting_requests_are_served_before_the_lease() -> None:
    lease = Lease(FIXED, "k")
    ticket, _ = ask(lease, waiting=3)
    ticket.settle([granted(5)], 3, 0, 0)
    owed = 0
    while ticket.owes(lease):
        ticket.claim(lease)
        owed += 1
    assert (owed, lease.units) == (3, 2)


def test_fewer_units_than_waiting_requests_are_owed_to_some_and_none_is_kept() -> None:
    lease = Lease(FIXED, "k")
    ticket, _ = ask(lease, waiting=3)
    ticket.settle([granted(2, free=0)], 3, 0, 0)
    ticket.claim(lease)
    ticket.claim(lease)
    assert not ticket.owes(lease)
    assert lease.units == 0


def test_a_refusal_grants_nobody_and_names_the_limit_used_up_longest() -> None:
    short, long, free = Lease(FIXED, "a"), Lease(FIXED, "b"), Lease(FIXED, "c")
    ticket, _ = ask(short, long, free)
    ticket.settle([refused(1), refused(2), Answer(0, 7, 0, 5, 0, 0)], 1, S, S)
    assert ticket.refused is long
    assert not any(map(ticket.owes, (short, long, free)))
    assert [lease.refused_ns for lease in (short, long, free)] == [S + 1_000, S + 2_000, 0]


def test_units_die_a_little_before_the_store_says_counted_from_before_the_question() -> None:
    lease = Lease(FIXED, "k")
    refill(lease, 5, at_ns=S)
    assert lease.is_ready(S + 1_023 * MS - 1, is_store_down=False)
    assert not lease.is_ready(S + 1_023 * MS, is_store_down=False)


def test_a_lease_that_is_used_up_doubles_up_to_one_percent() -> None:
    lease = Lease(LimitSettings("f", 40_000, 60), "k")
    wanted = []
    for _ in range(6):
        ticket, ahead = ask(lease, now_ns=1)
        wanted += ahead
        ticket.settle([granted(max(ahead))], 1, 1, 1)
        lease.units = 0
        ticket.claim(lease)
        ticket.leave(1)
    assert wanted == [64, 128, 256, 400, 400, 400]


def test_a_lease_that_died_with_units_is_sized_by_what_was_used() -> None:
    lease = Lease(FIXED, "k")
    refill(lease, 9)
    lease.units -= 3
    _, wanted = ask(lease, now_ns=5 * S)
    assert wanted == [6]  # 4 used, half as much again


def test_all_replicas_together_lease_one_percent_ahead() -> None:
    lease = Lease(FIXED, "k")
    for _ in range(9):
        refill(lease, 0, at_ns=1)
    assert ask(lease, now_ns=2, replicas=3)[1] == [3]


def test_a_quota_too_small_to_lease_wants_nothing_ahead() -> None:
    assert ask(Lease(TINY, "k"))[1] == [0]
    assert ask(Lease(FIXED, "k"), replicas=10)[1] == [0]


def test_only_one_ticket_at_a_time_wants_units_ahead() -> None:
    lease = Lease(FIXED, "k")
    first, wanted = ask(lease)
    second, wanted_too = ask(lease)
    assert (wanted, wanted_too) == ([10], [0])
    second.settle([granted(1)], 1, 0, 0)
    assert lease.refill is first
    second.abandon()
    assert lease.refill is first
    first.abandon()
    assert lease.refill is None


def test_unused_units_of_a_rolling_window_are_given_back_with_their_stamp_once() -> None:
    lease = Lease(MOVING, "k")
    refill(lease, 9, stamp=77)
    lease.units -= 3
    ticket = Ticket((lease,))
    (question,) = ticket.questions(5 * S, 1)
    assert (question.back, question.stamp) == (6, 77)
    assert lease.units == 0
    ticket.abandon()
    assert Ticket((lease,)).questions(5 * S, 1)[0].back == 0


def test_unused_units_of_a_fixed_window_end_with_it() -> None:
    lease = Lease(FIXED, "k")
    refill(lease, 9)
    assert Ticket((lease,)).questions(5 * S, 1)[0].back == 0


def test_the_last_request_to_leave_hands_unclaimed_units_to_the_lease() -> None:
    lease = Lease(FIXED, "k")
    ticket, _ = ask(lease, waiting=2)
    ticket.settle([granted(2)], 2, 0, 0)
    ticket.leave(0)
    assert lease.units == 0
    ticket.claim(lease)
    ticket.leave(0)
    assert lease.units == 1


def test_units_for_requests_that_all_went_away_go_to_the_lease() -> None:
    lease = Lease(FIXED, "k")
    ticket, _ = ask(lease, waiting=2)
    ticket.leave(0)
    ticket.leave(0)
    ticket.settle([granted(2)], 2, 0, 0)
    assert lease.units == 2


def test_unclaimed_units_do_not_outlive_their_own_grant() -> None:
    lease = Lease(FIXED, "k")
    ticket, _ = ask(lease)
    ticket.settle([granted(1)], 1, 0, 0)
    ticket.leave(2 * S)
    assert lease.units == 0


def test_unclaimed_units_are_not_mixed_with_others() -> None:
    lease = Lease(FIXED, "k")
    ticket, _ = ask(lease)
    ticket.settle([granted(1)], 1, 0, 0)
    refill(lease, 4)
    ticket.leave(0)
    assert lease.units == 4


def test_a_local_share_is_taken_once_per_window_and_ends_when_the_store_is_back() -> None:
    lease = Lease(FIXED, "k")
    assert lease.start_local(0, 4)
    assert (lease.units, lease.is_local) == (250, True)
    assert lease.is_ready(1, is_store_down=True)
    assert not lease.is_ready(1, is_store_down=False)
    assert not lease.start_local(60 * S - 1, 4)
    assert lease.start_local(60 * S, 4)


def test_a_local_share_is_at_least_one_and_never_sizes_a_lease() -> None:
    lease = Lease(TINY, "k")
    lease.start_local(0, 100)
    assert lease.units == 1
    question = Ticket((lease,)).questions(1, 1)[0]
    assert (question.ahead, question.back) == (0, 0)
    assert (lease.units, lease.is_local) == (0, False)


def test_no_local_share_while_the_store_s_last_word_was_no() -> None:
    lease = Lease(FIXED, "k")
    ticket, _ = ask(lease)
    ticket.settle([refused()], 1, 0, 0)
    assert not lease.start_local(S, 1)


def test_when_a_local_limit_is_free_again_depends_on_the_store() -> None:
    lease = Lease(LimitSettings("l", 5, 60, on_store_failure="local"), "k")
    lease.start_local(0, 1)
    assert (lease.free_again_ns(is_store_down=True), lease.free_again_ns(is_store_down=False)) == (60 * S, 0)


def test_what_is_left_of_a_local_share_serves_when_the_store_goes_again_in_the_same_window() -> None:
    lease = Lease(LimitSettings("l", 1_000, 60, on_store_failure="local"), "k")
    assert lease.start_local(0, 10)
    assert lease.units == 100
    lease.units -= 30
    ask(lease, now_ns=S)  # the store is back, and is asked
    lease.refill = None  # and away again without an answer
    assert lease.free_again_ns(is_store_down=True) <= S
    assert lease.start_local(2 * S, 10)
    assert (lease.units, lease.dies_ns) == (70, 60 * S)
    lease.units = 0
    ask(lease, now_ns=3 * S)
    lease.refill = None
    assert not lease.start_local(4 * S, 10)  # the share of this window is used up, whatever the store does
    assert lease.start_local(60 * S, 10)
    assert lease.units == 100
