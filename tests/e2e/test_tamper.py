from __future__ import annotations

from pathlib import Path

from tests.e2e import tamper


def test_every_attack_on_the_log_is_found_and_named(tmp_path: Path) -> None:
    ran, missed = tamper.run(8 * len(tamper.ATTACKS), 20261121, tmp_path)
    assert missed == []
    assert set(ran.values()) == {8}
