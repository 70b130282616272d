"""The stage of the rogues: a gateway with all doors open whose authority is thirty hours old, and a thief of its keys."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from edge.audit.verify import verify
from edge.cli.authority import reach
from pki import desk, io_output
from pki.io_authority import Authority
from pki.io_keys import Passphrases, make_ec, private_pem
from pki.issue import IssueRequest
from pki.tlog.io_reader import LogReader
from pki.tlog.note import Verifier
from tests.e2e.rogue import Rogue
from tests.e2e.thief import Pair, Thief
from tests.e2e.whole_gateway import eventually, issue
from tests.pki.founding import found_authority
from tests.wire.rig import GET, Client
from tests.wire.test_doors import CACERTS, GATEWAY_NAME, DoorsRig


class Rogues(DoorsRig):
    """One gateway; the service orders is at its address only while a test says so."""

    def prepare(self, directory: Path) -> None:
        super().prepare(directory)
        shutil.rmtree(directory / "state")
        (directory / "state").mkdir(mode=0o700)
        self.ca = directory / "state" / "ca"
        found_authority(
            self.ca,
            datetime.now(UTC) - timedelta(hours=30),
            hosts=["localhost", "127.0.0.1"],
            unattended=["root", "issuing"],
        )
        self._issue_old(directory / "old")
        issue(directory, "orders")
        self.thief = Thief(self.ca)
        self.bundle = (directory / "orders" / "bundle.pem").read_bytes()
        self.upstream.present(directory / "orders")
        self.upstream.stop()

    def _issue_old(self, home: Path) -> None:
        """A certificate of 17 hours ago: due to be renewed."""
        began, key = datetime.now(UTC) - timedelta(hours=17), make_ec("p256")
        with Authority.open(self.ca, Passphrases(self.ca, environ={}), now=began) as authority:
            issued = authority.issue(IssueRequest("svc", "orders", key.public_key(), ("orders.internal",)), began)
            bundle, root = authority.bundle_pem(roles=("gw",)), authority.root_sha256
        pem = private_pem(key)
        io_output.write(home, issued, key_pem=pem, bundle_pem=bundle, root_sha256=root, replace=True)

    def operator(self, request: desk.FromOperator) -> desk.Reply:
        """What the authority answers to a command."""
        with reach(self.ca.parent, Passphrases(self.ca, environ={}), {}) as asks:
            return asks(request)

    def ca_leaves(self) -> list[dict[str, object]]:
        """Of the authority's own log, oldest first."""
        return [json.loads(entry) for _, entry in LogReader(self.ca / "log").latest(100_000)]

    def issued(self) -> list[dict[str, object]]:
        """Of these, what was handed out."""
        return [leaf for leaf in self.ca_leaves() if leaf["event.action"] == "pki.issued"]

    def log_is_sound(self) -> None:
        log = self.ca / "log"
        report = verify(log, Verifier.parse((log / "verifier.key").read_text().strip()))
        assert report.ok, report

    def pair(self, name: str) -> Pair:
        """What `issue_while_serving` wrote last for this service."""
        home = self.gateway.directory / name
        key = load_pem_private_key((home / "key.pem").read_bytes(), None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        return Pair((home / "chain.pem").read_bytes(), key)

    def revoke(self, pair: Pair) -> None:
        """One certificate of orders; returns when the worker knows."""
        serial = x509.load_pem_x509_certificate(pair.chain).serial_number
        told = self.operator(desk.Revoke("svc", "orders", f"{serial:x}", "keyCompromise", "test"))
        assert isinstance(told, desk.Revoked)
        known = f"revocation set {told.set_number}"
        eventually(lambda: any(leaf["message"] == known for leaf in self.events("config.revocation")), 10)

    @contextlib.contextmanager
    def present(self, name: str) -> Iterator[None]:
        """The real service is there, with what was written last."""
        self.upstream.present(self.gateway.directory / name)
        self.upstream.start()
        try:
            yield
        finally:
            self.upstream.stop()

    def answered(self) -> tuple[int, str]:
        """What a caller of orders gets: status, and the rule or nothing."""
        with Client(self.gateway) as client:
            answer = client.send(GET).answer()
        if answer.status == 200:
            return 200, ""
        leaf = self.record(answer.fields["x-request-id"])
        assert leaf["event.reason"] == answer.reason
        return answer.status, str(leaf.get("rule.id"))

    def upstream_rule(self, directory: Path, pair: Pair) -> str:
        """Somebody with this chain and key answers where orders should; → why he got not one byte."""
        context = pair.context(directory, ssl.PROTOCOL_TLS_SERVER)
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(cadata=self.bundle.decode("ascii"))
        rogue = Rogue(self.upstream.port, context)
        try:
            status, rule = self.answered()
            assert (status, rogue.received) == (502, b"")
            return rule
        finally:
            rogue.close()

    def client_rule(self, directory: Path, pair: Pair) -> str:
        """Somebody with this chain and key comes to the services listener; → why he got not one byte."""
        context, got = pair.context(directory, ssl.PROTOCOL_TLS_CLIENT), b""
        context.load_verify_locations(cadata=self.bundle.decode("ascii"))
        with socket.create_connection(("127.0.0.1", self.gateway.ports["services"]), 15) as raw:
            port = raw.getsockname()[1]
            with contextlib.suppress(OSError), context.wrap_socket(raw, server_hostname=GATEWAY_NAME) as tls:
                tls.sendall(b"GET %b HTTP/1.1\r\nHost: %b\r\n\r\n" % (CACERTS, GATEWAY_NAME.encode()))
                got = tls.recv(65536)
        assert got == b""
        return str(self.refusal(port)["rule.id"])
