"""Entries to change and sign."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from edge.registry.entry import Declared, Entry, seal

NOW_MS = 1_790_000_000_000
DOMAIN = "mesh.internal"
ENTRY = Entry(
    service="orders",
    instance="one",
    gateway="spiffe://mesh.internal/gw/edge",
    sequence=NOW_MS * 1_000_000,
    expires_ms=NOW_MS + 30_000,
    gone=False,
    host="10.1.2.3",
    port=9101,
    weight=1,
    health_path=None,
    draining=False,
    since_ms=NOW_MS,
    holder=(("ab" * 32, "1f"),),
    routes=(Declared("/orders/**", ("GET",), ("localhost",)),),
)


@dataclass(frozen=True)
class Signer:
    """A key and a certificate that names it; who issued it is no question of an entry."""

    key: ec.EllipticCurvePrivateKey
    leaf: bytes

    def seal(self, entry: Entry = ENTRY, domain: str = DOMAIN) -> bytes:
        return seal(entry, self.key, self.leaf, domain)


def make_signer() -> Signer:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([])
    now = datetime.now(UTC)
    leaf = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(now)
        .not_valid_after(now + timedelta(hours=1))
        .sign(key, hashes.SHA256())
    )
    return Signer(key, leaf.public_bytes(Encoding.DER))


@pytest.fixture(scope="session")
def signer() -> Signer:
    return make_signer()


@pytest.fixture(scope="session")
def stranger() -> Signer:
    return make_signer()
