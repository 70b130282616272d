"""`edge init`: what it writes is what the gateway reads, and it never overwrites or asks nobody."""

from __future__ import annotations

import io
import os
import shutil
import stat
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from typer.testing import CliRunner

from edge.cli import init, issue
from edge.cli.templates import POLICY_FILES
from edge.config import io_load
from edge.config.parse import parse
from pki.io_authority import Authority
from pki.io_keys import Passphrases

Init = Callable[..., Any]


def invoked(*arguments: object) -> Any:
    application = typer.Typer()
    application.command()(init.command)
    return CliRunner().invoke(application, [str(argument) for argument in arguments])


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Init:
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    return invoked


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """What it makes when nothing is wished, and what it said; read or copied, never used."""
    home = tmp_path_factory.mktemp("made") / "edge"
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
        result = invoked(home)
    assert result.exit_code == 0, result.output
    return home, str(result.stderr)


def test_what_it_writes_is_a_whole_configuration(made: tuple[Path, str]) -> None:
    home, _ = made
    config = parse(io_load.load(home / "edge.yaml", {}))
    assert (config.trust_domain, config.unissued) == ("mesh.internal", ())
    assert config.listeners.public.hosts == ("localhost", "api.example.com")
    assert sorted(os.listdir(home / "policies")) == sorted(POLICY_FILES)


def test_without_a_terminal_passphrases_are_random_and_said(made: tuple[Path, str]) -> None:
    home, said = made
    ca = home / "state" / "ca"
    assert "root.passphrase" in said
    assert {stat.S_IMODE((ca / f"{name}.passphrase").stat().st_mode) for name in ("root", "issuing")} == {0o600}
    with Authority.open(ca, Passphrases(ca), now=datetime.now(UTC)) as authority:
        assert authority.trust_domain == "mesh.internal"


def test_given_passphrases_are_not_kept(run: Init, tmp_path: Path) -> None:
    for name in ("root", "issuing"):
        (tmp_path / name).write_text(f"{name} passphrase\n")
        (tmp_path / name).chmod(0o600)
    secrets = ["--passphrase-file", tmp_path / "issuing", "--root-passphrase-file", tmp_path / "root"]
    assert run(tmp_path / "edge", *secrets).exit_code == 0
    ca = tmp_path / "edge" / "state" / "ca"
    assert list(ca.glob("*.passphrase")) == []
    with Authority.open(ca, Passphrases(ca, tmp_path / "issuing"), now=datetime.now(UTC)):
        pass


@pytest.mark.parametrize("there", ["edge.yaml", "policies/routes.yaml", "state/ca/root.key", "state/identity/x"])
def test_it_never_overwrites(run: Init, tmp_path: Path, there: str) -> None:
    path = tmp_path / "edge" / there
    path.parent.mkdir(parents=True)
    path.write_text("mine")
    before = sorted((tmp_path / "edge").rglob("*"))
    result = run(tmp_path / "edge")
    assert (result.exit_code, path.read_text(), "exists" in result.stderr) == (1, "mine", True)
    assert sorted((tmp_path / "edge").rglob("*")) == before


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--trust-domain", "Mesh"], 1),
        (["--host", "*.example.com"], 1),
        (["--passphrase-file", "/nonexistent"], 4),
        (["--root-passphrase-file", "/nonexistent"], 4),
    ],
)
def test_a_bad_argument_writes_nothing(run: Init, tmp_path: Path, arguments: list[str], code: int) -> None:
    assert run(tmp_path / "edge", *arguments).exit_code == code
    assert not (tmp_path / "edge").exists()


