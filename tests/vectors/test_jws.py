"""Wycheproof's JWS vectors (C2SP) through the same code that checks tokens: the key set, the compact form, the signature.

An `invalid` vector must be refused. A `valid` one must be accepted unless our profile is narrower, and then for one of the
reasons below, each of which is a property of the vector and not a list of its numbers.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from edge.authn import jws, keys
from edge.authn.keys import KeySetUnusable
from edge.errors import CredentialRejected
from tests.vectors.place import VECTORS

PROFILE = {
    "symmetric": "keys are asymmetric; with a shared secret every verifier could mint tokens",
    "key-algorithm": "the key names an algorithm that is not registered (`ES521`), so no token can be of it",
    "alphabet": "a segment holds characters outside base64url, which other libraries skip",
    "key-size": "RSA keys have 2048 to 4096 bits",
}


def _cases() -> list[Any]:
    file = VECTORS / "json_web_signature_test.json"
    if not file.exists():
        return []
    groups = json.loads(file.read_bytes())["testGroups"]
    return [pytest.param(group, case, id=f"tc{case['tcId']}") for group in groups for case in group["tests"]]


def _published(group: dict[str, Any]) -> dict[str, Any]:
    """The key as an issuer would publish it; a symmetric one has only the private form."""
    found: dict[str, Any] = group.get("public", group["private"])
    return found


def _refusal(group: dict[str, Any], raw_token: bytes) -> str | None:
    """By which rule the token is refused; None when it is verified."""
    document = json.dumps({"keys": [_published(group)]}).encode()
    try:
        found = keys.parse(document, algorithms=keys.ALGORITHMS, valid_until_ns=keys.NEVER_NS)
    except KeySetUnusable:
        return "key-set"
    try:
        token = jws.parse(raw_token)
        key = found.find(token.kid, token.algorithm)
        if key is None:
            return "key-unknown"
        jws.verify(token, key)
    except CredentialRejected as refused:
        return refused.rule
    return None


def _profile_reason(group: dict[str, Any], text: str) -> str | None:
    """Why our profile may refuse a valid vector."""
    key = _published(group)
    if key["kty"] == "oct":
        return "symmetric"
    if key.get("alg", "ES256") not in keys.ALGORITHMS:
        return "key-algorithm"
    if not text.replace(".", "").replace("-", "").replace("_", "").isalnum():
        return "alphabet"
    if key["kty"] == "RSA" and not 340 <= len(key["n"]) <= 684:
        return "key-size"
    return None


@pytest.mark.parametrize(("group", "case"), _cases())
def test_wycheproof_jws(group: dict[str, Any], case: dict[str, Any]) -> None:
    if not isinstance(case["jws"], str):
        pytest.skip("JSON serialization: access tokens are compact")
    refusal = _refusal(group, case["jws"].encode())
    if case["result"] == "invalid":
        assert refusal is not None, case["comment"]
    elif case["result"] == "valid":
        reason = _profile_reason(group, case["jws"])
        assert (refusal is None) or (reason in PROFILE), f"{case['comment']}: {refusal}"


def test_the_vectors_are_there_and_some_of_each_family_are_accepted() -> None:
    accepted = {
        _published(group)["kty"] + group["comment"][:2]
        for group, case in (param.values for param in _cases())
        if case["result"] == "valid" and _refusal(group, case["jws"].encode()) is None
    }
    assert {"ECes", "RSArs", "RSAps"} <= accepted
