from __future__ import annotations

import json
from base64 import urlsafe_b64encode
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from joserfc.jwk import ECKey

from edge.authn import jws, keys
from edge.authn.keys import VerificationKey
from edge.errors import CredentialRejected
from tests.edge.authn.simulator import KEY, MINTER, key_set

TOKEN = MINTER.sign(b'{"a": 1}')
HEADER, PAYLOAD, SIGNATURE = TOKEN.split(".")


def _segment(value: Any) -> str:
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return urlsafe_b64encode(raw).rstrip(b"=").decode()


def _key() -> VerificationKey:
    found = key_set().find(KEY.kid, "ES256")
    assert found is not None
    return found


def _rule(token: str | bytes) -> str:
    """By which rule a token is refused, at whatever step."""
    with pytest.raises(CredentialRejected) as refused:
        jws.verify(jws.parse(token if isinstance(token, bytes) else token.encode()), _key())
    return refused.value.rule


def test_a_signed_token_is_taken_apart_and_verified() -> None:
    parsed = jws.parse(TOKEN.encode())
    jws.verify(parsed, _key())
    assert ("ES256", KEY.kid, b'{"a": 1}') == (parsed.algorithm, parsed.kid, parsed.raw_unverified_payload)


@pytest.mark.parametrize(
    "token",
    [
        "",
        ".",
        "..",
        "garbage",
        f"{HEADER}.{PAYLOAD}",
        f"{HEADER}.{PAYLOAD}.",
        f".{PAYLOAD}.{SIGNATURE}",
        f"{HEADER}.{PAYLOAD}.{SIGNATURE}.",
        f"{HEADER}.{PAYLOAD}.{SIGNATURE}.{PAYLOAD}.{SIGNATURE}",
        f" {TOKEN}",
        f"{TOKEN} ",
        f"{TOKEN}\n",
        f"{TOKEN}=",
        f"{HEADER}=.{PAYLOAD}.{SIGNATURE}",
        f"{HEADER}.{PAYLOAD[:4]} {PAYLOAD[4:]}.{SIGNATURE}",
        f"{HEADER}.{PAYLOAD}+.{SIGNATURE}",
        f"{HEADER}.{PAYLOAD}/.{SIGNATURE}",
        f"{HEADER}.{PAYLOAD}.{SIGNATURE}\x00",
        f"{'A' * 2049}.{PAYLOAD}.{SIGNATURE}",
        f"{HEADER}.{PAYLOAD}.{'A' * 1025}",
        f"{TOKEN},{TOKEN}",
    ],
    ids=len,  # tokens differ between processes, and xdist compares names
)
def test_what_is_not_three_segments_of_base64url_is_refused(token: str) -> None:
    assert _rule(token) == "not-compact-jws"


def test_d8_a_huge_token_is_refused_before_anything_is_decoded() -> None:
    assert _rule(f"{HEADER}.{'A' * 8192}.{SIGNATURE}") == "token-too-long"


@pytest.mark.parametrize(
    "token",
    [f"{HEADER}.{PAYLOAD}.{SIGNATURE[:-1]}{other}" for other in "BCDEFxyz-_" if other != SIGNATURE[-1]]
    + [f"{HEADER}.AAAAA.{SIGNATURE}", f"{HEADER}.AB.{SIGNATURE}", f"{HEADER}.AAB.{SIGNATURE}"],
)
def test_a_second_spelling_of_the_same_bytes_is_refused(token: str) -> None:
    assert _rule(token) == "base64url"


@pytest.mark.parametrize(
    ("raw_header", "rule"),
    [
        (b"no json", "header-json"),
        (b"[]", "header-json"),
        (b'"ES256"', "header-json"),
        (b'{"alg": "ES256", "alg": "none"}', "header-json"),
        (b'{"alg": "none", "alg": "ES256"}', "header-json"),
        (b'\xef\xbb\xbf{"alg": "ES256"}', "header-json"),
        ('{"alg": "ES256"}'.encode("utf-16"), "header-json"),
        (b"[" * 1200, "header-json"),
        (b"{}", "algorithm"),
        (b'{"alg": null}', "algorithm"),
        (b'{"alg": ["ES256"]}', "algorithm"),
        (b'{"alg": "ES256", "kid": 5}', "key-name"),
        (b'{"alg": "ES256", "kid": ""}', "key-name"),
        (b'{"alg": "ES256", "kid": "%s"}' % (b"k" * 257), "key-name"),
        (b'{"alg": "ES256", "kid": {"a": 1}}', "key-name"),
        (b'{"alg": "ES256", "crit": null}', "critical-extension"),
    ],
)
def test_a_header_that_is_not_one_plain_object_is_refused(raw_header: bytes, rule: str) -> None:
    assert _rule(f"{_segment(raw_header)}.{PAYLOAD}.{SIGNATURE}") == rule


