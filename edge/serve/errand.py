"""Work done in a short-lived child, with its result as bytes through a pipe.

Two kinds of work must not happen in the supervisor: parsing files (a native parser may crash or hang on them) and using the
issuing keys (they would stay in the memory of a process that lives for months). A child that crashes, hangs or floods the
pipe costs one `Failure`, and the supervisor turns on meanwhile.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

from edge.serve.children import Exit, Nursery
from edge.serve.reactor import READ, Reactor

_MAX_RESULT_BYTES = 16 << 20


@dataclass(frozen=True, slots=True)
class Failure:
    """The child gave no result."""

    cause: str
    """`SIGSEGV`, `exit code 70`, `no result within 10 s` …"""


class Errand:
    """One piece of work under way."""

    def __init__(
        self,
        reactor: Reactor,
        nursery: Nursery,
        name: str,
        work: Callable[[], bytes],
        done: Callable[[bytes | Failure], None],
        *,
        timeout_s: float,
    ) -> None:
        """Start `work` in a child; `done` is called once, from the loop. Exit code 0 and ≤ 16 MiB make a result."""
        self._reactor = reactor
        self._nursery = nursery
        self._done = done
        self._result = bytearray()
        self._cause: str | None = None
        self._pipe, write_end = os.pipe()
        os.set_blocking(self._pipe, False)
        try:
            self._pid = nursery.start(name, lambda: _deliver(work, write_end), self._ended, keep=(write_end,))
        finally:
            os.close(write_end)
        reactor.watch(self._pipe, READ, self._read)
        self._timer = reactor.after(timeout_s, lambda: self._give_up(f"no result within {timeout_s:g} s"))

    def _read(self, _events: int) -> None:
        """Until nothing is there or the other end is closed; `_ended` alone decides that the result is whole."""
        while True:
            try:
                received = os.read(self._pipe, 1 << 16)
            except BlockingIOError:
                return
            if not received:
                self._reactor.forget(self._pipe)
                return
            self._result += received
            if len(self._result) > _MAX_RESULT_BYTES:
                self._give_up("its result is too large")
                return

    def _give_up(self, cause: str) -> None:
        self._cause = cause
        self._reactor.forget(self._pipe)
        self._nursery.kill(self._pid)

    def _ended(self, ended: Exit, _lived_s: float) -> None:
        self._timer.cancel()
        if self._cause is None:
            self._read(READ)
        self._reactor.forget(self._pipe)
        os.close(self._pipe)
        if self._cause is None and ended.status != 0:
            self._cause = str(ended)
        self._done(bytes(self._result) if self._cause is None else Failure(self._cause))


def _deliver(work: Callable[[], bytes], write_end: int) -> int:
    """In the child."""
    with os.fdopen(write_end, "wb") as pipe:
        pipe.write(work())
    return 0
