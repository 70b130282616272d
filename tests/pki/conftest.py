"""Authorities for tests: a real one on disk (cheap passphrase derivation), and a forge for certificates ours never makes."""

from __future__ import annotations

import ipaddress
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from pki.io_authority import Authority
from pki.io_keys import Passphrases
from tests.pki.founding import found_authority

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)


@pytest.fixture
def now() -> datetime:
    return NOW


@pytest.fixture(scope="session")
def founded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state directory whose `ca` holds both passphrases; copied for each test, never used itself."""
    state = tmp_path_factory.mktemp("founded") / "state"
    state.mkdir(mode=0o700)
    found_authority(state / "ca", NOW, hosts=["localhost", "127.0.0.1"], unattended=["root", "issuing"])
    return state


@pytest.fixture
def state(founded: Path, tmp_path: Path) -> Path:
    return shutil.copytree(founded, tmp_path / "state")


@pytest.fixture
def passphrases(state: Path) -> Passphrases:
    return Passphrases(state / "ca")


@pytest.fixture
def authority(state: Path, passphrases: Passphrases) -> Iterator[Authority]:
    with Authority.open(state / "ca", passphrases, now=NOW) as opened:
        yield opened


@dataclass(frozen=True)
class Sketch:
    """Everything about one certificate, good unless changed."""

    uris: tuple[str, ...] = ("spiffe://mesh.internal/svc/orders",)
    dns: tuple[str, ...] = ("orders.internal",)
    ips: tuple[str, ...] = ()
    cn: str | None = None
    san_critical: bool = True
    usages: tuple[x509.ObjectIdentifier, ...] | None = (
        ExtendedKeyUsageOID.SERVER_AUTH,
        ExtendedKeyUsageOID.CLIENT_AUTH,
    )
    is_ca: bool = False
    path_length: int | None = None
    signs: bool = True
    key_usage: bool = True
    may_certify: bool | None = None
    not_before: datetime = NOW - timedelta(minutes=1)
    not_after: datetime = NOW + timedelta(hours=24)
    serial: int = 0x1234
    unit: str | None = None
    constraints: x509.NameConstraints | None = None
    constraints_critical: bool = True
    key_identifier: bool = True
    extra: tuple[x509.ExtensionType, ...] = ()
    extra_critical: bool = False


@dataclass(frozen=True)
class Forged:
    """A certificate with its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(Encoding.DER)

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)


class Forge:
    """Signs anything."""

    authority = Sketch(
        uris=(), dns=(), cn="forged authority", usages=None, is_ca=True, signs=False, not_after=NOW + timedelta(days=90)
    )

    def __init__(self) -> None:
        self.root = self.make(replace(self.authority, cn="root", path_length=1))
        self.issuer = self.make(replace(self.authority, cn="svc", unit="svc", path_length=0), self.root)

    def make(
        self, sketch: Sketch, issuer: Forged | None = None, *, key: object = None, signer: object = None
    ) -> Forged:
        own = key if key is not None else ec.generate_private_key(ec.SECP256R1())
        attributes = [x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, sketch.unit)] if sketch.unit else []
        attributes += [x509.NameAttribute(NameOID.COMMON_NAME, sketch.cn)] if sketch.cn is not None else []
        subject = x509.Name(attributes)
        signing_key = signer if signer is not None else (issuer.key if issuer else own)
        certify = sketch.is_ca if sketch.may_certify is None else sketch.may_certify
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer.certificate.subject if issuer else subject)
            .public_key(own.public_key())  # type: ignore[attr-defined]
            .serial_number(sketch.serial)
            .not_valid_before(sketch.not_before)
            .not_valid_after(sketch.not_after)
            .add_extension(x509.BasicConstraints(sketch.is_ca, sketch.path_length), critical=True)
        )
        if sketch.key_usage:
            usage = x509.KeyUsage(sketch.signs, False, False, False, False, certify, certify, False, False)
            builder = builder.add_extension(usage, critical=True)
        if sketch.usages is not None:
            builder = builder.add_extension(x509.ExtendedKeyUsage(sketch.usages), critical=False)
        names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(uri) for uri in sketch.uris]
        names += [x509.DNSName(name) for name in sketch.dns]
        names += [x509.IPAddress(ipaddress.ip_address(ip)) for ip in sketch.ips]
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=sketch.san_critical)
        if sketch.constraints is not None:
            builder = builder.add_extension(sketch.constraints, critical=sketch.constraints_critical)
        for extension in sketch.extra:
            builder = builder.add_extension(extension, critical=sketch.extra_critical)
        if sketch.key_identifier:
            identifier = x509.SubjectKeyIdentifier.from_public_key(own.public_key())  # type: ignore[attr-defined]
            builder = builder.add_extension(identifier, critical=False)
        parent = issuer.certificate.public_key() if issuer else own.public_key()  # type: ignore[attr-defined]
        builder = builder.add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(parent),  # type: ignore[arg-type]
            critical=False,
        )
        return Forged(builder.sign(signing_key, SHA256()), own)  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def forge() -> Forge:
    return Forge()


@pytest.fixture(scope="session")
def sketch() -> type[Sketch]:
    return Sketch
