"""Who passes is a gateway's request as it left the gateway; everything else has its rule."""

from __future__ import annotations

import hashlib
import hmac
from base64 import b64encode
from datetime import datetime, timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from edge.verify import BadSettings, Caller, Settings, Verifier
from pki.bundle import Bundle
from pki.svid import Revoked
from tests.edge.verify.judged import BOUND, judged, rule
from tests.edge.verify.mesh import (
    ALICE,
    BILLING,
    GATEWAY,
    ORDERS,
    Mesh,
    mesh,
    presented,
    segment,
    signed,
    spelled,
)

IDP = "https://idp.example.com/"


def test_a_gateway_s_assertion_names_the_caller() -> None:
    caller = mesh().verifier().check(presented(mesh().assertion()), mesh().now_ns, GATEWAY)
    assert caller == Caller(GATEWAY, IDP, "alice", frozenset(("a", "b")), None)
    assert not caller.is_anonymous


def test_an_anonymous_caller_has_no_identity_fields_and_may_not_gain_any() -> None:
    assertion = mesh().assertion(sub_id=None, scopes=None)
    assert mesh().verifier().check(presented(assertion, identity=()), mesh().now_ns, None).is_anonymous
    assert judged(presented(assertion)) == "identity-fields"


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ((), "assertion-missing"),
        (((b"edge-assertion", b""),), "assertion-form"),
        (((b"edge-assertion", mesh().assertion()), (b"edge-assertion", mesh().assertion())), "assertion-repeated"),
        (((b"edge_assertion", mesh().assertion()),), "look-alike"),
        (((b"Edge-Assertion", mesh().assertion()),), "look-alike"),
    ],
)
def test_a_stripped_or_repeated_assertion_is_refused(more: tuple[tuple[bytes, bytes], ...], expected: str) -> None:
    assert judged(presented(None, *more)) == expected


@pytest.mark.parametrize(
    "identity",
    [
        (),
        ALICE[:2],
        (*ALICE[:2], (b"x-auth-scopes", b"a b admin")),
        (*ALICE[:2], (b"x-auth-scopes", b"a")),
        (*ALICE[:2], (b"x-auth-scopes", b"b a")),
        ((b"x-auth-subject", b"root"), *ALICE[1:]),
        ((b"x-auth-subject", b"Alice"), *ALICE[1:]),
        ((b"x-auth-subject", b"%61lice"), *ALICE[1:]),
        (ALICE[0], (b"x-auth-issuer", b"https://evil.example.com/"), ALICE[2]),
        (*ALICE, ALICE[0]),
        (*ALICE, (b"x-auth-subject", b"root")),
        (*ALICE, (b"x-auth-roles", b"admin")),
        (*ALICE, (b"x-auth-tenant", b"other")),
    ],
)
def test_identity_fields_must_say_what_the_assertion_says_B1(identity: tuple[tuple[bytes, bytes], ...]) -> None:
    assert judged(presented(mesh().assertion(), identity=identity)) == "identity-fields"


@pytest.mark.parametrize("name", [b"x_auth_subject", b"X-Auth-Subject", b"x.auth.scopes", b"x-auth\0issuer", b"HOST"])
def test_what_a_server_may_take_for_an_identity_field_is_refused_B2(name: bytes) -> None:
    assert judged(presented(mesh().assertion(), (name, b"alice"))) == "look-alike"


def test_fields_that_only_resemble_pass() -> None:
    fields = ((b"x-auth-token", b"1"), (b"x-auth-subject2", b"1"), (b"x-edge-assertion", b"1"))
    assert mesh().verifier().check(presented(mesh().assertion(), *fields), mesh().now_ns, None).subject == "alice"


def test_an_assertion_for_one_service_is_worth_nothing_at_another() -> None:
    stolen = presented(mesh().assertion(aud=BILLING))
    assert mesh().verifier(BILLING).check(stolen, mesh().now_ns, None).subject == "alice"
    assert judged(stolen) == "assertion-audience"


@pytest.mark.parametrize(
    ("later_s", "expected"),
    [(-5.1, "assertion-not-yet-valid"), (-5, None), (0, None), (34.9, None), (35, "assertion-expired")],
)
def test_it_lives_as_long_as_it_says_and_clocks_may_differ_a_little(later_s: float, expected: str | None) -> None:
    verifier, request = mesh().verifier(), presented(mesh().assertion())
    now_ns = mesh().now_ns + int(later_s * 1e9)
    for _ in range(2):  # as new, and remembered
        if expected is None:
            assert verifier.check(request, now_ns, None).subject == "alice"
        else:
            assert rule(lambda: verifier.check(request, now_ns, None)) == expected


