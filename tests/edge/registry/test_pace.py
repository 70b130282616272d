"""How often a service may change its registrations."""

from __future__ import annotations

from edge.registry.pace import Pace, Share

S = 1_000_000_000
BURST, PER_S = 200, 20


def paced() -> Pace:
    return Pace(per_s=PER_S, burst=BURST)


def test_a_burst_passes_and_what_comes_then_waits() -> None:
    pace = paced()
    assert [pace.retry_after_s("orders", 7 * S) for _ in range(BURST)] == [0] * BURST
    assert pace.retry_after_s("orders", 7 * S) == 1


def test_a_service_pays_for_itself_only() -> None:
    pace = paced()
    for _ in range(BURST + 5):
        pace.retry_after_s("orders", S)
    assert pace.retry_after_s("billing", S) == 0


def test_what_was_refused_costs_nothing_and_a_second_brings_what_it_should() -> None:
    pace = paced()
    for _ in range(BURST * 3):
        pace.retry_after_s("orders", S)
    taken = [pace.retry_after_s("orders", 2 * S) for _ in range(PER_S + 1)]
    assert taken == [0] * PER_S + [1]


def done_within(share: Share, seconds: float, *, took_s: float, asked_every_s: float) -> float:
    """Seconds of work that were done of all that was asked for."""
    now_s = done_s = 0.0
    while now_s < seconds:
        if share.may_begin(now_s):
            share.spent(now_s, now_s + took_s)
            done_s += took_s
            now_s += took_s
        now_s += asked_every_s
    return done_s


def test_work_that_is_asked_for_all_the_time_takes_its_share_and_a_burst() -> None:
    done_s = done_within(Share(share=0.2, burst_s=1.0), 100, took_s=0.1, asked_every_s=0.05)
    assert 20 <= done_s <= 21.2


def test_work_that_fits_into_its_share_never_waits() -> None:
    asked = done_within(Share(share=0.2, burst_s=1.0), 100, took_s=0.01, asked_every_s=0.05)
    assert asked == done_within(Share(share=1.0, burst_s=1000.0), 100, took_s=0.01, asked_every_s=0.05)


def test_who_waited_is_done_soon() -> None:
    share = Share(share=0.2, burst_s=1.0)
    now_s = 0.0
    while share.may_begin(now_s):
        share.spent(now_s, now_s + 0.1)
        now_s += 0.1
    assert share.may_begin(now_s + 0.5)
