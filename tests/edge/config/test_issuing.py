from __future__ import annotations

from pathlib import Path

import pytest

from edge.config import io_load, issuing
from edge.errors import ConfigError

EDGE = 'trust_domain: mesh.internal\nlisteners:\n  public: {bind: "127.0.0.1:0", hosts: [localhost]}\n'


def read(tmp_path: Path, services: str | None, edge: str = EDGE) -> issuing.IssuingPolicy:
    (tmp_path / "policies").mkdir()
    (tmp_path / "edge.yaml").write_text(edge)
    if services is not None:
        (tmp_path / "policies" / "services.yaml").write_text(services)
    return issuing.read(io_load.load(tmp_path / "edge.yaml", {}))


def test_a_grant_without_dns_has_the_services_own_name(tmp_path: Path) -> None:
    policy = read(tmp_path, 'services:\n  a: {may_serve: ["/a/**"]}\n  b: {dns: [], may_serve: ["/b", "/c"]}\n')
    assert {name: grant.dns for name, grant in policy.grants.items()} == {"a": ("a.internal",), "b": ()}
    assert (policy.state, policy.has_outside_identity) == (tmp_path / "state", False)


def test_suffixes_are_those_of_the_file_or_internal_and_the_trust_domain(tmp_path: Path) -> None:
    assert read(tmp_path, "services: {}\n").dns_suffixes == ("internal", "mesh.internal")


@pytest.mark.parametrize(
    ("name", "expected"),
    [("a.corp", True), ("corp", True), ("evilcorp", False), ("a.internal", False), ("corp.evil", False)],
)
def test_only_names_below_a_suffix_are_allowed(tmp_path: Path, name: str, expected: bool) -> None:
    policy = read(tmp_path, "services: {}\n", EDGE + "dns_suffixes: [.corp]\n")
    assert policy.allows_dns(name) is expected


@pytest.mark.parametrize(
    ("services", "place"),
    [
        (None, "edge.yaml:1:1: missing-file"),
        ("services:\n  a: {}\n", "policies/services.yaml:2:6: missing-key"),
        ("services:\n  A: {may_serve: [/a]}\n", "policies/services.yaml:2:3: wrong-value"),
        ("services:\n  a: {may_serve: [a]}\n", "policies/services.yaml:2:1"),
        ("services:\n  a: &x {may_serve: [/a]}\n", "policies/services.yaml:2:6:"),
        ("services: [a]\n", "policies/services.yaml:1:11: wrong-type"),
        ("service: {}\n", "policies/services.yaml:1:1: unknown-key"),
    ],
)
def test_a_fault_is_one_line_with_its_place(tmp_path: Path, services: str | None, place: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, services)
    assert place in str(caught.value)


def test_a_fault_of_another_table_does_not_stop_a_renewal(tmp_path: Path) -> None:
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "routes.yaml").write_text("routes: {\n")
    (tmp_path / "policies" / "services.yaml").write_text("services: {}\n")
    (tmp_path / "edge.yaml").write_text(EDGE)
    assert issuing.read(io_load.load(tmp_path / "edge.yaml", {})).grants == {}


def test_a_fault_of_edge_yaml_is_reported_too(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"edge\.yaml:1:15: wrong-value"):
        read(tmp_path, "services: {}\n", "trust_domain: MESH\n")
