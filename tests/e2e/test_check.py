"""`edge check` and `edge routes`: thirty broken configurations, three of each kind, one line and exit code 1 each."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from edge.cli import run
from tests.e2e import forked

ROOT = Path(__file__).parents[2]
EDGE = """\
trust_domain: mesh.internal
listeners:
  public: {bind: "127.0.0.1:8443", hosts: [localhost]}
issuers:
  - {issuer: "https://idp.example.com/", audience: [api], algorithms: [ES256]}
"""
SHIPPED = ("services.yaml", "routes.yaml", "limits.yaml", "edge.cedarschema", "orders.cedar")
ROUTES = (ROOT / "policies" / "routes.yaml").read_text()
CEDAR = (ROOT / "policies" / "orders.cedar").read_text()
LINE = re.compile(r"(?P<file>[^:]+):[1-9][0-9]*:[1-9][0-9]*: (?P<rule>[a-z-]+): [^;]+.*; .+")


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "policies").mkdir()
    (tmp_path / "edge.yaml").write_text(EDGE)
    for name in SHIPPED:
        (tmp_path / "policies" / name).write_bytes((ROOT / "policies" / name).read_bytes())
    return tmp_path


def edge(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return forked.run(*arguments, directory=directory)


def route(name: str, path: str, more: str = "") -> str:
    match = f'{{hosts: [localhost], path: "{path}", methods: [GET]{more}}}'
    return f"  - {{name: {name}, match: {match}, upstream: {{service: orders}}, auth: [jwt]}}\n"


def forbid(condition: str) -> str:
    return CEDAR + f'\n@id("bad")\nforbid (principal, action, resource)\nwhen {{ {condition} }};\n'


def nested(opening: str, closing: str, inner: str) -> str:
    return forbid(opening * 1000 + inner + closing * 1000)


def bomb(first: str) -> str:
    return f"{first}x0: &x0 [a, a]\n" + "".join(f"x{i}: &x{i} [{f'*x{i - 1}, ' * 9}]\n" for i in range(1, 10))


def replaced(text: str, old: str, new: str) -> str:
    assert old in text
    return text.replace(old, new, 1)


SERVICES = "services:\n  orders: {may_serve: [/orders/**], hosts: [localhost], methods: [GET, POST]}\n"
LIMIT = "limits:\n  - {name: a, rate: 1/second}\n"

CASES: list[tuple[str, str, str | None, str, str]] = [
    # kind, file, its new text (None: removed), where the line must point to, its rule
    ("unknown-key", "edge.yaml", EDGE + "listener: {}\n", "edge.yaml:6:1", "unknown-key"),
    (
        "unknown-key",
        "policies/routes.yaml",
        replaced(ROUTES, "timeout_s", "timeout"),
        "policies/routes.yaml:5:82",
        "unknown-key",
    ),
    (
        "unknown-key",
        "policies/limits.yaml",
        replaced(LIMIT, "rate", "limit: 1, rate"),
        "policies/limits.yaml:2:15",
        "unknown-key",
    ),
    ("duplicate-key", "edge.yaml", EDGE + "trust_domain: other\n", "edge.yaml:6:1", "duplicate-key"),
    (
        "duplicate-key",
        "policies/services.yaml",
        SERVICES + "  orders: {may_serve: [/x]}\n",
        "policies/services.yaml:3:3",
        "duplicate-key",
    ),
    (
        "duplicate-key",
        "policies/routes.yaml",
        ROUTES + "    auth: [jwt]\n",
        "policies/routes.yaml:7:5",
        "duplicate-key",
    ),
    ("wrong-type", "edge.yaml", EDGE + 'workers: "2"\n', "edge.yaml:6:10", "wrong-value"),
    (
        "wrong-type",
        "policies/routes.yaml",
        replaced(ROUTES, "timeout_s: 10", 'timeout_s: "5s"'),
        "policies/routes.yaml:5:93",
        "wrong-value",
    ),
    ("wrong-type", "policies/services.yaml", "services: [orders]\n", "policies/services.yaml:1:11", "wrong-type"),
    ("missing-file", "policies/services.yaml", None, "policies/services.yaml:1:1", "missing-file"),
    (
        "missing-file",
        "edge.yaml",
        replaced(EDGE, "[ES256]", "[ES256], jwks: keys.json"),
        "edge.yaml:5:86",
        "missing-file",
    ),
    (
        "missing-file",
        "edge.yaml",
        replaced(EDGE, "[localhost]", "[localhost], tls: {certificate: a.pem, key: policies/limits.yaml}"),
        "edge.yaml:3:75",
        "missing-file",
    ),
    ("bad-cedar", "policies/orders.cedar", replaced(CEDAR, "when {", "when ("), "policies/orders.cedar:6:1", "syntax"),
    (
        "bad-cedar",
        "policies/orders.cedar",
        replaced(CEDAR, "permit (", "allow ("),
        "policies/orders.cedar:4:1",
        "syntax",
    ),
    (
        "bad-cedar",
        "policies/orders.cedar",
        replaced(CEDAR, "principal.scopes", "principal.scope"),
        "policies/orders.cedar:4:1",
        "invalid-policy",
    ),
    (
        "missing-attribute",
        "policies/orders.cedar",
        forbid("context.token.age > 300"),
        "policies/orders.cedar:12:1",
        "invalid-policy",
    ),
    (
        "missing-attribute",
        "policies/orders.cedar",
        forbid('context.conn.peer == "x"'),
        "policies/orders.cedar:12:1",
        "invalid-policy",
    ),
    (
        "missing-attribute",
        "policies/orders.cedar",
        forbid('principal is Edge::User && principal.tenant == "x"'),
        "policies/orders.cedar:12:1",
        "invalid-policy",
    ),
    ("nesting", "policies/orders.cedar", nested("(", ")", "true"), "policies/orders.cedar:14:", ""),
    ("nesting", "policies/orders.cedar", nested("[", "]", "1"), "policies/orders.cedar:14:", ""),
    ("nesting", "policies/orders.cedar", nested("{a: ", "}", "1"), "policies/orders.cedar:14:", ""),
    ("anchor-bomb", "edge.yaml", bomb(EDGE), "edge.yaml:6:5", "anchor"),
    ("anchor-bomb", "policies/routes.yaml", bomb("routes: []\n"), "policies/routes.yaml:2:5", "anchor"),
    (
        "anchor-bomb",
        "policies/limits.yaml",
        "limits: [&a {name: a, rate: 1/second}, *a, *a]\n",
        "policies/limits.yaml:1:10",
        "anchor",
    ),
    (
        "overlap",
        "policies/routes.yaml",
        "routes:\n" + route("a", "/orders/*") + route("b", "/orders/{id}"),
        "policies/routes.yaml:3:49",
        "overlap",
    ),
    ("overlap", "policies/routes.yaml", ROUTES + route("b", "/orders/**"), "policies/routes.yaml:7:49", "overlap"),
    (
        "overlap",
        "policies/routes.yaml",
        "routes:\n" + route("a", "/orders", ", headers: {x: a}") + route("b", "/orders", ", query: {y: b}"),
        "policies/routes.yaml:3:49",
        "overlap",
    ),
    (
        "outside-grant",
        "policies/routes.yaml",
        "routes:\n" + route("a", "/orders-admin/**"),
        "policies/routes.yaml:2:49",
        "outside-grant",
    ),
    (
        "outside-grant",
        "policies/routes.yaml",
        "routes:\n" + route("a", "/**"),
        "policies/routes.yaml:2:49",
        "outside-grant",
    ),
    (
        "outside-grant",
        "policies/routes.yaml",
        replaced(ROUTES, "[GET, POST]", "[GET, POST, DELETE]"),
        "policies/routes.yaml:4:60",
        "outside-grant",
    ),
]


@pytest.mark.parametrize(
    ("kind", "file", "text", "place", "rule"), CASES, ids=[f"{each[0]}-{at % 3}" for at, each in enumerate(CASES)]
)
def test_broken_configuration_is_one_line_and_exit_code_1(
    directory: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    kind: str,
    file: str,
    text: str | None,
    place: str,
    rule: str,
) -> None:
    if text is None:
        (directory / file).unlink()
    else:
        (directory / file).write_text(text)
    monkeypatch.chdir(directory)
    code = run(["check"])  # the whole command, its judging child included; only the interpreter is not started anew
    said = capfd.readouterr()
    assert (code, said.err) == (1, ""), kind
    (line,) = said.out.splitlines()
    found = LINE.fullmatch(line)
    assert found is not None, line
    assert line.startswith(place), line
    assert found["rule"] == rule or not rule, line


def test_there_are_three_of_each_kind() -> None:
    kinds = [each[0] for each in CASES]
    assert {kinds.count(kind) for kind in kinds} == {3}
    assert len(set(kinds)) == 10


def test_what_is_shipped_is_valid(directory: Path) -> None:
    checked = edge(directory, "check")
    assert (checked.returncode, checked.stderr) == (0, "")
    assert re.fullmatch(r"edge\.yaml: valid, bundle [0-9a-f]{16}\n", checked.stdout)


def test_file_is_found_by_option_then_variable_then_place(
    directory: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    assert edge(elsewhere, "check", "-c", str(directory / "edge.yaml")).returncode == 0
    missing = edge(elsewhere, "check")
    monkeypatch.setenv("EDGE_CONFIG", str(directory / "edge.yaml"))
    assert edge(elsewhere, "check").returncode == 0
    assert missing.returncode == 4
    assert "edge init DIR" in missing.stderr


def test_diagnostics_name_files_from_where_the_command_runs(directory: Path) -> None:
    (directory / "policies" / "limits.yaml").write_text("limits: 7\n")
    checked = edge(directory.parent, "check", "-c", f"{directory.name}/edge.yaml", "--json")
    facts = json.loads(checked.stdout)
    assert (checked.returncode, facts["valid"]) == (1, False)
    assert facts["faults"][0]["file"] == f"{directory.name}/policies/limits.yaml"


def test_routes_are_listed_with_who_answers_and_who_may_ask(directory: Path) -> None:
    listed = edge(directory, "routes")
    assert listed.stdout == "orders: GET,POST localhost /orders/** -> orders 127.0.0.1:9101 [jwt]\n"
    (row,) = json.loads(edge(directory, "routes", "--json").stdout)
    assert (row["spiffe_id"], row["place"]) == ("spiffe://mesh.internal/svc/orders", "policies/routes.yaml:3:5")


def test_routes_of_a_broken_configuration_are_not_listed(directory: Path) -> None:
    (directory / "policies" / "limits.yaml").write_text("limits: 7\n")
    listed = edge(directory, "routes")
    assert (listed.returncode, listed.stdout) == (1, "")
    assert "edge check" in listed.stderr


def test_lint_tells_of_passphrases_beside_the_keys_that_they_open(directory: Path) -> None:
    (directory / "state" / "ca").mkdir(parents=True)
    for name in ("root", "issuing"):
        (directory / "state" / "ca" / f"{name}.passphrase").touch()
    (directory / "edge.yaml").write_text(EDGE + "state: state\n")
    lines = edge(directory, "lint").stdout.splitlines()
    assert all(LINE.fullmatch(line) for line in lines)
    assert [line.partition(" lies ")[0] for line in lines] == [
        f"edge.yaml:6:8: passphrase-beside-key: state: {name}.passphrase" for name in ("root", "issuing")
    ]


def test_lint_tells_of_routes_of_two_services_that_match_the_same(directory: Path) -> None:
    done = edge(directory, "lint")
    assert (done.returncode, done.stdout, done.stderr) == (0, "edge.yaml: nothing to say\n", "")
    (directory / "policies" / "services.yaml").write_text(SERVICES + "  all: {may_serve: [/**]}\n")
    more = route("rest", "/**").replace("service: orders", "service: all")
    (directory / "policies" / "routes.yaml").write_text(ROUTES + more)
    assert edge(directory, "check").returncode == 0
    done = edge(directory, "lint")
    assert done.returncode == 1
    found = [LINE.fullmatch(line) for line in done.stdout.splitlines()]
    assert [(each["file"], each["rule"]) for each in found if each is not None] == [
        ("policies/routes.yaml", rule) for rule in ("nobody-serves", "denied-route", "overlap")
    ]
    assert 'route "orders" has requests that route "rest"' in done.stdout
    findings = json.loads(edge(directory, "lint", "--json").stdout)["findings"]
    assert [each["rule"] for each in findings] == ["nobody-serves", "denied-route", "overlap"]
    (directory / "edge.yaml").unlink()
    assert edge(directory, "lint").returncode == 4
