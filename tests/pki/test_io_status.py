"""What the authority publishes about what it revoked."""

from __future__ import annotations

import shutil
import subprocess
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from pki import io_status, svid
from pki.bundle import Bundle
from pki.crl import REASONS
from pki.errors import AuthorityLocked, IssueRefused, SvidRejected
from pki.io_authority import Authority, Issued
from pki.io_enrol import Grants, enrol, make_token
from pki.io_keys import Passphrases, make_ec
from pki.io_status import Publisher
from pki.issue import IssueRequest
from pki.revocation import Heartbeat, RevocationSet
from tests.pki.test_io_enrol import request


@pytest.fixture
def publisher(authority: Authority, state: Path) -> Publisher:
    return Publisher(authority, state / "status")


def issue(authority: Authority, now: datetime, name: str = "orders") -> Issued:
    return authority.issue(IssueRequest("svc", name, make_ec("p256").public_key()), now)


def revoke(authority: Authority, now: datetime, name: str = "orders", serial: int | None = None) -> list[int]:
    revoked = io_status.revoke(authority, "svc", name, now, reason="keyCompromise", serial=serial, requester="test")
    return [each.serial for each in revoked]


def published(state: Path, authority: Authority, now: datetime) -> tuple[RevocationSet, Heartbeat]:
    anchors = [root.public_bytes(Encoding.DER) for root in authority.roots]
    raw_set, raw_beat = ((state / "status" / name).read_bytes() for name in ("revocation.json", "heartbeat.json"))
    return (
        RevocationSet.parse(raw_set, anchors=anchors, trust_domain="mesh.internal", now=now),
        Heartbeat.parse(raw_beat, anchors=anchors, trust_domain="mesh.internal", now=now),
    )


def test_the_number_grows_with_each_change_and_only_then(
    authority: Authority, publisher: Publisher, now: datetime
) -> None:
    first = publisher.publish(now)
    assert publisher.publish(now + timedelta(minutes=1)) == first
    issue(authority, now)
    assert publisher.publish(now).number == first.number
    revoke(authority, now)
    second = publisher.publish(now)
    assert second.supersedes(first)
    assert publisher.publish(now + timedelta(days=2)).entries == ()  # it has ended


def test_P24_a_gateway_that_reads_it_refuses_the_certificate(
    authority: Authority, publisher: Publisher, state: Path, now: datetime
) -> None:
    issued, other = issue(authority, now), issue(authority, now, "pay")
    assert revoke(authority, now) == [issued.serial]
    publisher.publish(now)
    publisher.beat(now)
    newest, beat = published(state, authority, now)
    assert beat.vouches_for(newest, now)
    bundle = Bundle.parse(authority.bundle_pem(roles=("svc",)))
    for each, refused in ((issued, True), (other, False)):
        arguments = {"anchors": bundle.anchors, "expected_id": each.spiffe_id, "usage": "server", "now": now}
        chain = [each.leaf, *bundle.intermediates]
        if refused:
            with pytest.raises(SvidRejected, match="revoked"):
                svid.verify(chain, revoked=newest.revoked, **arguments)  # type: ignore[arg-type]
        else:
            svid.verify(chain, revoked=newest.revoked, **arguments)  # type: ignore[arg-type]


def test_a_heartbeat_is_never_older_than_the_one_before_unless_the_clock_was_set_back(
    authority: Authority, publisher: Publisher, state: Path, now: datetime
) -> None:
    """A moment from before a long piece of work would be refused as a rollback, and recorded as an attack."""
    publisher.publish(now)
    said = []
    for moment in (now, now - timedelta(seconds=5), now - timedelta(hours=1)):
        publisher.beat(moment)
        said.append(published(state, authority, now)[1].at - int(now.timestamp()))
    assert said == [0, 0, -3600]


def test_a_restart_goes_on_from_what_was_published(
    authority: Authority, publisher: Publisher, state: Path, now: datetime
) -> None:
    first = publisher.publish(now)
    assert Publisher(authority, state / "status").publish(now) == first
    (state / "status" / "revocation.json").unlink()
    assert Publisher(authority, state / "status").publish(now).number == first.number + 1
    (state / "status" / "revocation.json").write_bytes(first.raw)  # somebody put the old one back
    assert Publisher(authority, state / "status").publish(now).number == first.number + 2


