"""`edge ca` and `issue-cert.py` with a gateway running and without: the same commands, files and exit codes."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256

import edge.cli
from edge.cli.issue import main as issue_cert
from pki import io_output
from pki.tlog.io_reader import LogReader
from tests.e2e.whole_gateway import Gateway, eventually


@dataclass(frozen=True)
class Outcome:
    """Of a command."""

    returncode: int
    stdout: str
    stderr: str


def ca(directory: Path, *arguments: str) -> Outcome:
    """In this process: starting another takes longer than the command."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = edge.cli.run(["ca", *arguments, "-c", str(directory / "edge.yaml")])
    return Outcome(code, out.getvalue(), err.getvalue())


def issue(directory: Path, *arguments: str) -> int:
    return issue_cert(["-c", str(directory / "edge.yaml"), "-q", *arguments])


def serial(directory: Path) -> int:
    held = io_output.read(directory / "state" / "issued" / "orders")
    assert held is not None
    return held.serial


def facts(directory: Path) -> list[dict[str, object]]:
    return [json.loads(entry) for _, entry in LogReader(directory / "state" / "ca" / "log").latest(100)]


def listed(directory: Path) -> dict[str, dict[str, object]]:
    shown = ca(directory, "status", "--json")
    assert shown.returncode == 0, shown.stderr
    certificates: list[dict[str, object]] = json.loads(shown.stdout)["certificates"]
    return {str(each["serial"]): each for each in certificates}


def life_of_a_certificate(directory: Path) -> None:
    """Issued, still fresh, renewed, revoked, issued again; each step as the commands show it."""
    assert issue(directory, "orders") == 0
    first = serial(directory)
    assert issue(directory, "orders") == 5
    assert issue(directory, "orders", "--if-needed") == 0
    assert serial(directory) == first
    assert issue(directory, "orders", "--renew") == 0
    second = serial(directory)
    assert second != first
    known = listed(directory)
    assert (known[f"{first:x}"]["is_current"], known[f"{second:x}"]["is_current"]) == (False, True)
    revoked = ca(directory, "revoke", "orders", "--serial", f"{second:x}", "--reason", "keyCompromise", "--json")
    assert json.loads(revoked.stdout)["revoked"] == [f"{second:x}"]
    assert listed(directory)[f"{second:x}"]["reason"] == "keyCompromise"
    assert issue(directory, "orders", "--if-needed") == 0  # what is revoked is not fresh
    assert serial(directory) not in (first, second)
    assert issue(directory, "ghost") == 3
    assert (facts(directory)[-1]["event.action"], facts(directory)[-1]["event.reason"]) == (
        "pki.refused",
        "unknown-service",
    )


def test_without_a_gateway(directory: Path) -> None:
    life_of_a_certificate(directory)


def test_with_a_gateway_it_is_the_gateways_process_that_signs(directory: Path, gateway: Gateway) -> None:
    life_of_a_certificate(directory)
    processes = gateway.children()
    assert "edge-ca" in processes
    os.kill(processes["edge-ca"], signal.SIGKILL)
    eventually(lambda: gateway.children().get("edge-ca") not in (None, processes["edge-ca"]), 15)
    assert issue(directory, "orders", "--renew") == 0
    assert gateway.get("/orders/7")[0] == 200


def test_a_gateway_whose_ca_is_locked_serves_and_leaves_the_lock_to_the_operator(directory: Path) -> None:
    secret = directory / "passphrase"
    shutil.move(directory / "state" / "ca" / "issuing.passphrase", secret)
    gateway = Gateway(directory)
    try:
        assert "passphrase" in gateway.line("authority closed")
        assert gateway.get("/orders/7")[0] == 200
        assert issue(directory, "orders") == 4
        assert issue(directory, "orders", "--passphrase-file", str(secret)) == 0
    finally:
        gateway.stop()


def shown(gateway: Gateway) -> bytes | None:
    connection = gateway.connect()
    try:
        connection.connect()
        return connection.sock.getpeercert(binary_form=True)
    finally:
        connection.close()


