"""Units of windows that have not begun: granted before anybody waits for them, used in their own window and in no other."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from edge.limit.lease import Answer, Lease, Question, Ticket
from edge.limit.rules import LimitSettings

MS = 1_000_000
S = 1_000 * MS
W_US = 1_000_000
LIMIT = LimitSettings("w", 1_000, 1)


def granted(units: int, *later: int, life_us: int = W_US, stamp: int = W_US) -> Answer:
    return Answer(units, 500, life_us, life_us, 0, stamp, later)


def fill(lease: Lease, units: int, *later: int, sent_ns: int = 0, heard_ns: int = 0) -> Question:
    """One waiting request takes its unit; the lease keeps the others."""
    ticket = Ticket((lease,))
    ticket.present = 1
    (question,) = ticket.questions(sent_ns, 1)
    ticket.settle([granted(units + 1, *later)], 1, sent_ns, heard_ns)
    ticket.claim(lease)
    ticket.leave(heard_ns)
    return question


def take(lease: Lease, now_ns: int) -> bool:
    if not lease.is_ready(now_ns, is_store_down=False):
        return False
    lease.units -= 1
    return True


def test_seven_windows_of_a_second_are_wanted_with_the_first_and_one_of_a_minute() -> None:
    wanted = {}
    for window_s in (1, 2, 5, 60, 61):
        question = Ticket((Lease(LimitSettings("w", 10_000, window_s), "k"),)).questions(0, 1)[0]
        wanted[window_s] = question.windows, question.later
    assert wanted == {1: (7, 64), 2: (4, 64), 5: (1, 64), 60: (1, 64), 61: (0, 0)}


def test_rolling_windows_and_small_quotas_have_no_later_ones() -> None:
    for limit in (LimitSettings("w", 10_000, 1, strategy="moving-window"), LimitSettings("w", 199, 1)):
        (question,) = Ticket((Lease(limit, "k"),)).questions(0, 1)
        assert (question.windows, question.later) == (0, 0)


def test_a_lease_goes_on_to_the_next_window_by_itself_when_it_has_begun_for_certain() -> None:
    lease = Lease(LIMIT, "k")
    fill(lease, 0, 2, 3, sent_ns=0, heard_ns=10 * MS)
    first_ns = 1_010 * MS + W_US * 1_000 // 1024
    assert not lease.is_ready(first_ns - 1, is_store_down=False)
    assert [take(lease, first_ns) for _ in range(3)] == [True, True, False]
    assert [take(lease, 2_500 * MS) for _ in range(4)] == [True, True, True, False]
    assert lease.free == LIMIT.quota - 3


def test_units_of_a_later_window_die_with_it_counted_from_before_the_question() -> None:
    lease = Lease(LIMIT, "k")
    fill(lease, 0, 2, sent_ns=0, heard_ns=40 * MS)
    end_ns = 2 * S - (2 * S >> 10)
    assert take(lease, end_ns - 1)
    assert not take(lease, end_ns)


def test_units_of_a_window_that_passed_unused_are_gone() -> None:
    lease = Lease(LIMIT, "k")
    fill(lease, 0, 9, 1)
    assert [take(lease, 2_500 * MS) for _ in range(2)] == [True, False]
    assert not take(lease, 9 * S)


def test_where_two_windows_meet_a_request_costs_a_unit_of_both() -> None:
    lease = Lease(LIMIT, "k")
    fill(lease, 5, 3, sent_ns=0, heard_ns=40 * MS)
    meeting_ns = 1_010 * MS  # after the surest end of the one, before the surest beginning of the other
    assert [take(lease, meeting_ns) for _ in range(2)] == [True, True]
    assert lease.units == 1
    assert [take(lease, 1_100 * MS) for _ in range(2)] == [True, False]  # three, less the two that stood for both


def test_where_two_windows_meet_nothing_is_taken_that_one_of_them_lacks() -> None:
    lease = Lease(LIMIT, "k")
    fill(lease, 0, 3, sent_ns=0, heard_ns=40 * MS)
    assert not take(lease, 1_010 * MS)
    question = Ticket((lease,)).questions(1_010 * MS, 1)[0]
    assert (question.ahead, question.windows) == (0, 0)  # for the waiting request alone; the lease waits for its own
    assert [take(lease, 1_100 * MS) for _ in range(4)] == [True, True, True, False]


def test_a_lease_is_renewed_in_its_last_window_and_keeps_what_it_has() -> None:
    lease = Lease(LIMIT, "k")
    fill(lease, 5, 5, 5)
    take(lease, 1)
    assert not lease.is_worth_renewing(S // 2)
    take(lease, 1_500 * MS)
    assert not lease.is_worth_renewing(1_500 * MS)
    assert lease.is_worth_renewing(2_100 * MS)  # nothing of this one is used yet, but some of the last was
    ticket = Ticket((lease,))
    (question,) = ticket.questions(2_100 * MS, 1)
    assert (question.ahead, question.windows, lease.units) == (0, 7, 5)
    ticket.settle([granted(0, 7, 7, 7, life_us=900_000, stamp=3 * W_US)], 0, 2_100 * MS, 2_101 * MS)
    assert (lease.units, [window.units for window in lease.later]) == (5, [7, 7, 7])


def test_a_lease_of_which_nothing_was_used_for_a_whole_window_is_not_renewed() -> None:
    lease = Lease(LIMIT, "k")
    fill(lease, 5, 5, 5, 5)
    take(lease, 1)
    assert not lease.is_worth_renewing(3_500 * MS)


def test_a_renewal_that_gets_no_answer_loses_nothing() -> None:
    lease = Lease(LIMIT, "k")
    fill(lease, 5, 5)
    take(lease, 1_500 * MS)
    ticket = Ticket((lease,))
    ticket.questions(1_500 * MS, 1)
    ticket.abandon()
    assert lease.units == 4
    assert lease.is_worth_renewing(1_500 * MS)


def test_a_store_that_went_away_takes_the_later_windows_with_it() -> None:
    lease = Lease(LIMIT, "k")
    fill(lease, 5, 5, 5)
    lease.forget_later()
    assert lease.is_ready(S // 2, is_store_down=False)
    assert not lease.is_ready(1_500 * MS, is_store_down=False)


def test_a_local_share_takes_the_place_of_the_later_windows() -> None:
    lease = Lease(LIMIT, "k")
    fill(lease, 0, 5)
    assert lease.start_local(S // 2, 4)
    assert not lease.later
    assert not lease.is_ready(1_200 * MS, is_store_down=False)


@dataclass
class Store:
    """The script's fixed window: when the first begins, and the units used of it and of those that follow."""

    parts_per_million: int
    """How much faster its clock is."""
    quota: int
    start_us: int = 0
    used: list[int] = field(default_factory=list)
    granted: Counter[int] = field(default_factory=Counter)
    """By the end of the window."""

    def clock_us(self, now_ns: int) -> int:
        return 1_900_000_000_000_000 + now_ns * (1_000_000 + self.parts_per_million) // 1_000_000_000

    def answer(self, question: Question, waiting: int, now_ns: int) -> Answer:
        now_us = self.clock_us(now_ns)
        past = max(0, (now_us - self.start_us) // W_US)
        self.used = self.used[past:]
        self.start_us = self.start_us + past * W_US if self.used else now_us
        self.used = self.used or [0]
        left_us, end_us = self.start_us + W_US - now_us, self.start_us + W_US
        free = self.quota - self.used[0]
        if waiting and free < 1:
            return Answer(0, 0, 0, left_us, left_us, 0, (0,) * question.windows)
        units = max(min(waiting, free), min(question.ahead, free // 8))
        self._grant(0, units, end_us)
        later = []
        for number in range(1, question.windows + 1):
            self.used += [0] * (number + 1 - len(self.used))
            later.append(min(question.later, (self.quota - self.used[number]) // 8))
            self._grant(number, later[-1], end_us + number * W_US)
        return Answer(units, self.quota - self.used[0], left_us, left_us, 0, end_us, tuple(later))

    def _grant(self, number: int, units: int, end_us: int) -> None:
        self.used[number] += units
        self.granted[end_us] += units
        assert self.granted[end_us] <= self.quota


PAUSES_MS = st.one_of(st.integers(0, 12), st.integers(940, 1_010), st.integers(0, 900))
STEPS = st.lists(
    st.tuples(st.integers(0, 1), PAUSES_MS, st.integers(0, 30), st.integers(0, 30), st.integers(0, 40)), max_size=60
)
"""(worker, ms that pass, ms to the store, ms back, requests)"""


@settings(max_examples=400, deadline=None, derandomize=True, database=None)
@given(steps=STEPS, quota=st.sampled_from([400, 1_000, 5_000]), parts_per_million=st.sampled_from([-480, 0, 480]))
def test_no_window_of_the_store_sees_more_requests_than_it_granted(
    steps: list[tuple[int, int, int, int, int]], quota: int, parts_per_million: int
) -> None:
    store = Store(parts_per_million, quota)
    leases = [Lease(LimitSettings("w", quota, 1), "k") for _ in range(2)]
    used: Counter[int] = Counter()
    now_ns = S

    def serve() -> None:
        assert store.used, "a unit that no window granted"
        past = (store.clock_us(now_ns) - store.start_us) // W_US
        end_us = store.start_us + (past + 1) * W_US
        used[end_us] += 1
        assert used[end_us] <= store.granted[end_us]

    for worker, pause_ms, there_ms, back_ms, requests in steps:
        now_ns += pause_ms * MS + 137
        lease = leases[worker]
        while requests and take(lease, now_ns):
            serve()
            requests -= 1
        if requests or lease.is_worth_renewing(now_ns):
            ticket = Ticket((lease,))
            ticket.present = requests
            (question,) = ticket.questions(now_ns, 2)
            sent_ns = now_ns
            answer = store.answer(question, requests, sent_ns + there_ms * MS)
            now_ns += (there_ms + back_ms) * MS
            ticket.settle([answer], requests, sent_ns, now_ns)
            for _ in range(requests):
                if ticket.owes(lease):
                    ticket.claim(lease)
                    used[answer.stamp] += 1
                ticket.leave(now_ns)
        assert sum(window.units for window in lease.later) <= 7 * quota // 200
