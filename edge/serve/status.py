"""What `edge status` shows: the gateway as its supervisor sees it, put together when it is asked.

Facts about processes come from the kernel, about the log from its signed checkpoint, about workers from the board. Nothing
here asks a worker and waits: the answer comes also when all of them hang.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from edge.observe import Gauge, gauge, merge
from edge.serve.board import Board, Fact, Row
from edge.serve.instances import InstanceStatus, ServiceCounts, instances, services

_SILENT_AFTER_S = 5.0
_NS = 1_000_000_000
_PAGE = os.sysconf("SC_PAGE_SIZE")


class Process(msgspec.Struct, frozen=True):
    """One process of the gateway."""

    name: str
    pid: int
    state: str
    """`serving`, `starting`, `retiring`, `silent`, `running`."""
    age_s: int
    resident_bytes: int
    """Shared pages included; `smaps_rollup` of the process tells them apart."""


class WorkerStatus(msgspec.Struct, frozen=True):
    """One worker, as it said within the last second."""

    worker: int
    pid: int
    bundle: str
    """First 16 digits of the bundle hash in force."""
    connections: int
    upstream_connections: int
    requests: int
    """Since the gateway started, those of its predecessors in the same row included."""
    ring_free: int
    ring_slots: int
    recordable: bool
    store_up: bool
    revocation_known: bool
    upstreams_out: int
    """Addresses that answer without a client certificate, and get no request."""
    cpu_s: float


class Certificate(msgspec.Struct, frozen=True):
    """`gateway` is shown to upstreams, `public` or `public:FILE` to clients; `bundle` is the first of the anchors to end."""

    name: str
    expires: str
    """RFC 3339, UTC."""
    seconds_left: int


class LogStatus(msgspec.Struct, frozen=True):
    """The access log."""

    running: bool
    """The notary runs; without it requests are refused."""
    size: int
    """Leaves under the last checkpoint; -1 when there is none yet."""
    checkpoint_age_s: int


class Status(msgspec.Struct, frozen=True):
    """Everything."""

    ok: bool
    """All workers serve, can record and reach the store; the notary runs; no certificate has ended; all upstreams that were
    asked want a client certificate."""
    failing: tuple[str, ...]
    bundle_hash: str
    generation: int
    uptime_s: int
    workers_wanted: int
    workers_replaced: int
    reloads_refused: int
    listeners: dict[str, str]
    processes: tuple[Process, ...]
    workers: tuple[WorkerStatus, ...]
    certificates: tuple[Certificate, ...]
    store: str
    """`embedded` or `external`, and whether the workers reach it: `up`, `down`, `unused`."""
    log: LogStatus
    requests: dict[str, int]
    """By class of the status."""
    refusals: dict[str, int]
    """By reason."""
    services: dict[str, ServiceCounts]
    """Their instances, counted."""
    instances: tuple[InstanceStatus, ...]
    """Each as the worker says that says the worst."""


def collect(
    board: Board,
    *,
    bundle_hash: str,
    listeners: dict[str, str],
    processes: Iterable[tuple[str, int, str]],
    store: str,
    has_limits: bool,
    certificates: Iterable[tuple[str, int]],
    log_directory: Path,
) -> Status:
    """`processes` are (name, pid, state), `certificates` (name, end of life since the epoch)."""
    now_s = time.time()
    rows = board.live()
    shown = tuple(_worker(row) for row in rows if not row.is_retiring)
    ends = tuple(_certificate(name, ends_s, now_s) for name, ends_s in certificates)
    log = _log(log_directory, running=bool(board.fact(Fact.NOTARY_UP)), now_s=now_s)
    is_up = all(worker.store_up for worker in shown)
    failing = _failing(board, shown, ends, log, store_fails=has_limits and not is_up)
    requests, refusals = _requests(board)
    return Status(
        ok=not failing,
        failing=failing,
        bundle_hash=bundle_hash,
        generation=board.fact(Fact.GENERATION),
        uptime_s=int(now_s) - board.fact(Fact.STARTED_S),
        workers_wanted=board.fact(Fact.WORKERS),
        workers_replaced=board.fact(Fact.REPLACED),
        reloads_refused=board.fact(Fact.REFUSED),
        listeners=listeners,
        processes=tuple(_process(name, pid, state, rows) for name, pid, state in processes),
        workers=shown,
        certificates=ends,
        store=f"{store} {'up' if is_up else 'down' if has_limits else 'unused'}",
        log=log,
        requests=requests,
        refusals=refusals,
        services=services(board),
        instances=instances(board),
    )


def _failing(
    board: Board,
    workers: Sequence[WorkerStatus],
    certificates: Sequence[Certificate],
    log: LogStatus,
    *,
    store_fails: bool,
) -> tuple[str, ...]:
    found = {
        "workers": len(workers) < board.fact(Fact.WORKERS),
        "access-log": not log.running or not all(worker.recordable for worker in workers),
        "store": store_fails,
        "revocation": not all(worker.revocation_known for worker in workers),
        "upstreams-accept-anyone": any(worker.upstreams_out for worker in workers),
        "certificates": any(certificate.seconds_left < 0 for certificate in certificates),
        "mixed-configurations": len({worker.bundle for worker in workers}) > 1,
    }
    return tuple(name for name, fails in found.items() if fails)


def _requests(board: Board) -> tuple[dict[str, int], dict[str, int]]:
    requests: dict[str, int] = {}
    refusals: dict[str, int] = {}
    for labels, series in merge(row.memory for row in board.rows).items():
        requests[labels.status] = requests.get(labels.status, 0) + series.requests
        if labels.reason:
            refusals[labels.reason] = refusals.get(labels.reason, 0) + series.requests
    return dict(sorted(requests.items())), dict(sorted(refusals.items()))


def _worker(row: Row) -> WorkerStatus:
    memory = row.memory
    return WorkerStatus(
        worker=row.worker,
        pid=row.pid,
        bundle=f"{gauge(memory, Gauge.CONFIG):016x}",
        connections=gauge(memory, Gauge.CONNECTIONS),
        upstream_connections=gauge(memory, Gauge.UPSTREAM_CONNECTIONS),
        requests=sum(series.requests for series in merge([memory]).values()),
        ring_free=gauge(memory, Gauge.RING_FREE),
        ring_slots=gauge(memory, Gauge.RING_SLOTS),
        recordable=bool(gauge(memory, Gauge.RECORDABLE)),
        store_up=bool(gauge(memory, Gauge.STORE_UP)),
        revocation_known=bool(gauge(memory, Gauge.REVOCATION_KNOWN)),
        upstreams_out=gauge(memory, Gauge.UPSTREAMS_OUT),
        cpu_s=gauge(memory, Gauge.CPU_US) / 1e6,
    )


def _certificate(name: str, expires_s: int, now_s: float) -> Certificate:
    expires = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(expires_s))
    return Certificate(name, expires, int(expires_s - now_s))


def _process(name: str, pid: int, state: str, rows: Sequence[Row]) -> Process:
    row = next((row for row in rows if row.pid == pid), None)
    if row is not None and (time.monotonic_ns() - gauge(row.memory, Gauge.UPDATED_NS)) / _NS > _SILENT_AFTER_S:
        state = "silent"
    age_s, resident = _kernel_facts(pid)
    return Process(name, pid, state, age_s, resident)


def _kernel_facts(pid: int) -> tuple[int, int]:
    """(seconds since it was forked, resident bytes); zeros for one that is just ending."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text("ascii", "replace").rpartition(")")[2].split()
        resident = int(Path(f"/proc/{pid}/statm").read_text("ascii").split()[1]) * _PAGE
    except (OSError, IndexError, ValueError):
        return 0, 0
    started_s = int(fields[19]) / os.sysconf("SC_CLK_TCK")
    return max(0, int(time.clock_gettime(time.CLOCK_BOOTTIME) - started_s)), resident


def _log(directory: Path, *, running: bool, now_s: float) -> LogStatus:
    checkpoint = directory / "checkpoint"
    try:
        with checkpoint.open("rb") as file:
            size = int(file.read(4096).split(b"\n")[1])
        age_s = max(0, int(now_s - checkpoint.stat().st_mtime))
    except (OSError, IndexError, ValueError):
        return LogStatus(running, -1, 0)
    return LogStatus(running, size, age_s)
