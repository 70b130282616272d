"""A service that looks after its own certificate, by EST alone (RFC 7030): whom to trust, and the next certificate in time.

What any client of ours has to do to live through a rotation: ask for `cacerts` now and then and trust what it says, and while
that names an issuer of its role which is not the issuer of its own certificate, ask for the next one until it is given; and
without any rotation when it is due, as the answer that brought it said (`Edge-Renew-After`).
"""

from __future__ import annotations

import http.client
import os
import threading
from base64 import b64decode, b64encode
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.hazmat.primitives.serialization.pkcs7 import load_der_pkcs7_certificates

from pki.io_keys import make_ec, private_pem
from pki.issue import unverified_role
from tests.e2e.whole_gateway import Gateway, knock

_EST = "/.well-known/est"
_EVERY_S = 0.25


class EstClient:
    """One service; its files are in `identity`. `on_change` is called when they are new."""

    def __init__(
        self, gateway: Gateway, identity: Path, on_change: Callable[[Path], None] = lambda identity: None
    ) -> None:
        self.identity = identity
        self.renewals = 0
        self.failures: list[str] = []
        self.may_look = threading.Event()
        """Cleared: it sleeps."""
        self.may_look.set()
        self._gateway = gateway
        self._on_change = on_change
        self._connection: http.client.HTTPConnection | None = None
        self._bundle: list[bytes] = []
        self.due: datetime | None = None
        """As the last answer said."""
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._is_over.wait(_EVERY_S):
            if self.may_look.is_set():
                try:
                    self._look()
                except (OSError, http.client.HTTPException):
                    self._hang_up()  # a context of another generation, or it was cut: once more, with what is there now
        self._hang_up()

    def _look(self) -> None:
        issuers = self._issuers()
        if not issuers:
            return
        leaf = x509.load_pem_x509_certificates((self.identity / "chain.pem").read_bytes())[0]
        if any(each.subject != leaf.issuer for each in issuers) or datetime.now(UTC) >= (self.due or due_of(leaf)):
            self._renew(issuers)

    def _issuers(self) -> list[x509.Certificate]:
        """Of services, as the bundle of this moment names them; none: it was not to be had."""
        status, body, _ = self._ask("GET", "cacerts")
        if status != 200:
            self.failures.append(f"{self.identity.name}: {status} {body!r}")
            self._hang_up()
            return []
        bundle = [each.public_bytes(Encoding.PEM) for each in load_der_pkcs7_certificates(b64decode(body))]
        if bundle != self._bundle:
            self._write("bundle.pem", b"".join(bundle))
            self._bundle = bundle
            self._on_change(self.identity)
        return [each for each in map(x509.load_pem_x509_certificate, bundle) if unverified_role(each) == "svc"]

    def _renew(self, issuers: list[x509.Certificate]) -> None:
        key = make_ec("p256")
        request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, SHA256())
        status, body, fields = self._ask("POST", "simplereenroll", b64encode(request.public_bytes(Encoding.DER)))
        if status != 200:
            if (status, body.partition(b":")[0]) != (403, b"not-due"):  # that is: the new issuer does not sign yet
                self.failures.append(f"{self.identity.name}: simplereenroll {status} {body!r}")
            return
        (leaf,) = load_der_pkcs7_certificates(b64decode(body))
        if all(each.subject != leaf.issuer for each in issuers):
            issuers = self._issuers()  # it was announced since, and signs already
        issuer = next((each for each in issuers if each.subject == leaf.issuer), None)
        if issuer is None:
            self.failures.append(f"{self.identity.name}: no bundle names the issuer of what simplereenroll gave")
            return
        self._write("key.pem", private_pem(key))
        self._write("chain.pem", leaf.public_bytes(Encoding.PEM) + issuer.public_bytes(Encoding.PEM))
        self.due = parsedate_to_datetime(fields["Edge-Renew-After"])
        self.renewals += 1
        self._on_change(self.identity)
        self._hang_up()  # to come back as who it is now

    def _ask(
        self, method: str, operation: str, body: bytes | None = None
    ) -> tuple[int, bytes, http.client.HTTPMessage]:
        if self._connection is None:
            self._connection = http.client.HTTPConnection("edge.internal")
            self._connection.sock = knock(self._gateway, self.identity)
            self._connection.auto_open = 0
        self._connection.request(
            method, f"{_EST}/{operation}", body, {"Content-Type": "application/pkcs10"} if body else {}
        )
        answer = self._connection.getresponse()
        return answer.status, answer.read(), answer.headers

    def _write(self, name: str, content: bytes) -> None:
        stage = self.identity / f".{name}"
        stage.write_bytes(content)
        os.rename(stage, self.identity / name)

    def _hang_up(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def end(self) -> None:
        self._is_over.set()
        self._thread.join(20)


def due_of(leaf: x509.Certificate) -> datetime:
    """Two thirds of its life, for who was told nothing."""
    return leaf.not_valid_before_utc + (leaf.not_valid_after_utc - leaf.not_valid_before_utc) * 2 / 3
