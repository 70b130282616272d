"""An authority that the mesh has never heard of. The issuer's TLS certificate comes from one, as any company's would; and a
rogue makes itself one, with all the right names in it.
"""

from __future__ import annotations

import ipaddress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_LIFE = timedelta(hours=24)


class Authority:
    """A self-signed root that issues server certificates for any names it is asked for."""

    def __init__(self, subject: x509.Name) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._subject = subject
        builder = _builder(self._subject, self._subject, self._key.public_key(), self._key.public_key())
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        builder = builder.add_extension(_key_usage(signs_certificates=True), critical=True)
        self._root = builder.sign(self._key, SHA256())

    def write_root(self, file: Path) -> None:
        """The anchor, for whoever wants to believe in it."""
        file.write_bytes(self._root.public_bytes(Encoding.PEM))

    def issue(self, directory: Path, *names: x509.GeneralName) -> None:
        """Write `chain.pem` (leaf and root) and `key.pem` for these names."""
        key = ec.generate_private_key(ec.SECP256R1())
        builder = _builder(x509.Name([]), self._subject, key.public_key(), self._key.public_key())
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=True)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(_key_usage(signs_certificates=False), critical=True)
        uses = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        builder = builder.add_extension(x509.ExtendedKeyUsage(uses), critical=False)
        leaf = builder.sign(self._key, SHA256())
        directory.mkdir(parents=True)
        chain = leaf.public_bytes(Encoding.PEM) + self._root.public_bytes(Encoding.PEM)
        (directory / "chain.pem").write_bytes(chain)
        (directory / "key.pem").touch(mode=0o600)
        (directory / "key.pem").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


def named(common_name: str) -> x509.Name:
    """A name for an authority of one's own."""
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def name_of(certificate: Path) -> x509.Name:
    """The name of another authority, to copy it: names are free, keys are not."""
    return x509.load_pem_x509_certificate(certificate.read_bytes()).subject


def loopback() -> x509.GeneralName:
    """The name under which the issuer is reached."""
    return x509.IPAddress(ipaddress.ip_address("127.0.0.1"))


def signing_key_pem() -> bytes:
    """A P-256 key, as the issuer signs its tokens with."""
    key = ec.generate_private_key(ec.SECP256R1())
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, issuer_key: ec.EllipticCurvePublicKey
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key)
    builder = builder.serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(now - timedelta(minutes=1)).not_valid_after(now + _LIFE)
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    return builder.add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key), critical=False)


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )
