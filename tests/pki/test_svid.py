"""The verifying profile against forged chains; attack ids are those of the attack list."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import dsa, ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pki import svid
from pki.errors import SvidRejected
from pki.spiffe import SpiffeId

ORDERS = SpiffeId.parse("spiffe://mesh.internal/svc/orders")
Verify = Callable[..., svid.VerifiedSvid]


def spki(certificate: x509.Certificate) -> bytes:
    return sha256(certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).digest()


@pytest.fixture
def verify(forge: Any, now: datetime) -> Verify:
    def call(*chain: Any, **changes: Any) -> svid.VerifiedSvid:
        arguments: dict[str, Any] = {
            "anchors": [forge.root.der],
            "expected_id": ORDERS,
            "usage": "server",
            "now": now,
        } | changes
        presented = [each if isinstance(each, bytes) else each.der for each in chain]
        return svid.verify(presented, **arguments)

    return call


def rule_of(call: Callable[[], object]) -> str:
    with pytest.raises(SvidRejected) as caught:
        call()
    assert caught.value.rule in svid.RULES
    return caught.value.rule


def test_a_good_chain_proves_the_identity(forge: Any, verify: Verify, sketch: Any) -> None:
    leaf = forge.make(sketch(), forge.issuer)
    proven = verify(leaf, forge.issuer)
    assert proven == svid.VerifiedSvid(
        spiffe_id=ORDERS,
        serial=0x1234,
        not_after=leaf.certificate.not_valid_after_utc,
        issuer_sha256=spki(forge.issuer.certificate),
        leaf_sha256=sha256(leaf.der).digest(),
        certificates=(
            (spki(forge.issuer.certificate), 0x1234),
            (spki(forge.root.certificate), forge.issuer.certificate.serial_number),
        ),
    )


@pytest.mark.parametrize(
    "change",
    [
        {"cn": "anything.example"},
        {"cn": "anything.example", "san_critical": False},
        {"not_after": datetime.fromisoformat("2027-01-30T00:00:00+00:00")},
        {"usages": (ExtendedKeyUsageOID.SERVER_AUTH,)},
        {"dns": ()},
    ],
)
def test_what_outside_authorities_do_differently_is_tolerated(
    forge: Any, verify: Verify, sketch: Any, change: dict[str, Any]
) -> None:
    assert verify(forge.make(sketch(**change), forge.issuer), forge.issuer).spiffe_id == ORDERS


def test_a_leaf_directly_below_the_root_is_accepted(forge: Any, verify: Verify, sketch: Any) -> None:
    assert verify(forge.make(sketch(), forge.root)).spiffe_id == ORDERS


def test_intermediates_may_come_from_the_own_bundle_in_any_order(forge: Any, verify: Verify, sketch: Any) -> None:
    other = forge.make(replace(forge.authority, cn="other"), forge.root)
    assert verify(forge.make(sketch(), forge.issuer), other, forge.root, forge.issuer).spiffe_id == ORDERS


CASES: list[tuple[str, dict[str, Any], str]] = [
    ("P11 no extended key usage", {"usages": None}, "extended-key-usage"),
    ("P11 any extended key usage", {"usages": (ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE,)}, "extended-key-usage"),
    (
        "P11 any beside the right one",
        {"usages": (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE)},
        "extended-key-usage",
    ),
    ("P10 client only, as a server", {"usages": (ExtendedKeyUsageOID.CLIENT_AUTH,)}, "extended-key-usage"),
    ("P12 CN only", {"uris": (), "dns": (), "cn": "spiffe://mesh.internal/svc/orders"}, "untrusted"),
    ("P13 wildcard", {"dns": ("*.internal",)}, "wildcard"),
    ("P13 wildcard deep", {"dns": ("a.*.internal",)}, "wildcard"),
    ("P14 two identities", {"uris": (str(ORDERS), "spiffe://mesh.internal/svc/pay")}, "spiffe-uri"),
    ("P14 identity and another URI", {"uris": (str(ORDERS), "https://mesh.internal")}, "spiffe-uri"),
    ("no identity", {"uris": ()}, "spiffe-uri"),
    ("P15 trailing slash", {"uris": ("spiffe://mesh.internal/svc/orders/",)}, "spiffe-uri"),
    ("P15 escape", {"uris": ("spiffe://mesh.internal/svc/%6frders",)}, "spiffe-uri"),
    ("P15 case of the path", {"uris": ("spiffe://mesh.internal/svc/Orders",)}, "spiffe-id"),
    ("P15 port", {"uris": ("spiffe://mesh.internal:1/svc/orders",)}, "spiffe-uri"),
    ("the trust domain itself", {"uris": ("spiffe://mesh.internal",)}, "spiffe-uri"),
    ("P07 foreign trust domain", {"uris": ("spiffe://evil.example/svc/orders",)}, "trust-domain"),
    ("another service", {"uris": ("spiffe://mesh.internal/svc/pay",)}, "spiffe-id"),
    ("P09 an operator as a service", {"uris": ("spiffe://mesh.internal/op/orders",)}, "spiffe-id"),
    ("P16 expired", {"not_after": datetime.fromisoformat("2026-11-21T11:59:59+00:00")}, "expired"),
    ("P17 not yet valid", {"not_before": datetime.fromisoformat("2026-11-21T12:00:01+00:00")}, "not-yet-valid"),
    ("P02 a CA as a leaf", {"is_ca": True}, "leaf-is-ca"),
    ("P02 may sign certificates", {"may_certify": True}, "leaf-is-ca"),
    ("no key usage", {"key_usage": False}, "key-usage"),
    ("no digitalSignature", {"signs": False}, "key-usage"),
    ("P21 unknown critical extension",
     {"extra": (x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00"),), "extra_critical": True},
     "untrusted"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "rule"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_a_bad_leaf_is_refused_with_its_rule(
    forge: Any, verify: Verify, sketch: Any, change: dict[str, Any], rule: str
) -> None:
    leaf = forge.make(sketch(**change), forge.issuer)
    assert rule_of(lambda: verify(leaf, forge.issuer)) == rule


@pytest.mark.parametrize(
    "key",
    [
        pytest.param(rsa.generate_private_key(65537, 1024), id="P19 RSA-1024"),
        pytest.param(ec.generate_private_key(ec.SECP192R1()), id="P19 P-192"),
        pytest.param(ec.generate_private_key(ec.SECP521R1()), id="P-521"),
        pytest.param(
            dsa.DSAParameterNumbers(
                p=0xFD7F53811D75122952DF4A9C2EECE4E7F611B7523CEF4400C31E3F80B6512669455D402251FB593D8D58FABFC5F5BA30F6CB9B556CD7813B801D346FF26660B76B9950A5A49F9FE8047B1022C24FBBA9D7FEB7C61BF83B57E7C6A8A6150F04FB83F6D3C51EC3023554135A169132F675F3AE2B61D72AEFF22203199DD14801C7,
                q=0x9760508F15230BCCB292B982A2EB840BF0581CF5,
                g=0xF7E1A085D69B3DDECBBCAB5C36B857B97994AFBBFA3AEA82F9574C0B3D0782675159578EBAD4594FE67107108180B449167123E84C281613B7CF09328CC8A6E13C167A8B547C8D28E0A3AE1E2BB3A675916EA37F0BFA213562F1FB627A01243BCCA4F1BEA8519089A883DFE15AE59F06928B665E807B552564014C3BFECF492A,
            )
            .parameters()
            .generate_private_key(),
            id="P19 DSA",
        ),
    ],
)
def test_P19_weak_and_unlisted_keys_are_refused(forge: Any, verify: Verify, sketch: Any, key: object) -> None:
    assert rule_of(lambda: verify(forge.make(sketch(), forge.issuer, key=key), forge.issuer)) == "key-type"


def test_P01_a_self_made_authority_of_the_same_names_is_refused(forge: Any, verify: Verify, sketch: Any) -> None:
    rogue = type(forge)()
    leaf = rogue.make(sketch(), rogue.issuer)
    assert rule_of(lambda: verify(leaf, rogue.issuer, rogue.root)) == "untrusted"
    assert rule_of(lambda: verify(leaf, forge.issuer)) == "untrusted"


def test_P03_an_issuer_that_may_not_certify_is_refused(forge: Any, verify: Verify, sketch: Any) -> None:
    weak = forge.make(replace(forge.authority, cn="weak", may_certify=False), forge.root)
    assert rule_of(lambda: verify(forge.make(sketch(), weak), weak)) == "authority-profile"


def test_P04_an_authority_below_a_pathlen_0_issuer_is_refused(forge: Any, verify: Verify, sketch: Any) -> None:
    below = forge.make(replace(forge.authority, cn="below"), forge.issuer)
    assert rule_of(lambda: verify(forge.make(sketch(), below), below, forge.issuer)) == "untrusted"


@pytest.mark.parametrize(("dns", "cn"), [(("evil.example",), None), (("orders.internal", "evil.example"), "x")])
def test_P05_P06_names_outside_the_constraints_are_refused(
    forge: Any, verify: Verify, sketch: Any, dns: tuple[str, ...], cn: str | None
) -> None:
    constraints = x509.NameConstraints([x509.DNSName("internal")], None)
    bound = forge.make(replace(forge.authority, cn="bound", constraints=constraints), forge.root)
    assert verify(forge.make(sketch(), bound), bound).spiffe_id == ORDERS
    assert rule_of(lambda: verify(forge.make(sketch(dns=dns, cn=cn), bound), bound)) == "untrusted"


def test_P07_a_constrained_issuer_of_another_role_is_refused_by_role(forge: Any, verify: Verify, sketch: Any) -> None:
    leaf = forge.make(sketch(), forge.issuer)
    right = {"svc": frozenset({spki(forge.issuer.certificate)})}
    assert verify(leaf, forge.issuer, role_issuers=right).spiffe_id == ORDERS
    for wrong in ({"gw": right["svc"]}, {"svc": frozenset({b"\0" * 32})}, {}):
        assert rule_of(lambda wrong=wrong: verify(leaf, forge.issuer, role_issuers=wrong)) == "role-issuer"  # type: ignore[misc]


def test_P08_another_intermediate_of_the_same_root_is_not_the_role_issuer(
    forge: Any, verify: Verify, sketch: Any
) -> None:
    other = forge.make(replace(forge.authority, cn="tenant"), forge.root)
    issuers = {"svc": frozenset({spki(forge.issuer.certificate)})}
    assert rule_of(lambda: verify(forge.make(sketch(), other), other, role_issuers=issuers)) == "role-issuer"


def test_a_path_without_role_is_refused_where_roles_have_issuers(forge: Any, verify: Verify, sketch: Any) -> None:
    odd = SpiffeId.parse("spiffe://mesh.internal/svc/orders/v2")
    leaf = forge.make(sketch(uris=(str(odd),)), forge.issuer)
    issuers = {"svc": frozenset({spki(forge.issuer.certificate)})}
    assert verify(leaf, forge.issuer, expected_id=odd).spiffe_id == odd
    assert rule_of(lambda: verify(leaf, forge.issuer, expected_id=odd, role_issuers=issuers)) == "role-issuer"


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"constraints": x509.NameConstraints([x509.DNSName("internal")], None), "constraints_critical": False},
         "authority-profile"),
        ({"constraints": x509.NameConstraints([x509.RFC822Name("a@b.example")], None)}, "constraint-kind"),
        ({"usages": (ExtendedKeyUsageOID.CLIENT_AUTH,)}, "authority-profile"),
        ({"key_identifier": False}, "authority-profile"),
        ({"extra": (x509.PolicyConstraints(1, None),)}, "authority-profile"),
    ],
)  # fmt: skip
def test_a_bad_intermediate_is_refused_with_its_rule(
    forge: Any, verify: Verify, sketch: Any, change: dict[str, Any], rule: str
) -> None:
    issuer = forge.make(replace(forge.authority, cn="odd", **change), forge.root)
    assert rule_of(lambda: verify(forge.make(sketch(), issuer), issuer)) == rule


def test_P23_a_leaf_among_the_anchors_proves_nothing(forge: Any, verify: Verify, sketch: Any) -> None:
    leaf = forge.make(sketch())
    assert rule_of(lambda: verify(leaf, anchors=[leaf.der])) == "leaf-is-anchor"
    signed = forge.make(sketch(), forge.issuer)
    assert rule_of(lambda: verify(signed, forge.issuer, anchors=[forge.root.der, signed.der])) == "leaf-is-anchor"


@pytest.mark.parametrize("which", ["leaf", "issuer"])
def test_P24_P25_what_is_revoked_is_refused_although_its_proof_is_known(
    forge: Any, verify: Verify, sketch: Any, which: str
) -> None:
    issuer = forge.make(replace(forge.authority, cn="svc 2", serial=77), forge.root)
    leaf = forge.make(sketch(), issuer)
    assert verify(leaf, issuer).spiffe_id == ORDERS
    revoked = {(spki(issuer.certificate), 0x1234)} if which == "leaf" else {(spki(forge.root.certificate), 77)}
    assert rule_of(lambda: verify(leaf, issuer, revoked=revoked)) == "revoked"


def test_an_unknown_revocation_state_refuses(forge: Any, verify: Verify, sketch: Any) -> None:
    assert rule_of(lambda: verify(forge.make(sketch(), forge.issuer), forge.issuer, revoked=None)) == (
        "revocation-unknown"
    )


def test_a_known_proof_does_not_outlive_the_certificate(forge: Any, verify: Verify, sketch: Any, now: datetime) -> None:
    leaf = forge.make(sketch(), forge.issuer)
    assert verify(leaf, forge.issuer).spiffe_id == ORDERS
    assert rule_of(lambda: verify(leaf, forge.issuer, now=now + timedelta(hours=25))) == "expired"
    assert rule_of(lambda: verify(leaf, forge.issuer, now=now - timedelta(hours=1))) == "not-yet-valid"


def test_a_known_proof_does_not_serve_other_anchors_or_uses(forge: Any, verify: Verify, sketch: Any) -> None:
    leaf = forge.make(sketch(usages=(ExtendedKeyUsageOID.SERVER_AUTH,)), forge.issuer)
    assert verify(leaf, forge.issuer).spiffe_id == ORDERS
    rogue = type(forge)()
    assert rule_of(lambda: verify(leaf, forge.issuer, anchors=[rogue.root.der])) == "untrusted"
    assert rule_of(lambda: verify(leaf, forge.issuer, usage="client")) == "extended-key-usage"
    assert rule_of(lambda: verify(leaf, forge.issuer, expected_id=SpiffeId.of("mesh.internal", "svc", "pay"))) == (
        "spiffe-id"
    )


def test_without_an_expected_identity_the_trust_domain_decides(forge: Any, verify: Verify, sketch: Any) -> None:
    leaf = forge.make(sketch(), forge.issuer)
    assert verify(leaf, forge.issuer, expected_id=None, trust_domain="mesh.internal").spiffe_id == ORDERS
    assert rule_of(lambda: verify(leaf, forge.issuer, expected_id=None, trust_domain="evil")) == "trust-domain"
    assert rule_of(lambda: verify(leaf, forge.issuer, expected_id=None)) == "trust-domain"


def test_P18_the_proof_ends_with_the_first_certificate_of_its_path(forge: Any, verify: Verify, sketch: Any) -> None:
    issuer = forge.make(
        replace(forge.authority, cn="short", not_after=sketch().not_before + timedelta(hours=2)), forge.root
    )
    leaf = forge.make(sketch(), issuer)
    assert verify(leaf, issuer).not_after == issuer.certificate.not_valid_after_utc


def test_P21_long_and_large_chains_are_refused_unparsed(forge: Any, verify: Verify, sketch: Any) -> None:
    leaf = forge.make(sketch(), forge.issuer)
    assert rule_of(lambda: verify(leaf, *[forge.issuer] * 64)) == "too-large"
    assert rule_of(lambda: verify(leaf, b"\x30" * (4 << 20))) == "too-large"
    assert rule_of(
        lambda: svid.verify([], anchors=[], expected_id=ORDERS, usage="server", now=sketch().not_before)
    ) == ("untrusted")


def test_a_signature_that_leaves_bits_unused_is_refused(forge: Any, verify: Verify, sketch: Any) -> None:
    while True:
        der = forge.make(sketch(), forge.issuer).der
        at = der.rindex(b"\x30", 0, len(der) - 64) - 1  # the count of unused bits stands before the two numbers
        if der[at] == 0 and not der[-1] & 1:  # else it would be no valid BIT STRING at all
            break
    changed = der[:at] + b"\1" + der[at + 1 :]
    assert rule_of(lambda: verify(changed, forge.issuer)) == "malformed"


@settings(max_examples=40, deadline=None)
@example(395, 1)
@given(st.integers(0, 1000), st.integers(1, 255))
def test_a_changed_byte_is_never_accepted(forge: Any, sketch: Any, place: int, flip: int) -> None:
    leaf = bytearray(forge.make(sketch(), forge.issuer).der)
    leaf[place % len(leaf)] ^= flip
    with pytest.raises(SvidRejected):
        svid.verify(
            [bytes(leaf), forge.issuer.der],
            anchors=[forge.root.der],
            expected_id=ORDERS,
            usage="server",
            now=sketch().not_before + timedelta(minutes=5),
        )


@settings(max_examples=30, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_give_our_error(forge: Any, sketch: Any, raw: bytes) -> None:
    with pytest.raises(SvidRejected):
        svid.verify(
            [raw, forge.issuer.der],
            anchors=[forge.root.der],
            expected_id=ORDERS,
            usage="server",
            now=sketch().not_before,
        )


class TestHost:
    """`verify_host`: the public listener's certificate."""

    @pytest.fixture
    def host(self, forge: Any, now: datetime, sketch: Any) -> Callable[..., datetime]:
        def call(name: str, **changes: Any) -> datetime:
            plain = {"uris": (), "dns": ("localhost",), "ips": ("127.0.0.1",)}
            leaf = forge.make(sketch(**(plain | changes)), forge.issuer)
            return svid.verify_host([leaf.der, forge.issuer.der], anchors=[forge.root.der], host=name, now=now)

        return call

    @pytest.mark.parametrize("name", ["localhost", "127.0.0.1"])
    def test_a_named_host_is_accepted(self, host: Callable[..., datetime], name: str, now: datetime) -> None:
        assert host(name) == now + timedelta(hours=24)

    @pytest.mark.parametrize(
        ("name", "change", "rule"),
        [
            ("other", {}, "host-name"),
            ("127.0.0.2", {}, "host-name"),
            ("localhost", {"dns": ("*.localhost", "localhost")}, "wildcard"),
            ("localhost", {"dns": ("localhost", "a_b.example")}, "dns-name"),
            ("localhost", {"cn": "localhost"}, "subject"),
            ("localhost", {"cn": "other", "san_critical": False}, "subject"),
            ("127.0.0.1", {"cn": "127.0.0.01", "san_critical": False}, "subject"),
            ("localhost", {"dns": (), "ips": (), "cn": "localhost"}, "host-name"),
            ("localhost", {"usages": (ExtendedKeyUsageOID.CLIENT_AUTH,)}, "extended-key-usage"),
            ("localhost", {"not_after": datetime.fromisoformat("2026-11-21T11:59:59+00:00")}, "expired"),
        ],
    )
    def test_a_bad_host_certificate_is_refused(
        self, host: Callable[..., datetime], name: str, change: dict[str, Any], rule: str
    ) -> None:
        assert rule_of(lambda: host(name, **change)) == rule

    def test_a_cn_that_is_one_of_the_names_is_accepted(self, host: Callable[..., datetime], now: datetime) -> None:
        assert host("localhost", cn="LocalHost", san_critical=False) > now
