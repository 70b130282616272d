"""What is counted about requests, and where the numbers lie so that all processes of a gateway can add them up.

The shell says once per request what came of it (`Observer.request`); steps neither count nor log. The one structured event
of a request is its leaf in the access log; here are the numbers that an operator watches.

Each worker owns a row of memory that the supervisor shares among all of them (`serve/board`). Whoever is asked for metrics
reads all rows and adds. A worker that dies leaves its numbers; its replacement counts on in the same row.

    cells       64 × u64    gauges by `Gauge`, written once a second
    directory   128 KiB     one entry a series: 2 bytes length | JSON [method, route, template, status class, reason]
    series      1024 × 18 × u64, in the order of the directory:
                15 buckets of the duration (not cumulative) | sum of durations, ns | bytes in | bytes out
    sheet       2 × 256 KiB, the instances that the worker knows (`serve/instances`): 8 bytes length | text. Written in turn,
                and `SHEETS` says how often: who reads the last one meets no half of it

Laws: the key is written before the number of entries is, so a reader never meets half a key. A row has one writer. Series
are bounded, as labels come from configuration and closed sets only; what would be too much is counted in the last series.
A reader trusts nothing in a row: the processes that write them face the network.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from enum import IntEnum
from typing import Final, NamedTuple

import msgspec

from edge.model.route import Route

BOUNDS_S: Final = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
"""Of `http.server.request.duration`, as OpenTelemetry's semantic conventions advise."""
_BOUNDS_NS = tuple(round(bound * 1_000_000_000) for bound in BOUNDS_S)
_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))
_OTHER = "_OTHER"
"""OpenTelemetry's word for a method that is not known; here also for what no series is left for."""

BUCKETS: Final = len(BOUNDS_S) + 1
_SUM, _IN, _OUT = BUCKETS, BUCKETS + 1, BUCKETS + 2
_WIDTH = BUCKETS + 3
_CELLS = 64
MAX_SERIES: Final = 1024
_MAX_CACHED = 4096
_DIRECTORY_AT = _CELLS * 8
_DIRECTORY_BYTES = 128 << 10
_SERIES_AT = _DIRECTORY_AT + _DIRECTORY_BYTES
_SHEETS_AT = (_SERIES_AT + MAX_SERIES * _WIDTH * 8 + 4095) // 4096 * 4096
_SHEET_BYTES = 256 << 10
MAX_SHEET_BYTES: Final = _SHEET_BYTES - 8
ROW_BYTES: Final = _SHEETS_AT + 2 * _SHEET_BYTES
"""Virtual: pages that nobody wrote cost nothing."""


class Gauge(IntEnum):
    """Cells of a row. The first three are the row's own; the rest is what the worker last said about itself."""

    PID = 0
    """Who writes here; 0 = nobody. Written by the supervisor."""
    SERIES = 1
    DIRECTORY_END = 2
    UPDATED_NS = 3
    """Monotonic; 0 until the worker serves."""
    CONNECTIONS = 4
    UPSTREAM_CONNECTIONS = 5
    UPSTREAM_IDLE = 6
    RING_FREE = 7
    RING_SLOTS = 8
    RECORDABLE = 9
    STORE_UP = 10
    CONFIG = 11
    """The first 64 bits of the bundle hash in force."""
    CPU_US = 12
    RSS_BYTES = 13
    TIMER_FAILURES = 14
    RETIRING = 15
    SERVICES_CONNECTIONS = 16
    ENROL_CONNECTIONS = 17
    REVOCATION_KNOWN = 18
    UPSTREAMS_OUT = 19
    """Addresses that answered without a client certificate."""
    SHEETS = 20


class Labels(NamedTuple):
    """What one series counts; each is a word of a closed set, or comes from the configuration."""

    method: str
    route: str
    """Name of the route; empty when none matched."""
    template: str
    status: str
    """`2xx`."""
    reason: str
    """Of the problem document; empty when the upstream's answer was passed on."""