def test_one_serial_or_all_and_the_tokens_with_them(authority: Authority, now: datetime) -> None:
    one, two = issue(authority, now), issue(authority, now)
    token = make_token(authority, "svc", "orders", (), now, ttl=timedelta(minutes=5))[0]
    assert revoke(authority, now, serial=one.serial) == [one.serial]
    assert revoke(authority, now) == [two.serial]
    assert revoke(authority, now) == []
    with pytest.raises(IssueRefused, match="token"):
        enrol(authority, Grants({"orders": ("orders.internal",)}), "", token, request(), now)


def test_what_cannot_be_revoked_is_said(authority: Authority, now: datetime) -> None:
    other = issue(authority, now, "pay")
    with pytest.raises(IssueRefused, match="nothing-to-revoke"):
        revoke(authority, now, serial=other.serial)
    with pytest.raises(IssueRefused, match="reason"):
        io_status.revoke(authority, "svc", "pay", now, reason="certificateHold", serial=None, requester="test")
    assert "keyCompromise" in REASONS


def test_an_interrupted_issuance_is_in_the_set(
    authority: Authority, publisher: Publisher, now: datetime, state: Path
) -> None:
    issued = issue(authority, now)
    authority.record.revoked(issued.number, issued.serial, "not-handed-out", now)
    assert [int(each.serial, 16) for each in publisher.publish(now).entries] == [issued.serial]


def test_standard_lists_say_the_same(
    authority: Authority, publisher: Publisher, passphrases: Passphrases, state: Path, now: datetime
) -> None:
    issued = issue(authority, now)
    publisher.publish(now)
    paths = sorted((state / "status" / "crl").iterdir())
    assert [path.name.partition("-")[0] for path in paths] == ["edge", "gw", "op", "svc"]
    before = {path: path.read_bytes() for path in paths}
    revoke(authority, now)
    publisher.publish(now)
    changed = [path for path in paths if path.read_bytes() != before[path]]
    assert [path.name.partition("-")[0] for path in changed] == ["svc"]
    old, new = (x509.load_der_x509_crl(raw) for raw in (before[changed[0]], changed[0].read_bytes()))
    numbers = [each.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number for each in (old, new)]
    found = new.get_revoked_certificate_by_serial_number(issued.serial)
    assert numbers[0] < numbers[1]
    assert new.is_signature_valid(authority.signers["svc"][0].public_key())  # type: ignore[arg-type]
    assert found is not None
    assert found.extensions.get_extension_for_class(x509.CRLReason).value.reason is x509.ReasonFlags.key_compromise
    publisher.publish(now + timedelta(days=4))
    assert changed[0].read_bytes() != new.public_bytes(Encoding.DER)  # long before its end


def test_openssl_agrees_on_chain_and_lists(
    authority: Authority, publisher: Publisher, passphrases: Passphrases, state: Path, tmp_path: Path, now: datetime
) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    good, bad = issue(authority, now), issue(authority, now, "pay")
    revoke(authority, now, "pay")
    publisher.publish(now)
    io_status.publish_root_list(authority, passphrases, state / "status", now)
    (tmp_path / "root.pem").write_bytes(good.bundle_pem)
    lists = b"".join(
        x509.load_der_x509_crl(path.read_bytes()).public_bytes(Encoding.PEM)
        for path in (state / "status" / "crl").iterdir()
    )
    (tmp_path / "crls.pem").write_bytes(lists)
    outcomes = []
    for issued in (good, bad):
        (tmp_path / "chain.pem").write_bytes(issued.chain_pem)
        (tmp_path / "leaf.pem").write_bytes(issued.leaf_pem)
        command = ["openssl", "verify", "-x509_strict", "-purpose", "sslserver", "-crl_check_all", "-attime",
                   str(int(now.timestamp())), "-CAfile", "root.pem", "-CRLfile", "crls.pem", "-untrusted", "chain.pem",
                   "leaf.pem"]  # fmt: skip
        outcome = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        outcomes.append((outcome.returncode, "certificate revoked" in outcome.stderr))
    assert outcomes == [(0, False), (2, True)]


def test_the_roots_list_needs_the_root(authority: Authority, state: Path, now: datetime) -> None:
    with pytest.raises(AuthorityLocked):
        io_status.publish_root_list(authority, Passphrases(Path("/nowhere")), state / "status", now)
