"""What a client of EST makes of the authority's answers: whom it trusts, and what it was certified as. Pure.

A client that has nothing yet knows one root by its fingerprint. From the answer of `cacerts` it takes that root and what that
root signed, and not one certificate more: over a connection that nobody vouches for, whoever stands between may add a root of
his own to the right one. Later answers come over connections that are proven, and are taken whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from pki import profile
from pki.bundle import Bundle
from pki.errors import AnswerRejected, BundleError, SvidRejected
from pki.spiffe import Role
from pki.svid import VerifiedSvid, verify, verify_host


def bundle_of(certificates: Sequence[bytes]) -> bytes:
    """The bundle (PEM) in an answer of `cacerts` (DER), as it came.

    Raises:
        AnswerRejected: it is none.
    """
    pem = pem_of(certificates)
    try:
        Bundle.parse(pem)
    except BundleError as error:
        raise AnswerRejected(str(error)) from error
    return pem


def pinned_bundle(certificates: Sequence[bytes], root_sha256: str) -> bytes:
    """Of an answer that nobody vouches for: the root with this fingerprint (hex) and what it signed, in PEM.

    Raises:
        AnswerRejected: that root is not among them.
    """
    root = next((der for der in certificates if sha256(der).hexdigest() == root_sha256), None)
    if root is None:
        raise AnswerRejected(f"no root with the fingerprint sha256:{root_sha256}; this is another authority")
    return bundle_of([root, *(der for der in certificates if der != root and _signed(der, root))])


def check_enroller(presented: Sequence[bytes], bundle: Bundle, host: str, now: datetime) -> None:
    """Returns when who shows this (DER, leaf first) may be given a token: the public listener of `host`, or a gateway.

    A certificate that names an identity counts by it alone. Services' certificates have DNS names too, and one that may have
    the name of the host would be handed the tokens of all others.

    Raises:
        SvidRejected: it is neither.
    """
    if not presented:
        raise SvidRejected("untrusted", "no certificate was presented")
    trust_domain = trust_domain_of(presented[0])
    if not trust_domain:
        verify_host(presented, anchors=bundle.anchors, host=host, now=now)
        return
    proven = verify(
        [*presented, *bundle.intermediates],
        anchors=bundle.anchors,
        expected_id=None,
        trust_domain=trust_domain,
        usage="server",
        now=now,
        role_issuers=bundle.role_issuers,
    )
    if proven.spiffe_id.role != "gw":
        raise SvidRejected("role-issuer", f"{proven.spiffe_id} is no gateway")


@dataclass(frozen=True, slots=True)
class Certified:
    """A certificate that is ours."""

    svid: VerifiedSvid
    chain_pem: bytes
    """What to show: leaf and intermediate."""
    not_before: datetime
    not_after: datetime


def certified(
    chain: Sequence[bytes], bundle_pem: bytes, role: Role, name: str, key: ec.EllipticCurvePublicKey, now: datetime
) -> Certified:
    """What `chain` (DER, leaf first; the leaf alone will do where the bundle has its issuer) proves.

    Raises:
        AnswerRejected: it is not a certificate of this authority for this role, name and key, or not good now.
    """
    if not chain:
        raise AnswerRejected("no certificate")
    try:
        bundle = Bundle.parse(bundle_pem)
        leaf = _parsed(chain[0])
        if leaf.public_key() != key:
            raise AnswerRejected("the certificate is for another key")
        svid = verify(
            [*chain, *bundle.intermediates],
            anchors=bundle.anchors,
            expected_id=None,
            trust_domain=trust_domain_of(chain[0]),
            usage="server",
            now=now,
            # Files of an authority that names no roles say nothing about our own certificate's issuer.
            role_issuers=bundle.role_issuers if role in bundle.role_issuers else None,
        )
    except (BundleError, SvidRejected, *profile.PARSE_ERRORS) as error:
        raise AnswerRejected(f"the certificate does not verify: {error}") from error
    if (svid.spiffe_id.role, svid.spiffe_id.name) != (role, name):
        raise AnswerRejected(f"the certificate is for {svid.spiffe_id}, not for {role}/{name}")
    shown = list(chain) if len(chain) > 1 else [*chain, *_issuer(chain[0], bundle)]
    return Certified(svid, pem_of(shown), leaf.not_valid_before_utc, leaf.not_valid_after_utc)


def trust_domain_of(leaf: bytes) -> str:
    """The trust domain that a certificate (DER) claims to be of; nobody has believed it yet. Empty when it claims none.

    Raises:
        SvidRejected: it is no certificate for a workload.
    """
    try:
        uris = profile.uri_names(_parsed(leaf))
    except (AnswerRejected, *profile.PARSE_ERRORS) as error:
        raise SvidRejected("malformed", str(error)) from error
    return uris[0].removeprefix("spiffe://").partition("/")[0] if uris else ""


def is_same_bundle(one_pem: bytes, other_pem: bytes) -> bool:
    """Whether both believe the same; PKCS#7 keeps no order.

    Raises: AnswerRejected.
    """
    return frozenset(ders_of(one_pem)) == frozenset(ders_of(other_pem))


def ders_of(pem: bytes) -> list[bytes]:
    """Raises: AnswerRejected."""
    try:
        found = [each.public_bytes(Encoding.DER) for each in x509.load_pem_x509_certificates(pem)]
    except profile.PARSE_ERRORS as error:
        raise AnswerRejected(f"not certificates in PEM: {error}") from error
    return found


def pem_of(certificates: Iterable[bytes]) -> bytes:
    """Raises: AnswerRejected."""
    return b"".join(_parsed(der).public_bytes(Encoding.PEM) for der in certificates)


def _issuer(leaf: bytes, bundle: Bundle) -> list[bytes]:
    return [der for der in bundle.intermediates if _signed(leaf, der)][:1]


def _parsed(der: bytes) -> x509.Certificate:
    try:
        return x509.load_der_x509_certificate(der)
    except profile.PARSE_ERRORS as error:
        raise AnswerRejected(f"not a certificate: {error}") from error


def _signed(der: bytes, by: bytes) -> bool:
    try:
        _parsed(der).verify_directly_issued_by(_parsed(by))
    except (InvalidSignature, *profile.PARSE_ERRORS):
        return False
    return True
