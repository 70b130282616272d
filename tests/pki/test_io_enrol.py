"""Enrolment: tokens that work once for one name, renewals of one identity; every refusal leaves its reason in the log."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from pki import io_status
from pki.errors import CsrRejected, IssueRefused, PkiError
from pki.io_authority import Authority, Issued
from pki.io_enrol import RENEWALS_PER_HOUR, Grants, enrol, enrol_listener, make_token, renew, saw_bundle
from pki.io_keys import Passphrases, make_ec
from pki.issue import IssueRequest, IssuerRole
from pki.tlog.io_reader import LogReader

GRANTS = Grants({"orders": ("orders.internal",)})
TTL = timedelta(minutes=10)
HOURS_17 = timedelta(hours=17)


def request(key: ec.EllipticCurvePrivateKey | None = None, names: Sequence[str] = (), cn: str | None = None) -> bytes:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, cn)] if cn else [])
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(n) for n in names]), critical=False)
    return builder.sign(key or make_ec("p256"), SHA256()).public_bytes(Encoding.DER)


def token_for(authority: Authority, now: datetime, name: str = "orders", role: IssuerRole = "svc") -> str:
    dns = (f"{name}.internal",) if role == "svc" else ()
    return make_token(authority, role, name, dns, now, ttl=TTL)[0]


def last(state: Path) -> dict[str, object]:
    leaf: dict[str, object] = json.loads(LogReader(state / "ca" / "log").latest(1)[0][1])
    return leaf


def issued_names(authority: Authority, now: datetime) -> list[tuple[str, str]]:
    with authority.record.rows() as rows:
        return [(each.role, each.name) for each in rows.unexpired(now) if each.role != "root"]


@pytest.mark.parametrize(("role", "name"), [("svc", "orders"), ("gw", "edge-b"), ("op", "alice")])
def test_a_token_gives_what_it_was_made_for_and_its_names_are_not_the_requests(
    authority: Authority, now: datetime, role: IssuerRole, name: str
) -> None:
    issued = enrol(authority, GRANTS, name, token_for(authority, now, name, role), request(), now)
    dns = ("orders.internal",) if role == "svc" else ()
    assert issued.names == (f"spiffe://mesh.internal/{role}/{name}", *dns)


def test_P31_a_token_is_spent_with_the_issuance_that_records_it(
    authority: Authority, state: Path, now: datetime
) -> None:
    token = token_for(authority, now)
    enrol(authority, GRANTS, "", token, request(), now)
    with pytest.raises(IssueRefused, match="token"):
        enrol(authority, GRANTS, "", token, request(), now)
    assert issued_names(authority, now) == [("svc", "orders")]
    assert (last(state)["event.action"], last(state)["event.reason"]) == ("pki.refused", "token")


def test_P32_a_token_gives_what_is_granted_when_it_is_shown(authority: Authority, state: Path, now: datetime) -> None:
    token = token_for(authority, now)
    with pytest.raises(IssueRefused, match="unknown-service"):
        enrol(authority, Grants({}), "", token, request(), now)
    assert (last(state)["event.reason"], issued_names(authority, now)) == ("unknown-service", [])
    issued = enrol(authority, Grants({"orders": ()}), "", token, request(), now)
    assert issued.names == ("spiffe://mesh.internal/svc/orders",)


def test_P38_a_certificate_with_the_serial_of_another_is_not_that_other(
    authority: Authority, state: Path, now: datetime
) -> None:
    """Who ends the connections could show any bytes: only those that were issued count."""
    held = enrol(authority, GRANTS, "", token_for(authority, now), request(), now)
    other = bytearray(held.leaf)
    other[-1] ^= 1
    with pytest.raises(IssueRefused, match="unknown"):
        renew(authority, GRANTS, bytes(other), request(), now + HOURS_17)
    assert len(issued_names(authority, now)) == 1


@pytest.mark.parametrize(("role", "name"), [("svc", "orders"), ("op", "alice")])
def test_P10_only_a_gateway_has_a_certificate_for_the_public_hosts(
    authority: Authority, state: Path, now: datetime, role: IssuerRole, name: str
) -> None:
    """The authority's own look: whoever carries the request may be mistaken about who asks."""
    held = enrol(authority, GRANTS, "", token_for(authority, now, name, role), request(), now)
    with pytest.raises(IssueRefused, match="role"):
        enrol_listener(authority, ("localhost",), held.leaf, request(), now)
    assert (last(state)["event.action"], last(state)["event.reason"]) == ("pki.refused", "role")
    assert issued_names(authority, now) == [(role, name)]


