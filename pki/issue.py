"""What the authority issues: the issuing profile as pure functions from facts to certificate builders.

    root   P-384, 10 years, pathlen 1, offline                        OU=root
     ├─ svc   P-256, 90 days, pathlen 0, critical name constraints    OU=svc    → spiffe://<td>/svc/<name>, both EKUs
     ├─ gw    "                                                       OU=gw     → spiffe://<td>/gw/<name>,  both EKUs
     ├─ op    "                                                       OU=op     → spiffe://<td>/op/<name>,  clientAuth
     ├─ edge  "  (the hosts of the public listener)                   OU=edge   → DNS and IP names only,    serverAuth
     └─ status  P-256, 90 days, no authority: signs `revocation` sets     OU=status

Laws:
- Everything in a certificate comes from the arguments here; of a signing request only the public key is used (`csr`).
- Empty subject and critical subjectAltName on leaves: there is no CN to be read. No wildcard is ever issued.
- A leaf never outlives its issuer: path validation would not notice (RFC 5280 §6.1 checks each validity alone).
- DNS name constraints do not bind URI names, and URI constraints make verifiers fail closed: that a `svc` intermediate
  signs only `/svc/` names is checked by who verifies (`svid`), from the OU of the intermediate, which the root signed.
- Time and serial are arguments. A serial is 159 random bits (CA/B BR §7.1 asks for 64).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from pki.errors import IssueRefused, SpiffeIdError
from pki.spiffe import SpiffeId, is_name

IssuerRole = Literal["svc", "gw", "op", "edge"]
ISSUER_ROLES: tuple[IssuerRole, ...] = ("svc", "gw", "op", "edge")
UPSTREAM_ROLES: tuple[IssuerRole, ...] = ("svc", "gw", "op")
"""Whose intermediates a gateway's bundle names; `edge` is never in upstream trust."""
SignerRole = Literal["svc", "gw", "op", "edge", "status"]
"""What the root signs: intermediates, and who speaks for the authority about revocation."""
STATUS_UNIT = "status"
"""OU of the certificate that signs what is revoked (`revocation`)."""
SIGNER_ROLES: tuple[SignerRole, ...] = (*ISSUER_ROLES, "status")

GATEWAY_NAME = "edge"
"""Of the gateway that has the authority: `/gw/edge`. Others that join have names of their own."""

ROOT_LIFE = timedelta(days=3650)
INTERMEDIATE_LIFE = timedelta(days=90)
LEAF_LIFE = timedelta(hours=24)
LEAF_LIFE_MIN = timedelta(minutes=5)
LEAF_LIFE_MAX = timedelta(days=7)
BACKDATE = timedelta(seconds=60)
"""Room for a verifier whose clock is a little behind."""

_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\Z")
_USAGES: dict[IssuerRole, list[x509.ObjectIdentifier]] = {
    "svc": [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH],
    "gw": [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH],
    "op": [ExtendedKeyUsageOID.CLIENT_AUTH],
    "edge": [ExtendedKeyUsageOID.SERVER_AUTH],
}
_EVERY_ADDRESS = (ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("::/0"))

Template = x509.CertificateBuilder
"""A complete builder: the only thing left to do is to sign it."""
IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True, slots=True)
class NameSpace:
    """The names below one intermediate: its critical name constraints."""

    dns: tuple[str, ...]
    """Suffixes without leading dot: `internal` permits `internal` and everything below it. Never empty."""
    ips: tuple[IpAddress, ...] = ()
    """Single addresses; empty = no IP name at all."""

    def refusal(self, dns: Iterable[str], ips: Iterable[IpAddress]) -> str | None:
        """Why a leaf with these names is outside, or None."""
        for name in dns:
            if not any(name == suffix or name.endswith(f".{suffix}") for suffix in self.dns):
                return f"{name} is outside the allowed suffixes: {', '.join(self.dns)}"
        for ip in ips:
            if ip not in self.ips:
                return f"address {ip} is outside the allowed addresses: {', '.join(map(str, self.ips)) or 'none'}"
        return None


@dataclass(frozen=True, slots=True)
class IssueRequest:
    """What is asked of the authority. The key is only ever a public one here."""

    role: IssuerRole
    name: str
    """Service, gateway or operator; for `edge` a label for the record only."""
    public_key: ec.EllipticCurvePublicKey
    dns: tuple[str, ...] = ()
    ips: tuple[str, ...] = ()
    """Only for `edge`."""
    life: timedelta = LEAF_LIFE
    requester: str = "local"
    """Who asked, for the record."""
    token_sha256: str | None = None
    """The one-time token that is spent with it."""