def test_an_open_or_empty_passphrase_file_is_refused(run: Init, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("x")
    secret.chmod(0o644)
    assert run(tmp_path / "edge", "--passphrase-file", secret).exit_code == 4
    secret.chmod(0o600)
    secret.write_text("\n")
    assert run(tmp_path / "edge", "--passphrase-file", secret).exit_code == 4


def test_trust_domain_and_hosts_are_written(run: Init, tmp_path: Path) -> None:
    assert run(tmp_path / "edge", "--trust-domain", "corp", "--host", "a.example", "--host", "::1").exit_code == 0
    document = yaml.safe_load((tmp_path / "edge" / "edge.yaml").read_text())
    assert (document["trust_domain"], document["listeners"]["public"]["hosts"]) == ("corp", ["a.example", "::1"])
    assert document["audit"]["origin"] == "corp/log"


def test_no_ca_leaves_the_authority_to_others(run: Init, tmp_path: Path) -> None:
    result = run(tmp_path / "edge", "--no-ca")
    document = yaml.safe_load((tmp_path / "edge" / "edge.yaml").read_text())
    assert (result.exit_code, "identity/chain.pem" in result.stderr) == (0, True)
    assert set(document["identity"]) == {"certificate", "key", "bundle"}
    assert set(document["listeners"]["public"]["tls"]) == {"certificate", "key"}
    assert os.listdir(tmp_path / "edge" / "state") == []


@pytest.fixture(scope="module")
def first(made: tuple[Path, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A gateway, with what its CA made for another one; copied, never used itself."""
    home = shutil.copytree(made[0], tmp_path_factory.mktemp("first") / "a")
    assert issue.main(["edge-b", "--role", "gateway", "-q", "-c", str(home / "edge.yaml")]) == 0
    return home


@pytest.fixture
def material(first: Path, tmp_path: Path) -> Path:
    return shutil.copytree(first, tmp_path / "a") / "state" / "issued" / "gateway-edge-b"


def test_a_second_gateway_joins_and_renews(run: Init, tmp_path: Path, material: Path) -> None:
    home = tmp_path / "b c"
    result = run(home, "--join", material, "--state", home / "st ate", "--bind", "[::1]:443")
    assert result.exit_code == 0, result.output
    assert "EDGE_STORE" in result.stderr
    config = parse(io_load.load(home / "edge.yaml", {"EDGE_STORE": "unix:///run/store.sock"}))
    assert (config.trust_domain, config.unissued, config.state) == ("mesh.internal", (), home / "st ate")
    assert (config.listeners.public.bind, config.listeners.public.hosts) == (
        ("::1", 443),
        ("localhost", "api.example.com"),
    )
    assert config.audit.origin == "mesh.internal/log/edge-b"
    assert not (home / "st ate" / "ca").exists()
    edge_yaml = (home / "edge.yaml").read_bytes()
    renewed = run(home, "--join", material)
    assert (renewed.exit_code, "renewed spiffe://mesh.internal/gw/edge-b" in renewed.stderr) == (0, True)
    assert (home / "edge.yaml").read_bytes() == edge_yaml


def test_edge_yaml_and_policies_that_are_there_stay(run: Init, tmp_path: Path, material: Path) -> None:
    home = tmp_path / "b"
    (home / "policies").mkdir(parents=True)
    (home / "policies" / "services.yaml").write_text("services: {}\n")
    text = (tmp_path / "a" / "edge.yaml").read_text().replace("state: state ", "state: here ")
    (home / "edge.yaml").write_text(text)
    assert run(home, "--join", material).exit_code == 0
    assert ((home / "edge.yaml").read_text(), os.listdir(home / "policies")) == (text, ["services.yaml"])
    assert (home / "here" / "identity" / "gateway" / "key.pem").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--no-ca"], 2, ""),
        (["--bind", "here"], 2, ""),
        (["--store", "valkey://store.internal:6379"], 2, ""),
        (["--trust-domain", "other.internal"], 1, "mesh.internal"),
        (["--host", "elsewhere.example"], 1, "first gateway's edge.yaml"),
    ],
)
def test_a_join_that_cannot_be_writes_nothing(
    run: Init, tmp_path: Path, material: Path, arguments: list[str], code: int, said: str
) -> None:
    result = run(tmp_path / "b", "--join", material, *arguments)
    assert (result.exit_code, said in result.stderr) == (code, True)
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize("text", ["trust_domain: other.internal\n", "identity: {certificate: a, key: b, bundle: c}\n"])
def test_edge_yaml_of_another_authority_does_not_join(run: Init, tmp_path: Path, material: Path, text: str) -> None:
    (tmp_path / "b" / "policies").mkdir(parents=True)
    (tmp_path / "b" / "policies" / "services.yaml").write_text("services: {}\n")
    domain = "" if "trust_domain" in text else "trust_domain: mesh.internal\n"
    listeners = 'listeners:\n  public: {bind: "127.0.0.1:0", hosts: [localhost]}\n'
    (tmp_path / "b" / "edge.yaml").write_text(domain + text + listeners)
    assert run(tmp_path / "b", "--join", material).exit_code == 1
    assert not (tmp_path / "b" / "state").exists()


def test_material_without_a_listener_needs_hosts(run: Init, tmp_path: Path, material: Path) -> None:
    for path in material.glob("public-*"):
        path.unlink()
    assert run(tmp_path / "b", "--join", material).exit_code == 1
    result = run(tmp_path / "b", "--join", material, "--host", "localhost")
    document = yaml.safe_load((tmp_path / "b" / "edge.yaml").read_text())
    assert (result.exit_code, set(document["listeners"]["public"]["tls"])) == (0, {"certificate", "key"})
    assert "tls/chain.pem" in result.stderr


def test_a_gateway_with_a_ca_does_not_join(run: Init, tmp_path: Path, material: Path) -> None:
    result = run(tmp_path / "a", "--join", material)
    assert (result.exit_code, "CA of its own" in result.stderr) == (1, True)


class Terminal(io.StringIO):
    """Standard input with a person at it."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("answers", "code", "kept"), [(["a", "a", "b", "b"], 0, 0), (["", ""], 0, 2), (["a", "x"], 4, 0)]
)
def test_a_person_is_asked_twice_or_leaves_it_to_us(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answers: list[str], code: int, kept: int
) -> None:
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    monkeypatch.setattr(sys, "stdin", Terminal())
    monkeypatch.setattr("getpass.getpass", lambda _: answers.pop(0))
    try:
        init.command(tmp_path / "edge")
        left = 0
    except typer.Exit as exit_:
        left = exit_.exit_code
    assert left == code
    assert len(list((tmp_path / "edge").glob("state/ca/*.passphrase"))) == kept


def test_a_credential_of_the_service_manager_is_used(
    run: Init, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("edge-ca", "edge-ca-root"):
        (tmp_path / name).write_text("from systemd")
        (tmp_path / name).chmod(0o600)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert run(tmp_path / "edge").exit_code == 0
    assert list((tmp_path / "edge").glob("state/ca/*.passphrase")) == []
