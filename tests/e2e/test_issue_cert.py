"""`issue-cert.py` as its caller sees it: exit codes, five lines, files. Attack ids are those of the attack list."""

from __future__ import annotations

import io
import json
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID

from edge.cli.issue import main
from pki.io_keys import make_ec
from pki.tlog.io_reader import LogReader
from tests.pki import syscalls
from tests.pki.founding import found_authority

ROOT = Path(__file__).resolve().parents[2]
EDGE = 'trust_domain: mesh.internal\nlisteners:\n  public: {bind: "127.0.0.1:0", hosts: [localhost]}\n'
SERVICES = 'services:\n  orders: {dns: [orders.internal, o.internal], may_serve: ["/orders/**"]}\n'
FILES = ["bundle.pem", "cert.pem", "chain.pem", "identity.json", "issuance.tlog-proof", "key.pem"]

Run = Callable[..., int]


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("prepared") / "home"
    (home / "policies").mkdir(parents=True)
    (home / "state").mkdir(mode=0o700)
    (home / "edge.yaml").write_text(EDGE)
    (home / "policies" / "services.yaml").write_text(SERVICES)
    found_authority(home / "state" / "ca", datetime.now(UTC))
    return home


@pytest.fixture
def home(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("EDGE_CONFIG", raising=False)
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    return shutil.copytree(prepared, tmp_path / "home")


@pytest.fixture
def run(home: Path) -> Run:
    return lambda *arguments: main(["-c", str(home / "edge.yaml"), *map(str, arguments)])


def last_leaf(home: Path) -> dict[str, object]:
    leaf: dict[str, object] = json.loads(LogReader(home / "state" / "ca" / "log").latest(1)[0][1])
    return leaf


def test_five_lines_six_files_exit_0(home: Path, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("orders", "--dns", "orders.internal") == 0
    out, err = capsys.readouterr()
    issued = home / "state" / "issued" / "orders"
    assert [line.split()[:2] for line in err.splitlines()] == [
        ["[1/5]", "policy"],
        ["[2/5]", "key"],
        ["[3/5]", "recorded"],
        ["[4/5]", "signed"],
        ["[5/5]", "verified"],
    ]
    assert err.splitlines()[0].endswith("orders -> spiffe://mesh.internal/svc/orders  (routes: /orders/**)")
    assert (sorted(os.listdir(issued)), out.startswith(str(issued))) == (FILES, True)
    assert (issued / "bundle.pem").read_text().count("BEGIN") == 4  # root, svc, gw, op
    assert {stat.S_IMODE((issued / "key.pem").stat().st_mode), stat.S_IMODE(issued.stat().st_mode)} == {0o600, 0o700}
    key = load_pem_private_key((issued / "key.pem").read_bytes(), None)
    assert x509.load_pem_x509_certificate((issued / "cert.pem").read_bytes()).public_key() == key.public_key()


def test_json_is_one_object_and_quiet_is_quiet(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("orders", "--json", "-q") == 0
    out, err = capsys.readouterr()
    facts = json.loads(out)
    assert err == ""
    assert facts["names"] == ["spiffe://mesh.internal/svc/orders", "orders.internal", "o.internal"]
    assert (facts["outcome"], len(facts["root_sha256"])) == ("issued", 64)


def test_if_needed_issues_once_and_again_when_names_change(run: Run, home: Path) -> None:
    serial = home / "state" / "issued" / "orders" / "cert.pem"
    assert run("orders", "--if-needed", "-q") == 0
    first = serial.read_bytes()
    assert run("orders", "--if-needed", "-q") == 0
    assert serial.read_bytes() == first
    assert run("orders", "--if-needed", "-q", "--dns", "o.internal") == 0
    assert serial.read_bytes() != first


def test_exit_5_an_existing_directory_is_kept_unless_forced(run: Run, home: Path) -> None:
    assert run("orders", "-q") == 0
    first = (home / "state" / "issued" / "orders" / "cert.pem").read_bytes()
    assert run("orders", "-q") == 5
    assert (home / "state" / "issued" / "orders" / "cert.pem").read_bytes() == first
    assert run("orders", "-q", "--force") == 0


@pytest.mark.parametrize("how", ["--force", "--if-needed"])
def test_exit_5_a_directory_of_other_things_is_never_replaced(
    run: Run, home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], how: str
) -> None:
    """It would be deleted, with all that is in it."""
    (tmp_path / "alice" / "letters").mkdir(parents=True)
    before = (home / "state" / "ca" / "log.head").read_bytes()
    assert run("orders", "-q", how, "--out", tmp_path / "alice") == 5
    assert "holds 'letters', which would be deleted; choose a directory for this alone" in capsys.readouterr().err
    assert os.listdir(tmp_path / "alice") == ["letters"]
    assert (home / "state" / "ca" / "log.head").read_bytes() == before  # nothing was signed


@pytest.mark.parametrize(
    ("arguments", "rule"),
    [
        (["pay"], "unknown-service"),
        (["orders", "--dns", "orders.example"], "name-space"),
        (["orders", "--dns", "pay.internal"], "dns-not-granted"),
        (["orders", "--ttl", "8d"], "ttl"),
        (["orders", "--ttl", "10s"], "ttl"),
        (["Orders"], "service-name"),
        (["../ca"], "service-name"),
        (["bob", "--role", "operator", "--dns", "*.internal"], "dns-name"),
    ],
)
def test_exit_3_and_the_refusal_is_recorded(
    run: Run, home: Path, arguments: list[str], rule: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*arguments) == 3
    leaf = last_leaf(home)
    assert (leaf["event.action"], leaf["event.reason"]) == ("pki.refused", rule)
    assert not (home / "state" / "issued" / arguments[0]).exists()
    assert capsys.readouterr().out == ""


def test_an_unknown_service_shows_the_lines_that_grant_it(
    run: Run, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("pay") == 3
    lines = capsys.readouterr().err.splitlines()[-4:]
    assert lines[0] == "services:"
    (home / "policies" / "services.yaml").write_text("\n".join(lines) + "\n")
    assert run("pay", "-q") == 0


def test_a_suffix_outside_names_the_allowed_ones(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("orders", "--dns", "orders.example") == 3
    assert ".internal, .mesh.internal" in capsys.readouterr().err


@pytest.mark.parametrize(("role", "path"), [("gateway", "gw"), ("operator", "op")])
def test_other_roles_need_no_grant_and_go_elsewhere(run: Run, home: Path, role: str, path: str) -> None:
    assert run("orders", "--role", role, "-q") == 0
    facts = json.loads((home / "state" / "issued" / f"{role}-orders" / "identity.json").read_text())
    assert facts["spiffe_id"] == f"spiffe://mesh.internal/{path}/orders"


def test_a_gateway_gets_its_listeners_certificate_too(run: Run, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("edge-b", "--role", "gateway") == 0
    assert "public    localhost" in capsys.readouterr().err
    issued = home / "state" / "issued" / "gateway-edge-b"
    public = ["public-chain.pem", "public-issuance.tlog-proof", "public-key.pem"]
    assert sorted(os.listdir(issued)) == sorted(FILES + public)
    assert (issued / "bundle.pem").read_text().count("BEGIN") == 4  # root, svc, gw, op
    assert run("edge-b", "--role", "gateway", "--if-needed") == 0
    assert "still fresh" in capsys.readouterr().out
    (home / "edge.yaml").write_text(EDGE.replace("[localhost]", "[localhost, new.example]"))
    assert run("edge-b", "--role", "gateway", "--if-needed") == 3  # the `edge` intermediate does not cover it yet
    assert "new.example" in capsys.readouterr().err


def test_a_listener_with_its_own_certificate_gets_none(run: Run, home: Path) -> None:
    (home / "edge.yaml").write_text(EDGE.replace("[localhost]", "[localhost], tls: {certificate: a.pem, key: b.pem}"))
    assert run("edge-b", "--role", "gateway", "-q") == 0
    assert sorted(os.listdir(home / "state" / "issued" / "gateway-edge-b")) == FILES


def test_the_first_gateways_name_is_taken(run: Run, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("edge", "--role", "gateway") == 3
    assert "its own name" in capsys.readouterr().err
    assert last_leaf(home)["event.reason"] == "gateway-name"


def test_exit_4_wrong_passphrase_open_files_missing_authority(run: Run, home: Path) -> None:
    wrong = home / "wrong"
    wrong.write_text("wrong\n")
    wrong.chmod(0o600)
    assert run("orders", "--passphrase-file", wrong) == 4
    for descriptor in ("999", "-1", str(1 << 40)):
        assert run("orders", "--passphrase-fd", descriptor) == 4
    (home / "state" / "ca" / "issuing.passphrase").chmod(0o644)
    assert run("orders") == 4
    (home / "state" / "ca" / "issuing.passphrase").unlink()
    assert run("orders") == 4
    (home / "state" / "ca").rename(home / "gone")
    assert run("orders") == 4
    assert main(["orders", "-c", str(home / "none.yaml")]) == 4


def test_exit_4_with_an_outside_authority_or_a_broken_file(
    run: Run, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outside = "identity: {certificate: a.pem, key: b.pem, bundle: c.pem}\n"
    (home / "edge.yaml").write_text(EDGE + outside)
    assert run("orders") == 4
    (home / "edge.yaml").write_text(EDGE)
    (home / "policies" / "services.yaml").write_text("services:\n  orders: {may_serv: []}\n")
    assert run("orders") == 4
    assert "services.yaml:2:12: unknown-key" in capsys.readouterr().err


def test_exit_4_P56_a_link_in_the_place_of_the_output(run: Run, home: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    assert run("orders", "--out", tmp_path / "link", "--force") == 4
    assert run("orders", "--out", tmp_path / "missing" / "orders") == 4
    assert os.listdir(tmp_path / "elsewhere") == []
    assert run("orders", "--out", tmp_path / "orders", "-q") == 0
    assert last_leaf(home)["event.action"] == "pki.issued"


def request(tmp_path: Path, cn: str = "orders") -> Path:
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, cn)])
    made = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(make_ec("p256"), SHA256())
    path = tmp_path / "request.pem"
    path.write_bytes(made.public_bytes(Encoding.PEM))
    return path


def test_a_signing_request_brings_its_own_key(run: Run, home: Path, tmp_path: Path) -> None:
    assert run("orders", "--csr", request(tmp_path), "-q") == 0
    assert sorted(os.listdir(home / "state" / "issued" / "orders")) == [name for name in FILES if name != "key.pem"]


def test_exit_6_P34_a_bad_signing_request(run: Run, home: Path, tmp_path: Path) -> None:
    assert run("orders", "--csr", request(tmp_path, "pay")) == 6
    assert last_leaf(home)["event.reason"] == "csr-names"
    assert run("orders", "--csr", tmp_path / "none") == 6
    assert not (home / "state" / "issued").exists()


def test_exit_7_P59_nothing_is_handed_out_unrecorded(run: Run, home: Path) -> None:
    (home / "state" / "ca" / "record.sqlite").write_bytes(b"garbage" * 999)
    assert run("orders", "-q") == 7
    assert not (home / "state" / "issued" / "orders").exists()


@pytest.mark.skipif(not syscalls.IS_KNOWN, reason="knows the system calls of Linux on x86-64 only")
def test_exit_7_P54_a_full_disk_leaves_nothing_half_written(run: Run, home: Path, tmp_path: Path) -> None:
    """Full from any change on: own exit codes, what to do, no half of a directory, and all is well when there is room."""
    whole = shutil.copytree(home, tmp_path / "whole")
    changes = len(syscalls.run(lambda: finished(whole)))
    codes = set()
    for at in range(os.getpid() % 20, changes - 1, 20):  # another sample each time
        place = shutil.copytree(home, tmp_path / f"full-{at}")
        code = syscalls.run_out_of_room(lambda place=place: finished(place), at)  # type: ignore[misc]
        issued = place / "state" / "issued" / "orders"
        codes.add(code)
        assert code in (0, 4, 7), at
        assert (sorted(path.name for path in issued.iterdir()) == FILES) if issued.exists() else code != 0
        assert main(["orders", "-q", "--force", "-c", str(place / "edge.yaml")]) == 0
        assert sorted(path.name for path in issued.iterdir()) == FILES
    assert 7 in codes


def finished(home: Path) -> None:
    """In a child, which complains to descriptor 2, where there is always room."""
    with open(2, "w", closefd=False) as sys.stderr:
        sys.stdout = sys.stderr
        sys.exit(main(["orders", "-q", "-c", str(home / "edge.yaml")]))


def test_P54_P59_what_to_do_is_said(run: Run, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (home / "state" / "ca" / "record.sqlite").write_bytes(b"garbage" * 999)
    assert run("orders", "-q") == 7
    assert "nothing was handed out" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("key", "rule"),
    [(rsa.generate_private_key(65537, 1024), "P-256"), (ec.generate_private_key(ec.SECP192R1()), "P-256")],
    ids=["RSA-1024", "P-192"],
)
def test_exit_6_P19_a_weak_key_is_not_certified(
    run: Run, home: Path, tmp_path: Path, key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey, rule: str,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    asked = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, SHA256())
    (tmp_path / "weak.pem").write_bytes(asked.public_bytes(Encoding.PEM))
    assert run("orders", "--csr", tmp_path / "weak.pem") == 6
    assert rule in capsys.readouterr().err
    assert last_leaf(home)["event.reason"] == "csr-key"
    assert not (home / "state" / "issued" / "orders").exists()


@pytest.mark.parametrize(
    "extension",
    [
        x509.BasicConstraints(ca=True, path_length=None),
        x509.ExtendedKeyUsage([ExtendedKeyUsageOID.OCSP_SIGNING]),
        x509.NameConstraints([x509.DNSName("com")], None),
    ],
    ids=["CA:TRUE", "OCSPSigning", "names"],
)
def test_exit_6_P34_a_request_for_more_than_names(
    run: Run, home: Path, tmp_path: Path, extension: x509.ExtensionType
) -> None:
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    asked = builder.add_extension(extension, critical=True).sign(make_ec("p256"), SHA256())
    (tmp_path / "more.pem").write_bytes(asked.public_bytes(Encoding.PEM))
    assert run("orders", "--csr", tmp_path / "more.pem") == 6
    assert last_leaf(home)["event.reason"] == "csr-extension"
    assert not (home / "state" / "issued" / "orders").exists()


def test_exit_8_what_does_not_verify_is_not_handed_out(run: Run, home: Path, tmp_path: Path) -> None:
    secrets = {"root": b"r", "issuing": b"i"}
    other = tmp_path / "other"
    found_authority(other, datetime.now(UTC), suffixes=["a"], hosts=["a"], secrets=secrets, unattended=())
    shutil.copy(other / "root.pem", home / "state" / "ca" / "root.pem")
    assert run("orders", "-q") == 8
    assert last_leaf(home)["event.action"] == "pki.revoked"
    assert not (home / "state" / "issued" / "orders").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["orders", "--ttl", "soon"],
        ["orders", "--ttl", "0h"],
        ["orders", "--role", "root"],
        ["orders", "--key-type", "rsa"],
        ["orders", "--csr", "a", "--key-type", "p256"],
        ["orders", "--unknown"],
        ["orders", "-q", "-v"],
    ],
)
def test_exit_2_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(arguments)
    assert (left.value.code, "usage: issue-cert.py" in capsys.readouterr().err) == (2, True)


def test_a_dry_run_signs_and_writes_nothing(run: Run, home: Path) -> None:
    before = last_leaf(home)
    assert run("orders", "--dry-run") == 0
    assert run("orders", "--dry-run", "--ttl", "9d") == 3
    assert not (home / "state" / "issued").exists()
    assert before["event.action"] == "pki.issued"


def test_no_secret_is_ever_printed(run: Run, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("orders", "-v", "--json") == 0
    out, err = capsys.readouterr()
    key = (home / "state" / "issued" / "orders" / "key.pem").read_text().splitlines()[1]
    assert key not in out + err
    assert "issuing\n" not in out + err
    assert "sha256:" in err


def test_the_script_runs_by_itself(home: Path) -> None:
    script = ROOT / "scripts" / "issue-cert.py"
    environ = {"PATH": os.environ["PATH"], "EDGE_CONFIG": str(home / "edge.yaml")}
    done = subprocess.run(
        [sys.executable, str(script), "orders"], capture_output=True, text=True, env=environ, cwd=home, check=False
    )
    assert (done.returncode, done.stderr.count("/5]")) == (0, 5)
    assert len(script.read_text().splitlines()) <= 30
