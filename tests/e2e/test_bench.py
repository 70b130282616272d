"""The quick look and the tables, as a user runs them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from examples.bench import look, table

RESULTS = {
    "when": "2026-11-21T14:14:11Z",
    "seconds": 4,
    "rounds": 3,
    "medians": {
        "haproxy": {"json-h1": {"cpu_us": 100, "rps": 1, "p50_ms": 1, "p99_ms": 1, "errors": 0}},
        "edge": {"json-h1": {"cpu_us": 64.4, "rps": 15000.2, "p50_ms": 1.754, "p99_ms": 4.3, "errors": 0}},
        "go": {},
    },
}


def test_look_measures_writes_and_compares(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    written = tmp_path / "last.json"
    written.write_text(json.dumps({"json-h2": {"cpu_us": 1}, "connect": {"cpu_us": 7}}))
    assert look.main(["json-h2", "attach", "--seconds", "0.3", "--json", str(written)]) == 0
    found, shown = json.loads(written.read_text()), capfd.readouterr().out.splitlines()
    assert [line.split()[0] for line in shown] == ["scenario", "json-h2", "attach"]
    assert shown[1].endswith(" %")  # against what was in the file
    assert not shown[2].endswith(" %")
    assert found["connect"] == {"cpu_us": 7}  # a scenario that was not run keeps its figures
    assert all(found[name]["requests"] > 10 and found[name]["cpu_us"] > 10 for name in ("json-h2", "attach"))


def test_unknown_scenario_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        look.main(["json-h3"])
    assert "no scenario json-h3; there are json-h1, " in capsys.readouterr().err


def test_tables_stand_between_the_marks_and_can_be_made_again(tmp_path: Path) -> None:
    results, page = tmp_path / "results.json", tmp_path / "page.md"
    results.write_text(json.dumps(RESULTS))
    page.write_text(f"before\n{table.BEGIN}\nold\n{table.END}\nafter\n")
    for _ in range(2):
        table.main([str(results), "--into", str(page)])
    text = page.read_text()
    assert text.startswith(f"before\n{table.BEGIN}\n")
    assert text.endswith(f"{table.END}\nafter\n")
    assert "old" not in text
    assert "| edge | 64 |\n| haproxy | 100 |\n| go | – |" in text
    assert "| measured | 0.64 |\n| allowed | 0.7 |" in text
    assert "| p50 ms | 1.75 |" in text


def test_page_without_marks_is_left_alone(tmp_path: Path) -> None:
    results, page = tmp_path / "results.json", tmp_path / "page.md"
    results.write_text(json.dumps(RESULTS))
    page.write_text("nothing\n")
    with pytest.raises(SystemExit):
        table.main([str(results), "--into", str(page)])
    assert page.read_text() == "nothing\n"
