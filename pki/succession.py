"""Whom to trust from now on, as the authority says it: a bundle that is believed because of what was trusted before.

    {"body":{"type":"edge/bundle/1","trust_domain":"mesh.internal","number":7,"issued_at":1795254000,
      "bundle":"-----BEGIN CERTIFICATE-----…","successions":[{…}]},"signer":"<base64 DER>","signature":"<base64>"}

and in it, for each root that took the place of another:

    {"body":{"type":"edge/succession/1","trust_domain":"mesh.internal","root":"<base64 DER>"},
     "signer":"<base64 DER: the root before it>","signature":"<base64>"}

Whoever hands it on, such as a gateway, may be in an attacker's hands and can at most keep it back. Laws:
- It is signed by the status key, as revocation sets are: by a certificate that a root signed which is trusted already.
- A root that is not trusted yet needs the word of one that is, given by that root's own key, which is offline, when the new
  one was made. Neither the status key nor all the keys that issue can bring in a root.
- Its number is never smaller than the one that is held, and one number has one content.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.serialization import Encoding

from pki.bundle import Bundle
from pki.errors import BundleError, StatusRejected
from pki.revocation import MAX_BYTES, Body, StatusSigner, verified

MAX_SUCCESSIONS = 8
"""Of one bundle: who slept through more rotations of the root is told by a person whom to trust."""
_BUNDLE_TYPE = "edge/bundle/1"
_SUCCESSION_TYPE = "edge/succession/1"
_SIGNATURE = ec.ECDSA(SHA384())


class _BundleBody(Body, frozen=True, forbid_unknown_fields=True):
    issued_at: int
    bundle: str
    """PEM: roots, and the intermediates of each role."""
    successions: tuple[msgspec.Raw, ...]


class _SuccessionBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    type: str
    trust_domain: str
    root: str


class _Succession(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    body: msgspec.Raw
    signer: str
    signature: str


class _Signed(msgspec.Struct, frozen=True):
    body: _BundleBody


@dataclass(frozen=True, slots=True)
class TrustedBundle:
    """A verified one. Built by `seal` and `followed` only."""

    number: int
    pem: bytes
    raw: bytes
    """The signed document."""

    @classmethod
    def seal(
        cls,
        signer: StatusSigner,
        *,
        trust_domain: str,
        number: int,
        pem: bytes,
        successions: Iterable[bytes],
        now: datetime,
    ) -> TrustedBundle:
        """Sign the bundle `number` (≥ 1). `successions`: as `succeed` made them."""
        words = tuple(map(msgspec.Raw, successions))
        body = _BundleBody(_BUNDLE_TYPE, trust_domain, number, int(now.timestamp()), pem.decode("ascii"), words)
        return cls(number, pem, signer.sign(body))


def succeed(key: ec.EllipticCurvePrivateKey, old: x509.Certificate, new: x509.Certificate, trust_domain: str) -> bytes:
    """The word of the root `old`, by its key, that `new` is a root of the same authority."""
    raw = msgspec.json.encode(_SuccessionBody(_SUCCESSION_TYPE, trust_domain, _base64(new)))
    signature = b64encode(key.sign(raw, _SIGNATURE)).decode()
    return msgspec.json.encode(_Succession(msgspec.Raw(raw), _base64(old), signature))


def followed(raw: bytes, *, held_pem: bytes, held: bytes, trust_domain: str, now: datetime) -> TrustedBundle:
    """What to trust in the place of `held_pem`. `held`: the document that this came with; empty where there is none.

    Raises:
        StatusRejected: it does not verify, is older (`rollback`), says another thing by the same number (`two-contents`), or
            has a root that nobody vouches for (`root`).
    """
    # The words of roots prove themselves. They come first, so that who slept through a rotation knows the signer that is new.
    known = _vouched(Bundle.parse(held_pem).anchors, _words(raw), trust_domain)
    body = verified(raw, _BundleBody, _BUNDLE_TYPE, sorted(known), trust_domain, now)
    pem = body.bundle.encode("ascii", "replace")
    number = number_of(held)
    if body.number < number:
        raise StatusRejected("rollback", f"bundle {body.number}, while {number} is known")
    if body.number == number and pem != bundle_of(held):
        raise StatusRejected("two-contents", f"bundle {number} is known, and was another one")
    try:
        offered = Bundle.parse(pem)
    except BundleError as error:
        raise StatusRejected("malformed", str(error)) from error
    for root in offered.anchors:
        if root not in known:
            raise StatusRejected("root", f"no root that is trusted vouches for sha256:{sha256(root).hexdigest()}")
    return TrustedBundle(body.number, pem, raw)


def number_of(raw: bytes) -> int:
    """Of a document that was verified before; 0 where there is none."""
    return msgspec.json.decode(raw, type=_Signed).body.number if raw else 0


def bundle_of(raw: bytes) -> bytes:
    """The bundle (PEM) of a document that was verified before, or is our own; empty where there is none."""
    return msgspec.json.decode(raw, type=_Signed).body.bundle.encode("ascii") if raw else b""


def _words(unverified: bytes) -> tuple[msgspec.Raw, ...]:
    if len(unverified) > MAX_BYTES:
        raise StatusRejected("malformed", f"larger than {MAX_BYTES} bytes")
    try:
        return msgspec.json.decode(unverified, type=_Signed).body.successions
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise StatusRejected("malformed", str(error)) from error


def _vouched(anchors: Iterable[bytes], successions: Iterable[msgspec.Raw], trust_domain: str) -> frozenset[bytes]:
    """The anchors, and every root that one of them vouches for, itself or through others. DER."""
    known = set(anchors)
    waiting = [bytes(each) for each in successions][:MAX_SUCCESSIONS]
    for _ in waiting:
        for raw in waiting:
            root = _succeeding(raw, known, trust_domain)
            if root is not None:
                known.add(root)
    return frozenset(known)


def _succeeding(raw: bytes, known: set[bytes], trust_domain: str) -> bytes | None:
    """The root (DER) that a succession is about, when one of `known` says so."""
    try:
        word = msgspec.json.decode(raw, type=_Succession)
        signer = b64decode(word.signer, validate=True)
        if signer not in known:
            return None
        key = x509.load_der_x509_certificate(signer).public_key()
        if not isinstance(key, ec.EllipticCurvePublicKey):
            return None
        key.verify(b64decode(word.signature, validate=True), bytes(word.body), _SIGNATURE)
        body = msgspec.json.decode(word.body, type=_SuccessionBody)
        if (body.type, body.trust_domain) != (_SUCCESSION_TYPE, trust_domain):
            return None
        return b64decode(body.root, validate=True)
    except (InvalidSignature, msgspec.MsgspecError, ValueError):
        return None


def _base64(certificate: x509.Certificate) -> str:
    return b64encode(certificate.public_bytes(Encoding.DER)).decode()
