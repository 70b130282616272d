"""The house keeps its rules, and each rule notices when it is broken."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from edge import errors
from edge.respond.problem import INTERNAL, ROWS
from tests.architecture.source import (
    ROOT,
    broad_handlers,
    calls_of,
    imports_of,
    impurities,
    is_shell,
    long_functions,
    modules,
    tree,
)

WITNESSES = {"Permit": "edge/authz/", "Principal": "edge/authn/", "Admission": "edge/limit/"}
"""Types that prove a step was walked → the only room that may build them."""


# -- purity ------------------------------------------------------------------------------------------


def test_pure_modules_do_no_io_and_read_no_clock() -> None:
    found = {str(p): impurities(tree(p)) for p in modules("edge", "pki") if not is_shell(p)}
    assert {path: what for path, what in found.items() if what} == {}


@pytest.mark.parametrize(
    "code",
    [
        "import time",
        "from asyncio import sleep",
        "import socket as s",
        "open('x')",
        "import os; os.environ['X']",
        "async def f(): pass",
    ],
)
def test_the_purity_rule_notices(code: str) -> None:
    assert impurities(ast.parse(code))


def test_async_stays_in_the_shells_that_are_named() -> None:
    assert not is_shell(Path("edge/authz/evaluate.py"))
    assert not is_shell(Path("edge/pipeline.py"))
    assert is_shell(Path("edge/limit/io_store.py"))


# -- witnesses ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", WITNESSES)
def test_a_witness_is_built_only_in_its_room(name: str) -> None:
    allowed = (WITNESSES[name], "edge/model/")
    found = {str(p): calls_of(tree(p), name) for p in modules("edge", "pki") if not p.as_posix().startswith(allowed)}
    assert {path: lines for path, lines in found.items() if lines} == {}


@pytest.mark.parametrize("name", WITNESSES)
def test_its_room_does_build_it(name: str) -> None:
    assert any(calls_of(tree(p), name) for p in modules(WITNESSES[name].rstrip("/")))


@pytest.mark.parametrize("code", ["Permit(a, b, c)", "decision.Permit(a)"])
def test_the_witness_rule_notices(code: str) -> None:
    assert calls_of(ast.parse(code), "Permit") == [1]


# -- imports -----------------------------------------------------------------------------------------


def lint_imports(root: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command as c; c()", "--no-cache"]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, env={"PYTHONPATH": str(root)}, check=False)


def test_the_import_contracts_hold() -> None:
    outcome = lint_imports(ROOT)
    assert outcome.returncode == 0, outcome.stdout


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("edge/authn/chain.py", "import edge.authz.evaluate"),
        ("edge/model/http.py", "import edge.pipeline"),
        ("pki/spiffe.py", "import edge"),
    ],
)
def test_the_import_contracts_notice(tmp_path: Path, file: str, line: str) -> None:
    for name in ("edge", "pki"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    with (tmp_path / file).open("a") as target:
        target.write(f"\n{line}  # noqa\n")
    assert lint_imports(tmp_path).returncode != 0


# -- errors ------------------------------------------------------------------------------------------


def concrete(root: type[errors.EdgeError]) -> set[type[errors.EdgeError]]:
    children = set(root.__subclasses__())
    return set().union(*(concrete(child) for child in children)) if children else {root}


def test_every_error_of_a_request_has_exactly_one_row() -> None:
    start_only = {errors.ConfigError, errors.UnsafeState}
    assert set(ROWS) == {c for c in concrete(errors.EdgeError) if c.__module__ == "edge.errors"} - start_only


def test_a_class_without_a_row_is_noticed() -> None:
    class Unmapped(errors.Refusal):
        pass

    try:
        assert Unmapped in concrete(errors.EdgeError)
    finally:
        del Unmapped


def test_reasons_and_statuses_are_those_of_the_contract() -> None:
    listed = {row.reason: row.status for row in (*ROWS.values(), INTERNAL)}
    assert listed == {
        "malformed-request": 400, "payload-too-large": 413, "uri-too-long": 414, "headers-too-large": 431,
        "no-route": 404, "method-not-allowed": 405, "misdirected": 421, "websocket-version": 426,
        "credential-missing": 401, "credential-rejected": 401, "forbidden": 403,
        "quota-exceeded": 429, "shedding": 503,
        "upstream-unreachable": 502, "upstream-identity": 502, "upstream-protocol": 502, "upstream-timeout": 504,
        "not-recordable": 503, "store-unavailable": 503, "not-ready": 503, "internal": 500,
    }  # fmt: skip


def test_the_tree_in_the_docstring_names_every_class() -> None:
    named = set(re.findall(r"[A-Z][A-Za-z]+", errors.__doc__ or ""))
    classes = {c.__name__ for c in vars(errors).values() if isinstance(c, type) and issubclass(c, errors.EdgeError)}
    assert classes - {"RuledError"} <= named


# -- shape -------------------------------------------------------------------------------------------


def test_unexpected_exceptions_end_in_few_named_places() -> None:
    found = {str(p): len(lines) for p in modules("edge", "pki") if (lines := broad_handlers(tree(p)))}
    assert found == BROAD_HANDLERS


BROAD_HANDLERS: dict[str, int] = {
    "edge/authz/evaluate.py": 1,  # a native engine: whatever it throws is a denial
    "edge/cli/__init__.py": 1,  # the end of a command: exit 70
    "edge/cli/issue.py": 1,  # likewise
    "edge/exchange.py": 3,  # the end of a request, at its three entrances: `internal`
    "edge/serve/children.py": 1,  # the end of a forked child: exit 70
    "edge/tunnel.py": 1,  # a WebSocket that is decided about anew: it ends
    "edge/timers.py": 1,  # a turn of periodic work: reported, the next one comes
}
"""Each is the end of a line: reported and turned into a refusal, never swallowed."""


def test_a_broad_handler_is_noticed() -> None:
    assert broad_handlers(ast.parse("try:\n  pass\nexcept (OSError, Exception):\n  pass")) == [3]


def test_the_line_is_short_and_files_and_functions_stay_readable() -> None:
    assert len((ROOT / "edge/pipeline.py").read_text().splitlines()) <= 150
    everywhere = modules("edge", "pki", "examples", "tests")
    assert {str(p): n for p in everywhere if (n := len((ROOT / p).read_text().splitlines())) > 400} == {}
    assert {str(p): f for p in modules("edge", "pki", "examples") if (f := long_functions(tree(p)))} == {}


def test_scripts_hold_no_work() -> None:
    for script in (ROOT / "scripts").iterdir():
        if script.name not in ("setup", "bench.json"):
            assert len(script.read_text().splitlines()) <= 30, script


# -- files -------------------------------------------------------------------------------------------


def tracked() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [ROOT / name for name in listed.split("\0") if name]


def test_locks_hold_hashes_and_no_host() -> None:
    for lock in (ROOT / "requirements").glob("*.lock"):
        text = lock.read_text()
        pins = re.findall(r"^[a-z0-9][a-z0-9._-]*(?:\[[a-z0-9,-]+\])?==", text, re.M)
        assert len(pins) > 40
        assert text.count("--hash=sha256:") >= len(pins)
        assert not re.search(r"https?:|--index-url|--extra-index-url|--find-links|@ file:", text)


def test_the_top_level_is_closed() -> None:
    allowed = set(
        [
            "pyproject.toml",
            "edge",
            "pki",
            "policies",
            "tests",
            "scripts",
            "SECURITY.md",
            "README.md",
            "CHANGELOG.md",
            "LICENSE",
            "requirements",
            "docs",
            "deploy",
            "examples",
        ]
    )
    top = {path.relative_to(ROOT).parts[0] for path in tracked()}
    assert {name for name in top if not name.startswith(".")} <= allowed


def test_plain_upstreams_exist_in_a_sidecar_alone() -> None:
    """Decision 0060: no setting of a gateway leads to a connection that proves nothing."""
    plain = "edge.forward.io_plain"
    importers = {str(p) for p in modules("edge", "pki") if plain in imports_of(tree(p))}
    assert importers == {"edge/cli/attach.py", *ATTACH}
    reach = {
        str(p) for p in modules("edge") if any(each.startswith("edge.serve.attach") for each in imports_of(tree(p)))
    }
    assert {path for path in reach if "attach" not in path} == set()


ATTACH = ("edge/serve/attach.py", "edge/serve/attach_line.py", "edge/serve/attach_settings.py")


def test_nothing_verifies_less() -> None:
    forbidden = re.compile(r"verify\s*=\s*False|CERT_NONE|_create_unverified_context|check_hostname\s*=\s*False")
    found = {
        str(p): forbidden.findall((ROOT / p).read_text())
        for p in modules("edge", "pki")
        if forbidden.search((ROOT / p).read_text())
    }
    # Towards upstreams the SPIFFE ID is compared, not a DNS name; the chain is still required there. Who has nothing yet asks
    # for the bundle first, and holds it against a fingerprint.
    assert found == {"edge/accept/tls.py": ["CERT_NONE", "check_hostname = False"]}
