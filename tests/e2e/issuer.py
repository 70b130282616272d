"""The example issuer as a process of its own, and tokens made with its key."""

from __future__ import annotations

import base64
import json
import ssl
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import trustme
from joserfc.jwk import ECKey

from examples.issuer.minting import Minter
from tests.e2e.whole_gateway import ROOT

AUDIENCE = "https://api.example.com"


@dataclass(frozen=True, slots=True)
class Issuer:
    """One that runs."""

    url: str
    ca_pem: bytes
    minter: Minter
    """Holds the same key."""

    def token(self, client: str, secret: str, scope: str) -> dict[str, str]:
        """What the token endpoint answers (RFC 6749 §4.4)."""
        basic = base64.b64encode(f"{client}:{secret}".encode()).decode()
        body = f"grant_type=client_credentials&scope={scope}".encode()
        asked = urllib.request.Request(f"{self.url}/token", data=body, headers={"Authorization": f"Basic {basic}"})
        context = ssl.create_default_context(cadata=self.ca_pem.decode())
        with urllib.request.urlopen(asked, context=context, timeout=15) as answer:
            found: dict[str, str] = json.loads(answer.read())
        return found


@contextmanager
def running_issuer(directory: Path, clients: Mapping[str, object]) -> Iterator[Issuer]:
    """Its files lie in `directory`."""
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    certificate.cert_chain_pems[0].write_to_path(str(directory / "cert.pem"))
    certificate.private_key_pem.write_to_path(str(directory / "key.pem"))
    key = ECKey.generate_key("P-256")
    (directory / "signing.pem").write_bytes(key.as_pem(private=True))
    (directory / "clients.json").write_text(json.dumps(clients))
    arguments = ["--certificate", "cert.pem", "--key", "key.pem", "--clients", "clients.json"]
    arguments += ["--signing-key", "signing.pem", "--audience", AUDIENCE]
    command = [sys.executable, "-W", "error", "-m", "examples.issuer", *arguments]
    environment = {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, cwd=directory, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        try:
            word, url = process.stdout.readline().split()
            assert word == "ready"
            key.ensure_kid()
            yield Issuer(url, authority.cert_pem.bytes(), Minter(key, url, AUDIENCE))
        finally:
            process.terminate()
        assert process.wait(5) == 0
