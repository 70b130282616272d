from __future__ import annotations

import time

import pytest

from edge.authn.chain import Authenticator
from edge.errors import CredentialMissing, CredentialRejected
from edge.model.decision import Need
from edge.model.identity import ANONYMOUS, Principal
from tests.edge.authn.simulator import ISSUER, MINTER, PEER, KeySourceInMemory, bearer, issuer, key_set, request, route


def _authenticator(source: KeySourceInMemory | None = None) -> Authenticator:
    return Authenticator((issuer(),), source or KeySourceInMemory())


def test_a_route_with_a_method_knows_the_caller() -> None:
    found = _authenticator().authenticate(bearer(MINTER.good("alice")), PEER, route("jwt"), time.time_ns())
    assert isinstance(found, Principal)
    assert f"{ISSUER}#alice" == found.uid


@pytest.mark.parametrize("value", [None, "Bearer garbage", f"Bearer {MINTER.good('alice')}", "Basic x"])
def test_a_public_route_is_anonymous_whatever_is_presented(value: str | None) -> None:
    assert _authenticator().authenticate(request(value), PEER, route(), time.time_ns()) is ANONYMOUS


@pytest.mark.parametrize(("value", "rule"), [(None, "no-credential"), ("Basic x", "scheme-not-accepted")])
def test_without_a_credential_of_any_method_it_is_missing(value: str | None, rule: str) -> None:
    with pytest.raises(CredentialMissing) as missing:
        _authenticator().authenticate(request(value), PEER, route("jwt"), time.time_ns())
    assert missing.value.rule == rule


def test_a_bad_credential_stops_the_chain() -> None:
    with pytest.raises(CredentialRejected):
        _authenticator().authenticate(bearer(MINTER.forged("alice")), PEER, route("jwt", "jwt"), time.time_ns())


def test_a_need_is_handed_on() -> None:
    source = KeySourceInMemory({}, arriving={ISSUER: key_set()})
    answer = _authenticator(source).authenticate(bearer(MINTER.good("alice")), PEER, route("jwt"), time.time_ns())
    assert isinstance(answer, Need)
    assert f"key-set {ISSUER}" == answer.what


def test_an_issuer_that_is_not_configured_is_refused() -> None:
    with pytest.raises(CredentialRejected):
        Authenticator((), KeySourceInMemory()).authenticate(
            bearer(MINTER.good("alice")), PEER, route("jwt"), time.time_ns()
        )


def test_routes_and_requests_share_what_was_verified() -> None:
    authenticator, asked = _authenticator(), bearer(MINTER.good("alice"))
    first = authenticator.authenticate(asked, PEER, route("jwt"), time.time_ns())
    assert authenticator.authenticate(asked, PEER, route("jwt"), time.time_ns()) is first
    assert authenticator.authenticate(asked, PEER, route("jwt", "jwt"), time.time_ns()) is first
