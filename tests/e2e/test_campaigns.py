"""Each campaign, small. `scripts/campaign NAME` runs the same code at full counts."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from edge.accept.deadlines import Deadlines
from tests.campaigns import dial, flood, fuzz, idle, instances, rotation, slow
from tests.campaigns.__main__ import CAMPAIGNS, main
from tests.campaigns.flood_attacks import ATTACKS
from tests.campaigns.fuzz_targets import TARGETS
from tests.wire.test_http2_abuse import FLOODS


@pytest.mark.parametrize(
    ("name", "count"),
    [("differential", 30), ("instances", 1), ("kill", 3), ("lanes", 120), ("reload", 4), ("ring", 2), ("stream", 24)],
)
def test_campaign(name: str, count: int, tmp_path: Path) -> None:
    assert CAMPAIGNS[name][0](tmp_path, count, 7)


def test_a_rotation_waits_for_its_evidence_and_fails_no_request(tmp_path: Path) -> None:
    outcome = rotation.campaign(tmp_path / "edge", 1, services=3, per_s=60, kinds=["root"])
    assert outcome.waited == ["rotation of the root: announced; 3/4 identities have the new bundle; waiting for svc/s3"]


def test_a_dial_is_little_more_than_its_handshake(tmp_path: Path) -> None:
    cost = dial.campaign(tmp_path / "edge", 8)
    assert cost.above < cost.bare  # on a busy machine; the campaign holds it against half a millisecond


def test_idle_connections_are_cheap(tmp_path: Path) -> None:
    (outcome,) = idle.campaign(tmp_path / "edge", 300, ["1.1"])
    assert outcome.bytes_each <= idle.MAX_BYTES_EACH * 1.5  # few connections share what is paid once


def test_the_choice_among_services_is_made_for_each() -> None:
    """What it costs is for a quiet machine to say."""
    assert set(asyncio.run(instances.costs(20, 60))) == {"round_robin", "least_requests", "power_of_two"}


@pytest.mark.parametrize("name", TARGETS)
def test_no_input_is_an_accident(name: str) -> None:
    """What failed once, what is good, and a few hundred mutations."""
    outcome = fuzz.by_mutation(TARGETS[name], 7, count=len(fuzz.seeds(TARGETS[name])) + 120)
    assert outcome.inputs > 120


def test_a_fuzz_target_that_does_not_exist_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fuzz", "nothing"]) == 2
    assert "http1" in capsys.readouterr().out


def test_slow_with_short_deadlines(tmp_path: Path) -> None:
    short = Deadlines(handshake_s=1, head_s=1, idle_s=1, body_s=1, write_s=1)
    assert slow.campaign(tmp_path / "edge", 2, short, [tuple(slow.kinds(short))]).served


def test_floods_end_as_they_must_and_a_second_client_is_served_C4(tmp_path: Path) -> None:
    """Those of HTTP/2 frames have their tests in `tests/wire/test_http2_abuse.py`, small messages in `test_websocket.py`."""
    names = [name for name in ATTACKS if name.removeprefix("h2 ") not in FLOODS and "small messages" not in name]
    names = names[::3]  # the campaign runs them all
    outcomes = flood.once(tmp_path / "edge", names)
    assert not [(outcome.attack, faults) for outcome in outcomes if (faults := outcome.faults())]


def test_without_a_name_they_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    listed = capsys.readouterr().out
    assert all(name in listed for name in CAMPAIGNS)
