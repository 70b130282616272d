"""The heap gives back what a crowd has left behind, and takes its time."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from edge.serve.heap import WASTE_BYTES, Heap

CROWD = """
import json
from edge.serve import heap as rooms
from edge.serve.heap import Heap, keep_heap

rooms._SHARE = 0

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096

keep_heap()
heap = Heap()
seen, stay = [resident()], []
for _ in range(2):
    crowd = [bytearray(100_000) for _ in range(600)]
    stay.append([bytearray(50_000) for _ in range(40)])  # more than the holes below take
    del crowd
    seen.append(resident())
    heap.give_back()  # what has grown so much is collected first
    heap.give_back()
    seen.append(resident())
print(json.dumps(seen))
"""


def test_what_was_freed_below_something_that_lives_goes_back_to_the_system_again_and_again() -> None:
    told = subprocess.run([sys.executable, "-c", CROWD], capture_output=True, check=True, timeout=60)
    before, crowded, given_back, crowded_again, given_back_again = json.loads(told.stdout)
    assert crowded - before > 3 * WASTE_BYTES
    assert crowded_again - before > 3 * WASTE_BYTES
    assert max(given_back, given_back_again) - before < WASTE_BYTES


def test_what_looking_cost_is_rested_three_hundred_times_over(monkeypatch: pytest.MonkeyPatch) -> None:
    spent_ns = [0]
    now_ns = [10**9]
    looks: list[int] = []

    def look(_: Heap, _resident_bytes: int) -> None:
        looks.append(now_ns[0])
        spent_ns[0] += 4_000_000

    monkeypatch.setattr("edge.serve.heap.time.thread_time_ns", lambda: spent_ns[0])
    monkeypatch.setattr("edge.serve.heap.time.monotonic_ns", lambda: now_ns[0])
    monkeypatch.setattr(Heap, "_look_and_trim", look)
    watched = Heap()
    for _ in range(10):
        watched.give_back()
        now_ns[0] += 500_000_000
    assert [each - looks[0] for each in looks] == [0, 1_500_000_000, 3_000_000_000, 4_500_000_000]


def test_who_stays_is_looked_at_when_twice_as_many_are_there_and_garbage_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    resident = [100 << 20]
    looks: list[int] = []
    found = [0]

    def collect() -> int:
        looks.append(resident[0] >> 20)
        return found[0]

    monkeypatch.setattr("edge.serve.heap._resident_bytes", lambda: resident[0])
    monkeypatch.setattr("edge.serve.heap.gc.collect", collect)
    watched = Heap()

    def at(sizes_mib: range) -> list[int]:
        looks.clear()
        for size_mib in sizes_mib:
            resident[0] = size_mib << 20
            watched.give_back()
        return list(looks)

    assert at(range(100, 500)) == [117, 135, 171, 243, 387]
    assert at(range(500, 99, -1)) == []  # they have left
    assert at(range(100, 120)) == [117]
    found[0] = 10_000
    assert at(range(120, 220))[-3:] == [169, 186, 203]
