"""How the memory of a process that serves is treated: by the C library, and by the collector."""

from __future__ import annotations

import ctypes
import gc

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_HEAP_BYTES = 1 << 20


def keep_heap() -> None:
    """Let buffers of a TLS read (256 KiB for a moment) come from the heap: glibc would map and unmap each of them, which
    triples the price of a connection's read, until something large happens to be freed (mallopt(3)). Other C libraries
    have no such knob and need none."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _HEAP_BYTES)
        mallopt(_M_TRIM_THRESHOLD, 2 * _HEAP_BYTES)


def settle() -> None:
    """What was built lives as long as the process: the collector need not look at it again. A request makes some 40
    short-lived objects and no cycles; the default of 700 looks at them every 17 requests."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)
