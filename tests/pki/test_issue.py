from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from ipaddress import ip_address
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA256, SHA384
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import given, settings
from hypothesis import strategies as st

from pki import issue
from pki.errors import IssueRefused
from pki.issue import IssueRequest, NameSpace

KEY = ec.generate_private_key(ec.SECP256R1())
SPACE = issue.name_space([".internal", "mesh.internal"])
REQUEST = IssueRequest("svc", "orders", KEY.public_key(), ("orders.internal",))


def names(request: IssueRequest, space: NameSpace = SPACE) -> issue.LeafNames:
    return issue.leaf_names(request, trust_domain="mesh.internal", space=space)


def test_names_of_each_role() -> None:
    found = {role: names(IssueRequest(role, "a", KEY.public_key())).all() for role in ("svc", "gw", "op")}
    assert found == {role: [f"spiffe://mesh.internal/{role}/a"] for role in ("svc", "gw", "op")}
    edge = IssueRequest("edge", "public", KEY.public_key(), ("a.internal", "a.internal"), ("::1",))
    assert names(edge, issue.name_space([".internal", "[::1]"])).all() == ["a.internal", "::1"]


REFUSALS: list[tuple[dict[str, Any], str]] = [
    ({"name": "Orders"}, "service-name"),
    ({"name": "a/b"}, "service-name"),
    ({"name": "../gw/edge"}, "service-name"),
    ({"dns": ("*.internal",)}, "dns-name"),
    ({"dns": ("a..internal",)}, "dns-name"),
    ({"dns": ("A.internal",)}, "dns-name"),
    ({"dns": ("a.internal.",)}, "dns-name"),
    ({"dns": ("a_b.internal",)}, "dns-name"),
    ({"dns": ("127.0.0.1",)}, "dns-name"),
    ({"dns": ("orders.example",)}, "name-space"),
    ({"dns": ("evilinternal",)}, "name-space"),
    ({"ips": ("127.0.0.1",)}, "ip-name"),
    ({"role": "edge", "dns": ()}, "names"),
    ({"role": "edge", "ips": ("127.1",)}, "ip-name"),
    ({"role": "edge", "ips": ("127.0.0.1",)}, "name-space"),
    ({"life": timedelta(minutes=4)}, "ttl"),
    ({"life": timedelta(days=8)}, "ttl"),
    ({"public_key": ec.generate_private_key(ec.SECP521R1()).public_key()}, "key-type"),
    ({"public_key": rsa.generate_private_key(65537, 2048).public_key()}, "key-type"),
]


@pytest.mark.parametrize(("change", "rule"), REFUSALS)
def test_what_is_outside_the_rules_is_refused(change: dict[str, Any], rule: str) -> None:
    with pytest.raises(IssueRefused) as caught:
        names(replace(REQUEST, **change))
    assert caught.value.rule == rule


def test_an_unfit_trust_domain_is_refused() -> None:
    with pytest.raises(IssueRefused, match="spiffe-id"):
        issue.leaf_names(REQUEST, trust_domain="Mesh", space=SPACE)


def test_a_name_space_is_never_without_a_dns_constraint() -> None:
    assert issue.name_space(["127.0.0.1"]) == NameSpace(("localhost",), (ip_address("127.0.0.1"),))
    assert issue.name_space([".internal", "internal", "[::1]"]) == NameSpace(("internal",), (ip_address("::1"),))
    with pytest.raises(IssueRefused):
        issue.name_space(["*.internal"])


@settings(max_examples=80, deadline=None)
@given(st.text(max_size=30) | st.from_regex(r"[a-z0-9*._-]{1,20}", fullmatch=True))
def test_a_dns_name_is_plain_labels_only(text: str) -> None:
    if issue.is_dns_name(text):
        assert text == text.lower()
        assert all(label and label[0] != "-" and label[-1] != "-" for label in text.split("."))
        assert not set(text) - set("abcdefghijklmnopqrstuvwxyz0123456789-.")


@pytest.fixture
def root(now: datetime) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    key = ec.generate_private_key(ec.SECP384R1())
    template = issue.root_template(key.public_key(), trust_domain="mesh.internal", serial=1, now=now)
    return template.sign(key, SHA384()), key


@pytest.fixture
def issuer(root: tuple[x509.Certificate, ec.EllipticCurvePrivateKey], now: datetime) -> x509.Certificate:
    key = ec.generate_private_key(ec.SECP256R1())
    template = issue.intermediate_template(key.public_key(), "svc", root[0], SPACE, 2, now)
    return template.sign(root[1], SHA384())


def test_an_intermediate_is_bound_to_its_names_and_may_not_make_authorities(issuer: x509.Certificate) -> None:
    constraints = issuer.extensions.get_extension_for_class(x509.NameConstraints)
    basic = issuer.extensions.get_extension_for_class(x509.BasicConstraints)
    assert constraints.critical
    assert constraints.value.permitted_subtrees == [x509.DNSName("internal"), x509.DNSName("mesh.internal")]
    assert [str(name.value) for name in constraints.value.excluded_subtrees or ()] == ["0.0.0.0/0", "::/0"]
    assert (basic.critical, basic.value.ca, basic.value.path_length) == (True, True, 0)


def test_an_intermediate_ends_with_the_root_at_the_latest(
    root: tuple[x509.Certificate, ec.EllipticCurvePrivateKey], now: datetime
) -> None:
    late = root[0].not_valid_after_utc - timedelta(days=1)
    template = issue.intermediate_template(KEY.public_key(), "edge", root[0], issue.name_space(["::1"]), 2, late)
    made = template.sign(root[1], SHA384())
    assert made.not_valid_after_utc == root[0].not_valid_after_utc


def leaf(request: IssueRequest, issuer: x509.Certificate, now: datetime) -> x509.Certificate:
    template = issue.leaf_template(request, names(request), issuer, 3, now)
    return template.sign(ec.generate_private_key(ec.SECP256R1()), SHA256())


def test_a_leaf_has_no_subject_critical_names_and_one_key_usage(issuer: x509.Certificate, now: datetime) -> None:
    made = leaf(REQUEST, issuer, now)
    alternative = made.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    usage = made.extensions.get_extension_for_class(x509.KeyUsage).value
    assert (list(made.subject), alternative.critical) == ([], True)
    assert (usage.digital_signature, usage.key_cert_sign, usage.crl_sign) == (True, False, False)
    assert made.not_valid_before_utc == now - timedelta(seconds=60)
    assert made.not_valid_after_utc == now + timedelta(hours=24)


@pytest.mark.parametrize(
    ("role", "usages"),
    [
        ("svc", {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH}),
        ("gw", {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH}),
        ("op", {ExtendedKeyUsageOID.CLIENT_AUTH}),
        ("edge", {ExtendedKeyUsageOID.SERVER_AUTH}),
    ],
)
def test_uses_follow_the_role(
    issuer: x509.Certificate, now: datetime, role: issue.IssuerRole, usages: set[object]
) -> None:
    made = leaf(replace(REQUEST, role=role), issuer, now)
    assert set(made.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == usages


def test_P18_a_leaf_ends_with_its_issuer(issuer: x509.Certificate) -> None:
    end = issuer.not_valid_after_utc
    assert leaf(REQUEST, issuer, end - timedelta(hours=1)).not_valid_after_utc == end
    with pytest.raises(IssueRefused, match="issuer-expired"):
        leaf(REQUEST, issuer, end - timedelta(minutes=4))


def test_renewal_is_due_at_two_thirds(now: datetime) -> None:
    assert issue.renew_at(now, now + timedelta(hours=24)) == now + timedelta(hours=16)