@pytest.mark.parametrize(
    "members",
    [
        {"crit": []},
        {"crit": ["alg"]},
        {"crit": ["exp"], "exp": 1},
        {"crit": ["b64"], "b64": False},
        {"crit": ["http://example.com/x"], "http://example.com/x": True},
        {"crit": "b64"},
        {"b64": False},
        {"b64": True},
    ],
)
def test_d3_any_critical_extension_is_refused_though_signed(members: dict[str, Any]) -> None:
    assert _rule(MINTER.sign(b"{}", header=members)) == "critical-extension"


@pytest.mark.parametrize(
    "members",
    [
        {"jwk": ECKey.generate_key("P-256").as_dict(private=False)},
        {"jku": "https://evil.example/keys"},
        {"x5u": "https://evil.example/cert"},
        {"x5c": ["MIIB"]},
    ],
)
def test_d2_a_key_that_comes_with_the_token_is_refused_though_signed(members: dict[str, Any]) -> None:
    assert _rule(MINTER.sign(b"{}", header=members)) == "key-in-header"


def test_unknown_header_parameters_are_ignored() -> None:
    parsed = jws.parse(MINTER.sign(b"{}", header={"x5t": "abc", "acme": {"b64": False}}).encode())
    jws.verify(parsed, _key())


@pytest.mark.parametrize(
    "raw_signature",
    [
        bytes(64),  # the psychic signature: r = s = 0
        bytes(31) + b"\x01" + bytes(31) + b"\x01",
        bytes(63),
        bytes(65),
        b"\x30\x06\x02\x01\x01\x02\x01\x01",  # DER
        b"\xff" * 64,
        bytes(132),
    ],
)
def test_d8_signatures_that_are_no_signature_are_refused(raw_signature: bytes) -> None:
    assert _rule(f"{HEADER}.{PAYLOAD}.{_segment(raw_signature)}") == "signature"


def test_a_signature_of_another_length_never_reaches_the_key() -> None:
    key = VerificationKey(None, "ES256", "", lambda signing_input, signature: True, keys.NEVER_NS)
    jws.verify(jws.parse(TOKEN.encode()), key)
    with pytest.raises(CredentialRejected):
        jws.verify(jws.parse(f"{HEADER}.{PAYLOAD}.{_segment(bytes(63))}".encode()), key)


def test_every_changed_byte_of_a_token_is_refused() -> None:
    for index in range(0, len(TOKEN), 7):
        changed = TOKEN[:index] + ("A" if TOKEN[index] != "A" else "B") + TOKEN[index + 1 :]
        assert _rule(changed)


def test_every_shortened_token_is_refused() -> None:
    for length in range(0, len(TOKEN), 5):
        assert _rule(TOKEN[:length])


def test_the_length_of_an_rsa_signature_is_left_to_the_key() -> None:
    calls: list[int] = []

    def verify(signing_input: bytes, signature: bytes) -> bool:
        calls.append(len(signature))
        return len(signature) == 256

    key = VerificationKey(None, "RS256", "", verify, keys.NEVER_NS)
    jws.verify(jws.parse(f"{HEADER}.{PAYLOAD}.{_segment(bytes(256))}".encode()), key)
    with pytest.raises(CredentialRejected):
        jws.verify(jws.parse(f"{HEADER}.{PAYLOAD}.{_segment(bytes(255))}".encode()), key)
    assert calls == [256, 255]


@settings(max_examples=100)
@given(
    st.binary(max_size=60)
    | st.from_regex(rb"[A-Za-z0-9_-]{2,9}\.[A-Za-z0-9_-]{0,9}\.[A-Za-z0-9_-]{2,9}", fullmatch=True)
    | st.builds(lambda raw: f"{_segment(raw)}.AA.AA".encode(), st.binary(max_size=20))
)
def test_any_bytes_give_a_jws_or_credential_rejected(raw: bytes) -> None:
    try:
        parsed = jws.parse(raw)
    except CredentialRejected:
        return
    assert raw.startswith(parsed.signing_input)
