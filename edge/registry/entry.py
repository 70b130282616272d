"""One entry of the shared registry: what the admitting gateway says of one instance, signed with the key of its identity.

The store is not trusted (design §3): whoever can write to it can write anything. So an entry is bytes that are taken whole or
not at all, and everything that decides stands under the signature:

    sealed   msgpack [payload, signature, leaf]    leaf: the gateway's own certificate, DER; readers have the rest
    payload  JSON of `Entry`, in the one spelling that we write ourselves
    signed   PURPOSE || trust domain || 0 || payload, ECDSA with SHA-256

Who the leaf belongs to is for the reader to prove (chain, role, dates, revocation); `Sealed.is_signed` proves only that its
key signed these bytes. The purpose keeps the signature from meaning anything elsewhere, the trust domain from counting in
another. A sequence grows with each entry about one instance, whichever gateway writes it, so a replay is always older than
what is known; a tombstone (`gone`) is an entry like any other.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Annotated

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from pki.spiffe import is_name

PURPOSE = b"edge shared registry entry v1\0"
MAX_BYTES = 32_768
"""Of a sealed entry; what is longer is not looked at."""
MAX_TTL_S = 60
"""Of a lease, and so the longest that anything outlives its tombstone where that is kept from being read."""
SKEW_S = 60
"""How far the clocks of two gateways may be apart. Nothing may end later than MAX_TTL_S + this from now."""
MAX_ROUTES = 50
MAX_WEIGHT = 1000

_Number = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]
_Moment = Annotated[int, msgspec.Meta(ge=0, le=253_402_300_799_999)]
"""Milliseconds since the epoch, of years that can be written with four digits."""
_Text = Annotated[str, msgspec.Meta(max_length=1024)]
HealthPath = Annotated[str, msgspec.Meta(pattern=r"^/[!-~]{0,255}\Z")]
"""It is written into a request as it stands."""


class Declared(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A route that a service declares for itself; methods and hosts are written out."""

    path: _Text
    methods: Annotated[tuple[_Text, ...], msgspec.Meta(min_length=1, max_length=16)]
    hosts: Annotated[tuple[_Text, ...], msgspec.Meta(max_length=1000)]


class Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a gateway says of an instance."""

    service: str
    instance: str
    gateway: _Text
    """SPIFFE ID of who says so."""
    sequence: _Number
    """Nanoseconds since the epoch, or one more than what was known: it grows with each entry about the instance."""
    expires_ms: _Moment
    """Since the epoch; from then on it says nothing."""
    gone: bool
    """A tombstone: the instance left."""
    host: _Text
    """An IP literal."""
    port: Annotated[int, msgspec.Meta(ge=1, le=65535)]
    weight: Annotated[int, msgspec.Meta(ge=1, le=MAX_WEIGHT)]
    health_path: HealthPath | None
    draining: bool
    since_ms: _Moment
    """Since the epoch: when it was admitted, as of its first entry without a gap."""
    holder: Annotated[tuple[tuple[_Text, _Text], ...], msgspec.Meta(max_length=8)]
    """What the proof of who registered rests on: (SHA-256 of the issuer's public key, serial), hexadecimal, leaf first."""
    routes: Annotated[tuple[Declared, ...], msgspec.Meta(max_length=MAX_ROUTES)]

    @property
    def key(self) -> tuple[str, str]:
        return self.service, self.instance

    @property
    def certificates(self) -> tuple[tuple[bytes, int], ...]:
        """`holder`, as a revocation names them."""
        return tuple((bytes.fromhex(issuer), int(serial, 16)) for issuer, serial in self.holder)


def holder(certificates: tuple[tuple[bytes, int], ...]) -> tuple[tuple[str, str], ...]:
    """How an entry writes what a proof rests on."""
    return tuple((issuer.hex(), f"{serial:x}") for issuer, serial in certificates)


@dataclass(frozen=True, slots=True)
class Sealed:
    """An entry whose form was read and whose signature was not."""

    unverified: Entry
    leaf: bytes
    payload: bytes
    signature: bytes

    def is_signed(self, trust_domain: str) -> bool:
        """Whether the key of `leaf` signed the payload. Whose leaf it is, is another question."""
        try:
            key = x509.load_der_x509_certificate(self.leaf).public_key()
            if not isinstance(key, ec.EllipticCurvePublicKey):
                return False
            key.verify(self.signature, _signed(self.payload, trust_domain), ec.ECDSA(hashes.SHA256()))
        except (InvalidSignature, ValueError):
            return False
        return True


def seal(entry: Entry, key: ec.EllipticCurvePrivateKey, leaf: bytes, trust_domain: str) -> bytes:
    """Sign it. `leaf` is the certificate of `key`, DER."""
    payload = _print(entry)
    signature = key.sign(_signed(payload, trust_domain), ec.ECDSA(hashes.SHA256()))
    return msgspec.msgpack.encode((payload, signature, leaf))


def read(raw: bytes) -> Sealed | None:
    """The form of an entry; None when it is not the one spelling of one."""
    if len(raw) > MAX_BYTES:
        return None
    try:
        payload, signature, leaf = _read_sealed(raw)
        entry = _read_entry(payload)
        is_sound = is_name(entry.service) and is_name(entry.instance)
        entry.certificates  # noqa: B018 - hexadecimal, or a ValueError
        ipaddress.ip_address(entry.host)  # or a ValueError
    except (msgspec.MsgspecError, ValueError):
        return None
    if (
        not is_sound
        or "%" in entry.host
        or _print(entry) != payload
        or msgspec.msgpack.encode((payload, signature, leaf)) != raw
    ):
        return None
    return Sealed(entry, leaf, payload, signature)


_print = msgspec.json.Encoder().encode
_read_entry = msgspec.json.Decoder(Entry).decode
_read_sealed = msgspec.msgpack.Decoder(tuple[bytes, bytes, bytes]).decode


def _signed(payload: bytes, trust_domain: str) -> bytes:
    return b"".join((PURPOSE, trust_domain.encode("ascii"), b"\0", payload))
