"""The numbers of all workers in one piece of shared memory: `edge status`, `/metrics` and readiness speak for the gateway.

    head    one page of u64, written by the supervisor (`Fact`)
    rows    five for each worker, laid out by `observe`: a row has one writer, and while two still finish their requests (the
            pool allows no more) a third may serve, die and be replaced, and a successor start

Made before the first fork and inherited; no file, so nothing is left of it. A row whose owner is gone keeps its numbers and
goes to the next process of the same worker.
"""

from __future__ import annotations

import mmap
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from edge.observe import ROW_BYTES, Gauge, gauge

_HEAD_BYTES: Final = 4096
_ROWS_EACH: Final = 5


class Fact(IntEnum):
    """Cells of the head."""

    STARTED_S = 0
    WORKERS = 1
    GENERATION = 2
    """How many configurations were in force; 1 after the start."""
    REFUSED = 3
    """Reloads that were refused."""
    REPLACED = 4
    """Workers that died and were replaced."""
    NOTARY_UP = 5


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """One row and whose it is."""

    worker: int
    memory: memoryview

    @property
    def pid(self) -> int:
        return gauge(self.memory, Gauge.PID)

    @property
    def is_live(self) -> bool:
        """A process owns it and has said how it is."""
        return self.pid != 0 and gauge(self.memory, Gauge.UPDATED_NS) != 0

    @property
    def is_retiring(self) -> bool:
        return gauge(self.memory, Gauge.RETIRING) != 0


class Board:
    """The shared memory. The supervisor hands out rows; whoever holds the board may read all of it."""

    def __init__(self, workers: int) -> None:
        self._memory = memoryview(mmap.mmap(-1, _HEAD_BYTES + workers * _ROWS_EACH * ROW_BYTES))
        self._head = self._memory[:_HEAD_BYTES].cast("Q")
        self.rows = tuple(
            Row(number // _ROWS_EACH, self._memory[at : at + ROW_BYTES])
            for number, at in enumerate(range(_HEAD_BYTES, len(self._memory), ROW_BYTES))
        )
        self._taken: dict[int, Row] = {}  # by worker's number; owner: the supervisor, which alone hands out rows
        self.tell(Fact.WORKERS, workers)

    def tell(self, fact: Fact, value: int) -> None:
        self._head[fact] = value

    def add(self, fact: Fact) -> None:
        self._head[fact] += 1

    def fact(self, fact: Fact) -> int:
        return int(self._head[fact])

    def take(self, number: int, worker: int) -> Row:
        """A free row for process `number` of `worker`, its gauges cleared."""
        row = next(row for row in self.rows if row.worker == worker and row not in self._taken.values())
        self._taken[number] = row
        cells = row.memory.cast("Q")
        for cell in Gauge:
            if cell not in (Gauge.SERIES, Gauge.DIRECTORY_END):
                cells[cell] = 0
        return row

    def own(self, number: int, pid: int) -> None:
        """The process has started."""
        self._taken[number].memory.cast("Q")[Gauge.PID] = pid

    def free(self, number: int) -> None:
        """It is gone, or never came."""
        row = self._taken.pop(number, None)
        if row is not None:
            row.memory.cast("Q")[Gauge.PID] = 0

    def beat_ns(self, number: int) -> int:
        """When process `number` last said how it is; 0 before it served, or when it is gone."""
        row = self._taken.get(number)
        return gauge(row.memory, Gauge.UPDATED_NS) if row is not None else 0

    def live(self) -> list[Row]:
        """Rows of the processes that serve."""
        return [row for row in self.rows if row.is_live]
