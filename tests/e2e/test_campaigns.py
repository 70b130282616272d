"""Each campaign, small. `scripts/campaign NAME` runs the same code at full counts."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.campaigns import idle
from tests.campaigns.__main__ import CAMPAIGNS, main


@pytest.mark.parametrize(("name", "count"), [("kill", 4), ("reload", 6), ("ring", 3), ("stream", 64)])
def test_campaign(name: str, count: int, tmp_path: Path) -> None:
    assert CAMPAIGNS[name][0](tmp_path, count, 7)


def test_idle_connections_are_cheap(tmp_path: Path) -> None:
    (outcome,) = idle.campaign(tmp_path / "edge", 1000, ["1.1"])
    assert outcome.bytes_each <= idle.MAX_BYTES_EACH


def test_without_a_name_they_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    listed = capsys.readouterr().out
    assert all(name in listed for name in CAMPAIGNS)
