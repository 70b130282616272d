"""The form of an assertion: how the gateway writes it and the service reads it. One place, so that both mean the same.

    edge-assertion: eyJhbGciOiJFUzI1NiIsInR5cCI6ImVkZ2Ut….eyJpc3MiOiJzcGlmZmU6Ly9tZXNo….c2lnbmF0dXJl

    {"alg":"ES256","typ":"edge-assertion+jwt","x5c":["<base64 DER: the gateway's certificate>", …]}
    {"iss":"spiffe://mesh.internal/gw/edge","aud":"spiffe://mesh.internal/svc/orders","iat":1795254000,"nbf":1795254000,
     "exp":1795254030,"sub_id":{"format":"iss_sub","iss":"https://idp.example.com/","sub":"alice"},"scopes":["orders:read"],
     "jti":"01J…","request":{"method":"GET","authority":"api.example.com","target":"/orders/7?full=1"}}

A JWT (RFC 7519) in the compact form of JWS (RFC 7515 §3.1). `sub_id` (RFC 9493 §3.2.3) and `scopes` are absent for an
anonymous caller; `jti` and `request` are there in `request` mode alone. One spelling: unpadded base64url, zero unused bits,
and JSON that prints back to the same bytes, so that no member stands twice and no two readers understand it differently.
"""

from __future__ import annotations

import json
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Any, Literal

FIELD = b"edge-assertion"
TYPE = "edge-assertion+jwt"
"""`typ` of nothing else: no token of an issuer can be taken for an assertion, nor the reverse (RFC 8725 §3.11)."""
ALGORITHM = "ES256"
LIFE_S = 30
"""From `iat` to `exp`: how long what the gateway knew of a caller is believed."""
Mode = Literal["subject", "request"]
"""What is vouched for: the caller towards the service, or the caller with this one request."""

_UNRESERVED = re.compile(r"[^!-$&-~]")
"""Whatever is not printable ASCII, and `%` itself, so that the encoding can be undone (design §8)."""


class NotOfTheForm(ValueError):
    """Bytes that no gateway wrote."""


def percent_encoded(text: str) -> bytes:
    """A subject, an issuer or a scope as `X-Auth-*` has it."""
    if text.isascii() and _UNRESERVED.search(text) is None:
        return text.encode("ascii")
    return _UNRESERVED.sub(
        lambda m: "".join(f"%{byte:02X}" for byte in m[0].encode("utf-8", "surrogatepass")), text
    ).encode("ascii")


def scopes_field(scopes: frozenset[str]) -> bytes:
    """The value of `X-Auth-Scopes`."""
    return b" ".join(sorted(map(percent_encoded, scopes)))


def printed(document: dict[str, Any]) -> bytes:
    """A header or the claims, in the one spelling; then as a segment."""
    return urlsafe_b64encode(_spelled(document)).rstrip(b"=")


def parsed(segment: bytes) -> dict[str, Any]:
    """The reverse of `printed`.

    Raises: NotOfTheForm.
    """
    raw = opened(segment)
    try:
        document = json.loads(raw.decode("ascii"))
        is_spelled = isinstance(document, dict) and _spelled(document) == raw
    except (ValueError, RecursionError) as exc:
        raise NotOfTheForm("not JSON") from exc
    if not is_spelled:
        raise NotOfTheForm("not the one spelling of a JSON object")
    return document  # type: ignore[no-any-return]


def segment(raw: bytes) -> bytes:
    """Unpadded base64url (RFC 7515 §2)."""
    return urlsafe_b64encode(raw).rstrip(b"=")


def opened(segment: bytes) -> bytes:
    """The bytes of a segment.

    Raises: NotOfTheForm; also for a second spelling of the same bytes, which the library's decoder would take.
    """
    try:
        raw = urlsafe_b64decode(segment + b"=" * (-len(segment) % 4))
    except ValueError as exc:
        raise NotOfTheForm("not base64url") from exc
    if urlsafe_b64encode(raw).rstrip(b"=") != segment:
        raise NotOfTheForm("not the one spelling in base64url")
    return raw


def _spelled(document: dict[str, Any]) -> bytes:
    return json.dumps(document, separators=(",", ":"), allow_nan=False).encode("ascii")
