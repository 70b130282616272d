"""`edge status`: how the running gateway is, from its supervisor."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from edge.cli.ending import exit_code_4
from edge.cli.locate import locate
from edge.errors import UnsafeState
from edge.forward.endpoint import STATES
from edge.serve.control_socket import ask
from edge.serve.instances import InstanceStatus, ServiceCounts
from edge.serve.run_state import run_of
from edge.serve.status import Status

_PATIENCE_S = 10.0
_MIB = 1 << 20
_MAX_INSTANCES = 40
"""Printed; `--json` has all that are listed."""


def command(
    config: Annotated[
        Path | None, typer.Option("-c", "--config", help="edge.yaml; else $EDGE_CONFIG, else ./edge.yaml.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print everything as one JSON object.")] = False,
) -> None:
    """Show processes, listeners, certificates, store, log and counters. Exit 0 when all is well, 1 when something fails."""
    with exit_code_4():
        status = ask(run_of(locate(config)), "status", _PATIENCE_S).status
        if status is None:
            raise UnsafeState("the gateway that runs is older than this command; restart it")
    print(msgspec.json.encode(status).decode() if json else "\n".join(lines(status)))
    raise typer.Exit(0 if status.ok else 1)


def lines(status: Status) -> Iterator[str]:
    """For people."""
    yield "ok" if status.ok else f"FAILING: {', '.join(status.failing)}"
    yield f"generation  {status.generation}, bundle {status.bundle_hash[:16]}, up {_age(status.uptime_s)}"
    yield f"reloads     {status.generation - 1} applied, {status.reloads_refused} refused"
    yield f"listeners   {' '.join(f'{name}={address}' for name, address in status.listeners.items())}"
    yield f"store       {status.store}"
    log = status.log
    state = "running" if log.running else "NOT RUNNING"
    yield f"log         {state}, {log.size} leaves under a checkpoint of {_age(log.checkpoint_age_s)} ago"
    for certificate in status.certificates:
        yield f"certificate {certificate.name} ends {certificate.expires}, {_left(certificate.seconds_left)}"
    yield f"requests    {_counts(status.requests)}"
    yield f"refusals    {_counts(status.refusals)}"
    yield ""
    yield from _table(
        ("process", "pid", "state", "age", "resident"),
        [(p.name, str(p.pid), p.state, _age(p.age_s), f"{p.resident_bytes / _MIB:.0f} MiB") for p in status.processes],
    )
    yield ""
    yield from _table(
        ("worker", "pid", "requests", "connections", "upstream", "ring free", "cpu"),
        [
            (
                str(w.worker),
                str(w.pid),
                str(w.requests),
                str(w.connections),
                str(w.upstream_connections),
                f"{w.ring_free}/{w.ring_slots}",
                f"{w.cpu_s:.1f} s",
            )
            for w in status.workers
        ],
    )
    if status.services:
        yield ""
        yield from _table(("service", *STATES, "under way"), [_service(*each) for each in status.services.items()])
    remarkable = [each for each in status.instances if each.state != "healthy"]
    if remarkable:
        yield ""
        head = ("service", "instance", "state", "under way", "until")
        yield from _table(head, [_instance(each) for each in remarkable[:_MAX_INSTANCES]])
    yield f"{len(status.workers)} of {status.workers_wanted} workers serve; {status.workers_replaced} died and were replaced"


def _service(name: str, counts: ServiceCounts) -> tuple[str, ...]:
    return name, *(str(counts.instances.get(state, 0) or "-") for state in STATES), str(counts.in_flight)


def _instance(each: InstanceStatus) -> tuple[str, ...]:
    ends = time.strftime("%H:%M:%S", time.localtime(each.until)) if each.until else "-"
    return each.service, each.name, each.state, str(each.in_flight), ends


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items()) or "none"


def _left(seconds: int) -> str:
    return f"{_age(seconds)} left" if seconds >= 0 else f"{_age(-seconds)} AGO"


def _age(seconds: int) -> str:
    if seconds < 120:
        return f"{seconds} s"
    if seconds < 7200:
        return f"{seconds // 60} min"
    return f"{seconds // 3600} h" if seconds < 172_800 else f"{seconds // 86_400} d"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    for row in (head, *rows):
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
