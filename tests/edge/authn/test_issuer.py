from __future__ import annotations

import pytest

from edge.authn.issuer import IssuerSettings
from examples.issuer.minting import key_set_document
from tests.edge.authn.simulator import KEY, issuer


@pytest.mark.parametrize(
    "settings",
    [
        issuer(),
        issuer(jwks="https://keys.example.com/jwks.json"),
        issuer(jwks="http://127.0.0.1:8080/jwks.json"),
        issuer("urn:example:issuer", jwks_document=key_set_document(KEY)),
        issuer(max_lifetime_s=1, leeway_s=0, algorithms=("ES256", "RS256", "EdDSA")),
    ],
)
def test_usual_settings_have_no_fault(settings: IssuerSettings) -> None:
    assert settings.faults() == ()


@pytest.mark.parametrize(
    ("settings", "field", "rule"),
    [
        (issuer("", jwks_document=key_set_document(KEY)), "issuer", "issuer"),
        (issuer("https://idp.example.com/ ", jwks_document=key_set_document(KEY)), "issuer", "issuer"),
        (issuer("urn:a#b", jwks_document=key_set_document(KEY)), "issuer", "issuer"),
        (issuer("urn:example:issuer"), "issuer", "url"),
        (issuer("http://idp.example.com/"), "issuer", "url"),
        (issuer("https://169.254.169.254/"), "issuer", "url"),
        (issuer(jwks="http://keys.example.com/"), "jwks", "url"),
        (issuer(jwks="https://user@keys.example.com/"), "jwks", "url"),
        (issuer(jwks_document=b"{}"), "jwks", "key-set"),
        (issuer(jwks_document=key_set_document(KEY), algorithms=("RS256",)), "jwks", "key-set"),
        (issuer(audience=()), "audience", "audience"),
        (issuer(audience=("",)), "audience", "audience"),
        (issuer(audience=("a b",)), "audience", "audience"),
        (issuer(algorithms=()), "algorithms", "algorithm"),
        (issuer(algorithms=("ES256", "HS256")), "algorithms", "algorithm"),
        (issuer(algorithms=("none",)), "algorithms", "algorithm"),
        (issuer(algorithms=("es256",)), "algorithms", "algorithm"),
        (issuer(ca_pem=b"no certificate"), "ca", "certificate"),
        (issuer(max_lifetime_s=0), "max_lifetime_s", "range"),
        (issuer(max_lifetime_s=1 << 40), "max_lifetime_s", "range"),
        (issuer(leeway_s=-1), "leeway_s", "range"),
        (issuer(leeway_s=301), "leeway_s", "range"),
    ],
)
def test_each_fault_names_its_field(settings: IssuerSettings, field: str, rule: str) -> None:
    assert [(field, rule)] == [(fault.field, fault.rule) for fault in settings.faults()]


def test_all_faults_are_reported_together_each_with_a_remedy() -> None:
    found = issuer("ftp://x y", audience=(), algorithms=(), ca_pem=b"", max_lifetime_s=0, leeway_s=999).faults()
    assert [f.field for f in found] == [
        "issuer",
        "audience",
        "algorithms",
        "issuer",
        "ca",
        "max_lifetime_s",
        "leeway_s",
    ]
    assert all(fault.message and fault.remedy for fault in found)