@dataclass(frozen=True, slots=True)
class LeafNames:
    """The checked names of a leaf."""

    spiffe_id: SpiffeId | None
    dns: tuple[str, ...]
    ips: tuple[IpAddress, ...]

    def all(self) -> list[str]:
        """Every name as text, for the record."""
        return [*([str(self.spiffe_id)] if self.spiffe_id else []), *self.dns, *map(str, self.ips)]


def name_space(suffixes: Iterable[str]) -> NameSpace:
    """From suffixes or host names and IP literals as files spell them (`.internal`, `localhost`, `[::1]`).

    Raises:
        IssueRefused: an entry is neither a DNS name nor an address.
    """
    dns: list[str] = []
    ips: list[IpAddress] = []
    for text in suffixes:
        address = parse_ip(text)
        if address is not None:
            ips.append(address)
        elif is_dns_name(text.removeprefix(".")):
            dns.append(text.removeprefix("."))
        else:
            raise IssueRefused("dns-name", f"{text!r} is neither a DNS name nor an address")
    # An intermediate without any DNS constraint could sign every name; `localhost` leads nowhere.
    return NameSpace(tuple(dict.fromkeys(dns)) or ("localhost",), tuple(dict.fromkeys(ips)))


def leaf_names(request: IssueRequest, *, trust_domain: str, space: NameSpace) -> LeafNames:
    """Check everything asked for against the role and the intermediate's name space.

    Raises:
        IssueRefused: with the rule that is broken.
    """
    spiffe_id = None
    if request.role == "edge":
        if not request.dns and not request.ips:
            raise IssueRefused("names", "the public listener's certificate needs at least one host")
    else:
        if not is_name(request.name):
            raise IssueRefused(
                "service-name", f"{request.name!r} is not a label: a-z, 0-9 and inner hyphens, at most 63"
            )
        if request.ips:
            raise IssueRefused("ip-name", "addresses are only for the public listener; services are known by SPIFFE ID")
        try:
            spiffe_id = SpiffeId.of(trust_domain, request.role, request.name)
        except SpiffeIdError as error:
            raise IssueRefused("spiffe-id", str(error)) from error
    for name in request.dns:
        if not is_dns_name(name):
            what = "wildcards are never issued" if "*" in name else "not a lower-case DNS name"
            raise IssueRefused("dns-name", f"{name!r}: {what}")
    ips = []
    for text in request.ips:
        address = parse_ip(text)
        if address is None:
            raise IssueRefused("ip-name", f"{text!r} is not an address")
        ips.append(address)
    outside = space.refusal(request.dns, ips)
    if outside is not None:
        raise IssueRefused("name-space", outside)
    _check_key(request.public_key)
    check_life(request.life)
    return LeafNames(spiffe_id, tuple(dict.fromkeys(request.dns)), tuple(dict.fromkeys(ips)))


def check_life(life: timedelta) -> None:
    """Raises: IssueRefused — a leaf must not live this long, or this short."""
    if not LEAF_LIFE_MIN <= life <= LEAF_LIFE_MAX:
        least, most = LEAF_LIFE_MIN.total_seconds() / 60, LEAF_LIFE_MAX.days
        raise IssueRefused("ttl", f"{life.total_seconds():.0f} s is outside {least:.0f} minutes to {most} days")


def root_template(key: ec.EllipticCurvePublicKey, *, trust_domain: str, serial: int, now: datetime) -> Template:
    """The self-signed root."""
    subject = _authority_name(trust_domain, "root", key)
    return _authority(key, subject, subject, key, path_length=1, serial=serial, now=now, life=ROOT_LIFE)


def intermediate_template(
    key: ec.EllipticCurvePublicKey,
    role: IssuerRole,
    issuer: x509.Certificate,
    space: NameSpace,
    serial: int,
    now: datetime,
) -> Template:
    """One role's intermediate, with its name space as critical name constraints."""
    organization = issuer.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)[0].value
    subject = _authority_name(str(organization), role, key)
    issuer_key = issuer.public_key()
    assert isinstance(issuer_key, ec.EllipticCurvePublicKey)
    life = min(INTERMEDIATE_LIFE, issuer.not_valid_after_utc - now)
    builder = _authority(key, subject, issuer.subject, issuer_key, path_length=0, serial=serial, now=now, life=life)
    permitted: list[x509.GeneralName] = [x509.DNSName(suffix) for suffix in space.dns]
    permitted += [x509.IPAddress(ipaddress.ip_network(ip)) for ip in space.ips]
    excluded = None if space.ips else [x509.IPAddress(network) for network in _EVERY_ADDRESS]
    return builder.add_extension(x509.NameConstraints(permitted, excluded), critical=True)


