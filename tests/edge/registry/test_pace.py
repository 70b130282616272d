"""How often a service may change its registrations."""

from __future__ import annotations

from edge.registry.pace import BURST, CHANGES_PER_S, Pace

S = 1_000_000_000


def test_a_burst_passes_and_what_comes_then_waits() -> None:
    pace = Pace()
    assert [pace.retry_after_s("orders", 7 * S) for _ in range(BURST)] == [0] * BURST
    assert pace.retry_after_s("orders", 7 * S) == 1


def test_a_service_pays_for_itself_only() -> None:
    pace = Pace()
    for _ in range(BURST + 5):
        pace.retry_after_s("orders", S)
    assert pace.retry_after_s("billing", S) == 0


def test_what_was_refused_costs_nothing_and_a_second_brings_what_it_should() -> None:
    pace = Pace()
    for _ in range(BURST * 3):
        pace.retry_after_s("orders", S)
    taken = [pace.retry_after_s("orders", 2 * S) for _ in range(CHANGES_PER_S + 1)]
    assert taken == [0] * CHANGES_PER_S + [1]
