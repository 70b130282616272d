"""A sidecar as an operator runs it: `edge attach` in a process of its own, what it said, and callers that are no gateway."""

from __future__ import annotations

import json
import signal
import socket
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509

from edge.cli.authority import reach
from pki import desk, io_output
from pki.io_authority import Authority
from pki.io_keys import Passphrases, make_ec, private_pem
from pki.issue import UPSTREAM_ROLES, IssueRequest, IssuerRole
from tests.e2e import forked
from tests.e2e.heard import Heard

GET = b"GET /orders/7 HTTP/1.1\r\nhost: localhost\r\nx-auth-subject: mallory\r\nconnection: close\r\n\r\n"


class Sidecar:
    """One `edge attach`."""

    def __init__(self, service: str, to: str, *options: str | Path, listen: str = "127.0.0.1:0") -> None:
        self.process = forked.start("attach", service, "--to", to, "--listen", listen, *map(str, options))
        self.heard = Heard(self.process)
        self.lines = self.heard.lines

    @property
    def port(self) -> int:
        """Once it is ready."""
        return int(self.line(r"^ready attach=127\.0\.0\.1:\d+$").rpartition(":")[2])

    def line(self, pattern: str, within_s: float = 30) -> str:
        """The first line that matches."""
        return self.heard.line(pattern, within_s)

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.ended()

    def ended(self, within_s: float = 20) -> int:
        """Its exit code."""
        code = self.process.wait(within_s)
        self.heard.close()
        return code


@contextmanager
def attached(service: str, to: str, *options: str | Path, listen: str = "127.0.0.1:0") -> Iterator[Sidecar]:
    """A sidecar that does not outlive the block."""
    sidecar = Sidecar(service, to, *options, listen=listen)
    try:
        yield sidecar
    finally:
        if sidecar.process.poll() is None:
            sidecar.process.kill()
            with suppress(subprocess.TimeoutExpired):
                sidecar.ended()


def token(directory: Path, name: str) -> tuple[Path, str]:
    """A token's file, and the root's fingerprint as `edge ca token` says it."""
    passphrases = Passphrases(directory / "state" / "ca", environ={})
    with reach(directory / "state", passphrases, {}) as asks:
        made = asks(desk.MakeToken("svc", name, (f"{name}.internal",), 86_400, 600, "test"))
    assert isinstance(made, desk.TokenMade)
    file = directory / f"{name}.token"
    file.touch(mode=0o600)
    file.write_text(made.text + "\n")
    return file, f"sha256:{made.root_sha256}"


def revoke(directory: Path, gateway: str) -> None:
    passphrases = Passphrases(directory / "state" / "ca", environ={})
    with reach(directory / "state", passphrases, {}) as asks:
        assert isinstance(asks(desk.Revoke("gw", gateway, None, "keyCompromise", "test")), desk.Revoked)


def certificate(
    directory: Path, name: str, *, role: IssuerRole = "svc", age: timedelta = timedelta(0), place: Path | None = None
) -> Path:
    """A directory as issue-cert.py writes it, with a certificate that was issued so long ago."""
    began, key = datetime.now(UTC) - age, make_ec("p256")
    ca, target = directory / "state" / "ca", place or directory / f"{role}-{name}"
    with Authority.open(ca, Passphrases(ca, environ={}), now=began) as authority:
        dns = (f"{name}.internal",) if role in ("svc", "gw") else ()
        issued = authority.issue(IssueRequest(role, name, key.public_key(), dns), began)
        bundle, root = authority.bundle_pem(roles=UPSTREAM_ROLES), authority.root_sha256
        io_output.write(target, issued, key_pem=private_pem(key), bundle_pem=bundle, root_sha256=root, replace=True)
    return target


def refused_bytes(port: int, identity: Path | None) -> bytes:
    """What comes back to a caller with this certificate who asks all the same; an error of TLS or TCP counts as an end."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if identity is not None:
        context.load_cert_chain(identity / "chain.pem", identity / "key.pem")
    received = b""
    try:
        with socket.create_connection(("127.0.0.1", port), 10) as raw, context.wrap_socket(raw) as tls:
            tls.sendall(GET)
            while piece := tls.recv(65536):
                received += piece
    except OSError:
        pass
    return received


def shown_by(port: int) -> str:
    """The serial (hex) of the certificate that a listener shows."""
    der = ssl.PEM_cert_to_DER_cert(ssl.get_server_certificate(("127.0.0.1", port), timeout=10))
    return f"{x509.load_der_x509_certificate(der).serial_number:x}"


def problem_of(body: bytes) -> str:
    """The reason in a problem document."""
    return str(json.loads(body)["type"]).rpartition("/")[2]
