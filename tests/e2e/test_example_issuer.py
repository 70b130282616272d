"""The example issuer as a process: real TLS, a real token endpoint, and the gateway's own discovery on the other side."""

from __future__ import annotations

import asyncio
import time
import urllib.error
from collections.abc import Iterator

import pytest

from edge.authn.chain import Authenticator
from edge.authn.io_keyset import KeySets
from edge.authn.issuer import IssuerSettings
from edge.errors import CredentialRejected
from edge.model.decision import Need
from edge.model.identity import Principal
from tests.e2e.issuer import AUDIENCE, Issuer, running_issuer
from tests.edge.authn.simulator import PEER, bearer, route

CLIENTS = {"alice": {"secret": "s3cret", "scopes": ["orders:read"], "roles": ["auditor"], "tenant": "acme"}}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Issuer]:
    with running_issuer(tmp_path_factory.mktemp("issuer"), CLIENTS) as issuer:
        yield issuer


def _authenticate(running: Issuer, token: str) -> Principal:
    """What the gateway makes of a token, keys by discovery."""
    settings = IssuerSettings(running.url, (AUDIENCE,), ("ES256",), ca_pem=running.ca_pem)

    async def ask() -> Principal:
        sets = KeySets((settings,))
        authenticator = Authenticator((settings,), sets)
        answer = authenticator.authenticate(bearer(token), PEER, route("jwt"), time.time_ns())
        if isinstance(answer, Need):
            await answer.fetch()
            answer = authenticator.authenticate(bearer(token), PEER, route("jwt"), time.time_ns())
        await sets.close()
        assert isinstance(answer, Principal)
        return answer

    return asyncio.run(ask())


def test_a_token_of_the_issuer_names_its_client(running: Issuer) -> None:
    answer = running.token("alice", "s3cret", "orders:read+orders:write")
    found = _authenticate(running, answer["access_token"])
    assert ("alice", running.url, ["orders:read"], ["auditor"], "acme") == (
        *(found.subject, found.issuer, sorted(found.scopes)),
        *(sorted(found.roles), found.tenant),
    )


@pytest.mark.parametrize(("client", "secret"), [("alice", "wrong"), ("alice", ""), ("mallory", "s3cret")])
def test_a_wrong_secret_gets_no_token(running: Issuer, client: str, secret: str) -> None:
    with pytest.raises(urllib.error.HTTPError) as refused:
        running.token(client, secret, "orders:read")
    with refused.value:
        assert refused.value.code == 401


def test_tokens_minted_with_the_issuers_key_are_those_of_the_issuer(running: Issuer) -> None:
    minter = running.minter
    assert _authenticate(running, minter.good("bob", ["orders:read"])).subject == "bob"


@pytest.mark.parametrize("kind", ["expired", "for_another_audience", "of_another_issuer", "forged", "unsigned"])
def test_bad_tokens_of_the_mint_are_refused(running: Issuer, kind: str) -> None:
    minter = running.minter
    with pytest.raises(CredentialRejected):
        _authenticate(running, getattr(minter, kind)("alice"))
