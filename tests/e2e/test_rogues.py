"""The rogues, one by one, over real sockets: the attacks P of `SECURITY.md`, each named after its id.

At a service's address: the caller gets 502, whoever answered got not one byte of the request, the log names the rule. At the
listeners for services: not one byte of an answer, and the rule in the log. At the authority: no certificate, and a leaf in
its own log. The gateway trusts its own authority, and a thief holds the keys of that.
"""

from __future__ import annotations

import base64
import os
import re
import resource
import signal
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from hashlib import sha256
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

from pki import desk
from pki.errors import PkiError
from pki.io_keys import make_ec
from pki.io_rows import Intent, Rows
from tests.e2e.rogue_cases import CASES
from tests.e2e.rogue_rig import Rogues
from tests.e2e.test_ca import ca
from tests.e2e.test_est import EST, enrol
from tests.e2e.thief import ORDERS
from tests.e2e.whole_gateway import ROOT, eventually, issue_while_serving, run
from tests.wire.rig import Client
from tests.wire.test_doors import GATEWAY_NAME

ELSEWHERE = {
    "P26": "tests/e2e/test_revocation.py::test_P26_P27_who_hears_the_authority_no_more_dials_nobody",
    "P27": "tests/e2e/test_revocation.py::test_P26_P27_who_hears_the_authority_no_more_dials_nobody",
    "P28": "tests/e2e/test_revocation.py::test_P28_a_set_from_before_is_refused",
    "P29": "tests/wire/test_doors.py::test_no_session_can_be_resumed_past_a_revocation_P29",
    "P30": "tests/e2e/test_revocation.py::test_P24_P30_who_is_revoked_is_cut_everywhere_and_nobody_else",
    "P31": "tests/e2e/test_est.py::test_P31_of_100_replays_at_once_exactly_one_has_a_certificate",
    "P32": "tests/e2e/test_est.py::test_P32_what_is_no_token_of_that_name_gives_nothing",
    "P40": "tests/e2e/test_attacks_upstream.py::test_a_plaintext_service_gets_no_request_P40",
    "P41": "tests/e2e/test_attacks_upstream.py::test_the_service_itself_gets_nothing_while_it_lets_anybody_in_P41",
    "P42": "tests/e2e/test_attacks_upstream.py::test_a_service_of_tls_12_only_gets_nothing_P42",
    "P44": "tests/e2e/test_attacks_upstream.py::test_hosts_and_names_of_the_caller_pick_no_upstream_P44",
    "P45": "tests/e2e/test_attacks_upstream.py::test_redirects_and_alternatives_are_not_followed_P45",
    "P46": "tests/e2e/test_attacks_upstream.py::test_the_environment_diverts_nothing_P46_P47",
    "P47": "tests/e2e/test_attacks_upstream.py::test_the_environment_diverts_nothing_P46_P47",
    "P56": "tests/e2e/test_issue_cert.py::test_exit_4_P56_a_link_in_the_place_of_the_output",
}
"""What needs another stage than this one."""
IDS = [f"P{number:02}" for number in (*range(1, 48), *range(53, 60))]


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rogues]:
    rogues = Rogues(tmp_path_factory.mktemp("rogues") / "edge")
    yield rogues
    assert rogues.gateway.stop() == 0


def test_the_list_is_complete() -> None:
    here = Path(__file__).read_text()
    security = (ROOT / "SECURITY.md").read_text()
    for attack in IDS:
        if attack in ELSEWHERE:
            file, _, name = ELSEWHERE[attack].partition("::")
            assert f"def {name}(" in (ROOT / file).read_text(), attack
        else:
            assert any(attack in case for case in CASES) or re.search(rf"def test_\w*{attack}", here), attack
        row = re.search(rf"^\| {attack} \|.*$", security, re.M)
        assert row is not None, attack
        assert ELSEWHERE.get(attack, "tests/e2e/test_rogues.py") in row[0], attack


# -- certificates ------------------------------------------------------------------------------------


