"""The heap gives back what a crowd has left behind."""

from __future__ import annotations

import json
import subprocess
import sys

from edge.serve.heap import WASTE_BYTES

CROWD = """
import json
from edge.serve.heap import Heap, keep_heap

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096

keep_heap()
heap = Heap()
seen, stay = [resident()], []
for _ in range(2):
    crowd = [bytearray(100_000) for _ in range(600)]
    stay.append(bytearray(50_000))
    del crowd
    seen.append(resident())
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