def test_what_is_remembered_ends_too() -> None:
    verifier, request = mesh().verifier(), presented(mesh().assertion())
    verifier.check(request, mesh().now_ns, None)
    assert judged(request, verifier, later_s=36) == "assertion-expired"
    assert judged(request, verifier, later_s=-6) == "assertion-not-yet-valid"


@pytest.mark.parametrize(
    "changes",
    [
        {"exp": mesh().now_s + 31},
        {"exp": mesh().now_s},
        {"exp": mesh().now_s - 1},
        {"nbf": mesh().now_s - 1},
        {"iat": 0, "nbf": 0, "exp": 30},
        {"iat": -5, "nbf": -5, "exp": 5},
        {"iat": 1 << 70, "nbf": 1 << 70, "exp": (1 << 70) + 5},
    ],
)
def test_a_long_life_is_refused_though_signed(changes: dict[str, Any]) -> None:
    assert judged(presented(mesh().assertion(**changes))) == "assertion-lifetime"


@pytest.mark.parametrize(
    "changes",
    [
        {"exp": None},
        {"iat": None},
        {"nbf": None},
        {"aud": None},
        {"aud": [ORDERS]},
        {"iat": True},
        {"exp": float(mesh().now_s + 20)},
        {"exp": str(mesh().now_s + 20)},
        {"scopes": None},
        {"scopes": "a b"},
        {"scopes": ["a", 7]},
        {"sub_id": None},
        {"sub_id": "alice"},
        {"sub_id": {"format": "email", "iss": IDP, "sub": "alice"}},
        {"sub_id": {"format": "iss_sub", "iss": IDP}},
        {"sub_id": {"format": "iss_sub", "iss": IDP, "sub": "alice", "more": 1}},
        {"jti": "D1"},
        {"request": BOUND["request"]},
        {"jti": "D1", "request": {"method": "GET", "authority": "a"}},
        {"jti": "D1", "request": {"method": "GET", "authority": "a", "target": "/ä"}},
        {"crit": ["x"]},
        {"admin": True},
    ],
)
def test_claims_have_one_type_and_none_is_left_over_D8(changes: dict[str, Any]) -> None:
    assert judged(presented(mesh().assertion(**changes))) == "assertion-claims"


# -- whose signature ---------------------------------------------------------------------------------


def test_a_service_s_key_makes_no_assertion_P10() -> None:
    service = mesh().leaf("spiffe://mesh.internal/svc/billing", "svc")
    request = presented(mesh().assertion(mesh().header(service), service.key))
    assert judged(request) == "assertion-chain"


@pytest.mark.parametrize(
    ("uri", "issuer"),
    [
        (GATEWAY, "svc"),  # the role is the path together with the intermediate
        ("spiffe://mesh.internal/svc/billing", "gw"),
        ("spiffe://mesh.internal/op/eve", "op"),
        ("spiffe://mesh.internal/gw/edge/more", "gw"),
        ("spiffe://other.internal/gw/edge", "gw"),
    ],
)
def test_roles_and_trust_domains_are_not_crossed_P07_P09(uri: str, issuer: str) -> None:
    leaf = mesh().leaf(uri, issuer)
    request = presented(mesh().assertion(mesh().header(leaf), leaf.key, iss=uri))
    assert judged(request) == "assertion-chain"
    assert rule(lambda: mesh().verifier().check_peer([leaf.der], mesh().now_ns)) == "peer-rejected"


def test_another_trust_domain_s_gateway_of_the_same_name_is_refused_P01() -> None:
    other = Mesh(mesh().now)
    request = presented(other.assertion(other.header(other.gateway, other.issuers["gw"], other.root)))
    assert judged(request) == "assertion-chain"
    chain = [other.gateway.der, other.issuers["gw"].der, other.root.der]
    assert rule(lambda: mesh().verifier().check_peer(chain, mesh().now_ns)) == "peer-rejected"


