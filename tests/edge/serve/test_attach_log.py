"""What a sidecar tells: refusals and failures, with the gateway's id; never what went well, and never more than is read."""

from __future__ import annotations

import json
import time

import pytest

from edge.audit.flood import SINGLE_PER_S
from edge.model.decision import Admission, Permit
from edge.model.http import Request
from edge.model.identity import ANONYMOUS, Peer
from edge.model.route import PathPattern, Route, RouteMatch, Upstream
from edge.serve.attach_log import AttachLog
from edge.serve.report import LogFormat, Report

PEER = Peer("192.0.2.1", 5, "192.0.2.1", None, "TLSv1.3", "x", spiffe_id="spiffe://mesh.internal/gw/edge")
REQUEST = Request("GET", "/", b"", False, "a", "a", ((b"x-request-id", b"abc\x1b[2J"),), None, None, False)
ROUTE = Route("edge-attach", PathPattern("/**", ()), (), ("GET",), Upstream("edge.attached", ""), auth=("attached",))
ADMISSION = Admission(Permit(ANONYMOUS, RouteMatch(ROUTE, {}), ()))


def new_log() -> AttachLog:
    """Made in the test, where stderr is the one that is caught."""
    return AttachLog(Report("attach", LogFormat.JSON))


def refuse(log: AttachLog) -> None:
    log.refuse(
        "D1", REQUEST, PEER, principal=None, match=None, status=403, reason="forbidden", rule="role", bundle_hash="",
        started_ns=0, duration_ns=0,
    )  # fmt: skip


def complete(log: AttachLog, reason: str | None) -> None:
    slot = log.admit("D1", REQUEST, PEER, ADMISSION, "", 0)
    log.complete(slot, status=502, reason=reason, bytes_in=0, bytes_out=0, duration_ns=0, upstream=None, rule="dial")


def told(capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_a_refusal_is_told_with_who_why_and_the_gateway_s_id(capsys: pytest.CaptureFixture[str]) -> None:
    log = new_log()
    refuse(log)
    (line,) = told(capsys)
    shown = {name: line[name] for name in ("event", "address", "identity", "status", "reason", "rule", "request")}
    assert shown == {
        "event": "refused",
        "address": "192.0.2.1",
        "identity": "spiffe://mesh.internal/gw/edge",
        "status": 403,
        "reason": "forbidden",
        "rule": "role",
        "request": "abc\x1b[2J",  # escaped where it is written
    }


@pytest.mark.parametrize("reason", [None, "client-gone"])
def test_what_went_well_is_not_told(reason: str | None, capsys: pytest.CaptureFixture[str]) -> None:
    log = new_log()
    complete(log, reason)
    assert (told(capsys), log.served) == ([], 1)


def test_what_the_service_did_not_answer_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    log = new_log()
    complete(log, "upstream-unreachable")
    (line,) = told(capsys)
    assert (line["event"], line["reason"]) == ("the service did not answer", "upstream-unreachable")


def test_a_flood_is_counted_and_told_once_its_second_is_over(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    log = new_log()
    monkeypatch.setattr(time, "monotonic_ns", lambda: 7_000_000_000)
    monkeypatch.setattr(time, "time_ns", lambda: 1_795_000_000_000_000_000)
    for _ in range(SINGLE_PER_S + 7):
        refuse(log)
    assert len(told(capsys)) == SINGLE_PER_S
    log.flush(1_795_000_000_500_000_000)
    assert told(capsys) == []
    for _ in range(2):
        log.flush(1_795_000_001_000_000_000)
    (line,) = told(capsys)
    assert (line["count"], line["reason"]) == (7, "forbidden")


def test_ids_never_repeat() -> None:
    log = new_log()
    found = [log.next_id() for _ in range(1000)]
    assert found == sorted(set(found))
    assert {len(each) for each in found} == {28}
