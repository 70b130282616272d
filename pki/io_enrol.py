"""Enrolment from afar: who shows a one-time token, or the certificate that is about to end, gets a certificate.

The authority decides everything here by itself: names come from what an operator wrote down when the token was made, or
from the certificate that the authority recorded; never from the request, and never from whoever carries it. A process that
passes requests on (a worker of the gateway) can neither choose a name nor use a token twice. It could claim that somebody
renews who did not, since it ends the TLS connection that proved it: so a renewal is given only when one is due, only to the
same identity, only so often, and always on the record.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from pki import csr, tokens
from pki.errors import CsrRejected, IssueRefused
from pki.est import RENEWAL
from pki.io_authority import Authority, Issued
from pki.io_create import spki_sha256
from pki.io_record import Issuance, Token
from pki.issue import LEAF_LIFE, LEAF_LIFE_MIN, IssueRequest, IssuerRole, check_life, leaf_names, renew_at, split_hosts
from pki.profile import PARSE_ERRORS, unwarned
from pki.refusals import ENROL, LISTENER
from pki.spiffe import ROLES, SpiffeId

TOKEN_TTL = timedelta(minutes=10)
TOKEN_TTL_MAX = timedelta(days=1)
RENEWALS_PER_HOUR = 20
"""Of one identity with as many instances; who needs more has a loop, or stole a worker (attack P39)."""


class UnknownToken(IssueRefused):
    """Whoever asks holds nothing that was ever handed out."""


@dataclass(frozen=True, slots=True)
class Grants:
    """What the configuration in force allows: service → DNS names it may have."""

    services: Mapping[str, tuple[str, ...]]


def make_token(
    authority: Authority,
    role: IssuerRole,
    name: str,
    dns: tuple[str, ...],
    now: datetime,
    *,
    ttl: timedelta,
    life: timedelta = LEAF_LIFE,
    requester: str = "local",
) -> tuple[str, datetime]:
    """A token with which one certificate for this identity can be had once; → its text and its end.

    Raises:
        IssueRefused: a certificate like that would be refused, or the token would live too long (recorded).
        NotRecorded: could not be recorded.
    """
    try:
        if not timedelta(0) < ttl <= TOKEN_TTL_MAX:
            raise IssueRefused("ttl", f"a token lives up to {TOKEN_TTL_MAX.total_seconds() / 3600:.0f} hours")
        check_life(life)
        stand_in = authority.signers[role][0].public_key()
        wish = IssueRequest(role, name, stand_in, dns, life=life)  # type: ignore[arg-type]  # ours are all EC keys
        leaf_names(wish, trust_domain=authority.trust_domain, space=authority.space(role))
    except IssueRefused as refused:
        authority.refuse(role, name, refused, now, requester=requester)
        raise
    text = tokens.spell(os.urandom(tokens.RANDOM_BYTES))
    digest, expires_at = tokens.digest(text), now + ttl
    assert digest is not None
    token = Token(digest, role, name, dns, int(life.total_seconds()), int(expires_at.timestamp()))
    authority.record.add_token(token, now, requester=requester)
    return text, expires_at


def enrol(authority: Authority, grants: Grants, user: str, password: str, request: bytes, now: datetime) -> Issued:
    """A certificate for who shows a token. `user`: empty, or the name that the token is for.

    Raises:
        UnknownToken: it does not exist, or is for another name (not recorded: anybody can ask that).
        IssueRefused: rule `token` when it was spent or has expired; `unknown-service` when the service is not granted any
            more, the token then stays good; else as `Authority.issue`.
        CsrRejected: the request is bad; the token stays good.
        NotRecorded, SelfCheckFailed: nothing was handed out.
    """
    digest = tokens.digest(password)
    with authority.record.rows() as rows:
        token = rows.token(digest) if digest is not None else None
    if token is None or user not in ("", token.name):
        raise UnknownToken("token", "the token is not known, or is for another name")
    role: IssuerRole = token.role  # type: ignore[assignment]  # only `make_token` writes it
    try:
        dns = _granted(grants, role, token.name, token.dns)
    except IssueRefused as refused:
        authority.refuse_from_afar(role, token.name, refused, now, requester=ENROL)
        raise
    key = _key(authority, request, role, token.name, dns, ENROL, now)
    life = timedelta(seconds=token.life_s)
    wish = IssueRequest(role, token.name, key, dns, life=life, requester=ENROL, token_sha256=token.sha256)
    return authority.issue(wish, now)


def renew(authority: Authority, grants: Grants, certificate: bytes, request: bytes, now: datetime) -> Issued:
    """A certificate like the one that was shown (DER), for a new key.

    Raises:
        IssueRefused: the certificate is not one of ours that is good now (`unknown`, `revoked`, `expired`), renewal is not
            due yet (`not-due`), came too often (`too-many`), or is not granted any more (`unknown-service`).
        CsrRejected: the request is bad.
        NotRecorded, SelfCheckFailed: nothing was handed out.
    """
    held = _held(authority, certificate)
    with authority.record.rows() as rows:
        rows.saw_certificate(held)
    role: IssuerRole = held.role  # type: ignore[assignment]  # `_held` has looked
    life = _life(authority, role, held)
    try:
        dns = _allowed(authority, grants, held, certificate, now)
    except IssueRefused as refused:
        authority.refuse_from_afar(role, held.name, refused, now, requester=RENEWAL)
        raise
    key = _key(authority, request, role, held.name, held.names[1:], RENEWAL, now)
    return authority.issue(IssueRequest(role, held.name, key, dns, life=life, requester=RENEWAL), now)


def _life(authority: Authority, role: IssuerRole, held: Issuance) -> timedelta:
    """As long as the one before, at most the usual: who was given a short life must not renew himself a long one. But what
    the end of its issuer cut short does not say what was given."""
    for issuer in authority.signers[role]:
        if held.not_after >= issuer.not_valid_after_utc.timestamp():
            return LEAF_LIFE
    return min(LEAF_LIFE, max(LEAF_LIFE_MIN, timedelta(seconds=held.not_after - held.requested_at)))


def enrol_listener(
    authority: Authority, hosts: tuple[str, ...], certificate: bytes, request: bytes, now: datetime
) -> Issued:
    """A certificate for the public listener of the gateway that showed this certificate (DER): for `hosts`, which are those
    of the gateway here, because clients reach whichever of the two answers.

    Raises:
        IssueRefused: not a gateway's certificate that is good now, no host is certified here (`hosts`), or it came too often.
        CsrRejected: the request is bad.
        NotRecorded, SelfCheckFailed: nothing was handed out.
    """
    held = _held(authority, certificate)
    name = f"{held.name}-public"
    try:
        if held.role != "gw":
            raise IssueRefused("role", f"{held.role}/{held.name} is not a gateway")
        _check_good(held, now)
        if not hosts:
            raise IssueRefused("hosts", "the gateway with the authority certifies no host of a public listener")
        _check_rate(authority, "edge", name, LISTENER, now)
    except IssueRefused as refused:
        authority.refuse_from_afar("edge", name, refused, now, requester=LISTENER)
        raise
    key = _key(authority, request, "edge", name, hosts, LISTENER, now)
    dns, ips = split_hosts(hosts)
    return authority.issue(IssueRequest("edge", name, key, dns, ips, requester=LISTENER), now)


def saw_bundle(authority: Authority, certificate: bytes, sequence: int, now: datetime) -> None:
    """Who showed this certificate was given the bundle of this sequence; 0: an older one.

    Raises:
        IssueRefused: it is not one of ours.
        NotRecorded: could not be written.
    """
    held = _held(authority, certificate)
    with authority.record.rows() as rows:
        rows.saw_certificate(held)
        if sequence:
            rows.saw_bundle(held.role, held.name, sequence, now)


def _held(authority: Authority, certificate: bytes) -> Issuance:
    """The row of a certificate that was shown. Raises: IssueRefused."""
    try:
        with unwarned():
            serial = x509.load_der_x509_certificate(certificate).serial_number
    except PARSE_ERRORS as error:
        raise IssueRefused("unknown", "not a certificate") from error
    with authority.record.rows() as rows:
        held = rows.find(serial)
    if held is None or held.certificate != certificate or held.role not in ROLES:
        raise IssueRefused("unknown", f"serial {serial:x} is not a certificate that was issued here")
    return held


def _allowed(
    authority: Authority, grants: Grants, held: Issuance, certificate: bytes, now: datetime
) -> tuple[str, ...]:
    """The DNS names of the renewed certificate: those of the old one that are still granted. Raises: IssueRefused."""
    _check_good(held, now)
    old = x509.load_der_x509_certificate(certificate)
    due = renew_at(old.not_valid_before_utc, old.not_valid_after_utc)
    active = spki_sha256(authority.signers[held.role][0].public_key()).hex()  # type: ignore[index]
    if now < due and held.issuer_sha256 == active:
        raise IssueRefused("not-due", f"renew from {due.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}")
    _check_rate(authority, held.role, held.name, RENEWAL, now)
    return _granted(grants, held.role, held.name, held.names[1:])


def _granted(grants: Grants, role: str, name: str, names: tuple[str, ...]) -> tuple[str, ...]:
    """Those of an identity's DNS names that services.yaml grants now. Raises: IssueRefused."""
    if role != "svc":
        return names
    granted = grants.services.get(name)
    if granted is None:
        raise IssueRefused("unknown-service", f"{name} is not granted any more")
    return tuple(each for each in names if each in granted)


