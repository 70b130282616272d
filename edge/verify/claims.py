"""What the claims of an assertion say, once its signature is the gateway's: each has its type, and nothing else stands there.

An assertion of a later form is refused and not half understood: a claim that is not known here may narrow the others.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edge.verify.form import LIFE_S, percent_encoded, scopes_field
from edge.verify.rules import AssertionRefused

SKEW_S = 5
"""How far the clocks of two machines may be apart."""

IDENTITY = (b"x-auth-subject", b"x-auth-issuer", b"x-auth-scopes")

_NS = 1_000_000_000
_ALWAYS = {"iss": str, "aud": str, "iat": int, "nbf": int, "exp": int}
_OF_CALLER = {"sub_id": dict, "scopes": list}
_OF_REQUEST = {"jti": str, "request": dict}
_SUBJECT = {"format": str, "iss": str, "sub": str}
_REQUEST = {"method": str, "authority": str, "target": str}
_LATEST_S = 1 << 40
"""Far above any year, and below what arithmetic would have to be careful with."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls, as a gateway vouches for it."""

    gateway: str
    """Its SPIFFE ID."""
    issuer: str | None
    """None, like the subject: anonymous."""
    subject: str | None
    scopes: frozenset[str]
    request_id: str | None
    """Of an assertion that is bound to its request: the decision's id in the gateway's log. A gateway sends a request
    twice only when the connection closed under it before an answer began."""

    @property
    def is_anonymous(self) -> bool:
        return self.subject is None


@dataclass(frozen=True, slots=True)
class Asserted:
    """What one assertion says. Built only here, of claims whose signature was checked."""

    caller: Caller
    audience: str
    not_before_ns: int
    expires_ns: int
    """Both with the skew that is allowed."""
    identity: tuple[bytes | None, ...]
    """What the fields of `IDENTITY` must be; None: not there."""
    request: tuple[str, bytes, bytes] | None
    """Method, authority and target; None: it is not bound to a request."""


def read(claims: Mapping[str, Any]) -> Asserted:
    """Raises: AssertionRefused with `assertion-claims` or `assertion-lifetime`."""
    has_caller, has_request = "sub_id" in claims, "request" in claims
    _require(claims, _ALWAYS | (_OF_CALLER if has_caller else {}) | (_OF_REQUEST if has_request else {}))
    issued_s, begins_s, ends_s = claims["iat"], claims["nbf"], claims["exp"]
    if not 0 < ends_s - issued_s <= LIFE_S or not 0 < issued_s <= begins_s < _LATEST_S:
        raise AssertionRefused("assertion-lifetime")
    issuer = subject = None
    scopes: frozenset[str] = frozenset()
    identity: tuple[bytes | None, ...] = (None, None, None)
    if has_caller:
        _require(claims["sub_id"], _SUBJECT)
        if claims["sub_id"]["format"] != "iss_sub" or not all(type(scope) is str for scope in claims["scopes"]):
            raise AssertionRefused("assertion-claims", "sub_id or scopes")
        issuer, subject, scopes = claims["sub_id"]["iss"], claims["sub_id"]["sub"], frozenset(claims["scopes"])
        identity = (percent_encoded(subject), percent_encoded(issuer), scopes_field(scopes))
    request = None
    if has_request:
        _require(claims["request"], _REQUEST)
        method, authority, target = (claims["request"][name] for name in _REQUEST)
        request = method, _ascii(authority), _ascii(target)
    return Asserted(
        caller=Caller(claims["iss"], issuer, subject, scopes, claims.get("jti")),
        audience=claims["aud"],
        not_before_ns=(begins_s - SKEW_S) * _NS,
        expires_ns=(ends_s + SKEW_S) * _NS,
        identity=identity,
        request=request,
    )


def _require(members: Mapping[str, Any], types: Mapping[str, type]) -> None:
    """Exactly these members, each of its type: `True` is no number here."""
    if members.keys() != types.keys() or any(type(members[name]) is not kind for name, kind in types.items()):
        raise AssertionRefused("assertion-claims", ", ".join(map(repr, members)))


def _ascii(text: str) -> bytes:
    try:
        return text.encode("ascii")
    except UnicodeEncodeError as exc:
        raise AssertionRefused("assertion-claims", "request") from exc
