"""What the authority handed out, as gateways find it on their disks."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from hashlib import sha256
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from pki.errors import NotRecorded, StatusRejected, SvidRejected
from pki.io_authority import Authority, Issued
from pki.io_issuance import IssuanceCopy, IssuanceRecord, IssuedFiles, published
from pki.io_keys import Passphrases, make_ec
from pki.issuance import check_issued, parse_log_key, seal_log_key
from pki.issue import IssueRequest
from pki.tlog import note, proof

Check = Callable[[bytes], None]


@pytest.fixture
def status(state: Path) -> Path:
    (state / "status").mkdir(mode=0o700)
    return state / "status"


@pytest.fixture
def files(authority: Authority, status: Path) -> IssuedFiles:
    return IssuedFiles(authority, status)


def issue(authority: Authority, now: datetime, name: str = "orders") -> Issued:
    return authority.issue(IssueRequest("svc", name, make_ec("p256").public_key()), now)


def anchors(authority: Authority) -> list[bytes]:
    return [root.public_bytes(Encoding.DER) for root in authority.roots]


def asking(directory: Path, authority: Authority, now: datetime) -> Check:
    """A gateway that has just started."""
    record = IssuanceRecord(directory)
    return lambda leaf: record.check(
        sha256(leaf).digest(), anchors=anchors(authority), trust_domain="mesh.internal", now=now
    )


def is_refused(check: Check, leaf: bytes) -> bool:
    try:
        check(leaf)
    except SvidRejected as exc:
        return exc.rule == "not-in-issuance-record"
    return False


def test_what_was_handed_out_is_known_at_once_and_nothing_else(
    authority: Authority, files: IssuedFiles, status: Path, now: datetime
) -> None:
    first = issue(authority, now)
    files.publish(now)
    check = asking(status, authority, now)
    assert not is_refused(check, first.leaf)
    second = issue(authority, now)
    assert is_refused(check, second.leaf)  # it is on its way out, and nobody has it yet
    files.publish(now)
    assert not is_refused(check, second.leaf)
    assert is_refused(check, b"signed with the same key")


def test_where_no_record_ever_lay_nobody_is_refused_and_where_one_lay_everybody(
    authority: Authority, files: IssuedFiles, status: Path, now: datetime
) -> None:
    check = asking(status, authority, now)
    assert not is_refused(check, b"anything")
    files.publish(now)
    assert is_refused(check, b"anything")
    shutil.rmtree(status)
    assert is_refused(check, b"anything else")


def test_a_copy_serves_as_well_and_an_old_one_refuses_more(
    authority: Authority, files: IssuedFiles, status: Path, tmp_path: Path, now: datetime
) -> None:
    first = issue(authority, now)
    files.publish(now)
    shutil.copytree(status, tmp_path / "copy")
    later = issue(authority, now)
    files.publish(now)
    check = asking(tmp_path / "copy", authority, now)
    assert (is_refused(check, first.leaf), is_refused(check, later.leaf)) == (False, True)


def test_what_has_ended_or_is_revoked_is_taken_away(
    authority: Authority, files: IssuedFiles, status: Path, now: datetime
) -> None:
    ended, revoked = issue(authority, now), issue(authority, now, "pay")
    files.publish(now)
    assert len(list((status / "issued").iterdir())) >= 2
    authority.record.revoked(revoked.number, revoked.serial, "keyCompromise", now)
    files.publish(now)
    assert not is_refused(asking(status, authority, now), ended.leaf)
    assert is_refused(asking(status, authority, now), revoked.leaf)
    files.publish(now + timedelta(days=2))
    assert is_refused(asking(status, authority, now), ended.leaf)


def test_a_proof_of_another_certificate_or_of_another_leaf_is_none(
    authority: Authority, files: IssuedFiles, status: Path, now: datetime
) -> None:
    issued = issue(authority, now)
    files.publish(now)
    forged = b"a certificate that the intermediate's thief signed"
    place = status / "issued" / sha256(forged).hexdigest()
    shutil.copy(status / "issued" / sha256(issued.leaf).hexdigest(), place)
    assert is_refused(asking(status, authority, now), forged)
    intent = authority.record.proof(issued.intent_index)
    place = status / "issued" / sha256(issued.leaf).hexdigest()
    place.write_bytes(intent)  # of the same certificate, but before it was handed out
    assert is_refused(asking(status, authority, now), issued.leaf)


def test_a_proof_is_only_as_good_as_the_log_s_signature(authority: Authority, now: datetime) -> None:
    issued, key = issue(authority, now), authority.record.log_key
    digest = sha256(issued.leaf).digest()
    check_issued(issued.proof, digest, key)
    good = proof.parse(issued.proof)
    entry = json.loads(good.extra or b"")
    other = replace(good, extra=json.dumps({**entry, "pki.certificate_sha256": "00" * 32}).encode())
    thief = note.Signer(key.name, b"t" * 32)
    text = good.raw_checkpoint.partition(b"\n\n")[0] + b"\n"
    for raw, leaf, believed in (
        (issued.proof, bytes(32), key),
        (other.encode(), bytes(32), key),
        (replace(good, extra=None).encode(), digest, key),
        (replace(good, extra=b"[]").encode(), digest, key),
        (replace(good, index=0).encode(), digest, key),
        (replace(good, raw_checkpoint=note.sign(text, thief)).encode(), digest, key),
        (issued.proof, digest, thief.verifier),
        (issued.proof[:-1], digest, key),
        (b"", digest, key),
    ):
        with pytest.raises(SvidRejected, match="not-in-issuance-record"):
            check_issued(raw, leaf, believed)


def test_the_log_s_key_is_believed_for_the_root_s_sake(authority: Authority, now: datetime) -> None:
    signer, key = authority.status_signer(), authority.record.log_key
    raw = seal_log_key(signer, "mesh.internal", key)
    assert parse_log_key(raw, anchors=anchors(authority), trust_domain="mesh.internal", now=now) == key
    elsewhere = note.Signer("evil.internal/ca", b"t" * 32).verifier
    for document, roots, domain in (
        (raw, [], "mesh.internal"),
        (raw, anchors(authority), "evil.internal"),
        (seal_log_key(signer, "mesh.internal", elsewhere), anchors(authority), "mesh.internal"),
        (raw.replace(str(key).encode(), str(elsewhere).encode()), anchors(authority), "mesh.internal"),
        (raw[:-1], anchors(authority), "mesh.internal"),
    ):
        with pytest.raises(StatusRejected):
            parse_log_key(document, anchors=roots, trust_domain=domain, now=now)


def test_a_document_that_cannot_be_believed_refuses(
    authority: Authority, files: IssuedFiles, status: Path, now: datetime
) -> None:
    issued = issue(authority, now)
    files.publish(now)
    raw = (status / "issuance-log.json").read_bytes()
    (status / "issuance-log.json").write_bytes(raw[:-1])
    assert is_refused(asking(status, authority, now), issued.leaf)
    (status / "issuance-log.json").write_bytes(raw)
    (status / "issuance-log.json").chmod(0o644)
    assert is_refused(asking(status, authority, now), issued.leaf)
    (status / "issuance-log.json").chmod(0o600)
    assert not is_refused(asking(status, authority, now), issued.leaf)


def test_the_document_follows_the_status_key(
    authority: Authority, files: IssuedFiles, status: Path, passphrases: Passphrases, now: datetime
) -> None:
    files.publish(now)
    before = (status / "issuance-log.json").read_bytes()
    files.publish(now)
    assert (status / "issuance-log.json").read_bytes() == before
    authority.renew_intermediate("status", passphrases, now)
    files.publish(now)
    assert (status / "issuance-log.json").read_bytes() != before
    assert is_refused(asking(status, authority, now), b"anything")  # it is believed


def test_a_proof_that_cannot_be_written_is_told(
    authority: Authority, files: IssuedFiles, status: Path, now: datetime
) -> None:
    issue(authority, now)
    (status / "issued").rmdir()
    with pytest.raises(NotRecorded):
        files.publish(now)


def passed_on(copy: IssuanceCopy, authority: Authority, log: bytes, proofs: dict[str, bytes], now: datetime) -> None:
    issued = {name: raw.decode() for name, raw in proofs.items()}
    copy.take(log, issued, anchors=anchors(authority), trust_domain="mesh.internal", now=now)


def test_what_is_passed_on_serves_as_what_was_written(
    authority: Authority, files: IssuedFiles, status: Path, tmp_path: Path, now: datetime
) -> None:
    there = tmp_path / "there"
    there.mkdir(mode=0o700)
    copy = IssuanceCopy(there)
    assert published(status / "nowhere", ()) == (b"", {})
    passed_on(copy, authority, b"", {}, now)  # it has not said whose log
    assert list(there.iterdir()) == []
    first = issue(authority, now)
    files.publish(now)
    log, proofs = published(status, ())
    passed_on(copy, authority, log, proofs, now)
    second = issue(authority, now)
    files.publish(now)
    _, new = published(status, proofs)
    assert list(new) == [sha256(second.leaf).hexdigest()]
    passed_on(copy, authority, b"", new, now)
    check = asking(there, authority, now)
    assert not is_refused(check, first.leaf)
    assert not is_refused(check, second.leaf)
    assert is_refused(check, b"anything")
    passed_on(copy, authority, log, new, now)  # all there is: the first has ended
    assert is_refused(asking(there, authority, now), first.leaf)


def test_nothing_is_copied_that_is_not_proven(
    authority: Authority, files: IssuedFiles, status: Path, tmp_path: Path, now: datetime
) -> None:
    there = tmp_path / "there"
    there.mkdir(mode=0o700)
    issue(authority, now)
    files.publish(now)
    log, proofs = published(status, ())
    (proof_of_one,) = [raw for name, raw in proofs.items()][:1]
    for bad_log, bad in (
        (log[:-1], proofs),
        (log, {"../../x": proof_of_one}),
        (log, {"00" * 32: proof_of_one}),
    ):
        with pytest.raises((StatusRejected, SvidRejected)):
            passed_on(IssuanceCopy(there), authority, bad_log, bad, now)
    assert list(there.iterdir()) == []
