"""Who stole the keys of a gateway's authority, and signs what the authority never would."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA256, HashAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from pki.io_create import key_name
from pki.io_keys import Keyring, Passphrases, make_ec
from tests.pki.conftest import Forge, Forged, Sketch

ORDERS = "spiffe://mesh.internal/svc/orders"


@dataclass(frozen=True)
class Pair:
    """A chain (PEM, leaf first) and its key."""

    chain: bytes
    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey

    @property
    def key_pem(self) -> bytes:
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    def context(self, directory: Path, protocol: int) -> ssl.SSLContext:
        """TLS with it, of a party that is ashamed of nothing."""
        (directory / "pair.pem").write_bytes(self.key_pem + self.chain)
        context = ssl.SSLContext(protocol)
        context.set_ciphers("ALL:@SECLEVEL=0")
        context.load_cert_chain(directory / "pair.pem")
        return context


class Thief:
    """The keys of one authority; its lock is not asked for."""

    def __init__(self, ca: Path) -> None:
        self._ca = ca
        self._forge = Forge()
        self.now = datetime.now(UTC).replace(microsecond=0)
        self.good = Sketch(not_before=self.now - timedelta(minutes=1), not_after=self.now + timedelta(hours=1))
        """A leaf of the service orders, as good as the authority's own."""
        found = Passphrases(ca, environ={})
        self._rings = {name: Keyring.open(ca / f"{name}.key", found.find(name)) for name in ("issuing", "root")}
        self.root = self._stolen("root")
        self.svc, self.gw, self.op = (self._stolen(role) for role in ("svc", "gw", "op"))

    def _stolen(self, role: Literal["root", "svc", "gw", "op"]) -> Forged:
        certificate = x509.load_pem_x509_certificates((self._ca / f"{role}.pem").read_bytes())[0]
        ring = self._rings["root" if role == "root" else "issuing"]
        return Forged(certificate, ring.ec_key(key_name(role, certificate)))

    def authority(self, parent: Forged, **changes: object) -> Forged:
        """An intermediate that the authority never made."""
        dates = {"not_before": self.now - timedelta(days=1), "not_after": self.now + timedelta(days=30)}
        sketch = replace(Forge.authority, **{**dates, "cn": "stolen", "path_length": 0, **changes})  # type: ignore[arg-type]
        return self._forge.make(sketch, parent)

    def leaf(self, issuer: Forged | None = None, **changes: object) -> Forged:
        """Of the svc intermediate unless another is named."""
        return self._forge.make(replace(self.good, **changes), issuer or self.svc)  # type: ignore[arg-type]

    def keyed(self, key: object) -> Pair:
        """A leaf of another kind of key."""
        made = self._forge.make(self.good, self.svc, key=key)
        return Pair(made.pem + self.svc.pem, made.key)

    def double(self, of: Forged, signer: Forged | None = None) -> Forged:
        """The same certificate but for its key: subject, serial, key identifier and all; signed by itself or `signer`."""
        key, old = make_ec("p256"), of.certificate
        builder = (
            x509.CertificateBuilder()
            .subject_name(old.subject)
            .issuer_name(old.issuer)
            .public_key(key.public_key())
            .serial_number(old.serial_number)
            .not_valid_before(old.not_valid_before_utc)
            .not_valid_after(old.not_valid_after_utc)
        )
        for extension in old.extensions:
            builder = builder.add_extension(extension.value, critical=extension.critical)
        return Forged(builder.sign(signer.key if signer else key, SHA256()), key)

    def chain(self, leaf: Forged, *issuers: Forged) -> Pair:
        """What is presented."""
        return Pair(b"".join(each.pem for each in (leaf, *(issuers or (self.svc,)))), leaf.key)

    def bent(self, change: Callable[[list[bytes]], None], digest: HashAlgorithm | None = None) -> Pair:
        """A leaf whose parts (DER, in the order of RFC 5280 §4.1) were changed before it was signed."""
        leaf = self.leaf()
        parts = children(leaf.certificate.tbs_certificate_bytes)
        change(parts)
        body = tlv(0x30, b"".join(parts))
        signature = self.svc.key.sign(body, ec.ECDSA(digest or SHA256()))
        der = tlv(0x30, body + parts[2] + tlv(3, b"\0" + signature))
        return Pair(ssl.DER_cert_to_PEM_cert(der).encode() + self.svc.pem, leaf.key)


def tlv(tag: int, content: bytes) -> bytes:
    """One DER element."""
    if len(content) < 128:
        return bytes((tag, len(content))) + content
    size = len(content).to_bytes((len(content).bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(size))) + size + content


def children(der: bytes) -> list[bytes]:
    """The elements inside one."""
    content, found = der[_head(der) :], []
    while content:
        end = _head(content) + _length(content)
        found.append(content[:end])
        content = content[end:]
    return found


def _head(der: bytes) -> int:
    return 2 + (der[1] & 0x7F if der[1] & 0x80 else 0)


def _length(der: bytes) -> int:
    return int.from_bytes(der[2 : _head(der)], "big") if der[1] & 0x80 else der[1]
