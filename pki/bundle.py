"""Bundles: the roots that are trusted, and the role intermediates our own authority signed below them.

    -----BEGIN CERTIFICATE-----   root of mesh.internal             → `anchors`
    -----BEGIN CERTIFICATE-----   svc intermediate (OU=svc)         → `intermediates`, `role_issuers["svc"]`
    -----BEGIN CERTIFICATE-----   gw intermediate (OU=gw)           → …

Only a self-signed CA certificate is an anchor: a leaf that lands in a bundle would otherwise be trusted as itself
(attack P23). An intermediate names a role only when an anchor of the same bundle signed it directly, so whoever can
obtain some CA certificate below another root cannot give himself a role.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from pki import profile
from pki.errors import BundleError
from pki.issue import unverified_role
from pki.spiffe import ROLES

MAX_CERTIFICATES = 64
_MAX_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Bundle:
    """What a gateway or a service holds a peer's chain against. Certificates are DER."""

    anchors: tuple[bytes, ...]
    intermediates: tuple[bytes, ...]
    role_issuers: Mapping[str, frozenset[bytes]]
    """Role (`svc`, `gw`, `op`) → SHA-256 of the public keys (SubjectPublicKeyInfo) that may issue it. Empty where the
    bundle names no role intermediate, as those of outside authorities do not."""

    @classmethod
    def parse(cls, pem: bytes) -> Bundle:
        """Read a PEM bundle.

        Raises:
            BundleError: no root in it, something that is not a CA certificate, or too much.
        """
        if len(pem) > _MAX_BYTES:
            raise BundleError(f"bundle is larger than {_MAX_BYTES} bytes")
        try:
            with profile.unwarned():
                certificates = x509.load_pem_x509_certificates(pem)
                roots = [certificate for certificate in certificates if _is_root(certificate)]
                others = [certificate for certificate in certificates if certificate not in roots]
                for certificate in certificates:
                    _check_is_authority(certificate)
                roles = _roles(roots, others)
        except profile.PARSE_ERRORS as error:
            raise BundleError(f"bundle cannot be read: {error}") from error
        if not roots or len(certificates) > MAX_CERTIFICATES:
            raise BundleError(f"bundle has no self-signed root, or more than {MAX_CERTIFICATES} certificates")
        return cls(tuple(map(_der, roots)), tuple(map(_der, others)), roles)


def _roles(roots: list[x509.Certificate], others: list[x509.Certificate]) -> dict[str, frozenset[bytes]]:
    found: dict[str, set[bytes]] = {}
    for certificate in others:
        role = unverified_role(certificate)
        if role in ROLES and any(_signed(certificate, root) for root in roots):
            spki = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
            found.setdefault(role, set()).add(sha256(spki).digest())
    return {role: frozenset(keys) for role, keys in found.items()}


def _is_root(certificate: x509.Certificate) -> bool:
    return certificate.subject == certificate.issuer and _signed(certificate, certificate)


def _signed(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (InvalidSignature, *profile.PARSE_ERRORS):
        return False
    return True


def _check_is_authority(certificate: x509.Certificate) -> None:
    try:
        is_authority = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        is_authority = False
    if not is_authority:
        raise BundleError(
            f"serial {certificate.serial_number:x} is not a CA certificate; a bundle holds authorities only"
        )


def _der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.DER)