@pytest.mark.parametrize("rogue", CASES)
def test_a_certificate_that_proves_nothing_gets_nothing(rig: Rogues, tmp_path: Path, rogue: str) -> None:
    case = CASES[rogue]
    pair = case.make(rig.thief)
    found = (
        case.upstream and rig.upstream_rule(tmp_path, pair),
        case.client and rig.client_rule(tmp_path, pair),
    )
    assert found == (case.upstream, case.client)


def test_who_was_certified_a_moment_ago_is_known_at_his_first_handshake(rig: Rogues) -> None:
    for _ in range(3):
        issue_while_serving(rig.gateway.directory, "orders")
        with rig.present("orders"):
            assert rig.answered() == (200, "")


@pytest.mark.parametrize("name", ["P22", "P23"])
def test_what_does_not_belong_together_is_not_loaded_P22_P23(rig: Rogues, tmp_path: Path, name: str) -> None:
    """P22: the key of another certificate. P23: somebody's leaf among the anchors, who then comes with it."""
    identity = rig.gateway.directory / "state" / "identity" / "gateway"
    self_signed = rig.thief.double(rig.thief.leaf())
    changed = identity / {"P22": "key.pem", "P23": "bundle.pem"}[name]
    before = changed.read_bytes()
    other = (rig.gateway.directory / "orders" / "key.pem").read_bytes()
    changed.write_bytes({"P22": other, "P23": before + self_signed.pem}[name])
    try:
        assert run("reload", "-c", rig.gateway.directory / "edge.yaml").returncode == 1
        assert rig.upstream_rule(tmp_path, rig.thief.chain(self_signed)) == "chain-untrusted"
        with rig.present("orders"):
            assert rig.answered() == (200, "")  # as before
    finally:
        changed.write_bytes(before)
        assert run("reload", "-c", rig.gateway.directory / "edge.yaml").returncode == 0


def test_P24_who_is_revoked_gets_nothing_with_what_was_good_a_moment_ago(rig: Rogues, tmp_path: Path) -> None:
    issue_while_serving(rig.gateway.directory, "orders")
    with rig.present("orders"):
        assert rig.answered() == (200, "")
    pair = rig.pair("orders")
    rig.revoke(pair)
    assert (rig.upstream_rule(tmp_path, pair), rig.client_rule(tmp_path, pair)) == ("revoked", "revoked")


def test_P43_an_address_that_changes_hands_changes_nothing_about_who_must_answer(rig: Rogues, tmp_path: Path) -> None:
    issue_while_serving(rig.gateway.directory, "orders")
    issue_while_serving(rig.gateway.directory, "pay")
    with rig.present("orders"):
        assert rig.answered() == (200, "")
    assert rig.upstream_rule(tmp_path, rig.pair("pay")) == "spiffe-id"
    with rig.present("orders"):
        assert rig.answered() == (200, "")


# -- enrolment ---------------------------------------------------------------------------------------


def token(rig: Rogues) -> str:
    made = rig.operator(desk.MakeToken("svc", "orders", ("orders.internal",), 86_400, 600, "test"))
    assert isinstance(made, desk.TokenMade)
    return made.text


def request(key: ec.EllipticCurvePrivateKey, *names: str, cn: str = "", is_ca: bool = False) -> bytes:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, cn)] if cn else [])
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(list(map(x509.DNSName, names))), critical=False)
    if is_ca:
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    return builder.sign(key, SHA256()).public_bytes(Encoding.DER)


def enrolled(rig: Rogues, credentials: str, signing_request: bytes) -> tuple[int, object]:
    """The status, and what the authority's log says of it; never a certificate unless it is 200."""
    before = len(rig.ca_leaves())
    body = base64.b64encode(signing_request)
    status = enrol(rig.gateway.ports["enrol"], rig.ca / "root.pem", credentials, body)
    new = [leaf for leaf in rig.ca_leaves()[before:] if leaf["event.action"] != "pki.intent"]
    assert [leaf["event.action"] for leaf in new] == ["pki.issued" if status == 200 else "pki.refused"]
    return status, new[0].get("event.reason")


def renewed(client: Client, signing_request: bytes) -> int:
    """The status of `simplereenroll`."""
    body = base64.b64encode(signing_request)
    head = f"POST {EST}/simplereenroll HTTP/1.1\r\nHost: {GATEWAY_NAME}\r\nContent-Type: application/pkcs10\r\n"
    return client.send(head.encode() + b"Content-Length: %d\r\n\r\n" % len(body) + body).answer().status


