"""A gateway's certificate, and what the gateway vouches for where that is asked."""

from __future__ import annotations

import pytest

from edge.authn.attached import AttachedMethod
from edge.authn.method import NOT_PRESENT, Materials
from edge.authn.mtls import ClientTrust
from edge.errors import CredentialRejected, Forbidden
from edge.model.http import RawField, Request
from edge.model.identity import Peer, Principal
from edge.verify import Verifier
from pki.bundle import Bundle
from tests.edge.authn.simulator import KeySourceInMemory
from tests.edge.verify.mesh import ALICE, GATEWAY, mesh
from tests.pki.conftest import Forged


def method(assertions: Verifier | None) -> AttachedMethod:
    bundle = Bundle.parse(mesh().bundle_pem)
    trust = ClientTrust(
        "mesh.internal",
        bundle.anchors,
        bundle.intermediates,
        bundle.role_issuers,
        revoked=lambda now: frozenset(),
        check_issued=lambda leaf_sha256, now: None,
        roles=frozenset(("gw",)),
    )
    return AttachedMethod(Materials((), KeySourceInMemory(), trust, assertions))


def peer(leaf: Forged | None = None) -> Peer:
    return Peer("192.0.2.1", 5, "192.0.2.1", None, "TLSv1.3", "x", chain=((leaf or mesh().gateway).der,))


def request(*fields: RawField) -> Request:
    return Request("GET", "/orders/7", b"", False, "localhost", "localhost", fields, None, None, False)


def test_the_certificate_alone_will_do_where_no_assertion_is_asked_for() -> None:
    principal = method(None).authenticate(request(), peer(), mesh().now_ns)
    assert isinstance(principal, Principal)
    assert (principal.method, principal.subject) == ("mtls", GATEWAY)


def test_without_a_certificate_nothing_is_present_whatever_is_asserted() -> None:
    nobody = Peer("192.0.2.1", 5, "192.0.2.1", None, "TLSv1.3", "x")
    asserted = request(*ALICE, (b"edge-assertion", mesh().assertion()))
    assert method(mesh().verifier()).authenticate(asserted, nobody, mesh().now_ns) is NOT_PRESENT


def test_a_service_s_certificate_is_rejected_whatever_is_asserted_P10() -> None:
    asserted = request(*ALICE, (b"edge-assertion", mesh().assertion()))
    service = peer(mesh().leaf("spiffe://mesh.internal/svc/orders", "svc"))
    with pytest.raises(CredentialRejected, match=r"^role: "):
        method(mesh().verifier()).authenticate(asserted, service, mesh().now_ns)


def test_what_fits_is_let_in_as_the_gateway() -> None:
    asserted = request(*ALICE, (b"edge-assertion", mesh().assertion()))
    principal = method(mesh().verifier()).authenticate(asserted, peer(), mesh().now_ns)
    assert isinstance(principal, Principal)
    assert principal.subject == GATEWAY


@pytest.mark.parametrize(
    ("fields", "rule"),
    [
        (ALICE, "assertion-missing"),
        (((b"edge-assertion", b"a.b.c"), *ALICE), "assertion-form"),
        (((b"edge-assertion", mesh().assertion()),), "identity-fields"),
        (((b"edge-assertion", mesh().assertion(aud="spiffe://mesh.internal/svc/pay")), *ALICE), "assertion-audience"),
    ],
)
def test_what_does_not_fit_is_forbidden_and_no_challenge(fields: tuple[RawField, ...], rule: str) -> None:
    with pytest.raises(Forbidden) as refused:
        method(mesh().verifier()).authenticate(request(*fields), peer(), mesh().now_ns)
    assert refused.value.denial.reason == rule


def test_an_assertion_of_another_gateway_than_the_one_that_calls_is_forbidden() -> None:
    other = peer(mesh().leaf("spiffe://mesh.internal/gw/other", "gw"))
    asserted = request(*ALICE, (b"edge-assertion", mesh().assertion()))
    with pytest.raises(Forbidden) as refused:
        method(mesh().verifier()).authenticate(asserted, other, mesh().now_ns)
    assert refused.value.denial.reason == "peer-differs"
