"""Key sets as values: a JWK Set document (RFC 7517) in, keys that may verify something out.

What a key may do is settled here, once, when the set arrives, and never by a token: each key is listed under the algorithms
that the issuer's configuration pins *and* the key itself allows (attacks D1, D4). A token then only picks an entry of that
table.

    {"keys": [{"kty": "EC", "crv": "P-256", "kid": "2026-11", "use": "sig", "alg": "ES256", "x": "…", "y": "…"}]}

Keys are read by joserfc; the rules on top of it (research: http-hardening, Tokens) are ours:
1. strict JSON, no duplicate members; at most 64 keys;
2. a symmetric or a private key anywhere condemns the whole document: what must be secret was published;
3. keys of unknown type, for encryption, for other operations, or outside the pinned algorithms are skipped (RFC 7517 §5);
4. RSA has 2048 to 4096 bits and an exponent from 65537 to 2³²: smaller is weak, larger is a cost that the issuer sets;
5. two keys that a token could mean by the same (kid, algorithm) condemn the document: there is no telling them apart.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from joserfc import jwk
from joserfc.errors import JoseError, SecurityWarning
from joserfc.jwa import JWS_ALGORITHMS, ESAlgorithm, JWSAlgModel

from edge.authn import strict_json

ALGORITHMS = frozenset(
    ("ES256", "ES384", "ES512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "EdDSA", "Ed25519")
)
"""What an issuer may be pinned to: asymmetric only. With a shared secret every verifier could mint tokens (RFC 9068 §4)."""

MAX_KEYS = 64
"""More than any issuer publishes while it rotates."""

NEVER_NS = (1 << 63) - 1
"""Validity of a key that was read from a file: until the file is read again."""

_MIN_RSA_BITS, _MAX_RSA_BITS = 2048, 4096
_MIN_RSA_EXPONENT, _MAX_RSA_EXPONENT = 65537, 1 << 32
_PRIVATE_MEMBERS = frozenset(("d", "p", "q", "dp", "dq", "qi", "oth", "k"))

_MODELS: dict[str, JWSAlgModel] = {model.name: model for model in JWS_ALGORITHMS if model.name in ALGORITHMS}


class KeySetUnusable(ValueError):
    """The document is no key set that tokens could be checked with. The text says why, without key material."""


# Not frozen: `valid_until_ns` changes as the set is fetched again or withdrawn.
@dataclass(slots=True, eq=False)
class VerificationKey:
    """One public key for one algorithm. Tokens verified with it stand and fall with it."""

    kid: str | None
    algorithm: str
    thumbprint: str
    """RFC 7638, SHA-256: tells whether a fetched key is the one we hold."""
    verify: Callable[[bytes, bytes], bool]
    """(signing input, signature) → whether the signature is right."""
    valid_until_ns: int
    """Owner: KeySets. Cached tokens look at it on every hit; 0 = withdrawn."""


@dataclass(frozen=True, slots=True, eq=False)
class KeySet:
    """The keys of one issuer, by what a token may say."""

    keys: tuple[VerificationKey, ...]
    _by_name: Mapping[tuple[str, str], VerificationKey] = field(repr=False)
    _without_name: Mapping[str, VerificationKey] = field(repr=False)

    def find(self, kid: str | None, algorithm: str) -> VerificationKey | None:
        """The key for a token's `kid` and `alg`. Without `kid` the set must hold one key for the algorithm, no more."""
        if kid is None:
            return self._without_name.get(algorithm)
        return self._by_name.get((kid, algorithm))


def parse(raw: bytes, *, algorithms: Iterable[str], valid_until_ns: int) -> KeySet:
    """The usable keys of a JWK Set document.

    Raises: KeySetUnusable, also when no key is left for the pinned algorithms.
    """
    try:
        document = strict_json.parse(raw)
    except ValueError as exc:
        raise KeySetUnusable(f"not strict JSON: {exc}") from exc
    members = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(members, list) or not all(isinstance(member, dict) for member in members):
        raise KeySetUnusable('no list "keys" of objects')
    if len(members) > MAX_KEYS:
        raise KeySetUnusable(f"more than {MAX_KEYS} keys")
    if any(member.get("kty") == "oct" or not _PRIVATE_MEMBERS.isdisjoint(member) for member in members):
        raise KeySetUnusable("a secret or private key is published in it")
    pinned = sorted(set(algorithms) & ALGORITHMS)
    found = [key for member in members for key in _usable(member, pinned, valid_until_ns)]
    if not found:
        raise KeySetUnusable(f"no key for {', '.join(pinned) or 'any algorithm'}")
    return of(found)


