"""Certificate revocation lists (RFC 5280 §5) for whoever speaks the standard form; our own gateways use `revocation`.

One list per issuer, signed by the issuer's own key, with a number (§5.2.3) that only grows. A list says
when the next one comes at the latest; past that, a verifier that follows the RFC refuses, so a list is made anew long before.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256, SHA384

from pki.revocation import Entry

LIFE = timedelta(days=7)
ROOT_LIFE = timedelta(days=180)
"""The root is offline; its list is made anew whenever its key is used."""

_REASONS = {flag.value: flag for flag in x509.ReasonFlags}
REASONS = tuple(sorted(_REASONS.keys() - {"removeFromCRL", "certificateHold", "unspecified"}))
"""What an operator may give as a reason. A hold is not offered: it could be lifted, and a set never shrinks early."""


def build(
    issuer: x509.Certificate,
    key: ec.EllipticCurvePrivateKey,
    entries: Iterable[Entry],
    *,
    number: int,
    now: datetime,
    life: timedelta = LIFE,
) -> x509.CertificateRevocationList:
    """The signed list. `entries` are those of this issuer; it ends with the issuer at the latest."""
    issuer_key = issuer.public_key()
    assert isinstance(issuer_key, ec.EllipticCurvePublicKey)
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(issuer.subject)
        .last_update(now)
        .next_update(min(now + life, issuer.not_valid_after_utc))
        .add_extension(x509.CRLNumber(number), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key), critical=False)
    )
    for each in entries:
        builder = builder.add_revoked_certificate(_revoked(each))
    return builder.sign(key, SHA384() if key.curve.name == "secp384r1" else SHA256())


def _revoked(entry: Entry) -> x509.RevokedCertificate:
    at = datetime.fromtimestamp(entry.revoked_at, UTC)
    builder = x509.RevokedCertificateBuilder().serial_number(int(entry.serial, 16)).revocation_date(at)
    reason = _REASONS.get(entry.reason, x509.ReasonFlags.unspecified)
    if reason is not x509.ReasonFlags.unspecified:  # the RFC asks to leave it out (§5.3.1)
        builder = builder.add_extension(x509.CRLReason(reason), critical=False)
    return builder.build()
