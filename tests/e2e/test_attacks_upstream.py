"""Whoever answers at a service's address must be the service (attacks P), under the gateway's own authority."""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from edge.cli.authority import reach
from edge.serve.control_socket import ask as ask_control
from edge.serve.status import Status
from pki import desk, io_output
from pki.io_keys import Passphrases, make_ec, private_pem
from tests.e2e.rogue import Rogue, Talker, refused_upstream, server_context
from tests.e2e.whole_gateway import eventually
from tests.wire.rig import GET, Rig

ORDERS = "spiffe://mesh.internal/svc/orders"
BOTH = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)


class Bent(Rig):
    """The rig; its environment would send a careless gateway's traffic and keys elsewhere (P46, P47)."""

    def prepare(self, directory: Path) -> None:
        self.diverted = socket.create_server(("127.0.0.1", 0))
        self.key_log = directory / "keys.log"
        port = self.diverted.getsockname()[1]
        for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
            os.environ[name] = f"http://127.0.0.1:{port}"
        os.environ["SSLKEYLOGFILE"] = str(self.key_log)
        # Addresses that nobody was asked at yet: held until a test puts somebody there.
        self.untried = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
        routes = directory / "policies" / "routes.yaml"
        routes.write_text(
            routes.read_text()
            + "".join(
                f"  - name: untried-{number}\n    match: {{path: /orders/untried-{number}, methods: [GET, POST]}}\n"
                f'    upstream: {{service: orders, endpoints: ["127.0.0.1:{held.getsockname()[1]}"], timeout_s: 2}}\n'
                "    public: {reason: a test without tokens}\n"
                for number, held in enumerate(self.untried)
            )
        )


@pytest.fixture(scope="module")
def bent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bent]:
    with pytest.MonkeyPatch.context() as patch:
        for name in (
            "http_proxy",
            "https_proxy",
            "all_proxy",
            "HTTP_PROXY",
            "HTTPS_PROXY",
            "ALL_PROXY",
            "SSLKEYLOGFILE",
        ):
            patch.setenv(name, "")  # restores them at the end
        rig = Bent(tmp_path_factory.mktemp("upstreams") / "edge")
        del os.environ["SSLKEYLOGFILE"]  # ours, not the gateway's, from here on
    yield rig
    rig.close()
    rig.diverted.close()


@pytest.fixture
def rig(bent: Bent) -> Bent:
    bent.upstream.clear()
    return bent


class Material:
    """Certificates of all kinds, good and bad; bad ones are signed with the real intermediate's or a stranger's key."""

    def __init__(self, rig: Rig, directory: Path) -> None:
        self.ca, self.directory = rig.gateway.directory / "state" / "ca", directory
        self.now = datetime.now(UTC)

    def issued(self, role: Literal["svc", "gw", "op"], name: str) -> tuple[bytes, bytes]:
        """By the real authority: a good certificate of somebody else."""
        key = make_ec("p256")
        directory = self.directory / f"{role}-{name}"
        spki = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        dns = () if role != "svc" else (f"{name}.internal",)
        with reach(self.ca.parent, Passphrases(self.ca, environ={}), {}) as asks:  # a gateway may have it open
            certified = asks(desk.Issue(role, name, spki, dns, (), 86_400, "test"))
        assert isinstance(certified, desk.Certified)
        io_output.write(
            directory,
            certified.issued,
            key_pem=private_pem(key),
            bundle_pem=certified.bundle_pem,
            root_sha256=certified.root_sha256,
            replace=True,
        )
        return (directory / "chain.pem").read_bytes(), (directory / "key.pem").read_bytes()

    def self_made(self, copied: bytes | None = None) -> tuple[bytes, bytes]:
        """By a root that the rogue made, with the same names as ours (P01); `copied`: under the very name of our root."""
        root_key, key = make_ec("p256"), make_ec("p256")
        name = (
            x509.load_pem_x509_certificates(copied)[-1].issuer
            if copied
            else x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "mesh.internal root")])
        )
        root = self._sign(name, name, root_key, root_key, is_ca=True)
        leaf = self._sign(x509.Name([]), name, key, root_key, uris=(ORDERS,))
        return leaf.public_bytes(Encoding.PEM) + root.public_bytes(Encoding.PEM), private_pem(key)

    def _sign(
        self,
        subject: x509.Name,
        issuer: x509.Name,
        key: ec.EllipticCurvePrivateKey,
        signer: ec.EllipticCurvePrivateKey,
        *,
        is_ca: bool = False,
        uris: tuple[str, ...] = (),
    ) -> x509.Certificate:
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(self.now - timedelta(minutes=1))
            .not_valid_after(self.now + timedelta(hours=1))
            .add_extension(x509.BasicConstraints(is_ca, None), critical=True)
            .add_extension(x509.KeyUsage(True, False, False, False, False, is_ca, is_ca, False, False), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
        )
        if not is_ca:
            names = [x509.UniformResourceIdentifier(uri) for uri in uris]
            builder = builder.add_extension(x509.ExtendedKeyUsage(BOTH), critical=False)
            builder = builder.add_extension(
                x509.SubjectAlternativeName([*names, x509.DNSName("orders.internal")]), critical=True
            )
        return builder.sign(signer, SHA256())


@pytest.fixture
def material(rig: Bent, tmp_path: Path) -> Material:
    return Material(rig, tmp_path)


@pytest.fixture
def stopped(rig: Bent) -> Iterator[Bent]:
    """The real service is gone from its port, after connections to it waited in the pool."""
    with rig.client() as client:
        assert client.send(GET).answer().status == 200
    rig.upstream.stop()
    yield rig
    rig.upstream.start()
    with rig.client() as client:
        assert client.send(GET).answer().status == 200  # and the real one is believed again
    rig.upstream.clear()


Make = Callable[[Material], tuple[bytes, bytes]]


@pytest.mark.parametrize(
    ("make", "rules"),
    [
        (lambda m: m.self_made(), {"chain-untrusted"}),
        (lambda m: m.self_made(m.issued("svc", "orders")[0]), {"chain-untrusted"}),
        (lambda m: m.issued("svc", "billing"), {"spiffe-id"}),
        (lambda m: m.issued("gw", "orders"), {"spiffe-id", "role-issuer"}),
        (lambda m: m.issued("op", "orders"), {"spiffe-id", "role-issuer", "extended-key-usage", "chain-untrusted"}),
    ],
    ids=["P01-own-root", "P01-own-root-same-names", "P08-other-service", "P09-gateway", "P09-operator"],
)
def test_an_impostor_on_the_service_s_port_gets_nothing_P01_P08_P09(
    stopped: Bent, material: Material, make: Make, rules: set[str]
) -> None:
    rogue = Rogue(stopped.upstream.port, server_context(material.directory, make(material)))
    try:
        refused_upstream(stopped, rogue, "upstream-identity", rules)
    finally:
        rogue.close()


def test_a_service_of_tls_12_only_gets_nothing_P42(stopped: Bent, material: Material) -> None:
    context = server_context(material.directory, material.issued("svc", "orders"))
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    rogue = Rogue(stopped.upstream.port, context)
    try:
        refused_upstream(stopped, rogue, "upstream-identity", {"tls-handshake"})
    finally:
        rogue.close()


def test_a_plaintext_service_gets_no_request_P40(stopped: Bent) -> None:
    rogue = Rogue(stopped.upstream.port, None)
    try:
        with stopped.client() as client:
            client.tls.settimeout(8)
            answer = client.send(GET).answer()
        assert answer.status in (502, 504)
        assert rogue.received[:1] == b"\x16"  # a ClientHello, and nothing of the request
        assert b"orders/7" not in rogue.received
    finally:
        rogue.close()


def test_a_plaintext_service_that_speaks_first_gets_no_request_P40(stopped: Bent) -> None:
    rogue = Talker(stopped.upstream.port, None)
    try:
        with stopped.client() as client:
            answer = client.send(GET).answer()
        assert (answer.status, answer.reason) == (502, "upstream-identity")
        assert stopped.record(answer.fields["x-request-id"])["rule.id"] == "tls-handshake"
        assert b"orders/7" not in rogue.received
    finally:
        rogue.close()


PROBE = b"HEAD / HTTP/1.1\r\nhost: 127.0.0.1\r\nuser-agent: edge-probe\r\nconnection: close\r\n\r\n"


