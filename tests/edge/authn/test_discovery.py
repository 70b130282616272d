from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.authn import discovery
from edge.authn.discovery import MetadataUnusable
from tests.edge.authn.simulator import ISSUER

GOOD: dict[str, Any] = {
    "issuer": ISSUER,
    "jwks_uri": "https://idp.example.com/keys",
    "token_endpoint": "https://idp.example.com/token",
    "response_types_supported": ["code"],
}


def _url(document: Any, issuer: str = ISSUER) -> str:
    raw = document if isinstance(document, bytes) else json.dumps(document).encode()
    return discovery.jwks_uri(raw, issuer=issuer).text


def test_the_key_set_is_where_the_metadata_says() -> None:
    assert _url(GOOD | {"id_token_signing_alg_values_supported": ["ES256"]}) == "https://idp.example.com/keys"


def test_the_origin_is_the_same_with_the_default_port_written() -> None:
    text = "https://idp.example.com:443/keys"
    assert _url(GOOD | {"jwks_uri": text}) == text


@pytest.mark.parametrize(
    ("issuer", "expected"),
    [
        (
            "https://idp.example.com/",
            (
                "https://idp.example.com/.well-known/oauth-authorization-server",
                "https://idp.example.com/.well-known/openid-configuration",
            ),
        ),
        (
            "https://idp.example.com/realms/a",
            (
                "https://idp.example.com/.well-known/oauth-authorization-server/realms/a",
                "https://idp.example.com/realms/a/.well-known/openid-configuration",
            ),
        ),
    ],
)
def test_metadata_is_looked_for_at_both_well_known_places(issuer: str, expected: tuple[str, ...]) -> None:
    assert expected == discovery.metadata_urls(issuer)


@pytest.mark.parametrize(
    "issuer",
    [
        "https://idp.example.com",
        "https://IDP.example.com/",
        "https://idp.example.com/x",
        "https://evil.example/",
        None,
        5,
    ],
)
def test_metadata_of_another_issuer_is_refused(issuer: Any) -> None:
    with pytest.raises(MetadataUnusable, match="another issuer"):
        _url(GOOD | {"issuer": issuer})


@pytest.mark.parametrize(
    "uri",
    [
        "https://evil.example/keys",
        "https://idp.example.com:8443/keys",
        "https://idp.example.com.evil.example/keys",
        "https://idp.example.com@evil.example/keys",
        "http://idp.example.com/keys",
        "https://169.254.169.254/keys",
        "http://127.0.0.1/keys",
        "file:///etc/passwd",
        "/keys",
        "",
        None,
        5,
        ["https://idp.example.com/keys"],
    ],
)
def test_e4_a_jwks_uri_of_another_origin_is_refused(uri: Any) -> None:
    with pytest.raises(MetadataUnusable):
        _url(GOOD | {"jwks_uri": uri})


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"no json",
        b"[]",
        b'{"issuer": "a", "issuer": "b"}',
    ],
)
def test_metadata_that_is_not_valid_is_refused(document: Any) -> None:
    with pytest.raises(MetadataUnusable):
        _url(document)


@pytest.mark.parametrize(
    "issuer",
    ["https://idp.example.com/?a=b", "https://idp.example.com/#a", "http://idp.example.com/", "urn:example:issuer"],
)
def test_an_issuer_that_is_no_plain_https_url_cannot_be_discovered(issuer: str) -> None:
    with pytest.raises(MetadataUnusable):
        _url(GOOD | {"issuer": issuer}, issuer=issuer)


def test_members_that_are_not_used_do_not_matter() -> None:
    assert _url({"issuer": ISSUER, "jwks_uri": GOOD["jwks_uri"], "token_endpoint": 5}) == GOOD["jwks_uri"]


def test_an_issuer_without_an_origin_cannot_be_discovered() -> None:
    with pytest.raises(MetadataUnusable):
        _url(GOOD | {"issuer": "https://idp.example.com/ x"}, issuer="https://idp.example.com/ x")


_VALUES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(max_size=8)
    | st.lists(st.none() | st.text(max_size=3), max_size=2)
)


@settings(max_examples=80)
@given(st.dictionaries(st.sampled_from((*GOOD, "grant_types_supported", "ui_locales_supported")), _VALUES, max_size=3))
def test_any_metadata_gives_a_url_or_metadata_unusable(changes: dict[str, Any]) -> None:
    try:
        found = _url(GOOD | changes)
    except MetadataUnusable:
        return
    assert found.startswith("https://idp.example.com/")
