"""What a client of EST takes from an answer: the pinned root and nothing beside it; its own certificate and no other."""

from __future__ import annotations

from datetime import datetime, timedelta
from hashlib import sha256

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from pki import enrolled, est
from pki.bundle import Bundle
from pki.errors import AnswerRejected, SvidRejected
from pki.io_authority import Authority
from pki.io_enrol import chain
from pki.io_keys import make_ec
from pki.issue import UPSTREAM_ROLES, IssueRequest, IssuerRole
from pki.spiffe import Role
from tests.pki.conftest import Forge, Sketch

KEY = make_ec("p256")


def answer(authority: Authority) -> list[bytes]:
    """Of `cacerts`."""
    return enrolled.ders_of(authority.bundle_pem(roles=UPSTREAM_ROLES))


def issued(authority: Authority, now: datetime, role: Role = "svc", name: str = "orders") -> list[bytes]:
    dns = () if role == "op" else (f"{name}.internal",)
    return chain(authority.issue(IssueRequest(role, name, KEY.public_key(), dns), now))


# -- whom to trust -------------------------------------------------------------------------------------


def test_the_pinned_root_comes_with_what_it_signed(authority: Authority) -> None:
    found = enrolled.pinned_bundle(answer(authority), authority.root_sha256)
    assert enrolled.is_same_bundle(found, authority.bundle_pem(roles=UPSTREAM_ROLES))
    assert Bundle.parse(found).role_issuers.keys() == {"svc", "gw", "op"}


def test_a_root_beside_the_pinned_one_is_left_out_and_so_is_what_it_signed(authority: Authority, forge: Forge) -> None:
    slipped = [forge.root.der, *answer(authority), forge.issuer.der]
    found = enrolled.pinned_bundle(slipped, authority.root_sha256)
    assert enrolled.is_same_bundle(found, authority.bundle_pem(roles=UPSTREAM_ROLES))


def test_without_the_pinned_root_nothing_is_believed(authority: Authority, forge: Forge) -> None:
    with pytest.raises(AnswerRejected, match="no root with the fingerprint"):
        enrolled.pinned_bundle([forge.root.der, forge.issuer.der], authority.root_sha256)


def test_a_fingerprint_of_what_is_no_root_makes_no_anchor(authority: Authority) -> None:
    intermediate = answer(authority)[1]
    with pytest.raises(AnswerRejected):
        enrolled.pinned_bundle(answer(authority), sha256(intermediate).hexdigest())


@pytest.mark.parametrize("certificates", [[], [b"no certificate"]])
def test_what_is_no_bundle_is_rejected(certificates: list[bytes]) -> None:
    with pytest.raises(AnswerRejected):
        enrolled.bundle_of(certificates)


# -- as what one was certified -------------------------------------------------------------------------


def certified(
    authority: Authority, chain: list[bytes], now: datetime, key: ec.EllipticCurvePublicKey | None = None
) -> enrolled.Certified:
    bundle = authority.bundle_pem(roles=UPSTREAM_ROLES)
    return enrolled.certified(chain, bundle, "svc", "orders", key or KEY.public_key(), now)


def test_the_leaf_alone_is_shown_with_its_issuer_of_the_bundle(authority: Authority, now: datetime) -> None:
    leaf, intermediate = issued(authority, now)
    found = certified(authority, [leaf], now)
    assert str(found.svid.spiffe_id) == "spiffe://mesh.internal/svc/orders"
    assert enrolled.ders_of(found.chain_pem) == [leaf, intermediate]
    assert found.not_after - found.not_before == timedelta(hours=24, minutes=1)


def test_a_bundle_of_roots_alone_will_do_for_a_whole_chain(authority: Authority, now: datetime) -> None:
    whole = issued(authority, now)
    found = enrolled.certified(whole, authority.bundle_pem(), "svc", "orders", KEY.public_key(), now)
    assert enrolled.ders_of(found.chain_pem) == whole


@pytest.mark.parametrize(("role", "name"), [("svc", "billing"), ("gw", "orders"), ("op", "orders")])
def test_another_name_or_role_is_rejected(authority: Authority, now: datetime, role: Role, name: str) -> None:
    with pytest.raises(AnswerRejected, match=r"not for svc/orders|extended-key-usage"):
        certified(authority, issued(authority, now, role, name), now)


def test_another_key_is_rejected(authority: Authority, now: datetime) -> None:
    with pytest.raises(AnswerRejected, match="another key"):
        certified(authority, issued(authority, now), now, make_ec("p256").public_key())


def test_an_ended_certificate_is_rejected(authority: Authority, now: datetime) -> None:
    with pytest.raises(AnswerRejected, match="expired"):
        certified(authority, issued(authority, now), now + timedelta(hours=25))


def test_another_authority_is_rejected(authority: Authority, now: datetime, forge: Forge, sketch: type[Sketch]) -> None:
    leaf = forge.make(sketch(), forge.issuer)
    with pytest.raises(AnswerRejected, match="does not verify"):
        certified(authority, [leaf.der, forge.issuer.der], now, leaf.key.public_key())


@pytest.mark.parametrize("chain", [[], [b""], [b"\x30\x00"]])
def test_what_is_no_certificate_is_rejected(authority: Authority, now: datetime, chain: list[bytes]) -> None:
    with pytest.raises(AnswerRejected):
        certified(authority, chain, now)


def test_what_is_no_certificate_claims_no_trust_domain() -> None:
    with pytest.raises(SvidRejected):
        enrolled.trust_domain_of(b"nothing")


# -- who may be given a token --------------------------------------------------------------------------


def enroller(authority: Authority, now: datetime, role: IssuerRole, name: str, host: str) -> None:
    request = IssueRequest(role, name, KEY.public_key(), ("localhost" if role == "edge" else "gateway.internal",))
    shown = chain(authority.issue(request, now))
    enrolled.check_enroller(shown, Bundle.parse(authority.bundle_pem(roles=UPSTREAM_ROLES)), host, now)


@pytest.mark.parametrize(
    ("role", "host"), [("edge", "localhost"), ("gw", "gateway.internal"), ("gw", "elsewhere.internal")]
)
def test_a_token_is_for_the_public_listener_of_that_host_or_a_gateway(
    authority: Authority, now: datetime, role: IssuerRole, host: str
) -> None:
    enroller(authority, now, role, "edge", host)


@pytest.mark.parametrize(
    ("role", "host"), [("edge", "elsewhere.internal"), ("svc", "gateway.internal"), ("svc", "elsewhere.internal")]
)
def test_a_token_is_not_for_a_service_though_its_certificate_has_the_host_s_name(
    authority: Authority, now: datetime, role: IssuerRole, host: str
) -> None:
    with pytest.raises(SvidRejected):
        enroller(authority, now, role, "edge", host)


def test_a_token_is_not_for_who_shows_nothing(authority: Authority, now: datetime) -> None:
    with pytest.raises(SvidRejected):
        enrolled.check_enroller([], Bundle.parse(authority.bundle_pem()), "localhost", now)


# -- answers -------------------------------------------------------------------------------------------


def test_an_answer_is_read_as_it_was_written(forge: Forge) -> None:
    assert set(est.read_certificates(est.certs_only([forge.root.der, forge.issuer.der]))) == {
        forge.root.der,
        forge.issuer.der,
    }


@pytest.mark.parametrize("body", [b"", b"no base64!", b"AAAA", b"A" * (est.MAX_ANSWER_BYTES + 4)])
def test_what_is_no_answer_is_rejected(body: bytes) -> None:
    with pytest.raises(AnswerRejected):
        est.read_certificates(body)
