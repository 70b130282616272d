"""The policy directory: which files must be there, and what stands at the top of each."""

from __future__ import annotations

import pytest

from tests.edge.config.house import POLICIES, faults, sources


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("services.yaml", "write one; services: {} is enough"),
        ("routes.yaml", "write one; routes: [] is enough"),
        ("limits.yaml", "write one; limits: [] is enough"),
        ("edge.cedarschema", "copy the one of edge init"),
    ],
)
def test_E7_missing_table_is_one_fault_and_never_an_empty_one(name: str, remedy: str) -> None:
    expected = f"policies/{name}:1:1: missing-file: there is no such file; {remedy}"
    assert faults(sources(policies={name: None})) == [expected]


def test_missing_directory_is_one_fault_where_it_is_named() -> None:
    assert faults(sources(policies=dict.fromkeys(POLICIES))) == [
        "edge.yaml:1:1: missing-file: policies: no policy files in policies; correct the path, or copy what edge init makes"
    ]


def test_table_in_two_spellings_is_refused() -> None:
    (said,) = faults(sources(policies={"limits.json": "limits: []"}))
    assert said.startswith("policies/limits.yaml:1:1: duplicate-file:")


def test_file_with_an_unknown_name_is_refused() -> None:
    (said,) = faults(sources(unknown=("policies/route.yaml",)))
    assert said.startswith("policies/route.yaml:1:1: unknown-file:")


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("limits.yaml", "", "policies/limits.yaml:1:1: wrong-type:"),
        ("limits.yaml", "[]", "policies/limits.yaml:1:1: wrong-type:"),
        ("limits.yaml", "limits:\n", "policies/limits.yaml:1:8: wrong-type:"),
        ("limits.yaml", "limits: {}\n", "policies/limits.yaml:1:9: wrong-type:"),
        ("limits.yaml", "{}", "policies/limits.yaml:1:1: missing-key:"),
        ("limits.yaml", "limits: []\nlimit: []\n", "policies/limits.yaml:2:1: unknown-key:"),
        ("limits.yaml", "limits: [\n", "policies/limits.yaml:2:1: syntax:"),
        ("limits.yaml", "limits: []\nlimits: []\n", "policies/limits.yaml:2:1: duplicate-key:"),
        ("services.yaml", "services: [orders]\n", "policies/services.yaml:1:11: wrong-type:"),
        ("services.yaml", "services: *x\n", "policies/services.yaml:1:11: "),
        ("routes.yaml", "routes: {orders: {}}\n", "policies/routes.yaml:1:9: wrong-type:"),
    ],
)
def test_broken_table_is_one_fault_and_nothing_is_unknown_because_of_it(name: str, text: str, expected: str) -> None:
    assert [said[: len(expected)] for said in faults(sources(policies={name: text}))] == [expected]


def test_routes_may_be_json() -> None:
    broken = '{"routes": [{"name": "x", "mach": {}}]}'
    rules = [said.split(": ")[1] for said in faults(sources(policies={"routes.yaml": None, "routes.json": broken}))]
    assert sorted(rules) == ["missing-key", "missing-key", "unknown-key"]
