"""Access tokens made by hand: what the issuer would give out, and what an attacker would try instead.

A bad token differs from a good one in exactly the thing it is named after, so whoever refuses it refuses it for that.
"""

from __future__ import annotations

import json
import secrets
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from joserfc import jws
from joserfc.jwk import ECKey


def signing_key() -> ECKey:
    """A new P-256 key, named by its thumbprint."""
    return ECKey.generate_key("P-256", parameters={"alg": "ES256", "use": "sig"}, auto_kid=True)


def key_set_document(*keys: ECKey) -> bytes:
    """The JWK Set (RFC 7517) of the public halves."""
    return json.dumps({"keys": [key.as_dict(private=False) for key in keys]}).encode()


@dataclass(frozen=True, slots=True)
class Minter:
    """Makes tokens of one issuer for one audience."""

    key: ECKey
    issuer: str
    audience: str
    lifetime_s: int = 600
    now_s: Callable[[], float] = time.time
    """Its clock."""

    def good(self, subject: str, scopes: Sequence[str] = (), **claims: Any) -> str:
        """A token as the issuer makes it; `claims` are added or replace."""
        return self.sign(self.claims(subject, scopes) | claims)

    def expired(self, subject: str, scopes: Sequence[str] = ()) -> str:
        """Was good until an hour ago."""
        now_s = int(self.now_s())
        return self.good(subject, scopes, exp=now_s - 3600, iat=now_s - 7200, nbf=now_s - 7200)

    def for_another_audience(self, subject: str, scopes: Sequence[str] = ()) -> str:
        """Good, but made for somebody else."""
        return self.good(subject, scopes, aud="https://another.example")

    def of_another_issuer(self, subject: str, scopes: Sequence[str] = ()) -> str:
        """Signed by the right key under another name."""
        return self.good(subject, scopes, iss="https://another-issuer.example")

    def forged(self, subject: str, scopes: Sequence[str] = ()) -> str:
        """Signed by a stranger's key that calls itself by the issuer's key name."""
        return self.sign(self.claims(subject, scopes), key=signing_key())

    def unsigned(self, subject: str, scopes: Sequence[str] = ()) -> str:
        """`alg: none` and no signature (attack D1)."""
        signing_input, _, _ = self.sign(self.claims(subject, scopes), header={"alg": "none"}).rpartition(".")
        return f"{signing_input}."

    def claims(self, subject: str, scopes: Sequence[str]) -> dict[str, Any]:
        """The claims of a good token (RFC 9068 §2.2)."""
        now_s = int(self.now_s())
        return {
            "iss": self.issuer,
            "aud": [self.audience],
            "sub": subject,
            "client_id": subject,
            "scope": " ".join(scopes),
            "iat": now_s,
            "nbf": now_s,
            "exp": now_s + self.lifetime_s,
            "jti": secrets.token_urlsafe(12),
        }

    def sign(
        self, claims: Mapping[str, Any] | bytes, *, header: Mapping[str, Any] | None = None, key: ECKey | None = None
    ) -> str:
        """Claims (or any payload) as a compact JWS; `header` replaces members of the usual one, None removes them."""
        members = {"alg": "ES256", "typ": "at+jwt", "kid": self.key.kid, **(header or {})}
        payload = claims if isinstance(claims, bytes) else json.dumps(dict(claims)).encode()
        shown = {name: value for name, value in members.items() if value is not None}
        # The algorithm itself: joserfc's serializer refuses the headers that bad tokens are made of.
        signing_input = f"{_segment(shown)}.{_encoded(payload)}"
        signature = jws.JWSRegistry.algorithms["ES256"].sign(signing_input.encode(), key or self.key)
        return f"{signing_input}.{_encoded(signature)}"


def _segment(members: Mapping[str, Any]) -> str:
    return _encoded(json.dumps(dict(members), separators=(",", ":")).encode())


def _encoded(raw: bytes) -> str:
    return urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")
