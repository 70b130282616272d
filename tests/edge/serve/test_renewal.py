"""The gateway's own certificates are made in a child that ends."""

from __future__ import annotations

from pathlib import Path

import msgspec

from edge.audit.record import AuditSettings
from edge.serve.children import Nursery
from edge.serve.outline import Outline
from edge.serve.reactor import Reactor
from edge.serve.renewal import Renewal, Renewed
from edge.serve.report import Report


def outline(state: Path, *, issues: bool) -> Outline:
    return Outline(
        bundle_hash="h",
        trust_domain="mesh.internal",
        state=str(state),
        listeners=(),
        workers=1,
        store="embedded",
        audit=AuditSettings("mesh.internal/log"),
        hosts=("localhost",),
        issues_gateway=issues,
        issues_public=issues,
    )


def looked(reactor: Reactor, nursery: Nursery, wanted: Outline, times: int = 1) -> list[Renewed]:
    results: list[Renewed] = []
    renewal = Renewal(reactor, nursery, Report("test"))
    for _ in range(times):
        renewal.run(wanted, results.append)
    assert len(nursery.pids) <= 1
    assert reactor.run_until(lambda: len(results) == times, 5)
    return results


def test_outside_authority_needs_no_child(reactor: Reactor, nursery: Nursery, tmp_path: Path) -> None:
    assert looked(reactor, nursery, outline(tmp_path, issues=False)) == [Renewed()]


def test_missing_authority_is_said_with_the_remedy(reactor: Reactor, nursery: Nursery, tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    (result,) = looked(reactor, nursery, outline(tmp_path, issues=True))
    assert result.failure is not None
    assert "edge init" in result.failure


def test_all_who_ask_meanwhile_get_the_same_answer(reactor: Reactor, nursery: Nursery, tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    first, second = looked(reactor, nursery, outline(tmp_path, issues=True), times=2)
    assert first == second
    assert msgspec.json.decode(msgspec.json.encode(first), type=Renewed) == first
