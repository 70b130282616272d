"""How often a service may change its registrations."""

from __future__ import annotations

from edge.registry.pace import Pace

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
