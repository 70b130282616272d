"""One quota, many takers: several processes, bursts, cancelled requests, a holder that crashes; against real stores."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from valkey import Valkey

from edge.limit.io_store import LeaseStore
from edge.limit.limiter import Limiter
from edge.limit.rules import STRATEGIES, LimitSettings, Strategy
from edge.limit.store import StoreSettings
from edge.model.decision import Admission, Exhausted
from edge.model.identity import Principal
from tests.e2e.limit_server import (
    Job,
    Server,
    ask,
    hammer,
    run,
)

_CHILD = """
import json, sys
sys.path.insert(0, sys.argv[1])
from tests.e2e import limit_server as t
print(json.dumps(t.work_off(sys.argv[2], sys.argv[3], json.loads(sys.argv[4]))))
"""


def in_two_processes(server: Server, *jobs: Job) -> list[int]:
    """The sum of what both admitted, per job; they work through the jobs side by side."""
    command = [sys.executable, "-c", _CHILD, str(Path(__file__).parents[2]), server.socket_path]
    command += [f"gate-{time.monotonic_ns()}-", json.dumps(jobs)]
    children = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    results = [json.loads(child.communicate(timeout=60)[0]) for child in children]
    return [sum(admitted) for admitted in zip(*results, strict=True)]


def test_processes_together_never_exceed_a_quota_and_use_99_percent(server: Server) -> None:
    quotas = [(quota, strategy) for quota in (7, 250, 4_000) for strategy in STRATEGIES]
    jobs: list[Job] = [
        (quota + 160, [{"name": "p", "quota": quota, "window_s": 3600, "key": ["subject"], "strategy": strategy}])
        for quota, strategy in quotas
    ]
    admitted = in_two_processes(server, *jobs)
    assert [quota * 0.99 <= sum_ <= quota for (quota, _), sum_ in zip(quotas, admitted, strict=True)] == [True] * 9


def test_processes_take_several_limits_together_or_not_at_all(server: Server) -> None:
    wide = {"name": "w", "quota": 3_000, "window_s": 3600, "key": []}
    narrow = {"name": "n", "quota": 400, "window_s": 3600, "key": ["subject"], "strategy": "moving-window"}
    (admitted,) = in_two_processes(server, (800, [wide, narrow]))
    assert 396 <= admitted <= 400
    with Valkey(unix_socket_path=server.socket_path) as client:
        (key,) = client.keys("*}:w:*")
        taken = int(client.get(key).split(b":")[1])
    assert taken <= 400 + 2 * 30  # what was admitted, and what two processes may lease ahead


def test_a_holder_that_crashes_wastes_at_most_its_lease(server: Server) -> None:
    limit = LimitSettings("crash", 1_000, 3600)

    async def first(store: LeaseStore) -> int:
        return await hammer(Limiter([limit], store), 320)

    used = run(StoreSettings(server.socket_path), first)  # ends like a crash: nothing is handed back
    rest = run(StoreSettings(server.socket_path), lambda store: hammer(Limiter([limit], store), 1_600))
    assert 990 <= used + rest <= 1_000


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_five_per_second_are_exactly_five(server: Server, strategy: Strategy) -> None:
    limit = LimitSettings(f"five-{os.getpid()}", 5, 1, strategy=strategy)

    async def burst(store: LeaseStore) -> tuple[list[Admission | Exhausted], float]:
        limiter = Limiter([limit], store)
        await ask(limiter, Principal("jwt", "i", "warm"))
        started = time.monotonic()
        return [await ask(limiter) for _ in range(40)], time.monotonic() - started

    results, took_s = run(StoreSettings(server.socket_path), burst)
    refused = [result for result in results if isinstance(result, Exhausted)]
    assert 5 <= 40 - len(refused) <= 5 * (1 + int(took_s / 0.99))
    assert {1} == {result.retry_after_s for result in refused}


def test_a_burst_at_once_is_exact_too(server: Server) -> None:
    async def burst(store: LeaseStore) -> list[Admission | Exhausted]:
        limiter = Limiter([LimitSettings("burst", 50, 3600)], store)
        return await asyncio.gather(*[ask(limiter) for _ in range(500)])

    results = run(StoreSettings(server.socket_path), burst)
    assert sum(isinstance(result, Admission) for result in results) == 50


def test_a_question_that_gathers_while_another_is_answered_wastes_nothing(server: Server) -> None:
    async def staggered(store: LeaseStore) -> int:
        limiter = Limiter([LimitSettings("staggered", 600, 3600)], store)
        results: list[Admission | Exhausted] = []
        for turn in range(300):
            asked = [asyncio.create_task(ask(limiter))]
            for _ in range(turn % 24):
                await asyncio.sleep(0)  # at every moment of the first one's question
            asked.append(asyncio.create_task(ask(limiter)))
            results += await asyncio.gather(*asked)
        return sum(isinstance(result, Admission) for result in results)

    assert run(StoreSettings(server.socket_path), staggered) == 600


def test_a_window_ends_by_the_store_s_clock(server: Server) -> None:
    limit = LimitSettings("ends", 2, 1)

    async def twice(store: LeaseStore) -> tuple[int, int]:
        limiter = Limiter([limit], store)
        first = await hammer(limiter, 6, at_once=1)
        await asyncio.sleep(1.05)
        return first, await hammer(limiter, 6, at_once=1)

    assert run(StoreSettings(server.socket_path), twice) == (2, 2)


def test_a_leased_quota_costs_few_questions(server: Server) -> None:
    with Valkey(unix_socket_path=server.socket_path) as client:
        before = client.info("commandstats").get("cmdstat_evalsha", {"calls": 0})["calls"]
        limit = LimitSettings("big", 10_000_000, 3600)
        assert run(StoreSettings(server.socket_path), lambda s: hammer(Limiter([limit], s), 20_000)) == 20_000
        assert client.info("commandstats")["cmdstat_evalsha"]["calls"] - before < 30


def test_a_cancelled_request_neither_loses_the_others_nor_its_unit(server: Server) -> None:
    async def cancelled(store: LeaseStore) -> int:
        limiter = Limiter([LimitSettings("cancelled", 10, 3600)], store)
        tasks = [asyncio.create_task(ask(limiter)) for _ in range(4)]
        await asyncio.sleep(0)
        tasks[0].cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [isinstance(r, asyncio.CancelledError) for r in results] == [True, False, False, False]
        return 3 + await hammer(limiter, 20, at_once=1)

    assert run(StoreSettings(server.socket_path), cancelled) == 10
