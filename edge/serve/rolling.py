"""A rolling restart: every worker process is succeeded by a new one, and no request notices.

For each worker in turn:

    1 the successor is forked; it listens on the same socket, so the queue of new connections has no gap
    2 it serves
    3 the one before retires: it takes no new connection, says `Connection: close` in the answers it still gives, closes idle
      connections after 5 s, and leaves when the last request is answered, or after 10 minutes

A successor that cannot serve ends the restart: the process before it goes on, and so do those whose turn did not come.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from edge.serve.reactor import Reactor

_LOOK_S = 0.05
_PATIENCE_S = 10.0

Done = Callable[[str | None], None]
"""None when all were succeeded, else the reason why not. Who asked hears it when those before have left, or after 10 s: a
long download may go on for minutes."""


class Workers(Protocol):
    """What a restart asks of the workers (`pool.Pool`)."""

    @property
    def is_retiring(self) -> bool: ...

    def start(self, index: int, tried: Done) -> None: ...

    def retire(self, index: int) -> None: ...


class Rolling:
    """At most one restart at a time; who asks meanwhile hears how the present one ends."""

    def __init__(self, reactor: Reactor, workers: Workers, count: int) -> None:
        self._reactor = reactor
        self._workers = workers
        self.count = count
        self._waiting: list[Done] = []

    def request(self, done: Done) -> None:
        """Begin, or join."""
        self._waiting.append(done)
        if len(self._waiting) == 1:
            self._succeed(0)

    def _succeed(self, index: int) -> None:
        if index < self.count:
            self._workers.start(index, lambda failure: self._tried(index, failure))
        else:
            self._await_the_old(_PATIENCE_S)

    def _tried(self, index: int, failure: str | None) -> None:
        if failure is not None:
            self._end(f"the successor of worker {index} does not serve: {failure}; the one before goes on")
        else:
            self._workers.retire(index)
            self._succeed(index + 1)

    def _await_the_old(self, patience_s: float) -> None:
        if self._workers.is_retiring and patience_s > 0:
            self._reactor.after(_LOOK_S, lambda: self._await_the_old(patience_s - _LOOK_S))
        else:
            self._end(None)

    def _end(self, failure: str | None) -> None:
        waiting, self._waiting = self._waiting, []
        for done in waiting:
            done(failure)
