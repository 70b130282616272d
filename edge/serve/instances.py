"""The instances of all services, as the workers see them: written by each once a second, read by whoever is asked.

Each worker judges for itself (`forward/fleet`), so an instance can be left alone by one worker and not by another: shown is
the worst that any of them says, and what is under way is added up. What is listed is bounded, the remarkable first. The
counts by service are whole, and metrics are made of these only: names of services come from services.yaml, names of
instances do not.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator

import msgspec

from edge.forward.endpoint import STATES, Endpoint, spell
from edge.forward.io_pool import Pool
from edge.observe import MAX_SHEET_BYTES, Gauge, Observer, sheet
from edge.serve.board import Board
from edge.serve.report import Report

MAX_LISTED = 1000
_MAX_LINES = 20
"""On stderr, at one time."""
_REMARKABLE = frozenset(("ejected", "unhealthy"))


class InstanceStatus(msgspec.Struct, frozen=True):
    """One instance."""

    service: str
    name: str
    """Its id; of an endpoint of the file `HOST:PORT`."""
    address: str
    state: str
    """`healthy`, `starting` (its weight grows), `ejected` (it failed requests), `unhealthy` (it fails checks), `draining`, or
    `gone` (it left, and finishes what it has)."""
    weight: int
    in_flight: int
    since: float
    """When it was ejected, and until when: seconds since the epoch; 0 when it is not."""
    until: float


class ServiceCounts(msgspec.Struct, frozen=True):
    """How many instances of a service are in which state, and what is under way."""

    instances: dict[str, int]
    in_flight: int


class _Sheet(msgspec.Struct, frozen=True):
    """What one worker writes."""

    services: dict[str, list[int]]
    """Instances by state, in the order of `STATES`; then what is under way."""
    listed: list[InstanceStatus]


class Instances:
    """The writer of one worker."""

    def __init__(self, pool: Pool, observer: Observer, report: Report) -> None:
        self._pool = pool
        self._observer = observer
        self._report = report
        self._out: dict[tuple[str, str], str] = {}

    def show(self) -> None:
        """Say on the board how they are, and on stderr who is left alone from now on, or no more."""
        pool, show = self._pool, self._observer.show
        show(Gauge.UPSTREAM_CONNECTIONS, pool.open_connections)
        show(Gauge.UPSTREAM_IDLE, pool.idle_connections)
        show(Gauge.UPSTREAMS_OUT, pool.out)
        endpoints = sorted(pool.fleet.endpoints(), key=_rank)
        self._observer.show_sheet(encode(endpoints, pool.now_s))
        self._tell(endpoints)

    def _tell(self, endpoints: Iterable[Endpoint]) -> None:
        out = {(each.service, each.name): each.state for each in endpoints if each.state in _REMARKABLE}
        turned = [*out.items() - self._out.items(), *((who, "back") for who in self._out.keys() - out.keys())]
        for (service, name), state in sorted(turned)[:_MAX_LINES]:
            self._report.warning(_WORDS[state], where=f"{service} {name}")
        self._out = out


_WORDS = {
    "ejected": "an instance failed requests; it is left alone for a while",
    "unhealthy": "an instance fails its checks; it gets no requests while another passes",
    "back": "an instance is no longer left alone",
}


def _rank(endpoint: Endpoint) -> tuple[bool, int]:
    """The remarkable first."""
    return endpoint.state == "healthy", -endpoint.in_flight


def encode(endpoints: Iterable[Endpoint], now_s: float) -> bytes:
    """A sheet; `now_s` is the loop's time. What does not fit is left off its end."""
    services: dict[str, list[int]] = {}
    listed: list[InstanceStatus] = []
    loop_began = time.time() - now_s
    for each in endpoints:
        state = each.state
        counts = services.setdefault(each.service, [0] * (len(STATES) + 1))
        counts[STATES.index(state)] += 1
        counts[-1] += each.in_flight
        if len(listed) < MAX_LISTED:
            health = each.health
            since, until = (health.ejected_s, health.until_s) if health.is_ejected else (0.0, 0.0)
            listed.append(
                InstanceStatus(
                    service=each.service,
                    name=each.name,
                    address=spell(each.address),
                    state=state,
                    weight=each.weight,
                    in_flight=each.in_flight,
                    since=round(since + loop_began, 3) if since else 0.0,
                    until=round(until + loop_began, 3) if until else 0.0,
                )
            )
    while len(text := msgspec.json.encode(_Sheet(services, listed))) > MAX_SHEET_BYTES:
        if listed:
            listed = listed[: len(listed) // 2]
        else:
            services = dict(list(services.items())[: len(services) // 2])
    return text


def instances(board: Board) -> tuple[InstanceStatus, ...]:
    """What the serving workers list, by service and name; not more than twice what one of them may list."""
    found: dict[tuple[str, str], InstanceStatus] = {}
    for read in _sheets(board):
        for each in read.listed:
            before = found.get((each.service, each.name))
            found[each.service, each.name] = each if before is None else _merged(before, each)
    kept = sorted(found.values(), key=lambda each: each.state == "healthy")[: 2 * MAX_LISTED]
    return tuple(sorted(kept, key=lambda each: (each.service, each.name)))


def services(board: Board) -> dict[str, ServiceCounts]:
    """By service: of each state as many as the worker sees that sees most; what is under way at all workers."""
    found: dict[str, list[int]] = {}
    for read in _sheets(board):
        for service, counts in read.services.items():
            if len(counts) == len(STATES) + 1:
                before = found.get(service, [0] * len(counts))
                most = [max(pair) for pair in zip(before, counts, strict=True)]
                found[service] = [*most[:-1], before[-1] + counts[-1]]
    return {
        service: ServiceCounts(dict(zip(STATES, counts, strict=False)), counts[-1])
        for service, counts in sorted(found.items())
    }


def _sheets(board: Board) -> Iterator[_Sheet]:
    """Of the serving workers, as far as they make sense: a row's writer faces the network."""
    for row in board.live():
        text = sheet(row.memory)
        if text:
            try:
                yield msgspec.json.decode(text, type=_Sheet)
            except (msgspec.MsgspecError, UnicodeDecodeError):
                continue


def _merged(one: InstanceStatus, other: InstanceStatus) -> InstanceStatus:
    worst = max(one, other, key=lambda each: (_GRAVITY.get(each.state, 0), each.until))
    return msgspec.structs.replace(worst, in_flight=one.in_flight + other.in_flight)


_GRAVITY = {state: at for at, state in enumerate(("gone", "healthy", "starting", "ejected", "unhealthy", "draining"))}
