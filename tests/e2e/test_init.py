"""`edge init`: what it writes is what the gateway reads, and it never overwrites or asks nobody."""

from __future__ import annotations

import io
import os
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

from edge.cli import init
from edge.cli.templates import POLICY_FILES
from edge.config import io_load
from edge.config.parse import parse
from pki.io_authority import Authority
from pki.io_keys import Passphrases

Init = Callable[..., Any]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Init:
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    application = typer.Typer()
    application.command()(init.command)
    return lambda *arguments: CliRunner().invoke(application, [str(argument) for argument in arguments])


def test_what_it_writes_is_a_whole_configuration(run: Init, tmp_path: Path) -> None:
    home = tmp_path / "edge"
    result = run(home)
    assert result.exit_code == 0, result.output
    config = parse(io_load.load(home / "edge.yaml", {}))
    assert (config.trust_domain, config.unissued) == ("mesh.internal", ())
    assert config.listeners.public.hosts == ("localhost", "api.example.com")
    assert sorted(os.listdir(home / "policies")) == sorted(POLICY_FILES)


def test_without_a_terminal_passphrases_are_random_and_said(run: Init, tmp_path: Path) -> None:
    result = run(tmp_path / "edge")
    ca = tmp_path / "edge" / "state" / "ca"
    assert "root.passphrase" in result.stderr
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
