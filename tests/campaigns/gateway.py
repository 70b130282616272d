"""kill -9 of the worker, the notary and the store of a whole gateway under load, again and again.

After each kill the child is back within 3 s and requests are served. At the end the log verifies, every answer of 200 that a
caller got is in it exactly once, and what was admitted without an answer is there as unknown.
"""

from __future__ import annotations

import os
import random
import signal
import time
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from tests.e2e.load import Load
from tests.e2e.upstream import Upstream
from tests.e2e.whole_gateway import Gateway, Variant, eventually, make, records, requests_in_log, routes, serving

VICTIMS = ("edge-worker", "edge-notary", "valkey-server")
BACK_WITHIN_S = 3.0


@dataclass
class Outcome:
    """What the campaign saw."""

    kills: dict[str, int] = field(default_factory=dict)
    slowest_back_s: float = 0.0
    answered: int = 0
    refused: int = 0
    broken: int = 0
    leaves: int = 0
    unknown: int = 0


LIMITS = "limits:\n  - {name: all, key: [ip], rate: 1000000/minute, on_store_failure: local}\n"


def campaign(directory: Path, rounds: int, seed: int) -> Outcome:
    """`rounds` kills, one after the other, under four callers."""
    draw = random.Random(seed)
    make(directory, Variant(limits=LIMITS))
    service = Upstream(directory / "orders")
    (directory / "policies" / "routes.yaml").write_text(routes("orders", port=service.port))
    outcome = Outcome()
    with closing(service), serving(directory) as gateway:
        load = Load(gateway)
        eventually(lambda: load.count(200) > 20, 15)
        for _ in range(rounds):
            name = draw.choice(VICTIMS)
            victim = gateway.children()[name]
            os.kill(victim, signal.SIGKILL)
            outcome.kills[name] = outcome.kills.get(name, 0) + 1
            back_s = eventually(lambda name=name, victim=victim: is_back(gateway, name, victim), BACK_WITHIN_S)  # type: ignore[misc]
            served = load.count(200)
            back_s += eventually(lambda served=served: load.count(200) > served + 10, BACK_WITHIN_S)  # type: ignore[misc]
            outcome.slowest_back_s = max(outcome.slowest_back_s, back_s)
            time.sleep(draw.uniform(0, 0.2))  # so that kills fall into every phase of the loops
        load.end()
        assert gateway.stop() == 0
    judge(directory, load, outcome)
    return outcome


def is_back(gateway: Gateway, name: str, victim: int) -> bool:
    return gateway.children().get(name) not in (None, victim)


def judge(directory: Path, load: Load, outcome: Outcome) -> None:
    """Ask the log alone."""
    records(directory)
    leaves = {str(leaf["event.id"]): leaf for leaf in requests_in_log(directory)}
    outcome.leaves, outcome.broken = len(leaves), len(load.failures)
    for call in load.calls:
        if call.status == 200:
            outcome.answered += 1
            assert leaves[call.decision]["http.response.status_code"] == 200
        else:
            outcome.refused += 1
            assert call.status == 503, (call, leaves.get(call.decision))
    unknown = [leaf for leaf in leaves.values() if leaf["event.outcome"] == "unknown"]
    outcome.unknown = len(unknown)
    unanswered = leaves.keys() - {call.decision for call in load.calls}
    assert len(unanswered) <= len(load.failures) + 4  # in flight when a process died; four callers
