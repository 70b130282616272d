"""Workers that live and do nothing: found by what they say about themselves, ended, and so replaced.

A worker says on the board each second how it is (`serving._show`). Its loop may hang (an endless loop, a dead file system, a
stopped process) while the kernel still accepts connections for it; then its clients wait, and no exit tells anybody.

What is counted are looks in a row that found nothing new, not seconds: when the whole machine stood still, the worker had no
more time than we had. SIGABRT first, because then the worker writes on stderr where it hung (`faulthandler`: files and lines,
no values); SIGKILL if that did not end it.
"""

from __future__ import annotations

from edge.serve.board import Board
from edge.serve.children import Nursery
from edge.serve.pool import Pool
from edge.serve.reactor import Reactor
from edge.serve.report import Report

LOOK_EVERY_S = 1.0
HANGS_AFTER = 10
"""Looks. Nothing that a worker does in one go takes a tenth of it; the parse of a reload comes closest."""
_ENDS_WITHIN_S = 2.0


class Watchdog:
    """Looks at the board. Owner: the supervisor; one thread."""

    def __init__(
        self,
        reactor: Reactor,
        nursery: Nursery,
        board: Board,
        pool: Pool,
        report: Report,
        *,
        every_s: float = LOOK_EVERY_S,
        hangs_after: int = HANGS_AFTER,
    ) -> None:
        self._reactor = reactor
        self._nursery = nursery
        self._board = board
        self._pool = pool
        self._report = report
        self._every_s = every_s
        self._hangs_after = hangs_after
        self._last: dict[int, tuple[int, int]] = {}
        """By worker's number: what it said last, and how many looks found nothing newer."""
        reactor.after(every_s, self._look)

    def _look(self) -> None:
        before, self._last = self._last, {}
        for worker in self._pool.workers:
            beat_ns = self._board.beat_ns(worker.number)
            if not worker.is_serving or not beat_ns:
                continue  # one that never serves is the pool's to end
            last_ns, silent = before.get(worker.number, (0, 0))
            silent = silent + 1 if beat_ns == last_ns else 0
            self._last[worker.number] = (beat_ns, silent)
            if silent == self._hangs_after:
                self._end(worker.pid)
        self._reactor.after(self._every_s, self._look)

    def _end(self, pid: int) -> None:
        self._report.error("worker hangs; it is ended and replaced", pid=pid)
        self._nursery.abort(pid)
        self._reactor.after(_ENDS_WITHIN_S, lambda: self._nursery.kill(pid))