@pytest.mark.parametrize("changes", [{"not_after": -1}, {"not_before": 60}])
def test_a_gateway_s_certificate_has_its_time_P16_P17(changes: dict[str, int]) -> None:
    dates = {name: mesh().now + timedelta(seconds=by) for name, by in changes.items()}
    leaf = mesh().leaf(GATEWAY, "gw", **dates)
    assert judged(presented(mesh().assertion(mesh().header(leaf), leaf.key))) == "assertion-chain"


def test_the_key_of_a_remembered_gateway_ends_with_its_certificate_P16() -> None:
    leaf = mesh().leaf(GATEWAY, "gw", not_after=mesh().now + timedelta(seconds=10))
    verifier, request = mesh().verifier(), presented(mesh().assertion(mesh().header(leaf), leaf.key))
    verifier.check(request, mesh().now_ns, None)
    assert verifier.check_peer([leaf.der], mesh().now_ns) == GATEWAY
    assert judged(request, verifier, later_s=11) == "assertion-chain"
    assert rule(lambda: verifier.check_peer([leaf.der], mesh().now_ns + 11 * 10**9)) == "peer-rejected"


def test_iss_must_be_the_identity_of_the_key() -> None:
    other = "spiffe://mesh.internal/gw/other"
    assert judged(presented(mesh().assertion(iss=other))) == "assertion-issuer"


def test_an_assertion_of_one_gateway_is_not_taken_from_another() -> None:
    request = presented(mesh().assertion())
    assert judged(request, peer="spiffe://mesh.internal/gw/other") == "peer-differs"


def test_a_signature_is_over_these_bytes_by_that_key() -> None:
    other = ec.generate_private_key(ec.SECP256R1())
    assert judged(presented(mesh().assertion(key=other))) == "assertion-signature"
    head, _, signature = mesh().assertion().rpartition(b".")
    changed = head.partition(b".")[0] + b"." + segment(spelled(mesh().claims(scopes=["admin"]))) + b"." + signature
    assert judged(presented(changed)) == "assertion-signature"


@pytest.mark.parametrize("raw", [bytes(64), b"\xff" * 64, bytes(63) + b"\1"])
def test_signatures_of_zero_and_beyond_the_order_are_refused_D8(raw: bytes) -> None:
    head = mesh().assertion().rpartition(b".")[0]
    assert judged(presented(head + b"." + segment(raw))) == "assertion-signature"


def _with_public_key_as_secret(header: dict[str, object]) -> bytes:
    secret = mesh().gateway.key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    signing_input = segment(spelled(header)) + b"." + segment(spelled(mesh().claims()))
    tag = hmac.new(secret, signing_input, hashlib.sha256).digest()
    return signing_input + b"." + segment(tag * 2)  # as long as the signature it stands for


@pytest.mark.parametrize("algorithm", ["HS256", "none", "None", "ES384", "RS256", "es256", "EdDSA", "", None, 256])
def test_the_algorithm_is_not_the_assertion_s_choice_D1(algorithm: object) -> None:
    header = mesh().header(alg=algorithm)
    assert judged(presented(_with_public_key_as_secret(header))) == "assertion-header"
    assert judged(presented(mesh().assertion(header))) == "assertion-header"
    unsigned = segment(spelled(header)) + b"." + segment(spelled(mesh().claims())) + b"."
    assert judged(presented(unsigned)) == "assertion-form"


@pytest.mark.parametrize(
    "changes",
    [
        {"typ": "JWT"},
        {"typ": "at+jwt"},
        {"typ": None},
        {"typ": "EDGE-ASSERTION+JWT"},
        {"crit": ["exp"]},
        {"b64": False},
        {"jwk": {"kty": "EC"}},
        {"jku": "https://evil.example.com/"},
        {"x5u": "https://evil.example.com/"},
        {"kid": "1"},
        {"x5c": None},
        {"x5c": []},
        {"x5c": "AAAA"},
        {"x5c": [7]},
        {"x5c": ["A A="]},
        {"x5c": ["AB=="]},
        {"x5c": ["ä"]},
        {"x5c": [""] * 5},
    ],
)
def test_a_header_is_what_a_gateway_writes_and_nothing_else_D2_D3(changes: dict[str, object]) -> None:
    assert judged(presented(mesh().assertion(mesh().header(**changes)))) == "assertion-header"


def test_a_token_of_an_issuer_is_no_assertion() -> None:
    raw = signed(b'{"alg":"ES256","typ":"at+jwt","kid":"a"}', spelled(mesh().claims()), mesh().gateway.key)
    assert judged(presented(raw)) == "assertion-header"


