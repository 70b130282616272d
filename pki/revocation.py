"""What is revoked, as the authority says it: a signed, numbered set, and a signed heartbeat that it is still the newest.

    {"body":{"type":"edge/revocation-set/1","trust_domain":"mesh.internal","number":7,"issued_at":1795254000,"revoked":
      [{"issuer":"<hex>","serial":"<hex>","not_after":…,"revoked_at":…,"reason":"keyCompromise"}, …]},
     "signer":"<base64 DER>","signature":"<base64>"}
    {"body":{"type":"edge/heartbeat/1","trust_domain":"mesh.internal","number":7,"digest":"<of the set, hex>","at":…},…}

The set changes rarely and may be long; the heartbeat is short and comes every two seconds, so that who keeps the authority
from being heard is noticed: without a heartbeat of the last ten seconds nobody knows what is revoked, and not knowing
refuses. Laws:
- The signature is ECDSA P-256 with SHA-256 over the bytes of `body`, by a certificate that a trusted root signed directly,
  of OU `status`, with no other use (critical extended key usage OCSPSigning, so that it can never be a TLS peer).
- One spelling: what does not print back to the same bytes is refused, so that a digest names a set and not its meaning.
- A set is replaced only by one of a greater number. Replaying an old one, though it was signed well, changes nothing.
- Whatever has ended is left out: its end refuses it.
"""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from typing import TypeVar

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from pki.errors import StatusRejected
from pki.issue import STATUS_UNIT
from pki.profile import PARSE_ERRORS

HEARTBEAT_S = 2
FRESH_S = 10
"""Older than that, a heartbeat says nothing any more."""
MAX_BYTES = 16 << 20
"""Some 80 000 revocations that have not ended."""
_DIGEST = re.compile(r"[0-9a-f]{64}\Z")
_SERIAL = re.compile(r"[1-9a-f][0-9a-f]{0,39}\Z")
_SET_TYPE = "edge/revocation-set/1"
_HEARTBEAT_TYPE = "edge/heartbeat/1"


class Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True, order=True):
    """One revoked certificate. Moments are seconds since the epoch."""

    issuer: str
    """SHA-256 of the issuer's public key (SubjectPublicKeyInfo), hex."""
    serial: str
    """Hex without leading zeros."""
    not_after: int
    revoked_at: int
    reason: str
    """As in RFC 5280 §5.3.1, or the authority's own word."""