def of(keys: Iterable[VerificationKey]) -> KeySet:
    """A key set of given keys.

    Raises: KeySetUnusable when two of them could be meant by one token.
    """
    keys = tuple(keys)
    by_name: dict[tuple[str, str], VerificationKey] = {}
    by_algorithm: dict[str, list[VerificationKey]] = {}
    for key in keys:
        by_algorithm.setdefault(key.algorithm, []).append(key)
        if key.kid is not None and by_name.setdefault((key.kid, key.algorithm), key) is not key:
            raise KeySetUnusable(f"two keys named {key.kid!r} for {key.algorithm}")
    return KeySet(keys, by_name, {name: found[0] for name, found in by_algorithm.items() if len(found) == 1})


def renewed(old: KeySet | None, new: KeySet) -> KeySet:
    """`new`, with the objects of `old` for keys that stayed, so that tokens verified with those remain known.

    Keys of `old` that are gone are withdrawn: everything verified with them dies at once.
    """
    if old is None:
        return new
    held = {(key.kid, key.algorithm, key.thumbprint): key for key in old.keys}
    kept: list[VerificationKey] = []
    for key in new.keys:
        same = held.pop((key.kid, key.algorithm, key.thumbprint), key)
        same.valid_until_ns = key.valid_until_ns
        kept.append(same)
    withdraw(held.values())
    return of(kept)


def withdraw(keys: Iterable[VerificationKey]) -> None:
    """Make everything that was verified with these keys invalid."""
    for key in keys:
        key.valid_until_ns = 0


def _usable(member: dict[str, Any], pinned: Iterable[str], valid_until_ns: int) -> list[VerificationKey]:
    """One entry per algorithm that the member may verify; none when it is not for us."""
    operations = member.get("key_ops")
    if operations is not None and not (isinstance(operations, list) and "verify" in operations):
        return []
    key = _import(member)
    if key is None:
        return []
    kid = member.get("kid")
    if kid is not None and (not isinstance(kid, str) or not kid):
        return []
    entries = []
    for name in pinned:
        model = _MODELS[name]
        try:
            model.check_key(key)
        except JoseError:
            continue  # another type, curve, `alg` or `use`
        if name == "EdDSA" and member.get("crv") != "Ed25519":
            continue  # the name also covers Ed448, whose keys nobody pinned
        entries.append(VerificationKey(kid, name, key.thumbprint(), _verifier(model, key), valid_until_ns))
    return entries


def _import(member: dict[str, Any]) -> jwk.Key | None:
    """The member read by joserfc, or None when it cannot be used (RFC 7517 §5: ignore, do not fail)."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SecurityWarning)  # about sizes, which are checked below
            key = jwk.import_key(dict(member))
    except (JoseError, ValueError, TypeError, KeyError, OverflowError):
        return None  # joserfc lets the errors of its number parsing through
    if isinstance(key, jwk.RSAKey):
        public = key.public_key
        if not isinstance(public, RSAPublicKey) or not _is_sound(public):
            return None
    return key


def _is_sound(public: RSAPublicKey) -> bool:
    exponent = public.public_numbers().e
    return _MIN_RSA_BITS <= public.key_size <= _MAX_RSA_BITS and _MIN_RSA_EXPONENT <= exponent <= _MAX_RSA_EXPONENT


def _verifier(model: JWSAlgModel, key: jwk.Key) -> Callable[[bytes, bytes], bool]:
    if isinstance(model, ESAlgorithm) and isinstance(key, jwk.ECKey):
        return _ecdsa_verifier(model, key.public_key)

    def verify(signing_input: bytes, signature: bytes) -> bool:
        return model.verify(signing_input, signature, key)

    return verify


def _ecdsa_verifier(model: ESAlgorithm, public: EllipticCurvePublicKey) -> Callable[[bytes, bytes], bool]:
    """The same as joserfc's, with what does not change made once: forged tokens are paid for by nobody but us."""
    algorithm = ECDSA(model.hash_alg())
    size = (public.curve.key_size + 7) // 8

    def verify(signing_input: bytes, signature: bytes) -> bool:
        if len(signature) != 2 * size:
            return False
        r, s = int.from_bytes(signature[:size], "big"), int.from_bytes(signature[size:], "big")  # RFC 7518 §3.4
        try:
            public.verify(encode_dss_signature(r, s), signing_input, algorithm)
        except InvalidSignature:
            return False
        return True

    return verify
