"""An authority that is not ours, and signs whatever it is asked to."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

NOW = datetime.now(UTC)
ORDERS = "spiffe://mesh.internal/svc/orders"
SERVER, CLIENT = ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH
Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


@dataclass(frozen=True)
class Leaf:
    """Good unless changed."""

    uris: tuple[str, ...] = (ORDERS,)
    dns: tuple[str, ...] = ("orders.internal",)
    cn: str | None = None
    usages: tuple[x509.ObjectIdentifier, ...] | None = (SERVER, CLIENT)
    is_ca: bool = False
    can_sign: bool = True
    begins: datetime = NOW - timedelta(minutes=1)
    ends: datetime = NOW + timedelta(hours=1)
    key: str = "p256"


def new_key(kind: str) -> Key:
    if kind == "rsa1024":
        return rsa.generate_private_key(65537, 1024)
    return ec.generate_private_key({"p256": ec.SECP256R1, "p521": ec.SECP521R1}[kind]())


class Root:
    """The outside authority."""

    def __init__(self) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "outside root")])
        anchor = Leaf((), (), usages=None, is_ca=True)
        self.certificate = self._builder(anchor, self.name, self.key).sign(self.key, SHA256())

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)

    def sign(self, leaf: Leaf) -> tuple[bytes, bytes]:
        """(chain, key), PEM."""
        key = new_key(leaf.key)
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, leaf.cn)] if leaf.cn else [])
        certificate = self._builder(leaf, subject, key).sign(self.key, SHA256())
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        return certificate.public_bytes(Encoding.PEM), pem

    def _builder(self, leaf: Leaf, subject: x509.Name, key: Key) -> x509.CertificateBuilder:
        ca, signs = leaf.is_ca, leaf.can_sign
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(leaf.begins)
            .not_valid_after(leaf.ends)
            .add_extension(x509.BasicConstraints(ca, None), critical=True)
            .add_extension(x509.KeyUsage(signs, False, not signs, False, False, ca, ca, False, False), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False)
        )
        if leaf.usages is not None:
            builder = builder.add_extension(x509.ExtendedKeyUsage(leaf.usages), critical=False)
        names = [*map(x509.UniformResourceIdentifier, leaf.uris), *map(x509.DNSName, leaf.dns)]
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=not leaf.cn)
        return builder


ROOT = Root()
