"""JWS in its compact form (RFC 7515 §3.1, §5.2): three segments in, a verified payload out.

    eyJhbGciOiJFUzI1NiIsImtpZCI6ImEifQ.eyJpc3MiOiJodHRwczovL2lkcCJ9.c2lnbmF0dXJl

The steps, in this order, so that garbage costs a few microseconds and never a signature check:
1. length, alphabet and the two dots: unpadded base64url and nothing else (five segments, JWE, fail here);
2. each segment has exactly one spelling: unused bits are zero;
3. the header is one strict JSON object;
4. no `crit` in any shape and no `b64`: we implement no extension (RFC 7515 §4.1.11, RFC 7797; attack D3);
5. no key in the header and no place to get one from: `jwk jku x5u x5c` (attack D2). Other unknown parameters are ignored;
6. `alg` and `kid` are strings; whether they name a key is asked of the issuer's key set, nowhere else (attack D1);
7. the length of the signature, then the signature.
"""

from __future__ import annotations

import binascii
import re
from dataclasses import dataclass
from functools import lru_cache

from edge.authn import strict_json
from edge.authn.keys import VerificationKey
from edge.errors import CredentialRejected

MAX_TOKEN_BYTES = 8192
"""A token of twice the usual worst case (2 KiB of claims, an RSA-4096 signature) with room for many scopes."""

_COMPACT = re.compile(rb"[A-Za-z0-9_-]{2,2048}\.[A-Za-z0-9_-]*\.[A-Za-z0-9_-]{2,1024}")
_KEY_PARAMETERS = frozenset(("jwk", "jku", "x5u", "x5c"))
_EXTENSION_PARAMETERS = frozenset(("crit", "b64"))
_MAX_KID = 256

# RFC 4648 §5: `-` and `_` stand for `+` and `/`. A last group of two characters has four unused bits, one of three has two,
# and one of a single character cannot be.
_TO_STANDARD = bytes.maketrans(b"-_", b"+/")
_LAST_CHARACTERS = (b"", b"", b"AQgw", b"AEIMQUYcgkosw048")
_PADDING = (b"", b"", b"==", b"=")

# RFC 7518 §3.4, RFC 8037 §3.1. RSA's depends on the key and is compared inside.
_SIGNATURE_BYTES = {"ES256": 64, "ES384": 96, "ES512": 132, "EdDSA": 64, "Ed25519": 64}


@dataclass(slots=True, eq=False)
class UnverifiedJws:
    """A well-formed JWS whose signature nobody has checked."""

    unverified_kind: object
    """`typ`, of whatever JSON type; None when absent."""
    algorithm: str
    kid: str | None
    raw_unverified_payload: bytes
    raw_signature: bytes
    signing_input: bytes


def parse(raw_token: bytes) -> UnverifiedJws:
    """Steps 1 to 6.

    Raises: CredentialRejected.
    """
    if len(raw_token) > MAX_TOKEN_BYTES:
        raise CredentialRejected("token-too-long")
    if _COMPACT.fullmatch(raw_token) is None:
        raise CredentialRejected("not-compact-jws")
    signing_input, _, signature_segment = raw_token.rpartition(b".")
    header_segment, _, payload_segment = signing_input.partition(b".")
    kind, algorithm, kid = _header(header_segment)
    return UnverifiedJws(kind, algorithm, kid, _decode(payload_segment), _decode(signature_segment), signing_input)


def verify(jws: UnverifiedJws, key: VerificationKey) -> None:
    """Step 7: returns when the signature is right. `key` was found by the algorithm and `kid` of the JWS.

    Raises: CredentialRejected.
    """
    expected_bytes = _SIGNATURE_BYTES.get(key.algorithm)
    if expected_bytes is not None and len(jws.raw_signature) != expected_bytes:
        raise CredentialRejected("signature")
    if not key.verify(jws.signing_input, jws.raw_signature):
        raise CredentialRejected("signature")


def _decode(segment: bytes) -> bytes:
    """Step 2, for a segment of the right alphabet. The lenient decoders would take several texts for one value, and so
    several tokens for one signature.
    """
    surplus = len(segment) % 4
    if surplus and segment[-1] not in _LAST_CHARACTERS[surplus]:
        raise CredentialRejected("base64url")
    return binascii.a2b_base64(segment.translate(_TO_STANDARD) + _PADDING[surplus])


@lru_cache(maxsize=256)
def _header(segment: bytes) -> tuple[object, str, str | None]:
    """Steps 2 to 6: `typ`, `alg` and `kid`. An issuer writes the same header into all its tokens, so what was read from one
    is remembered."""
    try:
        header = strict_json.parse(_decode(segment))
    except ValueError as exc:
        raise CredentialRejected("header-json") from exc
    if not isinstance(header, dict):
        raise CredentialRejected("header-json")
    if not _EXTENSION_PARAMETERS.isdisjoint(header):
        raise CredentialRejected("critical-extension")
    if not _KEY_PARAMETERS.isdisjoint(header):
        raise CredentialRejected("key-in-header")
    algorithm, kid = header.get("alg"), header.get("kid")
    if not isinstance(algorithm, str):
        raise CredentialRejected("algorithm")
    if kid is not None and not (isinstance(kid, str) and 0 < len(kid) <= _MAX_KID):
        raise CredentialRejected("key-name")
    return header.get("typ"), algorithm, kid
