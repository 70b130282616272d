"""One quota, the workers of several gateways, in any interleaving: never exceeded by one request, and 99 % of it usable."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from edge.limit.lease import Answer, Lease, Ticket
from edge.limit.rules import LimitSettings

REPLICAS = 6  # two gateways with three workers each
DAY_US = 86_400_000_000


@dataclass
class Window:
    """The store: so many units, whoever asks first. What is asked for ahead comes after what is waited for."""

    quota: int
    used: int = 0

    def grant(self, owed: int, ahead: int) -> Answer:
        units = min(owed + ahead, self.quota - self.used)
        self.used += units
        return Answer(units, self.quota - self.used, DAY_US, DAY_US, 0 if units else DAY_US, 0)


@dataclass
class Worker:
    """One replica: requests take what its lease holds, and together ask for the rest."""

    lease: Lease
    admitted: int = 0
    lost: int = 0
    """Granted in answers that never came."""
    waiting: list[tuple[Ticket, int, Answer]] = field(default_factory=list)
    """Questions that the store has answered, and whose answers are under way."""

    def ask(self, window: Window, requests: int) -> None:
        while requests and self.lease.is_ready(0, is_store_down=False):
            self.lease.units -= 1
            self.admitted += 1
            requests -= 1
        if requests:
            ticket = Ticket((self.lease,))
            ticket.present = requests
            (question,) = ticket.questions(0, REPLICAS)
            self.waiting.append((ticket, requests, window.grant(requests, question.ahead)))

    def hear(self, *, arrives: bool) -> None:
        """The oldest answer comes, or is lost."""
        if not self.waiting:
            return
        ticket, requests, answer = self.waiting.pop(0)
        if arrives:
            ticket.settle([answer], requests, 0, 0)
        else:
            ticket.abandon()
            self.lost += answer.granted
        for _ in range(requests):
            if ticket.owes(self.lease):
                ticket.claim(self.lease)
                self.admitted += 1
            ticket.leave(0)


_STEPS = st.lists(
    st.tuples(st.integers(0, REPLICAS - 1), st.sampled_from(["ask", "hear", "hear", "lose"]), st.integers(1, 40)),
    max_size=300,
)


@settings(max_examples=200, deadline=None, database=None, derandomize=True)
@given(
    quota=st.sampled_from([1, 7, 100, 599, 1_199, 1_200, 2_400, 10_000]),
    rounds=st.integers(0, 8),
    steps=_STEPS,
    last=st.integers(0, 5),
)
def test_a_quota_is_never_exceeded_and_99_percent_of_it_is_usable(
    quota: int, rounds: int, steps: list[tuple[int, str, int]], last: int
) -> None:
    window = Window(quota)
    workers = [Worker(Lease(LimitSettings("l", quota, 86_400), "k")) for _ in range(REPLICAS)]
    grown = [(number, what, 12) for number in range(REPLICAS) for what in ("ask", "hear")] * rounds
    for number, what, requests in grown + steps:
        if what == "ask":
            workers[number].ask(window, requests)
        else:
            workers[number].hear(arrives=what == "hear")
        assert sum(worker.admitted for worker in workers) <= quota
    for worker in workers:
        while worker.waiting:
            worker.hear(arrives=True)
    while window.used < quota or workers[last].lease.units:  # one takes all that is left; the others want nothing more
        workers[last].ask(window, 1)
        workers[last].hear(arrives=True)
    admitted = sum(worker.admitted for worker in workers)
    lost = sum(worker.lost for worker in workers)
    held = sum(worker.lease.units for worker in workers)
    assert admitted + held + lost == quota
    assert held * 100 <= quota


def test_below_200_for_each_replica_nothing_is_leased_ahead() -> None:
    for quota, ahead in ((REPLICAS * 200 - 1, 0), (REPLICAS * 200, 2)):
        ticket = Ticket((Lease(LimitSettings("l", quota, 60), "k"),))
        (question,) = ticket.questions(0, REPLICAS)
        assert question.ahead == ahead
