"""`edge status`: what the supervisor makes of the board, the kernel and the log."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from edge.cli.status import lines
from edge.observe import Gauge, Observer
from edge.serve.board import Board, Fact
from edge.serve.status import Status, collect


def board_of(workers: int) -> tuple[Board, list[Observer]]:
    board, observers = Board(workers), []
    board.tell(Fact.NOTARY_UP, 1)
    board.tell(Fact.STARTED_S, int(time.time()) - 60)
    for index in range(workers):
        observers.append(Observer(board.take(index + 1, index).memory))
        board.own(index + 1, 100 + index)
        for gauge in (Gauge.RECORDABLE, Gauge.STORE_UP, Gauge.REVOCATION_KNOWN):
            observers[-1].show(gauge, 1)
        observers[-1].show(Gauge.UPDATED_NS, time.monotonic_ns())
    return board, observers


def status_of(
    board: Board,
    log: Path,
    processes: list[tuple[str, int, str]] | None = None,
    certificates: Sequence[tuple[str, int]] = (),
) -> Status:
    return collect(
        board,
        bundle_hash="ab" * 32,
        listeners={"public": "127.0.0.1:8443"},
        processes=processes or [],
        store="embedded",
        has_limits=True,
        certificates=certificates,
        log_directory=log,
    )


def test_all_is_well(tmp_path: Path) -> None:
    (tmp_path / "checkpoint").write_text("mesh.internal/log\n42\nhash\n\n— signature\n")
    board, observers = board_of(2)
    for observer in observers:
        observer.request(None, "GET", 404, "no-route", 1, 0, 0)
    status = status_of(board, tmp_path, [("supervisor", os.getpid(), "running")])
    assert (status.ok, status.failing, status.store) == (True, (), "embedded up")
    assert (status.log.size, status.requests, status.refusals) == (42, {"4xx": 2}, {"no-route": 2})
    assert status.processes[0].resident_bytes > 1 << 20
    assert 59 <= status.uptime_s <= 61
    assert next(lines(status)) == "ok"


@pytest.mark.parametrize(
    ("gauge", "value", "failing"),
    [
        (Gauge.RECORDABLE, 0, "access-log"),
        (Gauge.STORE_UP, 0, "store"),
        (Gauge.REVOCATION_KNOWN, 0, "revocation"),
        (Gauge.CONFIG, 7, "mixed-configurations"),
    ],
)
def test_one_worker_that_fails_is_the_gateway_failing(tmp_path: Path, gauge: Gauge, value: int, failing: str) -> None:
    board, observers = board_of(3)
    observers[2].show(gauge, value)
    status = status_of(board, tmp_path)
    assert (status.ok, status.failing) == (False, (failing,))
    assert next(lines(status)) == f"FAILING: {failing}"


def test_missing_worker_dead_notary_and_ended_certificate_are_told(tmp_path: Path) -> None:
    board, _ = board_of(2)
    board.free(1)
    board.tell(Fact.NOTARY_UP, 0)
    now_s = int(time.time())
    status = status_of(board, tmp_path, certificates=[("public:a.pem", now_s - 5), ("public:b.pem", now_s + 500)])
    assert status.failing == ("workers", "access-log", "certificates")
    certificate, other = status.certificates
    assert (certificate.name, other.name) == ("public:a.pem", "public:b.pem")
    assert -10 < certificate.seconds_left <= -5
    assert any(line.endswith(" s AGO") for line in lines(status))


def test_worker_that_leaves_does_not_count_and_one_that_hangs_is_silent(tmp_path: Path) -> None:
    board, observers = board_of(2)
    observers[0].show(Gauge.RETIRING, 1)
    observers[1].show(Gauge.UPDATED_NS, 1)
    status = status_of(board, tmp_path, [("worker1", 101, "serving")])
    assert [worker.worker for worker in status.workers] == [1]
    assert status.processes[0].state == "silent"


@pytest.mark.parametrize("text", ["", "x\n", "x\nnumber\n"])
def test_log_without_a_checkpoint_has_no_size(tmp_path: Path, text: str) -> None:
    (tmp_path / "checkpoint").write_text(text)
    assert status_of(board_of(1)[0], tmp_path).log.size == -1
