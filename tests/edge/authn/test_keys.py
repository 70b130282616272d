from __future__ import annotations

import json
from base64 import urlsafe_b64decode
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from joserfc.jwk import ECKey, OKPKey
from joserfc.util import int_to_base64

from edge.authn import keys
from edge.authn.keys import KeySetUnusable
from tests.edge.authn.simulator import KEY, MINTER, key_set

P256 = KEY.as_dict(private=False)
P384: dict[str, Any] = dict(ECKey.generate_key("P-384", parameters={"kid": "p384"}).as_dict(private=False))
ED25519: dict[str, Any] = dict(OKPKey.generate_key("Ed25519", parameters={"kid": "ed"}).as_dict(private=False))
X25519: dict[str, Any] = dict(OKPKey.generate_key("X25519", parameters={"kid": "x"}).as_dict(private=False))
ED448: dict[str, Any] = dict(OKPKey.generate_key("Ed448", parameters={"kid": "ed448"}).as_dict(private=False))


def _number(value: int) -> str:
    return int_to_base64(value)


def _rsa(bits: int, exponent: int = 65537, **changes: Any) -> dict[str, Any]:
    """A public RSA key of a given size; for reading it needs no factors."""
    return {"kty": "RSA", "kid": "rsa", "n": _number((1 << (bits - 1)) + 1), "e": _number(exponent), **changes}


def _document(*members: Any) -> bytes:
    return json.dumps({"keys": members}).encode()


def _parse(*members: Any, algorithms: tuple[str, ...] = tuple(sorted(keys.ALGORITHMS))) -> keys.KeySet:
    return keys.parse(_document(*members), algorithms=algorithms, valid_until_ns=7)


def _names(found: keys.KeySet) -> list[tuple[str | None, str]]:
    return sorted((key.kid, key.algorithm) for key in found.keys)


@pytest.mark.parametrize(
    ("member", "algorithms"),
    [
        (P384, ["ES384"]),
        (ED25519, ["Ed25519", "EdDSA"]),
        (_rsa(2048), ["PS256", "PS384", "PS512", "RS256", "RS384", "RS512"]),
        (_rsa(4096, alg="PS512"), ["PS512"]),
        (_rsa(2048, key_ops=["verify"], alg="RS256", use="sig"), ["RS256"]),
    ],
)
def test_a_key_is_listed_under_what_it_allows(member: dict[str, Any], algorithms: list[str]) -> None:
    assert [(member["kid"], name) for name in algorithms] == _names(_parse(member))


def test_a_key_verifies_what_its_private_half_signed_and_nothing_else() -> None:
    segments = MINTER.sign(b"{}").rpartition(".")
    signing_input, signature = segments[0].encode(), urlsafe_b64decode(segments[2] + "==")
    verify = _parse(P256).keys[0].verify
    assert [verify(signing_input, signature), verify(signing_input + b"x", signature)] == [True, False]


@pytest.mark.parametrize(
    "change", [lambda s: s[:-1], lambda s: s + b"\0", lambda s: s[:32] + b"\0" + s[32:], lambda s: b""]
)
def test_an_ecdsa_signature_has_one_length(change: Callable[[bytes], bytes]) -> None:
    header, payload, signature = MINTER.sign(b"{}").split(".")
    verify = key_set().keys[0].verify
    assert not verify(f"{header}.{payload}".encode(), change(urlsafe_b64decode(signature + "==")))


def test_d4_a_key_is_listed_under_pinned_algorithms_only() -> None:
    found = _parse(_rsa(2048), P384, algorithms=("RS256", "ES256", "HS256", "none"))
    assert _names(found) == [("rsa", "RS256")]


