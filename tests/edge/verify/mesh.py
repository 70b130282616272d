"""A trust domain with a gateway that signs, and everybody who would like to be one."""

from __future__ import annotations

import json
import time
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from edge.verify import Presented, Settings, Verifier
from pki.bundle import Bundle
from tests.pki.conftest import Forge, Forged, Sketch

ORDERS = "spiffe://mesh.internal/svc/orders"
BILLING = "spiffe://mesh.internal/svc/billing"
GATEWAY = "spiffe://mesh.internal/gw/edge"
Fields = Sequence[tuple[bytes, bytes]]
ALICE = ((b"x-auth-subject", b"alice"), (b"x-auth-issuer", b"https://idp.example.com/"), (b"x-auth-scopes", b"a b"))


class Mesh:
    """Root, the three intermediates of a bundle, and leaves below them; valid around `now`."""

    def __init__(self, now: datetime) -> None:
        self.now = now
        self.forge = Forge()
        self._authority = replace(
            Forge.authority, not_before=now - timedelta(minutes=1), not_after=now + timedelta(days=90)
        )
        self.root = self.forge.make(replace(self._authority, cn="root", path_length=1))
        self.issuers = {
            role: self.forge.make(replace(self._authority, cn=role, unit=role, path_length=0), self.root)
            for role in ("svc", "gw", "op")
        }
        self.gateway = self.leaf(GATEWAY, "gw")
        self.bundle_pem = b"".join(each.pem for each in (self.root, *self.issuers.values()))

    @property
    def now_s(self) -> int:
        return int(self.now.timestamp())

    @property
    def now_ns(self) -> int:
        return self.now_s * 10**9

    def leaf(self, uri: str, role: str, *, key: object = None, **changes: Any) -> Forged:
        sketch = replace(
            Sketch(), uris=(uri,), dns=(), not_before=self.now - timedelta(minutes=1),
            not_after=self.now + timedelta(hours=24),
        )  # fmt: skip
        return self.forge.make(replace(sketch, **changes), self.issuers[role], key=key)

    def claims(self, **changes: Any) -> dict[str, Any]:
        """Good ones about alice; a change to None leaves the claim out."""
        claims = {
            "iss": GATEWAY, "aud": ORDERS, "iat": self.now_s, "nbf": self.now_s, "exp": self.now_s + 30,
            "sub_id": {"format": "iss_sub", "iss": "https://idp.example.com/", "sub": "alice"}, "scopes": ["a", "b"],
        }  # fmt: skip
        return {name: value for name, value in (claims | changes).items() if value is not None}

    def header(self, *chain: Forged, **changes: Any) -> dict[str, Any]:
        x5c = [b64encode(each.der).decode() for each in chain or (self.gateway,)]
        header = {"alg": "ES256", "typ": "edge-assertion+jwt", "x5c": x5c}
        return {name: value for name, value in (header | changes).items() if value is not None}

    def assertion(self, header: dict[str, Any] | None = None, key: Any = None, **changes: Any) -> bytes:
        """A good one unless something is changed."""
        return signed(
            spelled(self.header() if header is None else header),
            spelled(self.claims(**changes)),
            self.gateway.key if key is None else key,
        )

    def verifier(self, service: str = ORDERS, bundle_pem: bytes | None = None, **settings: Any) -> Verifier:
        return Verifier(Settings(service, **settings), Bundle.parse(bundle_pem or self.bundle_pem))


def spelled(document: dict[str, Any]) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()


def segment(raw: bytes) -> bytes:
    return urlsafe_b64encode(raw).rstrip(b"=")


def signed(raw_header: bytes, raw_claims: bytes, key: ec.EllipticCurvePrivateKey) -> bytes:
    signing_input = segment(raw_header) + b"." + segment(raw_claims)
    size = (key.curve.key_size + 7) // 8
    r, s = decode_dss_signature(key.sign(signing_input, ec.ECDSA(SHA256())))
    return signing_input + b"." + segment(r.to_bytes(size, "big") + s.to_bytes(size, "big"))


def presented(
    assertion: bytes | None, *more: tuple[bytes, bytes], identity: Fields = ALICE, target: bytes = b"/orders/7"
) -> Presented:
    fields = [*identity, *more]
    if assertion is not None:
        fields.append((b"edge-assertion", assertion))
    path, _, query = target.partition(b"?")
    return Presented("GET", path, query, fields)


def private_pem(leaf: Forged) -> bytes:
    return leaf.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


@cache
def mesh() -> Mesh:
    """Of a day in 2026, for pure tests."""
    return Mesh(datetime(2026, 11, 21, 12, 0, tzinfo=UTC))


def mesh_of_today() -> Mesh:
    """For what reads the clock: what it signs is of this moment, however long the other tests took."""
    made = _mesh_of_today()
    made.now = datetime.fromtimestamp(int(time.time()), UTC)
    return made


@cache
def _mesh_of_today() -> Mesh:
    return Mesh(datetime.fromtimestamp(int(time.time()), UTC))
