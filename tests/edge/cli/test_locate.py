from __future__ import annotations

from pathlib import Path

import pytest
import typer

from edge.cli.locate import locate


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("EDGE_CONFIG", raising=False)
    return tmp_path


def test_option_comes_before_variable_before_place(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("edge.yaml", "named.yaml", "option.yaml"):
        (here / name).write_text("x")
    assert locate(None) == Path("edge.yaml")
    monkeypatch.setenv("EDGE_CONFIG", "named.yaml")
    assert locate(None) == Path("named.yaml")
    assert locate(Path("option.yaml")) == Path("option.yaml")


@pytest.mark.parametrize(("option", "variable"), [(None, ""), (Path("missing.yaml"), ""), (None, "missing.yaml")])
def test_no_file_is_exit_code_4_with_the_remedy(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], option: Path | None, variable: str
) -> None:
    monkeypatch.setenv("EDGE_CONFIG", variable)
    with pytest.raises(typer.Exit) as left:
        locate(option)
    assert left.value.exit_code == 4
    assert "edge init DIR" in capsys.readouterr().err


def test_named_file_that_is_missing_is_not_replaced_by_another(here: Path) -> None:
    (here / "edge.yaml").write_text("x")
    with pytest.raises(typer.Exit):
        locate(Path("missing.yaml"))