def test_P33_a_token_past_its_end_gives_nothing(rig: Rogues) -> None:
    text = token(rig)
    with sqlite3.connect(rig.ca / "record.sqlite") as rows:
        assert rows.execute("UPDATE token SET expires_at = expires_at - 601 WHERE spent_at IS NULL").rowcount
    rows.close()
    assert enrolled(rig, f"orders:{text}", request(make_ec("p256"))) == (401, "token")


def broken(signing_request: bytes) -> bytes:
    return signing_request[:-1] + bytes((signing_request[-1] ^ 1,))


@pytest.mark.parametrize(
    ("make", "status", "reason"),
    [
        (lambda rig: request(make_ec("p256"), is_ca=True), 400, "csr-extension"),
        (lambda rig: request(make_ec("p256"), "pay.internal"), 400, "csr-names"),
        (lambda rig: request(make_ec("p256"), cn="pay"), 400, "csr-names"),
        (lambda rig: broken(request(make_ec("p256"))), 400, "csr-signature"),
        (lambda rig: request(rig.thief.svc.key), 403, "key-reuse"),
        (lambda rig: request(rig.pair("pay").key), 403, "key-reuse"),
    ],
    ids=["P34-a-ca", "P34-other-name", "P34-other-cn", "P35-signature", "P36-the-authority-s-key", "P36-another-s-key"],
)
def test_a_request_for_more_gives_nothing_and_spends_nothing_E2_P34_P35_P36(
    rig: Rogues, make: Callable[[Rogues], bytes], status: int, reason: str
) -> None:
    issue_while_serving(rig.gateway.directory, "pay")
    text = token(rig)
    assert enrolled(rig, f"orders:{text}", make(rig)) == (status, reason)
    assert enrolled(rig, f"orders:{text}", request(make_ec("p256"))) == (200, None)


def test_P37_what_is_revoked_or_has_ended_is_not_even_asked_what_it_wants(rig: Rogues, tmp_path: Path) -> None:
    ended = rig.thief.chain(
        rig.thief.leaf(not_before=rig.thief.now - timedelta(days=2), not_after=rig.thief.now - timedelta(days=1))
    )
    revoked = rig.pair("orders")
    rig.revoke(revoked)
    before = len(rig.ca_leaves())
    assert (rig.client_rule(tmp_path, ended), rig.client_rule(tmp_path, revoked)) == ("expired", "revoked")
    assert len(rig.ca_leaves()) == before
    issue_while_serving(rig.gateway.directory, "orders")


def test_P38_P39_a_renewal_keeps_its_names_and_a_flood_of_them_is_cut_off(rig: Rogues) -> None:
    before = len(rig.ca_leaves())
    with Client(rig.door("services", rig.gateway.directory / "old"), GATEWAY_NAME) as client:
        assert renewed(client, request(make_ec("p256"), "pay.internal")) == 400
        flood = [renewed(client, request(make_ec("p256"), "orders.internal")) for _ in range(22)]
    assert flood == [200] * 20 + [429] * 2
    new = [leaf for leaf in rig.ca_leaves()[before:] if leaf["event.action"] != "pki.intent"]
    assert [leaf.get("event.reason") for leaf in new] == ["csr-names", *[None] * 20, *["too-many"] * 2]


# -- the authority's host ----------------------------------------------------------------------------


def kill_authority(rig: Rogues) -> None:
    """kill -9 of the process that signs; returns when another is there."""
    process = rig.gateway.children()["edge-ca"]
    os.kill(process, signal.SIGKILL)
    eventually(lambda: rig.gateway.children().get("edge-ca") not in (None, process), 10)


def certify(rig: Rogues) -> desk.Reply:
    key = make_ec("p256").public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return rig.operator(desk.Issue("svc", "orders", key, ("orders.internal",), (), 86_400, "test"))


def refuses_to_certify(rig: Rogues) -> bool:
    try:
        certify(rig)
    except PkiError:
        return True
    return False