def test_a_gateway_that_is_out_gets_no_listener_s_certificate_and_a_good_one_not_without_end_E2_P37_P39(
    authority: Authority, now: datetime
) -> None:
    good = enrol(authority, GRANTS, "", token_for(authority, now, "edge-b", "gw"), request(), now).leaf
    bad = enrol(authority, GRANTS, "", token_for(authority, now, "edge-c", "gw"), request(), now).leaf
    with pytest.raises(IssueRefused, match="expired"):
        enrol_listener(authority, ("localhost",), bad, request(), now + timedelta(hours=24))
    io_status.revoke(authority, "gw", "edge-c", now, reason="superseded", serial=None, requester="test")
    with pytest.raises(IssueRefused, match="revoked"):
        enrol_listener(authority, ("localhost",), bad, request(), now)
    for _ in range(RENEWALS_PER_HOUR):
        enrol_listener(authority, ("localhost",), good, request(), now)
    with pytest.raises(IssueRefused, match="too-many"):
        enrol_listener(authority, ("localhost",), good, request(), now)


def test_P39_who_is_refused_all_the_time_does_not_fill_the_log(
    authority: Authority, state: Path, now: datetime
) -> None:
    token = token_for(authority, now)
    held = enrol(authority, GRANTS, "", token, request(), now).leaf
    before = len(LogReader(state / "ca" / "log").latest(10_000))
    for _ in range(30):
        with pytest.raises(IssueRefused, match="token"):
            enrol(authority, GRANTS, "", token, request(), now)
        with pytest.raises(IssueRefused, match="not-due"):
            renew(authority, GRANTS, held, request(), now)
        with pytest.raises(CsrRejected):
            enrol(authority, GRANTS, "", token, b"", now)
    assert len(LogReader(state / "ca" / "log").latest(10_000)) - before == 30
    with pytest.raises(IssueRefused, match="not-due"):
        renew(authority, GRANTS, held, request(), now + timedelta(minutes=1))
    assert str(last(state)["error.message"]).endswith("; 20 more before it")


def test_P32_P33_a_token_of_another_name_or_past_its_end_gives_nothing(authority: Authority, now: datetime) -> None:
    token = token_for(authority, now)
    with pytest.raises(IssueRefused, match="token"):
        enrol(authority, GRANTS, "pay", token, request(), now)
    with pytest.raises(IssueRefused, match="token"):
        enrol(authority, GRANTS, "orders", token, request(), now + TTL)
    for stranger in ("", "x", token[:-1] + ("A" if token[-1] != "A" else "B")):
        with pytest.raises(IssueRefused, match="token"):
            enrol(authority, GRANTS, "orders", stranger, request(), now)
    assert issued_names(authority, now) == []


def test_P34_a_request_for_more_is_refused_and_the_token_stays_good(
    authority: Authority, state: Path, now: datetime
) -> None:
    token = token_for(authority, now)
    for bad in (request(names=["pay.internal"]), request(cn="pay"), request() + b"x", b"\x30\x00"):
        with pytest.raises(CsrRejected):
            enrol(authority, GRANTS, "orders", token, bad, now)
        assert last(state)["event.action"] == "pki.refused"
    assert enrol(authority, GRANTS, "orders", token, request(names=["orders.internal"], cn="orders"), now).number > 0


def test_a_token_is_in_the_record_by_its_digest_only(authority: Authority, state: Path, now: datetime) -> None:
    token = token_for(authority, now)
    assert last(state)["event.action"] == "pki.token"
    held = b"".join(path.read_bytes() for path in (state / "ca").rglob("*") if path.is_file())
    assert token.encode() not in held


@pytest.mark.parametrize(
    ("change", "rule"),
    [({"ttl": timedelta(days=2)}, "ttl"), ({"life": timedelta(days=30)}, "ttl"), ({"dns": ("a.example",)}, "name-space"),
     ({"name": "../x"}, "service-name")],
)  # fmt: skip
def test_no_token_for_what_would_be_refused(
    authority: Authority, state: Path, now: datetime, change: dict[str, object], rule: str
) -> None:
    wish: dict[str, object] = {"role": "svc", "name": "orders", "dns": (), "now": now, "ttl": TTL}
    with pytest.raises(IssueRefused) as caught:
        make_token(authority, **(wish | change))  # type: ignore[arg-type]
    assert (caught.value.rule, last(state)["event.reason"]) == (rule, rule)


def held(authority: Authority, now: datetime) -> Issued:
    wish = IssueRequest("svc", "orders", make_ec("p256").public_key(), ("orders.internal",))
    return authority.issue(wish, now)


def test_renewal_from_two_thirds_of_the_life_to_the_same_identity(authority: Authority, now: datetime) -> None:
    old = held(authority, now)
    new = renew(authority, GRANTS, old.leaf, request(), now + HOURS_17)
    assert (new.names, new.serial != old.serial) == (old.names, True)