class Body(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What everything that the status key signs begins with."""

    type: str
    trust_domain: str
    number: int
    """≥ 1."""


class _SetBody(Body, frozen=True, forbid_unknown_fields=True):
    issued_at: int
    revoked: tuple[Entry, ...]


class _HeartbeatBody(Body, frozen=True, forbid_unknown_fields=True):
    digest: str
    at: int


_Body = TypeVar("_Body", bound=Body)


class _Signed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    body: msgspec.Raw
    signer: str
    signature: str


@dataclass(frozen=True, slots=True)
class StatusSigner:
    """The key that signs, and the root's word for it."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    def sign(self, body: msgspec.Struct) -> bytes:
        """The document of a body."""
        raw = msgspec.json.encode(body)
        signature = self.key.sign(raw, ec.ECDSA(SHA256()))
        signer = b64encode(self.certificate.public_bytes(Encoding.DER)).decode()
        return msgspec.json.encode(_Signed(msgspec.Raw(raw), signer, b64encode(signature).decode()))


@dataclass(frozen=True, slots=True)
class RevocationSet:
    """A verified set. Built by `seal` and `parse` only."""

    trust_domain: str
    number: int
    issued_at: int
    entries: tuple[Entry, ...]
    revoked: frozenset[tuple[bytes, int]]
    """(SHA-256 of the issuer's public key, serial): what `svid.verify` asks."""
    raw: bytes
    """The signed document."""

    @classmethod
    def seal(
        cls, signer: StatusSigner, *, trust_domain: str, number: int, entries: Iterable[Entry], now: datetime
    ) -> RevocationSet:
        """Sign the set `number` (≥ 1)."""
        body = _SetBody(_SET_TYPE, trust_domain, number, int(now.timestamp()), tuple(sorted(entries)))
        return cls._of(body, signer.sign(body))

    @classmethod
    def parse(cls, raw: bytes, *, anchors: Sequence[bytes], trust_domain: str, now: datetime) -> RevocationSet:
        """Verify a document. `anchors`: roots, DER.

        Raises:
            StatusRejected: malformed, of another trust domain, or not signed for an anchor's authority.
        """
        body = verified(raw, _SetBody, _SET_TYPE, anchors, trust_domain, now)
        if list(body.revoked) != sorted(set(body.revoked)):
            raise StatusRejected("spelling", "entries are not sorted, or repeated")
        return cls._of(body, raw)

    @classmethod
    def _of(cls, body: _SetBody, raw: bytes) -> RevocationSet:
        for each in body.revoked:
            if not (_DIGEST.match(each.issuer) and _SERIAL.match(each.serial)):
                raise StatusRejected("spelling", "an issuer or serial is not as hexadecimal is written here")
        revoked = frozenset((bytes.fromhex(each.issuer), int(each.serial, 16)) for each in body.revoked)
        return cls(body.trust_domain, body.number, body.issued_at, body.revoked, revoked, raw)

    @property
    def digest(self) -> str:
        return sha256(self.raw).hexdigest()

    def is_signed_by(self, certificate: x509.Certificate) -> bool:
        """Of a set that is verified already: is this the signer that it names?"""
        return b64encode(certificate.public_bytes(Encoding.DER)) in self.raw

    def supersedes(self, held: RevocationSet | None) -> bool:
        """May this set take the place of the one that is held? A rollback, or a second set of one number, may not."""
        return held is None or (self.trust_domain == held.trust_domain and self.number > held.number)


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """A verified word of the authority that a set was the newest at a moment."""

    number: int
    digest: str
    at: int
    """Seconds since the epoch."""
    raw: bytes

    @classmethod
    def seal(cls, signer: StatusSigner, newest: RevocationSet, now: datetime) -> Heartbeat:
        body = _HeartbeatBody(_HEARTBEAT_TYPE, newest.trust_domain, newest.number, newest.digest, int(now.timestamp()))
        return cls(body.number, body.digest, body.at, signer.sign(body))

    @classmethod
    def parse(cls, raw: bytes, *, anchors: Sequence[bytes], trust_domain: str, now: datetime) -> Heartbeat:
        """Verify a document.

        Raises:
            StatusRejected: as `RevocationSet.parse`; also when it is of the future.
        """
        body = verified(raw, _HeartbeatBody, _HEARTBEAT_TYPE, anchors, trust_domain, now)
        if body.at > now.timestamp() + FRESH_S:  # else a stolen hour ahead would keep a revoked peer in for an hour
            raise StatusRejected("future", f"said {body.at - int(now.timestamp())} s ahead of this clock")
        return cls(body.number, body.digest, body.at, raw)

    def vouches_for(self, held: RevocationSet, now: datetime) -> bool:
        """Is what is held the newest, and was that said within the last ten seconds? A set that came later is newer still."""
        is_newest = (self.number, self.digest) == (held.number, held.digest) or self.number < held.number
        return is_newest and now.timestamp() - self.at <= FRESH_S


def verified(
    raw: bytes, kind: type[_Body], name: str, anchors: Sequence[bytes], trust_domain: str, now: datetime
) -> _Body:
    """The body of a document of type `name` that the status key signed. `anchors`: roots, DER.

    Raises:
        StatusRejected
    """
    if len(raw) > MAX_BYTES:
        raise StatusRejected("malformed", f"larger than {MAX_BYTES} bytes")
    try:
        signed = msgspec.json.decode(raw, type=_Signed)
        signer = x509.load_der_x509_certificate(b64decode(signed.signer, validate=True))
        signature = b64decode(signed.signature, validate=True)
        key = _status_key(signer, anchors, trust_domain, now)
        key.verify(signature, bytes(signed.body), ec.ECDSA(SHA256()))
        body = msgspec.json.decode(signed.body, type=kind)
    except InvalidSignature as error:
        raise StatusRejected("signature") from error
    except (*PARSE_ERRORS, x509.ExtensionNotFound) as error:
        raise StatusRejected("malformed", str(error)) from error
    if body.type != name or body.trust_domain != trust_domain or body.number < 1:
        raise StatusRejected("trust-domain", f"{body.type} of {body.trust_domain}")
    again = msgspec.json.encode(_Signed(msgspec.Raw(msgspec.json.encode(body)), signed.signer, signed.signature))
    if again != raw:
        raise StatusRejected("spelling")
    return body


def _status_key(
    signer: x509.Certificate, anchors: Sequence[bytes], trust_domain: str, now: datetime
) -> ec.EllipticCurvePublicKey:
    if not any(_is_signed_by(signer, x509.load_der_x509_certificate(anchor)) for anchor in anchors):
        raise StatusRejected("signer", "no trusted root signed the signer's certificate")
    subject = {attribute.oid: attribute.value for attribute in signer.subject}
    if (subject.get(NameOID.ORGANIZATION_NAME), subject.get(NameOID.ORGANIZATIONAL_UNIT_NAME)) != (
        trust_domain,
        STATUS_UNIT,
    ):
        raise StatusRejected("signer", "the certificate is not that of the trust domain's status")
    usages = list(signer.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
    if usages != [ExtendedKeyUsageOID.OCSP_SIGNING]:
        raise StatusRejected("signer", "the certificate is for something else")
    if not signer.not_valid_before_utc <= now.astimezone(UTC) <= signer.not_valid_after_utc:
        raise StatusRejected("signer", "the signer's certificate is not valid now")
    key = signer.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name != "secp256r1":
        raise StatusRejected("signer", "the key is not P-256")
    return key


def _is_signed_by(certificate: x509.Certificate, anchor: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(anchor)
    except (InvalidSignature, ValueError, TypeError):
        return False
    return True
