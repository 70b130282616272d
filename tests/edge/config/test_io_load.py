from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest

from edge.config.io_load import load
from edge.errors import UnsafeState
from tests.edge.config.house import EDGE, POLICIES

KEY = b"-----BEGIN PRIVATE KEY-----\nx\n-----END PRIVATE KEY-----\n"


@pytest.fixture
def edge_yaml(tmp_path: Path) -> Path:
    (tmp_path / "policies").mkdir()
    for name, text in POLICIES.items():
        (tmp_path / "policies" / name).write_text(text)
    (tmp_path / "edge.yaml").write_text(EDGE)
    return tmp_path / "edge.yaml"


def test_all_files_are_read_once_under_names_relative_to_edge_yaml(edge_yaml: Path) -> None:
    sources = load(edge_yaml, {})
    assert sources.source == edge_yaml
    assert sources.edge.raw == EDGE.encode()
    assert [file.name for file in sources.policies] == sorted(f"policies/{name}" for name in POLICIES)


def test_sources_travel_to_another_process(edge_yaml: Path) -> None:
    sources = load(edge_yaml, {})
    assert pickle.loads(pickle.dumps(sources)).bundle_hash == sources.bundle_hash


def test_hidden_files_tests_of_policies_and_directories_are_passed_over(edge_yaml: Path) -> None:
    before = load(edge_yaml, {})
    for name in (".routes.yaml.swp", ".hidden.yaml", "orders.policytest.yaml", "README.md", "routes.yaml~"):
        (edge_yaml.parent / "policies" / name).write_text("x")
    (edge_yaml.parent / "policies" / "more.yaml").mkdir()
    after = load(edge_yaml, {})
    assert (after.bundle_hash, after.unknown) == (before.bundle_hash, ())


def test_E7_file_that_looks_like_a_table_is_named_instead_of_ignored(edge_yaml: Path) -> None:
    for name in ("route.yaml", "limits.yml", "services2.json", "other.cedarschema"):
        (edge_yaml.parent / "policies" / name).write_text("x")
    assert load(edge_yaml, {}).unknown == tuple(
        f"policies/{name}" for name in ("limits.yml", "other.cedarschema", "route.yaml", "services2.json")
    )


def test_missing_policy_directory_is_left_to_parse(edge_yaml: Path) -> None:
    edge_yaml.write_text("policies: nowhere\n")
    assert load(edge_yaml, {}).policies == ()


def test_policies_outside_the_directory_keep_their_whole_name(
    edge_yaml: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = tmp_path_factory.mktemp("rules")
    (other / "routes.yaml").write_text("x")
    edge_yaml.write_text(f"policies: {other}\n")
    sources = load(edge_yaml, {})
    assert [file.name for file in sources.policies] == [f"{other}/routes.yaml"]
    assert sources.policy("routes") is not None


def test_named_file_is_content_or_a_reason(edge_yaml: Path) -> None:
    (edge_yaml.parent / "a.pem").write_bytes(b"certificate")
    edge_yaml.write_text("identity: {certificate: a.pem, key: missing.key, bundle: policies}\n")
    sources = load(edge_yaml, {})
    assert sources.files[sources.path("a.pem")].reveal() == b"certificate"
    assert sources.unreadable[sources.path("missing.key")] == "no such file or directory"
    assert sources.path("policies") in sources.unreadable


def test_pipe_in_place_of_a_file_does_not_hang(edge_yaml: Path) -> None:
    os.mkfifo(edge_yaml.parent / "a.pem")
    edge_yaml.write_text("identity: {certificate: a.pem}\n")
    sources = load(edge_yaml, {})
    assert sources.unreadable[sources.path("a.pem")] == "not a regular file"


def test_only_variables_that_are_referred_to_are_read(edge_yaml: Path) -> None:
    edge_yaml.write_text("store: ${EDGE_STORE}\n")
    sources = load(edge_yaml, {"EDGE_STORE": "valkey://x", "HOME": "/root"})
    assert {name: secret.reveal() for name, secret in sources.variables.items()} == {"EDGE_STORE": b"valkey://x"}
    assert load(edge_yaml, {}).variables == {}


def test_P55_private_key_that_everybody_can_read_is_refused(edge_yaml: Path) -> None:
    key = edge_yaml.parent / "gateway.key"
    key.write_bytes(KEY)
    edge_yaml.write_text("identity: {key: gateway.key}\n")
    key.chmod(0o640)
    assert load(edge_yaml, {}).files
    key.chmod(0o604)
    with pytest.raises(UnsafeState, match="chmod 600"):
        load(edge_yaml, {})


@pytest.mark.parametrize("path", ["missing.yaml", "policies"])
def test_edge_yaml_that_cannot_be_read_stops_with_the_remedy(edge_yaml: Path, path: str) -> None:
    with pytest.raises(UnsafeState, match="edge init DIR"):
        load(edge_yaml.parent / path, {})


def test_policy_file_that_cannot_be_read_stops_the_reading(edge_yaml: Path) -> None:
    os.mkfifo(edge_yaml.parent / "policies" / "pipe.cedar")
    with pytest.raises(UnsafeState, match="not a regular file"):
        load(edge_yaml, {})


def test_directory_of_thousands_of_files_is_not_a_policy_directory(
    edge_yaml: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge.config.io_load._MAX_POLICY_FILES", 3)
    with pytest.raises(UnsafeState, match="stay within 3"):
        load(edge_yaml, {})


def test_file_beyond_the_limit_is_not_read(edge_yaml: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.config.io_load._MAX_FILE_BYTES", 10)
    with pytest.raises(UnsafeState, match="larger than 10 bytes"):
        load(edge_yaml, {})