def status_template(key: ec.EllipticCurvePublicKey, issuer: x509.Certificate, serial: int, now: datetime) -> Template:
    """Who signs revocation sets. Its one, critical use keeps it from ever being a TLS peer."""
    organization = issuer.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)[0].value
    issuer_key = issuer.public_key()
    assert isinstance(issuer_key, ec.EllipticCurvePublicKey)
    return (
        x509.CertificateBuilder()
        .subject_name(_authority_name(str(organization), STATUS_UNIT, key))
        .issuer_name(issuer.subject)
        .public_key(key)
        .serial_number(serial)
        .not_valid_before(now - BACKDATE)
        .not_valid_after(min(now + INTERMEDIATE_LIFE, issuer.not_valid_after_utc))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(authority=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.OCSP_SIGNING]), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key), critical=False)
    )


def leaf_template(
    request: IssueRequest, names: LeafNames, issuer: x509.Certificate, serial: int, now: datetime
) -> Template:
    """A leaf; ends with its issuer at the latest.

    Raises:
        IssueRefused: the issuer ends before the shortest life of a leaf is over.
    """
    not_after = min(now + request.life, issuer.not_valid_after_utc)
    if not_after < now + LEAF_LIFE_MIN:
        raise IssueRefused(
            "issuer-expired", f"the {request.role} intermediate ends {issuer.not_valid_after_utc:%FT%TZ}"
        )
    issuer_key = issuer.public_key()
    assert isinstance(issuer_key, ec.EllipticCurvePublicKey)
    alternative: list[x509.GeneralName] = []
    if names.spiffe_id is not None:
        alternative.append(x509.UniformResourceIdentifier(str(names.spiffe_id)))
    alternative += [x509.DNSName(name) for name in names.dns]
    alternative += [x509.IPAddress(ip) for ip in names.ips]
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(issuer.subject)
        .public_key(request.public_key)
        .serial_number(serial)
        .not_valid_before(now - BACKDATE)
        .not_valid_after(not_after)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(authority=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(_USAGES[request.role]), critical=False)
        # Critical, because the subject is empty (RFC 5280 §4.2.1.6).
        .add_extension(x509.SubjectAlternativeName(alternative), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(request.public_key), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key), critical=False)
    )


def renew_at(not_before: datetime, not_after: datetime) -> datetime:
    """Two thirds of a certificate's life: from then on it should be replaced."""
    return not_before + (not_after - not_before) * 2 / 3


def is_dns_name(text: str) -> bool:
    """Lower-case letters, digits and hyphens in labels; no wildcard, no trailing dot, and not something that reads as an
    IPv4 address (last label all digits, WHATWG URL §3.5)."""
    labels = text.split(".")
    return len(text) <= 253 and all(_LABEL.match(label) for label in labels) and not labels[-1].isdigit()


def parse_ip(text: str) -> IpAddress | None:
    """An IP literal, IPv6 also in brackets; None for anything else."""
    try:
        return ipaddress.ip_address(text[1:-1] if text.startswith("[") and text.endswith("]") else text)
    except ValueError:
        return None


def split_hosts(hosts: Iterable[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Hosts of a listener as a certificate names them: (DNS names, addresses)."""
    named = [(host, parse_ip(host)) for host in hosts]
    return tuple(host for host, ip in named if ip is None), tuple(str(ip) for _, ip in named if ip is not None)


def _check_key(key: ec.EllipticCurvePublicKey) -> None:
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name not in {"secp256r1", "secp384r1"}:
        raise IssueRefused("key-type", "only P-256 and P-384 keys are certified")


def unverified_role(authority: x509.Certificate) -> str:
    """What its name says that it issues for (see `_authority_name`), or `root`; empty where it does not name one thing."""
    units = authority.subject.get_attributes_for_oid(NameOID.ORGANIZATIONAL_UNIT_NAME)
    return str(units[0].value) if len(units) == 1 else ""


def _authority_name(trust_domain: str, role: str, key: ec.EllipticCurvePublicKey) -> x509.Name:
    # The key's digest keeps two generations of one role apart: verifiers find issuers by name first.
    generation = x509.SubjectKeyIdentifier.from_public_key(key).digest.hex()[:8]
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, trust_domain),
            x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, role),
            x509.NameAttribute(NameOID.COMMON_NAME, f"{role} {generation}"),
        ]
    )


def _authority(
    key: ec.EllipticCurvePublicKey,
    subject: x509.Name,
    issuer: x509.Name,
    issuer_key: ec.EllipticCurvePublicKey,
    *,
    path_length: int,
    serial: int,
    now: datetime,
    life: timedelta,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(serial)
        .not_valid_before(now - BACKDATE)
        .not_valid_after(now + life)
        .add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
        .add_extension(_key_usage(authority=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key), critical=False)
    )


def _key_usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=authority,
        crl_sign=authority,
        encipher_only=False,
        decipher_only=False,
    )