@pytest.mark.parametrize(
    ("life", "renewed"),
    [(timedelta(minutes=5), timedelta(minutes=5)), (timedelta(hours=3), timedelta(hours=3)),
     (timedelta(days=7), timedelta(hours=24))],
)  # fmt: skip
def test_a_renewal_lives_no_longer_than_what_it_replaces(
    authority: Authority, now: datetime, life: timedelta, renewed: timedelta
) -> None:
    wish = IssueRequest("svc", "orders", make_ec("p256").public_key(), ("orders.internal",), life=life)
    held = authority.issue(wish, now)
    moment = held.renew_after + timedelta(seconds=1)
    grants = Grants({"orders": ("orders.internal",)})
    issued = renew(authority, grants, held.leaf, request(make_ec("p256")), moment)
    assert issued.not_after - moment.replace(microsecond=0) == renewed


def test_who_was_cut_short_by_the_end_of_the_issuer_is_renewed_for_the_usual_life(
    authority: Authority, passphrases: Passphrases, now: datetime
) -> None:
    late = authority.signers["svc"][0].not_valid_after_utc - timedelta(hours=2)
    held = authority.issue(IssueRequest("svc", "orders", make_ec("p256").public_key()), late)
    assert held.not_after - late == timedelta(hours=2)
    authority.renew_intermediate("svc", passphrases, late)
    issued = renew(authority, Grants({"orders": ()}), held.leaf, request(make_ec("p256")), late + timedelta(minutes=1))
    assert issued.not_after - late == timedelta(hours=24, minutes=1)


def test_P37_P38_what_is_not_renewed(authority: Authority, state: Path, now: datetime) -> None:
    old = held(authority, now)
    later = now + HOURS_17
    cases: list[tuple[str, Grants, bytes, bytes, datetime]] = [
        ("not-due", GRANTS, old.leaf, request(), now),
        ("expired", GRANTS, old.leaf, request(), now + timedelta(hours=24)),
        ("unknown-service", Grants({}), old.leaf, request(), later),
        ("csr-names", GRANTS, old.leaf, request(names=["pay.internal"]), later),
    ]
    for rule, grants, certificate, csr, moment in cases:
        with pytest.raises((IssueRefused, CsrRejected), match=rule):
            renew(authority, grants, certificate, csr, moment)
        assert (last(state)["event.action"], last(state)["event.reason"]) == ("pki.refused", rule)
    io_status.revoke(authority, "svc", "orders", later, reason="superseded", serial=None, requester="test")
    with pytest.raises(IssueRefused, match="revoked"):
        renew(authority, GRANTS, old.leaf, request(), later)


def test_only_certificates_of_the_record_are_renewed(authority: Authority, now: datetime) -> None:
    public = authority.issue(IssueRequest("edge", "public", make_ec("p256").public_key(), ("localhost",)), now)
    issuer = authority.signers["svc"][0].public_bytes(Encoding.DER)
    for certificate in (b"", b"\x30\x00", public.leaf, issuer):
        with pytest.raises(IssueRefused, match="unknown"):
            renew(authority, GRANTS, certificate, request(), now + HOURS_17)


def test_a_name_that_is_not_granted_any_more_is_left_out(authority: Authority, now: datetime) -> None:
    old = held(authority, now)
    new = renew(authority, Grants({"orders": ()}), old.leaf, request(), now + HOURS_17)
    assert new.names == ("spiffe://mesh.internal/svc/orders",)


def test_P39_a_flood_of_renewals_is_cut_off(authority: Authority, now: datetime) -> None:
    old = held(authority, now)
    for _ in range(RENEWALS_PER_HOUR):
        renew(authority, GRANTS, old.leaf, request(), now + HOURS_17)
    with pytest.raises(IssueRefused, match="too-many"):
        renew(authority, GRANTS, old.leaf, request(), now + HOURS_17)
    assert renew(authority, GRANTS, old.leaf, request(), now + HOURS_17 + timedelta(hours=2)).number > 0


def test_P36_a_compromised_key_is_not_certified_again(authority: Authority, now: datetime) -> None:
    key = make_ec("p256")
    wish = IssueRequest("svc", "orders", key.public_key())
    authority.issue(wish, now)
    io_status.revoke(authority, "svc", "orders", now, reason="keyCompromise", serial=None, requester="test")
    with pytest.raises(IssueRefused, match="compromised"):
        authority.issue(replace(wish, life=timedelta(hours=1)), now)
    with pytest.raises(PkiError, match="compromised"):
        enrol(authority, GRANTS, "", token_for(authority, now), request(key), now)


def test_who_was_given_which_bundle(authority: Authority, now: datetime) -> None:
    certificate = held(authority, now).leaf
    for sequence in (3, 2):
        saw_bundle(authority, certificate, sequence, now)
    with authority.record.rows() as rows:
        assert rows.bundles_seen() == {("svc", "orders"): 3}
    with pytest.raises(IssueRefused):
        saw_bundle(authority, b"junk", 9, now)