class Observer:
    """The writer of one row. Owner: the worker; one thread."""

    __slots__ = ("_cells", "_directory", "_places", "_row", "_series")

    def __init__(self, row: memoryview) -> None:
        """Go on with what is in the row. `row` is ROW_BYTES of writable bytes."""
        self._row = row
        self._cells = row.cast("Q")
        self._directory = row[_DIRECTORY_AT:_SERIES_AT]
        self._series: dict[Labels, int] = {labels: place for place, labels in _entries(row)}
        # First cell of a series by the objects of a request, so that no label is made twice; bounded, owned by us.
        self._places: dict[tuple[Route | None, str, int, str | None], int] = {}

    def request(
        self,
        route: Route | None,
        method: str,
        status: int,
        reason: str | None,
        duration_ns: int,
        bytes_in: int,
        bytes_out: int,
    ) -> None:
        """Count one request, when its record is closed."""
        key = (route, method, status, reason)
        place = self._places.get(key)
        if place is None:
            place = self._place(key)
        cells = self._cells
        cells[place + bisect_left(_BOUNDS_NS, duration_ns)] += 1
        cells[place + _SUM] += duration_ns
        if bytes_in:
            cells[place + _IN] += bytes_in
        if bytes_out:
            cells[place + _OUT] += bytes_out

    def show(self, gauge: Gauge, value: int) -> None:
        """Say how things stand."""
        self._cells[gauge] = value

    def show_sheet(self, text: bytes) -> None:
        """Lay a text open in place of the one before; at most `MAX_SHEET_BYTES`."""
        count = self._cells[Gauge.SHEETS] + 1
        at = _sheet_at(count)
        self._row[at + 8 : at + 8 + len(text)] = text
        self._row[at : at + 8] = len(text).to_bytes(8, "little")
        self._cells[Gauge.SHEETS] = count

    def add(self, gauge: Gauge) -> None:
        """One more of what never gets less."""
        self._cells[gauge] += 1

    def _place(self, key: tuple[Route | None, str, int, str | None]) -> int:
        route, method, status, reason = key
        known = method if method in _METHODS else _OTHER
        name, template = (route.name, route.pattern.text) if route is not None else ("", "")
        labels = Labels(known, name, template, f"{status // 100}xx", reason or "")
        index = self._series.get(labels)
        if index is None:
            index = self._add(labels)
        if len(self._places) >= _MAX_CACHED:  # routes of old generations, methods made up by strangers
            self._places.clear()
        place = self._places[key] = _SERIES_AT // 8 + index * _WIDTH
        return place

    def _add(self, labels: Labels) -> int:
        """The number of a new series; of the last one, which counts everything else, when there is no room."""
        count, end = self._cells[Gauge.SERIES], self._cells[Gauge.DIRECTORY_END]
        entry, last = _encode(labels), _encode(_LAST)
        if count >= MAX_SERIES - 1 or end + 2 + len(entry) + 2 + len(last) > _DIRECTORY_BYTES or len(entry) > 0xFFFF:
            found = self._series.get(_LAST)
            if found is not None:
                return found
            labels, entry = _LAST, last
        self._directory[end : end + 2] = len(entry).to_bytes(2, "little")
        self._directory[end + 2 : end + 2 + len(entry)] = entry
        self._cells[Gauge.DIRECTORY_END] = end + 2 + len(entry)
        self._cells[Gauge.SERIES] = count + 1
        self._series[labels] = count
        return count


_LAST = Labels(_OTHER, _OTHER, "", "", "")


def _encode(labels: Labels) -> bytes:
    return msgspec.json.encode(tuple(labels))


def gauge(row: memoryview, which: Gauge) -> int:
    """One gauge of a row."""
    return int.from_bytes(row[which * 8 : which * 8 + 8], "little")


def sheet(row: memoryview) -> bytes:
    """What its worker laid open last; empty when it has not yet."""
    count = gauge(row, Gauge.SHEETS)
    if not count:
        return b""
    at = _sheet_at(count)
    length = min(int.from_bytes(row[at : at + 8], "little"), MAX_SHEET_BYTES)
    return bytes(row[at + 8 : at + 8 + length])


def _sheet_at(count: int) -> int:
    return _SHEETS_AT + count % 2 * _SHEET_BYTES


class Series(NamedTuple):
    """The numbers of one set of labels; durations in nanoseconds."""

    buckets: tuple[int, ...]
    duration_ns: int
    bytes_in: int
    bytes_out: int

    @property
    def requests(self) -> int:
        return sum(self.buckets)


def merge(rows: Iterable[memoryview]) -> dict[Labels, Series]:
    """Add up the same series of all rows."""
    totals: dict[Labels, list[int]] = {}
    for row in rows:
        cells = row.cast("Q")
        for index, labels in _entries(row):
            at = _SERIES_AT // 8 + index * _WIDTH
            found = cells[at : at + _WIDTH].tolist()
            before = totals.get(labels)
            totals[labels] = found if before is None else [a + b for a, b in zip(before, found, strict=True)]
    return {
        labels: Series(tuple(numbers[:BUCKETS]), numbers[_SUM], numbers[_IN], numbers[_OUT])
        for labels, numbers in totals.items()
    }


def _entries(row: memoryview) -> Iterator[tuple[int, Labels]]:
    """The directory of a row, as far as it makes sense."""
    directory = row[_DIRECTORY_AT:_SERIES_AT]
    end = 0
    for index in range(min(gauge(row, Gauge.SERIES), MAX_SERIES)):
        length = int.from_bytes(directory[end : end + 2], "little")
        entry = bytes(directory[end + 2 : end + 2 + length])
        end += 2 + length
        try:
            labels = msgspec.json.decode(entry, type=tuple[str, str, str, str, str])
        except msgspec.MsgspecError:
            return
        yield index, Labels(*labels)