@pytest.mark.parametrize("x5c", [["AAAA"], ["MIIB"], [""]])
def test_what_is_no_certificate_proves_nobody(x5c: list[str]) -> None:
    assert judged(presented(mesh().assertion(mesh().header(x5c=x5c)))) == "assertion-chain"


def test_a_bomb_of_certificates_is_refused_unread_P21() -> None:
    many = [b64encode(mesh().gateway.der).decode()] * 5
    assert judged(presented(mesh().assertion(mesh().header(x5c=many)))) == "assertion-header"
    large = ["A" * 40_000]
    assert judged(presented(mesh().assertion(mesh().header(x5c=large)))) == "assertion-form"


def test_an_anchor_or_an_intermediate_in_place_of_a_leaf_signs_nothing_P02_P23() -> None:
    for authority in (mesh().root, mesh().issuers["gw"]):
        request = presented(mesh().assertion(mesh().header(authority), authority.key))
        assert judged(request) == "assertion-chain"


def test_a_gateway_s_key_on_another_curve_signs_no_es256() -> None:
    leaf = mesh().leaf(GATEWAY, "gw", key=ec.generate_private_key(ec.SECP384R1()))
    request = presented(mesh().assertion(mesh().header(leaf)))
    assert judged(request) == "assertion-key"


# -- who is at the connection ------------------------------------------------------------------------


def test_the_connection_s_peer_is_a_gateway() -> None:
    verifier = mesh().verifier()
    for _ in range(2):
        assert verifier.check_peer([mesh().gateway.der, mesh().issuers["gw"].der], mesh().now_ns) == GATEWAY
    assert rule(lambda: verifier.check_peer([], mesh().now_ns)) == "peer-rejected"
    assert rule(lambda: verifier.check_peer([b"\0"], mesh().now_ns)) == "peer-rejected"


def test_who_is_revoked_is_refused_although_he_is_remembered_P24() -> None:
    revoked: set[tuple[bytes, int]] = set()
    known: list[Revoked | None] = [revoked]

    def now_revoked(_: datetime) -> Revoked | None:
        return known[0]

    verifier, request = mesh().verifier(revoked=now_revoked), presented(mesh().assertion())
    assert verifier.check_peer([mesh().gateway.der], mesh().now_ns) == GATEWAY
    assert verifier.check(request, mesh().now_ns, GATEWAY).subject == "alice"
    spki = mesh().issuers["gw"].certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    revoked.add((hashlib.sha256(spki).digest(), mesh().gateway.certificate.serial_number))
    assert judged(request, verifier) == "assertion-chain"
    assert rule(lambda: verifier.check_peer([mesh().gateway.der], mesh().now_ns)) == "peer-rejected"
    known[0] = None  # not known: nobody
    assert judged(request, verifier) == "assertion-chain"


def test_gateways_may_be_named_and_then_no_other_passes() -> None:
    named = mesh().verifier(gateways=frozenset((GATEWAY,)))
    assert named.check(presented(mesh().assertion()), mesh().now_ns, None).gateway == GATEWAY
    other = mesh().verifier(gateways=frozenset(("spiffe://mesh.internal/gw/other",)))
    assert judged(presented(mesh().assertion()), other) == "assertion-chain"


def test_an_outside_authority_s_gateways_must_be_named() -> None:
    roots = mesh().root.pem
    with pytest.raises(BadSettings):
        mesh().verifier(bundle_pem=roots)
    verifier = mesh().verifier(bundle_pem=roots, gateways=frozenset((GATEWAY,)))
    header = mesh().header(mesh().gateway, mesh().issuers["gw"])
    assert verifier.check(presented(mesh().assertion(header)), mesh().now_ns, None).gateway == GATEWAY
    service = mesh().leaf(BILLING, "svc")
    header = mesh().header(service, mesh().issuers["svc"])
    assert judged(presented(mesh().assertion(header, service.key, iss=BILLING)), verifier) == "assertion-chain"


@pytest.mark.parametrize("bad", [{"service": "orders"}, {"mode": "both"}, {"gateways": frozenset(("x",))}])
def test_bad_settings_are_told_at_start(bad: dict[str, Any]) -> None:
    with pytest.raises(BadSettings):
        Verifier(Settings(**{"service": ORDERS, **bad}), Bundle.parse(mesh().bundle_pem))