@pytest.mark.parametrize("number", [0, 1], ids=["never-asks", "asks-and-takes-none"])
def test_the_service_itself_gets_nothing_while_it_lets_anybody_in_P41(
    rig: Bent, material: Material, number: int
) -> None:
    made = material.issued("svc", "orders")
    anchors = (rig.gateway.directory / "orders" / "bundle.pem").read_bytes()
    context = server_context(material.directory, made, client_anchors=anchors)
    context.verify_mode = (ssl.CERT_NONE, ssl.CERT_OPTIONAL)[number]
    port = rig.untried[number].getsockname()[1]
    rig.untried[number].close()
    rogue = Rogue(port, context)
    get = GET.replace(b"/7", b"/untried-%d" % number)

    def is_served() -> bool:
        with rig.client() as client:
            return client.send(get).answer().status == 200

    try:
        with rig.client() as client:
            answers = [client.send(get).answer() for _ in range(3)]
        assert {(answer.status, answer.reason) for answer in answers} == {(502, "upstream-identity")}
        rules = {rig.record(answer.fields["x-request-id"])["rule.id"] for answer in answers}
        assert rules == {"accepts-anyone"}
        assert rogue.received.replace(PROBE, b"") == b""  # of the caller's not one byte
        out = [leaf for leaf in rig.events("identity.upstream") if leaf["event.reason"] == "accepts-anyone"]
        assert out[-1]["destination.address"] == f"127.0.0.1:{rogue.port}"
        eventually(lambda: "upstreams-accept-anyone" in status_of(rig).failing, 15)
        context.verify_mode = ssl.CERT_REQUIRED  # the service is repaired, and believed again without anybody's help
        eventually(is_served, 10)
        assert rogue.received.replace(PROBE, b"").startswith(b"GET /orders/untried-%d HTTP/1.1\r\n" % number)
        eventually(lambda: "upstreams-accept-anyone" not in status_of(rig).failing, 15)
        assert rig.events("config.upstream")[-1]["event.outcome"] == "success"
    finally:
        rogue.close()


def status_of(rig: Rig) -> Status:
    found = ask_control(rig.gateway.directory / "state" / "run", "status", 10).status
    assert found is not None
    return found


def test_nobody_there_is_502(stopped: Bent) -> None:
    with stopped.client() as client:
        answer = client.send(GET).answer()
    assert (answer.status, answer.reason) == (502, "upstream-unreachable")


def test_redirects_and_alternatives_are_not_followed_P45(rig: Bent) -> None:
    elsewhere = Rogue(0, None)
    port = elsewhere.listener.getsockname()[1]
    rig.upstream.answers = [
        b'HTTP/1.1 307 Temporary Redirect\r\nlocation: http://127.0.0.1:%d/\r\nalt-svc: h2=":%d"\r\n'
        b"content-length: 0\r\n\r\n" % (port, port)
    ]
    try:
        with rig.client() as client:
            answer = client.send(GET).answer()
            assert (answer.status, "alt-svc" in answer.fields) == (307, False)
            assert client.send(GET).answer().status == 200
        assert elsewhere.connections == 0
    finally:
        elsewhere.close()


def test_the_environment_diverts_nothing_P46_P47(rig: Bent) -> None:
    with rig.client() as client:
        assert client.send(GET).answer().status == 200
    rig.diverted.setblocking(False)
    with pytest.raises(BlockingIOError):
        rig.diverted.accept()
    # Libraries open the file when they are imported; a session that wrote to it would have left its secrets there.
    assert not rig.key_log.exists() or b"SECRET" not in rig.key_log.read_bytes()


def test_hosts_and_names_of_the_caller_pick_no_upstream_P44(rig: Bent) -> None:
    fields = b"X-Forwarded-Host: evil\r\nX-Original-URL: http://127.0.0.1:1/\r\nX-Upstream: evil\r\n"
    with rig.client() as client:
        assert client.send(GET[:-2] + fields + b"\r\n").answer().status == 200
    assert rig.upstream.seen.startswith(b"GET /orders/7 HTTP/1.1\r\nhost: localhost\r\n")
