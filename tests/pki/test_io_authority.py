"""The authority end to end on disk: what it issues, refuses, records; and what a crash or a second process finds."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import stat
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from pki import svid
from pki.bundle import Bundle
from pki.errors import (
    AuthorityLocked,
    IssueRefused,
    NotRecorded,
    SelfCheckFailed,
    SpiffeIdError,
    SvidRejected,
    UnsafeFile,
    WouldOverwrite,
)
from pki.io_authority import Authority, create
from pki.io_keys import Passphrases, make_ec, make_ed25519
from pki.io_record import Intent, Record
from pki.issue import GATEWAY_NAME, IssueRequest, IssuerRole, name_space
from pki.tlog import note
from pki.tlog import proof as tlog_proof
from pki.tlog.io_reader import LogReader
from tests.pki.founding import CHEAP

KEY = make_ec("p256")
ORDERS = IssueRequest("svc", "orders", KEY.public_key(), ("orders.internal",))


def leaves(state: Path) -> list[dict[str, object]]:
    return [json.loads(entry) for _, entry in LogReader(state / "ca" / "log").latest(1000)]


def rows(state: Path) -> list[tuple[str, str, str]]:
    connection = sqlite3.connect(state / "ca" / "record.sqlite")
    try:
        return connection.execute("SELECT name, state, reason FROM issuance ORDER BY id").fetchall()
    finally:
        connection.close()


def test_nothing_of_an_authority_is_open_to_others(state: Path) -> None:
    found = [state / "ca", *(state / "ca").glob("*")]
    assert {path: oct(stat.S_IMODE(path.lstat().st_mode)) for path in found if path.lstat().st_mode & 0o077} == {}


def test_an_authority_is_never_overwritten(state: Path, now: datetime) -> None:
    with pytest.raises(WouldOverwrite):
        create(state / "ca", trust_domain="a", dns_suffixes=["a"], hosts=["a"], passphrases={}, now=now, cost=CHEAP)


@pytest.mark.parametrize(
    ("trust_domain", "hosts", "error"),
    [("Mesh", ["a"], SpiffeIdError), ("a" * 65, ["a"], IssueRefused), ("mesh", ["*.a"], IssueRefused)],
)
def test_half_an_authority_never_stands_there(
    tmp_path: Path, now: datetime, trust_domain: str, hosts: list[str], error: type[Exception]
) -> None:
    secrets = {"root": b"r", "issuing": b"i"}
    with pytest.raises(error):
        create(
            tmp_path / "ca", trust_domain=trust_domain, dns_suffixes=["a"], hosts=hosts, passphrases=secrets, now=now
        )
    with pytest.raises(KeyError):
        create(tmp_path / "ca", trust_domain="a", dns_suffixes=["a"], hosts=["a"], passphrases={}, now=now, cost=CHEAP)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(("role", "usage"), [("svc", "server"), ("gw", "client"), ("op", "client")])
def test_each_role_verifies_by_its_own_issuer_only(authority: Authority, now: datetime, role: str, usage: str) -> None:
    issued = authority.issue(IssueRequest(role, "a", make_ec("p256").public_key()), now)  # type: ignore[arg-type]
    bundle = Bundle.parse(authority.bundle_pem(roles=("svc", "gw", "op")))
    arguments = {"anchors": bundle.anchors, "expected_id": issued.spiffe_id, "usage": usage, "now": now}
    chain = [issued.leaf, *bundle.intermediates]
    proven = svid.verify(chain, role_issuers=bundle.role_issuers, **arguments)  # type: ignore[arg-type]
    assert (proven.spiffe_id, proven.serial) == (issued.spiffe_id, issued.serial)
    for other in {"svc", "gw", "op"} - {role}:
        swapped = {role: bundle.role_issuers[other]}
        with pytest.raises(SvidRejected, match="role-issuer"):
            svid.verify(chain, role_issuers=swapped, **arguments)  # type: ignore[arg-type]


def test_the_public_listeners_certificate_has_hosts_and_no_identity(authority: Authority, now: datetime) -> None:
    issued = authority.issue(IssueRequest("edge", "public", KEY.public_key(), ("localhost",), ("127.0.0.1",)), now)
    assert (issued.spiffe_id, issued.names) == (None, ("localhost", "127.0.0.1"))


def test_the_proof_file_alone_shows_that_the_certificate_was_logged(
    authority: Authority, state: Path, now: datetime
) -> None:
    issued = authority.issue(ORDERS, now)
    proof = tlog_proof.parse(issued.proof)
    verifier = note.Verifier.parse((state / "ca" / "log" / "verifier.key").read_text().strip())
    assert proof.extra is not None
    head = proof.verify(proof.extra, verifier)
    entry = json.loads(proof.extra)
    assert (head.origin, proof.index) == ("mesh.internal/ca", issued.log_index)
    assert entry["event.action"] == "pki.issued"
    assert entry["pki.certificate_sha256"] == sha256(issued.leaf).hexdigest()
    assert entry["pki.names"] == ["spiffe://mesh.internal/svc/orders", "orders.internal"]


def test_intent_comes_before_outcome(authority: Authority, state: Path, now: datetime) -> None:
    steps: list[str] = []
    issued = authority.issue(ORDERS, now, lambda step, text: steps.append(step))
    assert steps == ["recorded", "signed", "verified"]
    assert issued.intent_index < issued.log_index
    assert [leaf["event.action"] for leaf in leaves(state)[-2:]] == ["pki.intent", "pki.issued"]
    assert rows(state)[-1] == ("orders", "issued", "")


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"dns": ("orders.example",)}, "name-space"),
        ({"dns": ("*.internal",)}, "dns-name"),
        ({"name": "../x"}, "service-name"),
        ({"life": timedelta(days=30)}, "ttl"),
        ({"role": "edge", "dns": ("api.example.com",)}, "name-space"),
    ],
)
def test_a_refusal_is_recorded_and_nothing_is_signed(
    authority: Authority, state: Path, now: datetime, change: dict[str, object], rule: str
) -> None:
    before = rows(state)
    with pytest.raises(IssueRefused) as caught:
        authority.issue(replace(ORDERS, **change), now)  # type: ignore[arg-type]
    last = leaves(state)[-1]
    assert caught.value.rule == rule
    assert (last["event.action"], last["event.reason"], last["event.outcome"]) == ("pki.refused", rule, "failure")
    assert rows(state) == before


def test_P36_a_key_of_the_authority_or_of_another_service_is_refused(authority: Authority, now: datetime) -> None:
    authority.issue(ORDERS, now)
    assert authority.issue(ORDERS, now).number > 0  # the same service may keep its key
    with pytest.raises(IssueRefused, match="key-reuse"):
        authority.issue(replace(ORDERS, name="pay", dns=()), now)
    chain = x509.load_pem_x509_certificates(authority.issue(ORDERS, now).chain_pem)
    own = chain[1].public_key()
    assert isinstance(own, ec.EllipticCurvePublicKey)
    root = authority.roots[0].public_key()  # which the record of issuances does not know
    assert isinstance(root, ec.EllipticCurvePublicKey)
    for key in (own, root):
        with pytest.raises(IssueRefused, match="key-reuse"):
            authority.issue(replace(ORDERS, public_key=key), now)


def test_E1_E2_a_gateway_s_dns_name_is_nobody_else_s(authority: Authority, state: Path, now: datetime) -> None:
    """Who compares host names alone, such as an EST client that is plain curl, would take the service for the gateway."""

    def wish(role: IssuerRole, name: str, *dns: str) -> IssueRequest:
        return IssueRequest(role, name, make_ec("p256").public_key(), dns)

    authority.issue(wish("gw", "edge-b", "edge-b.internal"), now)
    authority.issue(wish("svc", "pay", "pay.internal"), now)
    for taken in (
        wish("svc", "edge-b", "edge-b.internal"),
        wish("svc", "orders", "orders.internal", "edge-b.internal"),
        wish("op", "alice", "edge-b.internal"),
        wish("gw", "pay", "pay.internal"),
    ):
        with pytest.raises(IssueRefused, match="name-taken"):
            authority.issue(taken, now)
        assert leaves(state)[-1]["event.reason"] == "name-taken"
    assert authority.issue(wish("svc", "edge-b"), now).number > 0
    assert authority.issue(wish("gw", "edge-b", "edge-b.internal"), now).number > 0  # its renewal
    assert authority.issue(wish("gw", GATEWAY_NAME, "pay.internal"), now).number > 0
    later = now + timedelta(days=2)
    assert authority.issue(wish("svc", "edge-b", "edge-b.internal"), later).number > 0


def test_P18_a_leaf_is_cut_short_by_its_issuer_and_then_refused(authority: Authority, now: datetime) -> None:
    end = now + timedelta(days=90)
    assert authority.issue(ORDERS, end - timedelta(hours=2)).not_after == end
    with pytest.raises(IssueRefused, match="issuer-expired"):
        authority.issue(ORDERS, end)


def test_P20_serials_differ_and_are_positive(authority: Authority, now: datetime) -> None:
    serials = {authority.issue(ORDERS, now).serial for _ in range(3)}
    assert len(serials) == 3
    assert all(0 < serial < 1 << 159 for serial in serials)


def test_P22_an_intermediate_never_signs_with_the_key_of_another(
    state: Path, passphrases: Passphrases, now: datetime
) -> None:
    (state / "ca" / "svc.pem").write_bytes((state / "ca" / "gw.pem").read_bytes())
    with Authority.open(state / "ca", passphrases, now=now) as opened, pytest.raises(AuthorityLocked, match="no key"):
        opened.issue(ORDERS, now)


def test_a_certificate_that_does_not_verify_is_revoked_on_the_spot(
    state: Path, passphrases: Passphrases, now: datetime, tmp_path: Path
) -> None:
    secrets = {"root": b"r", "issuing": b"i"}
    suffixes = ["internal"]
    create(
        tmp_path / "other", trust_domain="mesh.internal", dns_suffixes=suffixes, hosts=["a"], passphrases=secrets,
        now=now, cost=CHEAP,
    )  # fmt: skip
    (state / "ca" / "root.pem").write_bytes((tmp_path / "other" / "root.pem").read_bytes())
    with Authority.open(state / "ca", passphrases, now=now) as opened, pytest.raises(SelfCheckFailed):
        opened.issue(ORDERS, now)
    assert rows(state)[-1] == ("orders", "revoked", "self-check")
    assert [leaf["event.action"] for leaf in leaves(state)[-2:]] == ["pki.intent", "pki.revoked"]


def test_a_wrong_passphrase_or_missing_file_locks(state: Path, passphrases: Passphrases, now: datetime) -> None:
    with pytest.raises(AuthorityLocked, match="wrong passphrase"):
        Authority.open(state / "ca", Passphrases(state / "ca", given={"issuing": b"x"}), now=now)
    (state / "ca" / "svc.pem").rename(state / "ca" / "svc.old")
    with pytest.raises(AuthorityLocked, match=r"svc\.pem: missing"):
        Authority.open(state / "ca", passphrases, now=now)
    (state / "ca" / "svc.pem").write_bytes(b"junk")
    with pytest.raises(AuthorityLocked, match="not a certificate"):
        Authority.open(state / "ca", passphrases, now=now)
    with pytest.raises(AuthorityLocked, match="edge init"):
        Authority.open(state / "none", passphrases, now=now)


def test_P55_an_authority_open_to_others_is_not_used(state: Path, passphrases: Passphrases, now: datetime) -> None:
    (state / "ca" / "issuing.key").chmod(0o644)
    with pytest.raises(UnsafeFile):
        Authority.open(state / "ca", passphrases, now=now)
    (state / "ca" / "issuing.key").chmod(0o600)
    (state / "ca").chmod(0o755)
    with pytest.raises(UnsafeFile):
        Authority.open(state / "ca", passphrases, now=now)


def test_P57_one_process_at_a_time(authority: Authority, state: Path, passphrases: Passphrases, now: datetime) -> None:
    with pytest.raises(AuthorityLocked, match="another process"):
        Authority.open(state / "ca", passphrases, now=now, lock_wait_s=0)


def test_P53_what_is_intended_is_on_the_disk_before_it_is_signed(
    authority: Authority, now: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced, seen, sync = list[int](), dict[str, int](), os.fdatasync

    def noted(descriptor: int) -> None:
        synced.append(descriptor)
        sync(descriptor)

    def progress(step: str, text: str) -> None:
        seen[step] = len(synced)

    monkeypatch.setattr(os, "fdatasync", noted)
    authority.issue(ORDERS, now, progress)
    assert 0 < seen["recorded"] == seen["signed"] < seen["verified"]


def test_P53_an_intent_without_outcome_is_revoked_at_the_next_open(
    state: Path, passphrases: Passphrases, now: datetime
) -> None:
    with Authority.open(state / "ca", passphrases, now=now) as opened:
        intent = Intent(77, "aa", "svc", "orders", ["x"], "bb", now + timedelta(hours=1), "test")
        opened.record.intend(intent, now)  # and here the process dies
    with Authority.open(state / "ca", passphrases, now=now):
        pass
    assert rows(state)[-1] == ("orders", "revoked", "no-outcome")
    last = leaves(state)[-1]
    assert (last["event.action"], last["pki.serial"], last["event.reason"]) == ("pki.revoked", "4d", "no-outcome")
    with Authority.open(state / "ca", passphrases, now=now):
        assert leaves(state)[-1] == last  # once


def test_P53_an_outcome_that_was_not_published_is_revoked_too(
    state: Path, passphrases: Passphrases, now: datetime
) -> None:
    with Authority.open(state / "ca", passphrases, now=now) as opened:
        opened.issue(ORDERS, now)
    connection = sqlite3.connect(state / "ca" / "record.sqlite")
    with connection:
        connection.execute("UPDATE issuance SET outcome_index = NULL WHERE name = 'orders'")
    connection.close()
    with Authority.open(state / "ca", passphrases, now=now):
        pass
    assert rows(state)[-1] == ("orders", "revoked", "not-handed-out")


def test_P58_a_clock_that_stepped_back_is_on_the_record(state: Path, passphrases: Passphrases, now: datetime) -> None:
    with Authority.open(state / "ca", passphrases, now=now - timedelta(days=1)) as opened:
        assert leaves(state)[-1]["event.reason"] == "clock-stepped-back"
        assert opened.issue(ORDERS, now).number > 0


def test_P59_without_a_record_nothing_is_issued(state: Path, passphrases: Passphrases, now: datetime) -> None:
    database = state / "ca" / "record.sqlite"
    good = database.read_bytes()
    database.write_bytes(b"garbage" * 1000)
    with pytest.raises(NotRecorded):
        Authority.open(state / "ca", passphrases, now=now)
    database.write_bytes(good)
    (state / "ca" / "log" / "checkpoint").write_bytes(b"forged\n")
    with pytest.raises(NotRecorded):
        Authority.open(state / "ca", passphrases, now=now)


def test_P59_a_log_that_was_rolled_back_stops_the_authority(
    state: Path, passphrases: Passphrases, now: datetime, tmp_path: Path
) -> None:
    shutil.copytree(state / "ca" / "log", tmp_path / "old")
    (tmp_path / "old").chmod(0o700)
    with Authority.open(state / "ca", passphrases, now=now) as opened:
        opened.issue(ORDERS, now)
    (state / "ca" / "log").rename(tmp_path / "new")
    (tmp_path / "old").rename(state / "ca" / "log")
    with pytest.raises(NotRecorded):
        Authority.open(state / "ca", passphrases, now=now)


def test_P59_a_log_that_fails_midway_hands_out_nothing(authority: Authority, state: Path, now: datetime) -> None:
    authority.record._log.close()
    with pytest.raises(NotRecorded):
        authority.issue(ORDERS, now)
    assert rows(state)[-1] == ("orders", "intent", "")


def test_the_record_can_be_opened_by_nobody_else(authority: Authority, state: Path, now: datetime) -> None:
    key = make_ed25519()
    with pytest.raises(NotRecorded):
        Record.open(state / "ca", origin="mesh.internal/ca", key=key, now=now)


def test_a_new_intermediate_issues_and_the_old_one_stays_known(
    authority: Authority, passphrases: Passphrases, state: Path, now: datetime
) -> None:
    old = authority.issue(ORDERS, now)
    later = now + timedelta(days=70)
    assert authority.intermediate_renewal_due("svc", later)
    authority.renew_intermediate("svc", passphrases, later)
    assert not authority.intermediate_renewal_due("svc", later)
    new = authority.issue(ORDERS, later)
    bundle = Bundle.parse(authority.bundle_pem(roles=("svc",)))
    assert len(bundle.role_issuers["svc"]) == 2
    for issued, moment in ((old, now), (new, later)):
        svid.verify(
            [issued.leaf, *bundle.intermediates],
            anchors=bundle.anchors,
            expected_id=issued.spiffe_id,
            usage="server",
            now=moment,
            role_issuers=bundle.role_issuers,
        )


def test_a_new_intermediate_needs_the_roots_passphrase_and_may_change_names(
    authority: Authority, passphrases: Passphrases, now: datetime
) -> None:
    with pytest.raises(AuthorityLocked):
        authority.renew_intermediate("edge", Passphrases(Path("/nowhere")), now)
    authority.renew_intermediate("edge", passphrases, now, space=name_space(["api.example.com"]))
    issued = authority.issue(IssueRequest("edge", "public", KEY.public_key(), ("api.example.com",)), now)
    assert issued.names == ("api.example.com",)
    with pytest.raises(IssueRefused):
        authority.issue(IssueRequest("edge", "public", KEY.public_key(), ("localhost",)), now)


def test_the_fingerprint_is_that_of_the_root(authority: Authority) -> None:
    root = x509.load_pem_x509_certificate(authority.bundle_pem())
    assert authority.root_sha256 == sha256(root.public_bytes(Encoding.DER)).hexdigest()


def test_issuing_takes_real_time_stamps(authority: Authority) -> None:
    moment = datetime.now(UTC)
    issued = authority.issue(ORDERS, moment)
    assert issued.not_before <= moment <= issued.renew_after <= issued.not_after
