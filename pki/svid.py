"""Who is at the other end? A presented chain → a verified SPIFFE ID, or the rule it breaks.

The verifying profile, in this order; the numbers stand in the code:
1. size and number of certificates are bounded before anything is parsed, and everything is parsed before it is believed;
2. a path of signatures, dates, CA flags and name constraints leads to an anchor (RFC 5280 §6, by `cryptography`); the
   leaf is not itself an anchor. Where there is none, the rule named is the leaf's own fault if it has one;
3. every certificate of that path obeys the profile (`profile`): keys, serials, critical constraints; the leaf's use;
4. exactly one URI name, a SPIFFE ID with a path, equal byte for byte to the expected one;
5. the intermediate that signed it may issue this role: name constraints on DNS do not bind a URI (attack P07, P08);
6. nothing of the path is revoked; not knowing refuses.

The caller passes the leaf first and whatever intermediates it knows, in any order: where TLS shows only the leaf, those
of the own bundle. OpenSSL has verified the chain during the handshake already; this is the second opinion, by another
parser, and both must agree. Anchors and known intermediates are parsed once and kept (`lru_cache`, keyed by their bytes).
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from hashlib import sha256
from ipaddress import ip_address
from itertools import pairwise
from typing import Literal

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID
from cryptography.x509.verification import Criticality, ExtensionPolicy, PolicyBuilder, Store, VerificationError

from pki import profile
from pki.errors import SpiffeIdError, SvidRejected
from pki.profile import RULES
from pki.spiffe import SpiffeId

__all__ = ["MAX_INTERMEDIATES", "RULES", "Revoked", "Usage", "VerifiedSvid", "verify", "verify_host"]

Usage = Literal["server", "client"]
Revoked = Container[tuple[bytes, int]]
"""(SHA-256 of the issuer's public key, serial) of what is revoked."""

MAX_INTERMEDIATES = 4
"""Longest path between leaf and anchor. Ours has one; nested outside authorities have two or three."""
_MAX_CERTIFICATES = 16
_MAX_CHAIN_BYTES = 64 << 10
_USAGES = {"server": ExtendedKeyUsageOID.SERVER_AUTH, "client": ExtendedKeyUsageOID.CLIENT_AUTH}

_PATH_ERRORS = (VerificationError, *profile.PARSE_ERRORS)


@dataclass(frozen=True, slots=True)
class VerifiedSvid:
    """A proven identity. Built only here."""

    spiffe_id: SpiffeId
    serial: int
    not_after: datetime
    """The end of the path: the earliest `notAfter` of its certificates."""
    issuer_sha256: bytes
    """SHA-256 of the issuer's public key (SubjectPublicKeyInfo)."""
    leaf_sha256: bytes
    """SHA-256 of the leaf's DER."""
    certificates: tuple[tuple[bytes, int], ...]
    """What it rests on, leaf first, without the anchor: (SHA-256 of the issuer's public key, serial), as `Revoked` has it."""


def verify(
    chain_der: Sequence[bytes],
    *,
    anchors: Sequence[bytes],
    expected_id: SpiffeId | None,
    usage: Usage,
    now: datetime,
    trust_domain: str | None = None,
    role_issuers: Mapping[str, frozenset[bytes]] | None = None,
    revoked: Revoked | None = frozenset(),
    max_intermediates: int = MAX_INTERMEDIATES,
) -> VerifiedSvid:
    """Verify a peer by its SPIFFE ID. `usage` is what the peer does: a `server` answered us, a `client` called us.

    With `expected_id` None any path in `trust_domain` (then required) passes, and the caller decides by the result.
    `role_issuers` None means that an outside authority issues, which has no role intermediates.

    Raises:
        SvidRejected: with a key of `RULES`.
    """
    domain = trust_domain if expected_id is None else expected_id.trust_domain
    if domain is None:
        raise SvidRejected("trust-domain", "neither an identity nor a trust domain is expected")
    _check_size(chain_der)  # 1
    cell = _cell(tuple(chain_der), tuple(anchors), usage, max_intermediates)
    if cell.proof is None or not _is_valid_at(cell.proof.path, now):
        cell.proof = _prove(chain_der, tuple(anchors), usage, now, max_intermediates)  # 1, 2, 3
    path, uris = cell.proof.path, cell.proof.uris
    leaf = path[0]
    spiffe_id = _identity(uris, expected_id, domain)  # 4
    certificates = _named(path)
    issuer_sha256 = certificates[0][0]
    if role_issuers is not None and issuer_sha256 not in role_issuers.get(spiffe_id.role or "", frozenset()):  # 5
        raise SvidRejected("role-issuer", f"{spiffe_id} was not issued by an intermediate of its role")
    _check_revocation(certificates, revoked)  # 6
    return VerifiedSvid(
        spiffe_id=spiffe_id,
        serial=leaf.serial_number,
        not_after=min(certificate.not_valid_after_utc for certificate in path),
        issuer_sha256=issuer_sha256,
        leaf_sha256=sha256(chain_der[0]).digest(),
        certificates=certificates,
    )


@dataclass(frozen=True, slots=True)
class _Proof:
    """What holds at any time within the validity of `path`: signatures, profile, and the leaf's URI names."""

    path: tuple[x509.Certificate, ...]
    uris: tuple[str, ...]


@dataclass(slots=True)
class _Cell:
    """The last proof found for one presented chain. A failure is never kept."""

    proof: _Proof | None = None


@lru_cache(maxsize=128)
def _cell(chain_der: tuple[bytes, ...], anchors: tuple[bytes, ...], usage: Usage, max_intermediates: int) -> _Cell:
    """One cell per chain, anchors and use: a peer is dialled often, and the P-384 root alone costs 0.4 ms per proof.
    Signatures do not age; dates, expectation, role and revocation are checked on every call."""
    return _Cell()


def _prove(
    chain_der: Sequence[bytes], anchors: tuple[bytes, ...], usage: Usage, now: datetime, max_intermediates: int
) -> _Proof:
    oid = _USAGES[usage]
    leaf, intermediates = _parse(chain_der, anchors)  # 1, continued
    try:
        builder = _builder(anchors, usage).time(now).max_chain_depth(max_intermediates)
        path = builder.build_client_verifier().verify(leaf, list(intermediates)).chain  # 2
    except _PATH_ERRORS as error:
        raise _reason(leaf, (*intermediates, *map(_certificate, anchors)), oid, now, error) from error
    try:
        _check_path(path, oid, now)  # 3
        return _Proof(tuple(path), tuple(profile.uri_names(leaf)))
    except profile.PARSE_ERRORS as error:
        raise SvidRejected("malformed", str(error)) from error


def _is_valid_at(path: Sequence[x509.Certificate], now: datetime) -> bool:
    return all(c.not_valid_before_utc <= now <= c.not_valid_after_utc for c in path)


def verify_host(
    chain_der: Sequence[bytes],
    *,
    anchors: Sequence[bytes],
    host: str,
    now: datetime,
    revoked: Revoked | None = frozenset(),
    max_intermediates: int = MAX_INTERMEDIATES,
) -> datetime:
    """Verify a public listener's certificate for one host name or IP literal; → the end of the path.

    Stricter than `verify` about names, for here names are all there is.

    Raises:
        SvidRejected: with a key of `RULES`.
    """
    oid = ExtendedKeyUsageOID.SERVER_AUTH
    _check_size(chain_der)
    leaf, intermediates = _parse(chain_der, anchors)
    try:
        name = x509.IPAddress(ip_address(host)) if profile.is_address(host) else x509.DNSName(host)
        builder = PolicyBuilder().store(_store(tuple(anchors))).time(now).max_chain_depth(max_intermediates)
        path = builder.build_server_verifier(name).verify(leaf, list(intermediates))
    except _PATH_ERRORS as error:
        raise _reason(leaf, (*intermediates, *map(_certificate, anchors)), oid, now, error, host=host) from error
    try:
        _check_path(path, oid, now)
        profile.check_host_names(leaf)
    except profile.PARSE_ERRORS as error:
        raise SvidRejected("malformed", str(error)) from error
    _check_revocation(_named(path), revoked)
    return min(certificate.not_valid_after_utc for certificate in path)


def _check_size(chain_der: Sequence[bytes]) -> None:
    """Before anything is parsed, or kept in `_cell`."""
    if not chain_der:
        raise SvidRejected("untrusted", "no certificate was presented")
    if len(chain_der) > _MAX_CERTIFICATES or sum(map(len, chain_der)) > _MAX_CHAIN_BYTES:
        raise SvidRejected("too-large")


def _parse(
    chain_der: Sequence[bytes], anchors: Sequence[bytes]
) -> tuple[x509.Certificate, tuple[x509.Certificate, ...]]:
    if chain_der[0] in anchors:  # the library would take it for proven by itself (attack P23)
        raise SvidRejected("leaf-is-anchor")
    try:
        with profile.unwarned():
            leaf = x509.load_der_x509_certificate(chain_der[0])
            len(leaf.extensions)  # every extension is parsed now, also those nobody asks for
            return leaf, tuple(map(_certificate, chain_der[1:]))
    except profile.PARSE_ERRORS as error:
        raise SvidRejected("malformed", str(error)) from error


def _check_path(path: Sequence[x509.Certificate], oid: x509.ObjectIdentifier, now: datetime) -> None:
    leaf, *authorities = path
    _check_validity(leaf, now)
    profile.check_leaf(leaf, oid)
    for certificate in authorities:
        profile.check_authority(certificate, oid, is_anchor=certificate is authorities[-1])


def _identity(uris: Sequence[str], expected_id: SpiffeId | None, trust_domain: str) -> SpiffeId:
    if len(uris) != 1:
        raise SvidRejected("spiffe-uri", f"{len(uris)} URI names")
    try:
        spiffe_id = SpiffeId.parse(uris[0])
    except SpiffeIdError as error:
        raise SvidRejected("spiffe-uri", str(error)) from error
    if not spiffe_id.path:
        raise SvidRejected("spiffe-uri", "the trust domain's own ID is not an identity of a workload")
    if spiffe_id.trust_domain != trust_domain:
        raise SvidRejected("trust-domain", str(spiffe_id))
    if expected_id is not None and spiffe_id != expected_id:
        raise SvidRejected("spiffe-id", f"got {spiffe_id}, expected {expected_id}")
    return spiffe_id


def _named(path: Sequence[x509.Certificate]) -> tuple[tuple[bytes, int], ...]:
    return tuple((_spki_sha256(issuer), certificate.serial_number) for certificate, issuer in pairwise(path))


def _check_revocation(certificates: Sequence[tuple[bytes, int]], revoked: Revoked | None) -> None:
    if revoked is None:
        raise SvidRejected("revocation-unknown")
    for named in certificates:
        if named in revoked:
            raise SvidRejected("revoked", f"serial {named[1]:x}")


def _check_validity(leaf: x509.Certificate, now: datetime) -> None:
    if now < leaf.not_valid_before_utc:
        raise SvidRejected("not-yet-valid", f"from {leaf.not_valid_before_utc:%FT%TZ}")
    if now.replace(microsecond=0) > leaf.not_valid_after_utc:  # dates in certificates have whole seconds
        raise SvidRejected("expired", f"since {leaf.not_valid_after_utc:%FT%TZ}")


def _reason(
    leaf: x509.Certificate,
    others: Sequence[x509.Certificate],
    oid: x509.ObjectIdentifier,
    now: datetime,
    error: Exception,
    *,
    host: str | None = None,
) -> SvidRejected:
    """Why no path was found: the leaf's own fault where it has one, else that of an issuer by name, else `untrusted`."""
    try:
        _check_validity(leaf, now)
        profile.check_leaf(leaf, oid)
        if host is None:
            profile.uri_names(leaf)
        else:
            profile.check_host_names(leaf)
            if host not in _names(leaf):
                return SvidRejected("host-name", host)
        _check_issuers(leaf, others, oid)
    except SvidRejected as rejected:
        return rejected
    except profile.PARSE_ERRORS as malformed:
        return SvidRejected("malformed", str(malformed))
    return SvidRejected("untrusted", str(error))


def _check_issuers(leaf: x509.Certificate, others: Sequence[x509.Certificate], oid: x509.ObjectIdentifier) -> None:
    wanted, left = [leaf.issuer], list(others)
    while wanted:
        name = wanted.pop()
        for certificate in [candidate for candidate in left if candidate.subject == name]:
            left.remove(certificate)
            wanted.append(certificate.issuer)
            profile.check_authority(certificate, oid, is_anchor=certificate.issuer == name)


def _names(leaf: x509.Certificate) -> set[str]:
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    addresses = names.get_values_for_type(x509.IPAddress)
    return {name.lower() for name in names.get_values_for_type(x509.DNSName)} | {str(ip) for ip in addresses}


@lru_cache(maxsize=16)
def _builder(anchors: tuple[bytes, ...], usage: Usage) -> PolicyBuilder:
    """Path rules for SPIFFE peers. The library verifies servers by host name only, so both uses go through its client
    verifier, with the checks that it ties to web names lifted; `profile` does them for the use at hand."""
    leaf_policy = (
        ExtensionPolicy.webpki_defaults_ee()
        .may_be_present(x509.ExtendedKeyUsage, Criticality.AGNOSTIC, None)
        .require_present(x509.SubjectAlternativeName, Criticality.AGNOSTIC, None)
    )
    authority_policy = ExtensionPolicy.webpki_defaults_ca().may_be_present(
        x509.ExtendedKeyUsage, Criticality.AGNOSTIC, None
    )
    return PolicyBuilder().store(_store(anchors)).extension_policies(ca_policy=authority_policy, ee_policy=leaf_policy)


@lru_cache(maxsize=16)
def _store(anchors: tuple[bytes, ...]) -> Store:
    return Store(list(map(_certificate, anchors)))


@lru_cache(maxsize=128)
def _certificate(der: bytes) -> x509.Certificate:
    with profile.unwarned():
        return x509.load_der_x509_certificate(der)


def _spki_sha256(certificate: x509.Certificate) -> bytes:
    key = certificate.public_key()
    return sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).digest()