@pytest.mark.parametrize(
    "member",
    [
        P256 | {"use": "enc"},
        P256 | {"use": ["sig"]},
        P256 | {"key_ops": ["sign"]},
        P256 | {"key_ops": "verify"},
        P256 | {"alg": "ES384"},
        P256 | {"alg": "ES521"},
        P256 | {"alg": 5},
        P256 | {"crv": "P-257"},
        P256 | {"x": P256["y"], "y": P256["x"]},
        P256 | {"x": "AA=="},
        P256 | {"x": 5},
        P256 | {"x": ""},
        P256 | {"kid": ""},
        P256 | {"kid": 5},
        P256 | {"kid": None, "use": "enc"},
        P256 | {"kty": "LMS"},
        {"kty": "EC"},
        {"kid": "a"},
        {},
        X25519,
        ED448,
        _rsa(1024),
        _rsa(2047),
        _rsa(4097),
        _rsa(16384),
        _rsa(2048, 3),
        _rsa(2048, (1 << 32) + 1),
        _rsa(2048, 65538),
        _rsa(2048, alg="HS256"),
        _rsa(2048, n="AQAB"),
        _rsa(2048, n=""),
    ],
)
def test_a_key_that_is_not_for_us_is_skipped(member: dict[str, Any]) -> None:
    sound = dict(_rsa(2048), kid="sound", alg="RS256")
    algorithms = ("ES256", "RS256", "EdDSA", "Ed25519")
    assert _names(_parse(member, sound, algorithms=algorithms)) == [("sound", "RS256")]


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (b"", "JSON"),
        (b"[]", "keys"),
        (b"{}", "keys"),
        (b'{"keys": {}}', "keys"),
        (b'{"keys": [1]}', "keys"),
        (b'{"keys": []}', "no key"),
        (b'{"keys": [], "keys": []}', "twice"),
        (_document(*[P256] * 65), "more than 64"),
        (_document(P256, P256), "two keys named"),
        (_document(P256, {"kty": "oct", "k": "AAAA", "kid": "s"}), "secret"),
        (_document(P256, {"kty": "LMS", "k": "AAAA"}), "secret"),
        (_document(dict(KEY.as_dict(private=True))), "secret"),
        (_document(P384), "no key for ES256"),
    ],
)
def test_a_document_that_cannot_be_trusted_is_refused_whole(raw: bytes, why: str) -> None:
    with pytest.raises(KeySetUnusable, match=why):
        keys.parse(raw, algorithms=("ES256",), valid_until_ns=0)


def test_a_set_without_a_supported_pin_is_refused() -> None:
    with pytest.raises(KeySetUnusable, match="any algorithm"):
        _parse(P256, algorithms=("HS256", "none"))


def test_a_key_is_found_by_kid_and_algorithm_together() -> None:
    found = _parse(P256, P384)
    assert [
        key and key.algorithm
        for key in (found.find("p384", "ES384"), found.find("p384", "ES256"), found.find("?", "ES384"))
    ] == ["ES384", None, None]


def test_without_kid_the_one_key_of_the_algorithm_is_found() -> None:
    nameless = {name: value for name, value in P256.items() if name != "kid"}
    found = _parse(nameless, P384)
    assert [
        key and key.algorithm
        for key in (found.find(None, "ES256"), found.find(None, "ES384"), found.find(None, "RS256"))
    ] == ["ES256", "ES384", None]


def test_without_kid_two_keys_of_an_algorithm_are_none() -> None:
    found = _parse(_rsa(2048), _rsa(3072, kid="other"))
    assert found.find(None, "RS256") is None


def test_renewal_keeps_the_objects_of_keys_that_stayed() -> None:
    old = _parse(P256, P384)
    new = keys.renewed(old, keys.parse(_document(P256, ED25519), algorithms=keys.ALGORITHMS, valid_until_ns=9))
    kid = str(P256["kid"])
    assert new.find(kid, "ES256") is old.find(kid, "ES256")
    assert {9} == {key.valid_until_ns for key in new.keys}


def test_renewal_withdraws_the_keys_that_are_gone() -> None:
    old = _parse(P256, P384)
    gone = old.find("p384", "ES384")
    keys.renewed(old, _parse(P256))
    assert gone is not None
    assert gone.valid_until_ns == 0


def test_another_key_under_the_same_name_is_another_key() -> None:
    old = _parse(P256)
    stranger = ECKey.generate_key("P-256", parameters={"kid": str(P256["kid"])}).as_dict(private=False)
    new = keys.renewed(old, _parse(dict(stranger), algorithms=("ES256",)))
    assert ([key.valid_until_ns for key in old.keys], [key.valid_until_ns for key in new.keys]) == ([0], [7])


def test_a_first_set_is_taken_as_it_is() -> None:
    first = key_set()
    assert keys.renewed(None, first) is first


_VALUES = st.none() | st.booleans() | st.integers() | st.text(max_size=4) | st.lists(st.text(max_size=3), max_size=2)
_MEMBERS = st.dictionaries(
    st.sampled_from(("kty", "kid", "use", "key_ops", "alg", "crv", "x", "y", "n", "e", "x5c", "x5u")),
    _VALUES,
    max_size=4,
)


@settings(max_examples=120)
@given(st.sampled_from((P256, P384, ED25519, _rsa(2048), {})), _MEMBERS)
def test_any_document_gives_a_set_or_key_set_unusable(start: dict[str, Any], changes: dict[str, Any]) -> None:
    try:
        found = _parse({**start, **changes})
    except KeySetUnusable:
        return
    assert found.keys
