"""Who stole the keys of a gateway's authority, and signs what the authority never would."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

from cryptography import x509

from pki.io_create import key_name
from pki.io_keys import Keyring, Passphrases, private_pem
from tests.pki.conftest import Forge, Forged, Sketch

ORDERS = "spiffe://mesh.internal/svc/orders"


class Thief:
    """The keys of one authority; its lock is not asked for."""

    def __init__(self, ca: Path) -> None:
        self.ca = ca
        self.forge = Forge()
        self.now = datetime.now(UTC).replace(microsecond=0)
        self.good = Sketch(not_before=self.now - timedelta(minutes=1), not_after=self.now + timedelta(hours=1))
        """A leaf of the service orders, as good as the authority's own."""
        passphrases = Passphrases(ca, environ={})
        self._rings = {name: Keyring.open(ca / f"{name}.key", passphrases.find(name)) for name in ("issuing", "root")}
        self.root = self.stolen("root")
        self.svc, self.gw, self.op = (self.stolen(role) for role in ("svc", "gw", "op"))

    def stolen(self, role: Literal["root", "svc", "gw", "op"]) -> Forged:
        """An authority's certificate and key."""
        certificate = x509.load_pem_x509_certificates((self.ca / f"{role}.pem").read_bytes())[0]
        ring = self._rings["root" if role == "root" else "issuing"]
        return Forged(certificate, ring.ec_key(key_name(role, certificate)))

    def authority(self, parent: Forged | None, **changes: object) -> Forged:
        """An intermediate of his own, or (without a parent) a root."""
        dates = {"not_before": self.now - timedelta(days=1), "not_after": self.now + timedelta(days=30)}
        sketch = replace(Forge.authority, **{**dates, "cn": "stolen", **changes})  # type: ignore[arg-type]
        return self.forge.make(sketch, parent)

    def leaf(self, issuer: Forged | None = None, **changes: object) -> Forged:
        """Of the svc intermediate unless another is named."""
        return self.forge.make(replace(self.good, **changes), issuer or self.svc)  # type: ignore[arg-type]

    def chain(self, leaf: Forged, *issuers: Forged) -> tuple[bytes, bytes]:
        """(chain, key), PEM: what a server presents."""
        return b"".join(each.pem for each in (leaf, *(issuers or (self.svc,)))), private_pem(leaf.key)
