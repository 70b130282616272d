"""The example issuer as a process: real TLS, a real token endpoint, and the gateway's own discovery on the other side."""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import trustme
from joserfc.jwk import ECKey

from edge.authn.chain import Authenticator
from edge.authn.io_keyset import KeySets
from edge.authn.issuer import IssuerSettings
from edge.errors import CredentialRejected
from edge.model.decision import Need
from edge.model.identity import Principal
from examples.issuer.minting import Minter
from tests.edge.authn.simulator import PEER, bearer, route

AUDIENCE = "https://api.example.com"
CLIENTS = {"alice": {"secret": "s3cret", "scopes": ["orders:read"], "roles": ["auditor"], "tenant": "acme"}}


@dataclass(frozen=True, slots=True)
class Running:
    url: str
    ca_pem: bytes
    signing_key: ECKey

    def token(self, client: str, secret: str, scope: str) -> dict[str, str]:
        basic = base64.b64encode(f"{client}:{secret}".encode()).decode()
        body = f"grant_type=client_credentials&scope={scope}".encode()
        asked = urllib.request.Request(f"{self.url}/token", data=body, headers={"Authorization": f"Basic {basic}"})
        context = ssl.create_default_context(cadata=self.ca_pem.decode())
        with urllib.request.urlopen(asked, context=context, timeout=5) as answer:
            found: dict[str, str] = json.loads(answer.read())
        return found


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    directory: Path = tmp_path_factory.mktemp("issuer")
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    certificate.cert_chain_pems[0].write_to_path(str(directory / "cert.pem"))
    certificate.private_key_pem.write_to_path(str(directory / "key.pem"))
    key = ECKey.generate_key("P-256")
    (directory / "signing.pem").write_bytes(key.as_pem(private=True))
    (directory / "clients.json").write_text(json.dumps(CLIENTS))
    arguments = ["--certificate", "cert.pem", "--key", "key.pem", "--clients", "clients.json"]
    arguments += ["--signing-key", "signing.pem", "--audience", AUDIENCE]
    command = [sys.executable, "-W", "error", "-m", "examples.issuer", *arguments]
    environment = {"PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen(command, cwd=directory, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        word, url = process.stdout.readline().split()
        assert word == "ready"
        key.ensure_kid()
        yield Running(url, authority.cert_pem.bytes(), key)
        process.terminate()
        assert process.wait(5) == 0


def _authenticate(running: Running, token: str) -> Principal:
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


def test_a_token_of_the_issuer_names_its_client(running: Running) -> None:
    answer = running.token("alice", "s3cret", "orders:read+orders:write")
    found = _authenticate(running, answer["access_token"])
    assert ("alice", running.url, ["orders:read"], ["auditor"], "acme") == (
        *(found.subject, found.issuer, sorted(found.scopes)),
        *(sorted(found.roles), found.tenant),
    )


@pytest.mark.parametrize(("client", "secret"), [("alice", "wrong"), ("alice", ""), ("mallory", "s3cret")])
def test_a_wrong_secret_gets_no_token(running: Running, client: str, secret: str) -> None:
    with pytest.raises(urllib.error.HTTPError) as refused:
        running.token(client, secret, "orders:read")
    with refused.value:
        assert refused.value.code == 401


def test_tokens_minted_with_the_issuers_key_are_those_of_the_issuer(running: Running) -> None:
    minter = Minter(running.signing_key, running.url, AUDIENCE)
    assert _authenticate(running, minter.good("bob", ["orders:read"])).subject == "bob"


@pytest.mark.parametrize("kind", ["expired", "for_another_audience", "of_another_issuer", "forged", "unsigned"])
def test_bad_tokens_of_the_mint_are_refused(running: Running, kind: str) -> None:
    minter = Minter(running.signing_key, running.url, AUDIENCE)
    with pytest.raises(CredentialRejected):
        _authenticate(running, getattr(minter, kind)("alice"))
