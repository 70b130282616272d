"""The claims of an access token (RFC 9068 §2.2, §4), once its signature is known to be right, as a `Principal`.

    {"iss": "https://idp.example.com/", "sub": "alice", "aud": ["https://api.example.com"], "client_id": "web",
     "exp": 1795000600, "iat": 1795000000, "nbf": 1795000000, "jti": "7f…", "scope": "orders:read orders:write",
     "roles": ["auditor"], "tenant": "acme", "acr": "urn:mfa"}

Each claim that is read has exactly one type, and is refused in any other (attack D8): dates are JSON integers, not strings,
floats or booleans; `aud` is a string or a list of strings; names are text without control characters and lone surrogates,
because they go into headers, policies and the log. Required: `iss sub aud exp iat`. `client_id` and `jti`, which RFC 9068
also wants, are taken when present; nothing here depends on them. Claims that are not read are ignored.

A token with `cnf` is bound to a key that its sender must prove (RFC 7800). Proof is not checked by this method, so such a
token is refused: taking it as a bearer token would undo the binding (attack D11).
"""

from __future__ import annotations

import re
from typing import Any

from edge.authn.issuer import IssuerSettings
from edge.authn.keys import VerificationKey
from edge.errors import CredentialRejected
from edge.model.identity import Principal, Standing

NS_PER_S = 1_000_000_000

_NAME = re.compile(r"[^\x00-\x1f\x7f-\x9f\ud800-\udfff]{1,256}")
# RFC 6749 §3.3: scope-token = 1*( %x21 / %x23-5B / %x5D-7E ), one space between.
_SCOPE = re.compile(r"(?:[\x21\x23-\x5b\x5d-\x7e]+(?: [\x21\x23-\x5b\x5d-\x7e]+)*)?")
_MAX_VALUES = 256


def verified(claims: dict[str, Any], settings: IssuerSettings, key: VerificationKey, now_ns: int) -> Principal:
    """The caller, with how long the token speaks for it.

    Raises: CredentialRejected.
    """
    now_s = now_ns // NS_PER_S
    if claims.get("iss") != settings.issuer:
        raise CredentialRejected("issuer")
    if not _is_for_us(claims.get("aud"), settings.audience):
        raise CredentialRejected("audience")
    if "cnf" in claims:
        raise CredentialRejected("confirmation-not-provable")
    expires_s = _date(claims, "exp")
    issued_s = _date(claims, "iat")
    not_before_s = _date(claims, "nbf") if "nbf" in claims else 0
    if expires_s <= now_s:
        raise CredentialRejected("expired")
    if expires_s > now_s + settings.max_lifetime_s:
        raise CredentialRejected("lifetime")
    if issued_s > now_s + settings.leeway_s:
        raise CredentialRejected("issued-in-future")
    if not_before_s > now_s + settings.leeway_s:
        raise CredentialRejected("not-yet-valid")
    from_s = max(not_before_s, issued_s) - settings.leeway_s
    return Principal(
        method="jwt",
        issuer=settings.issuer,
        subject=_required_name(claims, "sub"),
        scopes=_scopes(claims),
        roles=_names(claims, "roles"),
        tenant=_name(claims, "tenant"),
        client_id=_name(claims, "client_id"),
        acr=_name(claims, "acr"),
        issued_ns=issued_s * NS_PER_S,
        expires_ns=expires_s * NS_PER_S,
        jwt_kid=key.kid,
        jwt_alg=key.algorithm,
        jwt_id=_name(claims, "jti"),
        standing=Standing(key, from_s * NS_PER_S, expires_s * NS_PER_S),
    )


def _is_for_us(audience: object, ours: tuple[str, ...]) -> bool:
    """RFC 7519 §4.1.3. A list with anything but strings in it is not an audience at all."""
    if isinstance(audience, str):
        return audience in ours
    if not isinstance(audience, list) or len(audience) > _MAX_VALUES:
        return False
    return all(isinstance(name, str) for name in audience) and any(name in ours for name in audience)


def _date(claims: dict[str, Any], claim: str) -> int:
    """Whole seconds since the epoch. `type(...)`, because a bool is an int to `isinstance`."""
    value = claims.get(claim)
    if type(value) is not int or value < 0:
        raise CredentialRejected(f"claim-{claim}")
    return value


def _name(claims: dict[str, Any], claim: str) -> str | None:
    if claim not in claims:
        return None
    value = claims[claim]
    if not isinstance(value, str) or _NAME.fullmatch(value) is None:
        raise CredentialRejected(f"claim-{claim}")
    return value


def _required_name(claims: dict[str, Any], claim: str) -> str:
    value = _name(claims, claim)
    if value is None:
        raise CredentialRejected(f"claim-{claim}")
    return value


def _names(claims: dict[str, Any], claim: str) -> frozenset[str]:
    """A list of names (RFC 9068 §2.2.3.1); absent is none."""
    values = claims.get(claim, [])
    if not isinstance(values, list) or len(values) > _MAX_VALUES:
        raise CredentialRejected(f"claim-{claim}")
    if not all(isinstance(value, str) and _NAME.fullmatch(value) is not None for value in values):
        raise CredentialRejected(f"claim-{claim}")
    return frozenset(values)


def _scopes(claims: dict[str, Any]) -> frozenset[str]:
    value = claims.get("scope", "")
    if not isinstance(value, str) or _SCOPE.fullmatch(value) is None:
        raise CredentialRejected("claim-scope")
    return frozenset(value.split())
