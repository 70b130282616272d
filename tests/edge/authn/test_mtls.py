"""The certificate of a connection as a credential: proven at each request, by the rules alone."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from cryptography.x509.oid import ExtendedKeyUsageOID

from edge.authn.method import NOT_PRESENT, Materials
from edge.authn.mtls import ClientTrust, MtlsMethod
from edge.errors import CredentialRejected
from edge.model.http import Request
from edge.model.identity import Peer
from pki.bundle import Bundle
from pki.errors import SvidRejected
from tests.edge.authn.simulator import KeySourceInMemory
from tests.pki.conftest import NOW, Forge, Forged, Sketch

NOW_NS = int(NOW.timestamp()) * 1_000_000_000
CLAIM = (b"x-forwarded-client-cert", b"By=spiffe://mesh.internal/svc/orders")
REQUEST = Request("GET", "/", b"", False, "localhost", "localhost", (CLAIM,), None, None, False)


@pytest.fixture(scope="module")
def forge() -> Forge:
    return Forge()


@pytest.fixture
def trust(forge: Forge) -> ClientTrust:
    bundle = Bundle.parse(forge.root.pem + forge.issuer.pem)
    return ClientTrust(
        "mesh.internal",
        bundle.anchors,
        bundle.intermediates,
        bundle.role_issuers,
        revoked=lambda _: frozenset(),
        check_issued=lambda leaf_sha256, now: None,
    )


def peer(*chain: Forged) -> Peer:
    return Peer("192.0.2.1", 5, "192.0.2.1", None, "TLSv1.3", "x", chain=tuple(each.der for each in chain))


def method(trust: ClientTrust | None) -> MtlsMethod:
    return MtlsMethod(Materials((), KeySourceInMemory(), trust))


def test_a_service_is_known_by_its_spiffe_id(forge: Forge, trust: ClientTrust) -> None:
    found = method(trust).authenticate(REQUEST, peer(forge.make(Sketch(), forge.issuer), forge.issuer), NOW_NS)
    assert (found.method, found.subject) == ("mtls", "spiffe://mesh.internal/svc/orders")  # type: ignore[union-attr]


def test_a_client_that_shows_its_leaf_alone_is_known_too(forge: Forge, trust: ClientTrust) -> None:
    assert method(trust).authenticate(REQUEST, peer(forge.make(Sketch(), forge.issuer)), NOW_NS) is not NOT_PRESENT


def test_the_same_leaf_is_the_same_principal(forge: Forge, trust: ClientTrust) -> None:
    chosen, client = method(trust), peer(forge.make(Sketch(), forge.issuer))
    assert chosen.authenticate(REQUEST, client, NOW_NS) is chosen.authenticate(REQUEST, client, NOW_NS + 1)


def test_without_a_certificate_nothing_is_present_whatever_a_header_says_B6(trust: ClientTrust) -> None:
    assert method(trust).authenticate(REQUEST, peer(), NOW_NS) is NOT_PRESENT


def test_where_nobody_is_trusted_nothing_is_present(forge: Forge) -> None:
    assert method(None).authenticate(REQUEST, peer(forge.make(Sketch(), forge.issuer)), NOW_NS) is NOT_PRESENT


@pytest.mark.parametrize(
    ("sketch", "rule"),
    [
        (Sketch(uris=("spiffe://evil.internal/svc/orders",)), "trust-domain"),
        (Sketch(uris=("spiffe://mesh.internal/gw/edge",)), "role-issuer"),
        (Sketch(uris=("spiffe://mesh.internal/other",)), "role-issuer"),
        (Sketch(uris=()), "spiffe-uri"),
        (Sketch(usages=None), "extended-key-usage"),
        (Sketch(usages=(ExtendedKeyUsageOID.SERVER_AUTH,)), "extended-key-usage"),  # P10, E1
        (Sketch(not_after=NOW - timedelta(seconds=1)), "expired"),
        (Sketch(not_before=NOW + timedelta(hours=1)), "not-yet-valid"),
    ],
)
def test_what_breaks_a_rule_is_rejected_by_its_name(
    forge: Forge, trust: ClientTrust, sketch: Sketch, rule: str
) -> None:
    with pytest.raises(CredentialRejected) as caught:
        method(trust).authenticate(REQUEST, peer(forge.make(sketch, forge.issuer)), NOW_NS)
    assert caught.value.rule == rule


def test_another_authority_is_rejected(trust: ClientTrust) -> None:
    other = Forge()
    with pytest.raises(CredentialRejected, match="untrusted"):
        method(trust).authenticate(REQUEST, peer(other.make(Sketch(), other.issuer), other.issuer), NOW_NS)


def test_a_certificate_that_ends_under_an_open_connection_is_rejected_P30(forge: Forge, trust: ClientTrust) -> None:
    chosen, client = method(trust), peer(forge.make(Sketch(not_after=NOW + timedelta(hours=1)), forge.issuer))
    assert chosen.authenticate(REQUEST, client, NOW_NS) is not NOT_PRESENT
    with pytest.raises(CredentialRejected, match="expired"):
        chosen.authenticate(REQUEST, client, NOW_NS + 2 * 3600 * 1_000_000_000)


def test_a_gateway_is_no_service_even_with_its_own_certificate_P09(forge: Forge, trust: ClientTrust) -> None:
    own = replace(trust, role_issuers={"gw": trust.role_issuers["svc"]})
    leaf = forge.make(Sketch(uris=("spiffe://mesh.internal/gw/edge",)), forge.issuer)
    with pytest.raises(CredentialRejected, match=r"^role: "):
        method(own).authenticate(REQUEST, peer(leaf), NOW_NS)


def test_a_certificate_that_is_revoked_under_an_open_connection_is_rejected_P30(
    forge: Forge, trust: ClientTrust
) -> None:
    leaf = forge.make(Sketch(), forge.issuer)
    known: list[frozenset[tuple[bytes, int]] | None] = [frozenset()]
    chosen, client = method(replace(trust, revoked=lambda _: known[0])), peer(leaf)
    assert chosen.authenticate(REQUEST, client, NOW_NS) is not NOT_PRESENT
    (issuer,) = trust.role_issuers["svc"]
    known[0] = frozenset({(issuer, leaf.certificate.serial_number)})
    with pytest.raises(CredentialRejected, match=r"^revoked: "):
        chosen.authenticate(REQUEST, client, NOW_NS)
    known[0] = None
    with pytest.raises(CredentialRejected, match="revocation-unknown"):
        chosen.authenticate(REQUEST, client, NOW_NS)


def test_a_certificate_that_our_authority_s_record_does_not_know_is_rejected(forge: Forge, trust: ClientTrust) -> None:
    def check(leaf_sha256: bytes, now: datetime) -> None:
        raise SvidRejected("not-in-issuance-record")

    leaf = forge.make(Sketch(), forge.issuer)
    with pytest.raises(CredentialRejected, match="not-in-issuance-record"):
        method(replace(trust, check_issued=check)).authenticate(REQUEST, peer(leaf), NOW_NS)


def test_a_certificate_that_leaves_the_record_under_an_open_connection_is_rejected(
    forge: Forge, trust: ClientTrust
) -> None:
    known = [True]

    def check(leaf_sha256: bytes, now: datetime) -> None:
        if not known[0]:
            raise SvidRejected("not-in-issuance-record")

    chosen, client = method(replace(trust, check_issued=check)), peer(forge.make(Sketch(), forge.issuer))
    assert chosen.authenticate(REQUEST, client, NOW_NS) is not NOT_PRESENT
    known[0] = False
    with pytest.raises(CredentialRejected, match="not-in-issuance-record"):
        chosen.authenticate(REQUEST, client, NOW_NS)


def test_what_was_proven_is_proven_again_when_the_clock_goes_back(forge: Forge, trust: ClientTrust) -> None:
    chosen, client = method(trust), peer(forge.make(Sketch(), forge.issuer))
    assert chosen.authenticate(REQUEST, client, NOW_NS) is not NOT_PRESENT
    with pytest.raises(CredentialRejected, match="not-yet-valid"):
        chosen.authenticate(REQUEST, client, NOW_NS - 2 * 3600 * 1_000_000_000)


def test_of_a_role_those_that_are_named_may_call_and_no_others(forge: Forge, trust: ClientTrust) -> None:
    named = replace(trust, ids=frozenset(("spiffe://mesh.internal/svc/orders",)))
    assert method(named).authenticate(REQUEST, peer(forge.make(Sketch(), forge.issuer)), NOW_NS) is not NOT_PRESENT
    other = peer(forge.make(Sketch(uris=("spiffe://mesh.internal/svc/billing",)), forge.issuer))
    with pytest.raises(CredentialRejected, match=r"^spiffe-id: "):
        method(named).authenticate(REQUEST, other, NOW_NS)