def _check_good(held: Issuance, now: datetime) -> None:
    if held.state != "issued":
        raise IssueRefused("revoked", f"serial {held.serial:x} was revoked")
    if held.not_after <= now.timestamp():
        raise IssueRefused("expired", f"serial {held.serial:x} has ended; enrol again with a token")


def _check_rate(authority: Authority, role: str, name: str, requester: str, now: datetime) -> None:
    with authority.record.rows() as rows:
        if rows.requests_since(role, name, now - timedelta(hours=1), requester) >= RENEWALS_PER_HOUR:
            raise IssueRefused("too-many", f"{RENEWALS_PER_HOUR} renewals within an hour")


def _key(
    authority: Authority,
    request: bytes,
    role: IssuerRole,
    name: str,
    dns: tuple[str, ...],
    requester: str,
    now: datetime,
) -> ec.EllipticCurvePublicKey:
    """The key of a signing request that asks for nothing beyond these names. Raises: CsrRejected (recorded)."""
    identity = str(SpiffeId.of(authority.trust_domain, role, name)) if role != "edge" else name
    try:
        return csr.public_key(request, names=[identity, name, *dns])
    except CsrRejected as rejected:
        authority.refuse_from_afar(role, name, IssueRefused(rejected.rule, rejected.detail), now, requester=requester)
        raise


def chain(issued: Issued) -> list[bytes]:
    """Leaf and intermediate, DER."""
    return [each.public_bytes(Encoding.DER) for each in x509.load_pem_x509_certificates(issued.chain_pem)]
