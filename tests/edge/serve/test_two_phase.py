"""The two phases of a reload as a table of transcripts."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from edge.serve.messages import Kind
from edge.serve.two_phase import Outcome, Phase, TwoPhase

PREPARE, COMMIT, ABORT = Kind.PREPARE, Kind.COMMIT, Kind.ABORT
PREPARED, COMMITTED, FAILED = Kind.PREPARED, Kind.COMMITTED, Kind.FAILED


def begun(workers: list[int]) -> TwoPhase:
    transaction = TwoPhase()
    asked = transaction.begin(workers, "h")
    assert asked == [(worker, PREPARE) for worker in workers]
    return transaction


def test_commit_is_sent_only_when_all_are_prepared() -> None:
    transaction = begun([0, 1])
    assert transaction.heard(0, PREPARED, "h") == []
    assert transaction.heard(1, PREPARED, "h") == [(0, COMMIT), (1, COMMIT)]
    assert transaction.heard(0, COMMITTED, "h") == []
    assert transaction.phase is Phase.COMMITTING
    transaction.heard(1, COMMITTED, "h")
    assert transaction.outcome is Outcome.APPLIED


def test_one_failure_aborts_all_others() -> None:
    transaction = begun([0, 1, 2])
    transaction.heard(0, PREPARED, "h")
    assert transaction.heard(1, FAILED, "h", "no key") == [(0, ABORT), (2, ABORT)]
    assert (transaction.outcome, transaction.reason) == (Outcome.REFUSED, "no key")


def test_no_worker_means_applied_at_once() -> None:
    transaction = TwoPhase()
    assert transaction.begin([], "h") == []
    assert transaction.outcome is Outcome.APPLIED


def test_worker_that_dies_while_preparing_no_longer_counts() -> None:
    transaction = begun([0, 1])
    transaction.heard(0, PREPARED, "h")
    assert transaction.lost(1) == [(0, COMMIT)]
    assert transaction.asked == (0,)


def test_worker_that_joins_while_others_prepare_must_prepare_too() -> None:
    transaction = begun([0])
    assert transaction.join(1) == [(1, PREPARE)]
    assert transaction.heard(0, PREPARED, "h") == []
    assert transaction.heard(1, PREPARED, "h") == [(0, COMMIT), (1, COMMIT)]
    assert transaction.join(2) == []


def test_worker_that_dies_while_committing_does_not_hold_the_others() -> None:
    transaction = begun([0])
    transaction.heard(0, PREPARED, "h")
    assert transaction.waiting == (0,)
    assert transaction.lost(0) == []
    assert transaction.outcome is Outcome.APPLIED


def test_answers_about_another_reading_are_ignored() -> None:
    transaction = begun([0])
    assert transaction.heard(0, PREPARED, "old") == []
    assert transaction.heard(0, FAILED, "old") == []
    assert transaction.phase is Phase.PREPARING


def test_answers_out_of_order_are_ignored() -> None:
    transaction = begun([0, 1])
    assert transaction.heard(0, COMMITTED, "h") == []
    transaction.heard(0, PREPARED, "h")
    assert transaction.heard(0, PREPARED, "h") == []
    assert transaction.heard(7, PREPARED, "h") == []
    assert transaction.waiting == (1,)


def test_commit_cannot_be_taken_back() -> None:
    transaction = begun([0])
    transaction.heard(0, PREPARED, "h")
    assert transaction.refuse("too late") == []
    assert transaction.heard(0, FAILED, "h") == []
    assert transaction.phase is Phase.COMMITTING


STEPS = st.lists(
    st.tuples(st.integers(0, 7), st.sampled_from([PREPARED, COMMITTED, FAILED, Kind.SERVING, PREPARE, None])),
    max_size=25,
)


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 3), STEPS)
def test_never_commits_to_one_and_aborts_to_another(workers: int, steps: list[tuple[int, Kind | None]]) -> None:
    transaction = TwoPhase()
    sent = transaction.begin(range(workers), "h")
    prepared: set[int] = set()
    lost: set[int] = set()
    asked = set(range(workers))
    for worker, kind in steps:
        if transaction.phase is Phase.IDLE:
            break
        if kind is None:
            lost.add(worker)
            sent += transaction.lost(worker)
        elif kind is PREPARE:
            joined = transaction.join(4 + worker)
            asked |= {number for number, _ in joined}
            sent += joined
        else:
            if kind is PREPARED:
                prepared.add(worker)
            sent += transaction.heard(worker, kind, "h")
    kinds = {kind for _, kind in sent}
    assert not {COMMIT, ABORT} <= kinds
    assert {worker for worker, kind in sent if kind is COMMIT} <= prepared
    if transaction.outcome is Outcome.APPLIED:
        assert asked <= prepared | lost
