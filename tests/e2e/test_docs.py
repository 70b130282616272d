"""What the documents say is true: their commands run, and what the code has they name."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from edge.cli import COMMANDS, GROUPS
from edge.config.edge_file import EdgeShape
from edge.config.shape import Shape
from edge.respond.problem import INTERNAL, ROWS
from tests.campaigns.__main__ import CAMPAIGNS
from tests.e2e.whole_gateway import ROOT, Gateway, run

README = (ROOT / "README.md").read_text()
SECURITY = (ROOT / "SECURITY.md").read_text()
LIFE = (ROOT / "edge" / "README.md").read_text()
SETTINGS = (ROOT / "docs" / "edge-yaml.md").read_text()
BLOCK = re.compile(r"^```sh( run)?\n(.*?)^```", re.M | re.S)


def commands(text: str, *, runnable: bool) -> list[str]:
    return [
        line
        for mark, body in BLOCK.findall(text)
        if bool(mark) == runnable
        for line in body.splitlines()
        if line.strip()
    ]


def shell(command: str, directory: Path) -> subprocess.CompletedProcess[str]:
    """One line as a reader would type it: `edge` on the PATH, scripts of the checkout."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    command = re.sub(r"(?<!\S)scripts/", f"{ROOT}/scripts/", command)
    return subprocess.run(
        ["bash", "-c", command],
        cwd=directory,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        timeout=240,
    )


def test_the_commands_of_the_readme_run_in_their_order(tmp_path: Path) -> None:
    lines = commands(README, runnable=True)
    assert len(lines) >= 6
    for line in lines:
        if line.startswith("edge audit") and not (tmp_path / "gateway/state/log/checkpoint").exists():
            serve_once(tmp_path / "gateway")
        done = shell(line, tmp_path)
        assert done.returncode == 0, (line, done.stdout, done.stderr)


def serve_once(directory: Path) -> None:
    """A gateway has a log once it has served."""
    config = directory / "edge.yaml"
    config.write_text(re.sub(r'bind: "127\.0\.0\.1:\d+"', 'bind: "127.0.0.1:0"', config.read_text()))
    gateway = Gateway(directory)
    assert gateway.get("/orders/7")[0] == 401
    assert gateway.stop() == 0


def test_commands_that_do_not_end_are_understood() -> None:
    for line in commands(README, runnable=False):
        words = line.split()
        if words[0] == "edge":
            assert words[1] in (*COMMANDS, *GROUPS), line


@pytest.mark.parametrize("name", [*COMMANDS, *GROUPS])
def test_every_command_is_in_the_readme_and_has_help(name: str) -> None:
    assert f"`edge {name}" in README
    done = run(name, "--help")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", CAMPAIGNS)
def test_every_campaign_is_in_the_readme(name: str) -> None:
    line = next(line for line in README.splitlines() if "scripts/campaign NAME" in line)
    assert name in line


@pytest.mark.parametrize("row", [*ROWS.values(), INTERNAL], ids=lambda row: row.reason)
def test_every_reason_is_in_the_readme_with_its_status(row: object) -> None:
    assert f"| `{row.reason}` | {row.status} |" in README  # type: ignore[attr-defined]


def shapes_in(value: object) -> Iterator[Shape]:
    if isinstance(value, Shape):
        yield value
        for name in type(value).model_fields:
            yield from shapes_in(getattr(value, name))
    elif isinstance(value, tuple):
        for each in value:
            yield from shapes_in(each)


def tupled(value: object) -> object:
    """As the reader of edge.yaml gives lists."""
    if isinstance(value, dict):
        return {name: tupled(each) for name, each in value.items()}
    return tuple(map(tupled, value)) if isinstance(value, list) else value


def test_every_setting_of_edge_yaml_is_shown_with_its_default() -> None:
    (text,) = re.findall(r"^```yaml\n(.*?)^```", SETTINGS, re.M | re.S)
    shown = EdgeShape.model_validate(tupled(yaml.safe_load(text)))
    names: dict[type[Shape], set[str]] = defaultdict(set)
    for shape in shapes_in(shown):
        names[type(shape)] |= shape.model_fields_set
        for name, field in type(shape).model_fields.items():
            if not field.is_required() and not isinstance(field.default, Shape | tuple | None):
                assert getattr(shape, name) == field.default, name
    assert names == {shape: set(shape.model_fields) for shape in names}


def test_the_steps_of_the_life_of_a_request_are_those_of_the_line() -> None:
    line = (ROOT / "edge" / "pipeline.py").read_text()
    (order,) = re.findall(r"^(accept → .*)$", line, re.M)
    steps = [step.strip() for step in order.split("→")]
    told = re.findall(r"^\*\*(\w+)\.\*\*", LIFE, re.M)
    assert told == steps
    table = re.findall(r"^\| (\w+) \| `(\w+)/` \|", LIFE, re.M)
    assert [step for step, _ in table] == steps
    assert all((ROOT / "edge" / room).is_dir() for _, room in table)


def test_the_steps_stand_in_the_code_in_that_order() -> None:
    body = (ROOT / "edge" / "pipeline.py").read_text().partition("def decide")[2]
    places = [body.index(f"# {step}: ") for step in ("route", "authenticate", "authorize", "limit")]
    assert places == sorted(places)


def test_every_test_that_security_names_exists() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", SECURITY)
    assert len(named) > 20
    for file, function in named:
        source = (ROOT / file).read_text()
        assert not function or f"def {function}(" in source, (file, function)


ATTACKS = {"A": 13, "B": 7, "C": 7, "D": 11, "E": 8, "P": 59}


def test_every_attack_has_a_row_and_a_test_of_its_name() -> None:
    tests = "\n".join(file.read_text() for file in (ROOT / "tests").rglob("*.py"))
    named = {name.upper() for line in re.findall(r"def test_(\w+)\(", tests) for name in line.split("_")}
    cases = set(re.findall(r'^    "([A-Z]\d+) ', tests, re.M)) | set(re.findall(r'"(P\d\d)-', tests))
    for letter, last in ATTACKS.items():
        for number in range(1, last + 1):
            attack = f"P{number:02}" if letter == "P" else f"{letter}{number}"
            assert attack in named | cases, f"no test is named after {attack}"
            assert f"\n| {attack} |" in SECURITY, f"SECURITY.md has no row {attack}"


def test_links_lead_somewhere() -> None:
    for document in (
        ROOT / "README.md",
        ROOT / "SECURITY.md",
        ROOT / "edge" / "README.md",
        ROOT / "policies" / "README.md",
        ROOT / "docs" / "edge-yaml.md",
        ROOT / "docs" / "attach.md",
    ):
        for target in re.findall(r"\]\(([^)#]+)\)", document.read_text()):
            if "://" not in target:
                assert (document.parent / target).exists(), (document, target)