def test_a_rotation_is_in_force_without_a_restart_also_by_force(directory: Path, gateway: Gateway) -> None:
    before = shown(gateway)
    assert ca(directory, "rotate", "gateway").returncode == 0
    eventually(lambda: shown(gateway) != before, 10)
    assert gateway.get("/orders/7")[0] == 200
    assert "waiting for" in ca(directory, "rotate", "root").stdout  # for orders, which nobody told of the new root
    assert gateway.get("/orders/7")[0] == 200
    before = shown(gateway)
    assert ca(directory, "rotate", "root", "--force").returncode == 1
    eventually(lambda: shown(gateway) != before, 10)  # orders refuses it now: that is what the evidence is waited for
    assert ca(directory, "rotate", "root", "--force").returncode == 0
    eventually(lambda: gateway.get("/orders/7") == (502, "upstream-identity"), 10)


def test_an_intermediate_is_revoked_when_another_signs(directory: Path) -> None:
    revoke = ("revoke", "svc", "--role", "intermediate", "--reason", "keyCompromise")
    refused = ca(directory, *revoke)
    assert (refused.returncode, "edge ca rotate intermediate" in refused.stderr) == (3, True)
    assert ca(directory, "rotate", "intermediate").returncode == 1
    assert ca(directory, "rotate", "intermediate", "--force").returncode == 1
    assert ca(directory, *revoke).stdout.startswith("revoked ")
    (listed,) = (directory / "state" / "status" / "crl").glob("root-*.crl")
    assert len(x509.load_der_x509_crl(listed.read_bytes())) == 1


def test_tokens(directory: Path) -> None:
    made = ca(directory, "token", "orders", "--ttl", "5m", "--json")
    root = x509.load_pem_x509_certificate((directory / "state" / "ca" / "root.pem").read_bytes())
    token = json.loads(made.stdout)
    assert token["token"].startswith("edge-enrol-")
    assert token["root_sha256"] == root.fingerprint(SHA256()).hex()
    assert ca(directory, "token", "edge-b", "--role", "gateway").returncode == 0
    assert ca(directory, "token", "alice", "--role", "operator").returncode == 0
    assert [ca(directory, "token", *bad).returncode for bad in (("ghost",), ("orders", "--dns", "pay.internal"))] == [
        3,
        3,
    ]
    assert ca(directory, "token", "orders", "--ttl", "5 minutes").returncode == 2
    assert [fact["event.reason"] for fact in facts(directory) if fact["event.action"] == "pki.refused"] == [
        "unknown-service",
        "dns-not-granted",
    ]


def test_token_only(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert issue(directory, "orders", "--token-only", "--json") == 0
    assert json.loads(capsys.readouterr().out)["token"].startswith("edge-enrol-")
    assert not (directory / "state" / "issued" / "orders").exists()
    assert issue(directory, "ghost", "--token-only") == 3


def test_what_cannot_be_done_has_its_exit_code(directory: Path) -> None:
    assert ca(directory, "revoke", "orders", "--reason", "boredom").returncode == 3
    assert ca(directory, "revoke", "orders", "--serial", "77").returncode == 3
    assert issue(directory, "orders", "--renew") == 4
    (directory / "state" / "ca" / "record.sqlite").write_bytes(b"garbage" * 1000)
    assert ca(directory, "token", "orders").returncode == 7
    (directory / "state" / "ca" / "issuing.key").chmod(0o644)
    assert ca(directory, "status").returncode == 4


def test_the_spiffe_bundle_has_a_sequence(directory: Path) -> None:
    assert ca(directory, "bundle").returncode == 4
    assert ca(directory, "status").returncode == 0
    document = json.loads(ca(directory, "bundle").stdout)
    assert (document["spiffe_sequence"], [key["use"] for key in document["keys"]]) == (1, ["x509-svid"])
    assert ca(directory, "bundle", "--pem").stdout.count("BEGIN CERTIFICATE") == 4
