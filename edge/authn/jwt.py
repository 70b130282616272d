"""Bearer tokens that are JWTs: the profile of RFC 9068, presented as RFC 6750 §2.1 (`Authorization: Bearer …`) and in no
other way; a token in the query or the body is not looked for (attack D10).

The steps:
1. the scheme, in any case; another scheme is another method's (`NOT_PRESENT`);
2. a value that was verified before: still valid by time and key → the same `Principal` object;
3. the JWS, well-formed (`jws.parse`), and `typ` says access token: an ID token must not pass for one (RFC 9068 §4);
4. the unverified `iss` picks the issuer's settings and keys, and nothing else: a key of one issuer never verifies a token
   of another, whatever its `kid` (attack D6);
5. `alg` is pinned for the issuer, and its key set holds a key for this `kid` and `alg`. If not, the set may be out of date:
   one fetch, shared by all who wait and rate-limited by the key source (attack D7), then the answer is final;
6. the signature (`jws.verify`), then the claims (`claims.verified`); the entry is remembered.

Bad tokens are not remembered: the sender could vary them without end, and whoever floods the gateway with them would
displace good ones. A verified one that has expired is, and costs a lookup. What is remembered stands under the whole
`Authorization` value, so a hit is a hit on exactly the bytes that were verified; a dict compares bytes only when a keyed
64-bit hash agrees, which leaves nothing to learn from timing. Its `Standing` is judged on every hit.
What was read of a forged one stays with its head (`Request.memo`) for when that comes again; the verdict never does.
"""

from __future__ import annotations

from typing import Any

from edge.authn import claims as claim_rules
from edge.authn import jws, strict_json
from edge.authn.issuer import IssuerSettings, SettingFault
from edge.authn.keys import VerificationKey
from edge.authn.method import NOT_PRESENT, Materials, NotPresent
from edge.errors import CredentialRejected
from edge.model.decision import Need
from edge.model.http import Request
from edge.model.identity import Peer, Principal, Standing
from edge.model.recent import Recent

__all__ = ["IssuerSettings", "JwtMethod", "SettingFault"]

_SCHEME = b"bearer"
_CANONICAL_PREFIX = b"Bearer "
REMEMBERED_TOKENS = 10_000
"""About 15 MB when full of tokens of 600 bytes."""
_TYPES = frozenset(("at+jwt", "application/at+jwt"))


_Read = tuple[jws.UnverifiedJws, dict[str, Any], IssuerSettings]
"""A well-formed token that nobody has verified, its claims, and the settings of the issuer it names."""


class JwtMethod:
    """The method `jwt` of a route's `auth:`."""

    __slots__ = ("_by_issuer", "_key_source", "_remembered")

    def __init__(self, materials: Materials) -> None:
        self._by_issuer = {settings.issuer: settings for settings in materials.issuers}
        self._key_source = materials.key_source
        # Owner: this method; the worker's loop only. Two generations, half the bound each.
        self._remembered: Recent[bytes, Principal] = Recent(REMEMBERED_TOKENS // 2)

    def authenticate(self, request: Request, peer: Peer, now_ns: int) -> Principal | Need | NotPresent:
        """Steps 1 to 6.

        Raises: CredentialRejected; NotReady.
        """
        raw = request.raw_authorization
        if raw is None:
            return NOT_PRESENT
        known = self._remembered.find(raw)
        if known is not None and _standing(known).holds(now_ns):
            return known
        raw_token = _bearer_token(raw)
        if raw_token is None:
            return NOT_PRESENT
        # One token has one entry, however its scheme is spelled: nobody fills the cache with spellings.
        raw = _CANONICAL_PREFIX + raw_token
        known = self._remembered.find(raw)
        if known is not None:
            standing = _standing(known)
            if standing.holds(now_ns):
                return known
            if standing.expires_ns <= now_ns:
                raise CredentialRejected("expired")
            self._remembered.discard(raw)
        answer = self._verify(request, raw_token, now_ns)
        if isinstance(answer, Principal):
            self._remembered.put(raw, answer)
        return answer

    def remembers(self, raw_authorization: bytes) -> bool:
        """Whether the token is among those that were verified."""
        return self._remembered.find(raw_authorization) is not None

    def _verify(self, request: Request, raw_token: bytes, now_ns: int) -> Principal | Need:
        """Steps 3 to 6 for a token that is not remembered."""
        memo = request.memo
        read: _Read | None = memo.get(self) if memo is not None else None
        if read is None:
            read = self._read(raw_token)
        token, unverified_claims, settings = read
        key = self._find_key(settings.issuer, token, now_ns)
        if isinstance(key, Need):
            return key
        try:
            jws.verify(token, key)
        except CredentialRejected:
            if memo is not None:
                memo[self] = read  # for the same head again; its signature is judged anew each time
            raise
        return claim_rules.verified(unverified_claims, settings, key, now_ns)

    def _read(self, raw_token: bytes) -> _Read:
        """Steps 3 to 5, as far as they follow from the token's bytes and our settings alone."""
        token = jws.parse(raw_token)
        kind = token.unverified_kind
        if not isinstance(kind, str) or kind.lower() not in _TYPES:
            raise CredentialRejected("token-type")
        unverified_claims = _object(token.raw_unverified_payload)
        unverified_issuer = unverified_claims.get("iss")
        settings = self._by_issuer.get(unverified_issuer) if isinstance(unverified_issuer, str) else None
        if settings is None:
            raise CredentialRejected("issuer")
        if token.algorithm not in settings.algorithms:
            raise CredentialRejected("algorithm")
        return token, unverified_claims, settings

    def _find_key(self, issuer: str, token: jws.UnverifiedJws, now_ns: int) -> VerificationKey | Need:
        """Step 5."""
        key_set = self._key_source.get(issuer)
        key = None if key_set is None else key_set.find(token.kid, token.algorithm)
        if key is not None and now_ns < key.valid_until_ns:
            return key
        need = self._key_source.need(issuer, now_ns)
        if need is None:
            raise CredentialRejected("key-unknown")
        return need


def _standing(principal: Principal) -> Standing:
    assert principal.standing is not None  # every principal of a token has one
    return principal.standing


def _bearer_token(raw: bytes) -> bytes | None:
    """Step 1: what follows the scheme (RFC 9110 §11.4: one or more spaces), or None for another scheme."""
    raw_scheme, _, rest = raw.partition(b" ")
    if raw_scheme.lower() != _SCHEME:
        return None
    return rest.lstrip(b" ")


def _object(raw: bytes) -> dict[str, Any]:
    try:
        value = strict_json.parse(raw)
    except ValueError as exc:
        raise CredentialRejected("claims-json") from exc
    if not isinstance(value, dict):
        raise CredentialRejected("claims-json")
    return value
