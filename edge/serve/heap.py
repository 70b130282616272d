"""How the memory of a process that serves is treated: by the C library, and by the collector.

A crowd of clients makes it large for a moment, and what they leave behind is free but stays with the process, because
something small that lives on lies above it. Other C libraries have none of these knobs and need none.
"""

from __future__ import annotations

import ctypes
import gc
import os
import time

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_KEPT_BYTES = 1 << 20
_PAGE_BYTES = os.sysconf("SC_PAGESIZE")
WASTE_BYTES = 16 << 20
"""Free and kept: above it there is something to give back. A trim costs milliseconds, and as many when it is used again."""

_FEW = 256
"""Objects that a collection finds and that were not what the process has grown by."""
_SHARE = 300
"""The rest after a look, in times of what it cost: counting what is free walks through all of it, several milliseconds after
a day of traffic."""


class _Mallinfo2(ctypes.Structure):
    """mallinfo(3)."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost",
        )
    ]  # fmt: skip


def keep_heap() -> None:
    """Let buffers of a TLS read (256 KiB for a moment) come from the heap: glibc would map and unmap each of them, which
    triples the price of a connection's read, until something large happens to be freed (mallopt(3))."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _KEPT_BYTES)
        mallopt(_M_TRIM_THRESHOLD, 2 * _KEPT_BYTES)


def settle() -> None:
    """What was built lives as long as the process: the collector need not look at it again. A request makes some 40
    short-lived objects and no cycles; the default of 700 looks at them every 17 requests. What fails may leave cycles with
    large buffers, and 20 000 objects are looked at for 8 ms at a time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(5_000, 20, 50)


class Heap:
    """Looks at the heap from time to time. Owner: the worker."""

    def __init__(self) -> None:
        libc = ctypes.CDLL(None)
        self._look = getattr(libc, "mallinfo2", None)
        """glibc 2.33 or later."""
        self._trim = getattr(libc, "malloc_trim", None)
        if self._look is not None:
            self._look.restype = _Mallinfo2
        self._rests_until_ns = 0
        self._given_back_bytes = 0
        """Of what is free: so much had no pages under it when last looked at."""
        self._fresh_bytes = self._resident_bytes = self._collected_bytes = _resident_bytes()
        """Of the first look; the least since something was given back; and since garbage was collected."""
        self._was_garbage = True
        """What the collector met last, when it was called for what had grown."""

    def give_back(self) -> None:
        """Give free memory to the system when there is much of it; called by a timer, and done no more often than it may
        cost.

        The collector comes when many objects were made, however large they are: the few of a connection that failed may
        hold a quarter of a mebibyte. So it comes whenever much was taken. Where that is no garbage but a crowd that stays, it
        comes when the crowd has doubled: it looks at all of it, and ten thousand connections are a third of a second.
        """
        began_ns = time.thread_time_ns()
        now_ns = time.monotonic_ns()
        resident_bytes = _resident_bytes()
        self._collected_bytes = min(self._collected_bytes, resident_bytes)
        stays_bytes = 0 if self._was_garbage else self._collected_bytes - self._fresh_bytes
        if resident_bytes - self._collected_bytes > max(WASTE_BYTES, stays_bytes):
            self._was_garbage = gc.collect() > _FEW
            self._collected_bytes = _resident_bytes()
        elif now_ns >= self._rests_until_ns:
            self._look_and_trim(resident_bytes)
            self._rests_until_ns = now_ns + _SHARE * (time.thread_time_ns() - began_ns)

    def _look_and_trim(self, resident_bytes: int) -> None:
        if self._look is None or self._trim is None:
            return
        free_bytes: int = self._look().fordblks
        # What was given back and is in use again is no longer given back, also when it is free the next time. A crowd that
        # came and went between two looks shows in what is resident.
        self._given_back_bytes = min(self._given_back_bytes, free_bytes)
        self._resident_bytes = min(self._resident_bytes, resident_bytes)
        wasted_bytes = max(free_bytes - self._given_back_bytes, resident_bytes - self._resident_bytes)
        if min(free_bytes, wasted_bytes) > WASTE_BYTES:
            self._trim(0)
            self._given_back_bytes = free_bytes
            self._resident_bytes = _resident_bytes()


def _resident_bytes() -> int:
    """proc(5), statm."""
    with open("/proc/self/statm", "rb") as statm:
        return int(statm.read().split()[1]) * _PAGE_BYTES
