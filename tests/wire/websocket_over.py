"""A gateway for WebSockets, over HTTP/1.1 or HTTP/2, and how one ends."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.wire.websocket_rig import (
    Pair,
    SocketRig,
)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SocketRig]:
    rig = SocketRig(tmp_path_factory.mktemp("websocket") / "edge")
    yield rig
    rig.close()


@pytest.fixture
def rig(running: SocketRig, request: pytest.FixtureRequest) -> Iterator[SocketRig]:
    running.over = getattr(request, "param", "h1")
    yield running
    running.clear()


OVER_BOTH = pytest.mark.parametrize("rig", ["h1", "h2"], indirect=True)


def ended(rig: SocketRig, pair: Pair, code: int, reason: str | None, rule: str | None = None) -> None:
    """Both connections are over, and the one leaf says how."""
    assert pair.client.is_ended()
    assert pair.upstream.is_ended()
    leaf = rig.record(pair.decision)
    assert (leaf["http.response.status_code"], leaf["http.version"]) == (
        rig.switched,
        "2" if rig.over == "h2" else "1.1",
    )
    assert leaf["websocket.close_code"] == code
    assert (leaf.get("event.reason"), leaf.get("rule.id")) == (reason, rule)
    assert leaf["event.outcome"] == ("success" if reason is None else "failure")
    assert sum(each["event.id"] == pair.decision for each in rig.leaves()) == 1