def test_P53_what_a_kill_left_between_record_and_signature_is_revoked(rig: Rogues, tmp_path: Path) -> None:
    leaf = rig.thief.leaf(serial=0x5353)  # signed, and handed to somebody; of its record only the intent is there
    spki = rig.thief.svc.key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    ends = leaf.certificate.not_valid_after_utc
    intent = Intent(0x5353, sha256(spki).hexdigest(), "svc", "orders", [ORDERS], "00" * 32, ends, "test")
    rows = Rows.open(rig.ca / "record.sqlite")
    rows.intend(intent, rig.thief.now, None)
    rows.close()
    pair = rig.thief.chain(leaf)
    assert rig.upstream_rule(tmp_path, pair) == "not-in-issuance-record"
    kill_authority(rig)
    eventually(lambda: rig.upstream_rule(tmp_path, pair) == "revoked", 10)
    assert rig.client_rule(tmp_path, pair) == "revoked"
    (said,) = (each for each in rig.ca_leaves() if each.get("pki.serial") == "5353")
    assert (said["event.action"], said["event.reason"]) == ("pki.revoked", "no-outcome")


def test_P54_P59_a_disk_that_is_full_gives_no_certificate_and_stops_no_request(rig: Rogues) -> None:
    issued = len(rig.issued())
    process = rig.gateway.children()["edge-ca"]
    resource.prlimit(process, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))  # rows, log, and all else it writes
    assert refuses_to_certify(rig)
    assert len(rig.issued()) == issued
    with rig.present("orders"):
        assert rig.answered() == (200, "")
    kill_authority(rig)
    eventually(lambda: not refuses_to_certify(rig), 20)
    rig.log_is_sound()


def test_P55_keys_that_others_can_read_are_not_used(rig: Rogues) -> None:
    keys = rig.ca / "issuing.key"
    keys.chmod(0o644)
    try:
        kill_authority(rig)
        assert refuses_to_certify(rig)
    finally:
        keys.chmod(0o600)
    kill_authority(rig)
    eventually(lambda: not refuses_to_certify(rig), 20)


def test_P57_many_at_once_are_certified_one_after_the_other(rig: Rogues) -> None:
    before = len(rig.issued())
    with ThreadPoolExecutor(8) as many:
        replies = list(many.map(lambda _: certify(rig), range(16)))
    serials = {reply.issued.serial_hex for reply in replies if isinstance(reply, desk.Certified)}
    logged = [leaf["pki.serial"] for leaf in rig.issued()[before:]]
    assert (len(serials), set(logged), len(logged)) == (16, serials, 16)
    rig.log_is_sound()


def test_P58_a_clock_that_was_set_back_is_on_the_record(rig: Rogues) -> None:
    with sqlite3.connect(rig.ca / "record.sqlite") as rows:
        rows.execute(
            "UPDATE issuance SET requested_at = requested_at + 86400 WHERE id = (SELECT max(id) FROM issuance)"
        )
    rows.close()
    kill_authority(rig)
    eventually(lambda: any(leaf.get("event.reason") == "clock-stepped-back" for leaf in rig.ca_leaves()), 10)
    eventually(lambda: not refuses_to_certify(rig), 20)


# -- the end of the authority as it was --------------------------------------------------------------


def test_P25_whatever_a_revoked_intermediate_signed_is_refused(rig: Rogues, tmp_path: Path) -> None:
    issue_while_serving(rig.gateway.directory, "orders")
    with rig.present("orders"):
        assert rig.answered() == (200, "")
    pair = rig.pair("orders")
    directory = rig.gateway.directory
    assert ca(directory, "rotate", "intermediate").returncode == 1
    assert ca(directory, "rotate", "intermediate", "--force").returncode == 1
    done = ca(directory, "revoke", "svc", "--role", "intermediate", "--reason", "keyCompromise")
    assert done.returncode == 0, done.stderr
    with rig.present("orders"):
        eventually(lambda: rig.answered() == (502, "revoked"), 10)
    assert (rig.upstream_rule(tmp_path, pair), rig.client_rule(tmp_path, pair)) == ("revoked", "revoked")
    assert rig.client_rule(tmp_path, rig.thief.chain(rig.thief.leaf())) == "revoked"
