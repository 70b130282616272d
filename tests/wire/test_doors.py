"""The services and enrol listeners on the wire: who gets in, who does not, and that the same line stands behind the door."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import pkcs7

from pki.io_keys import private_pem
from tests.e2e.whole_gateway import issue_while_serving, run
from tests.pki.conftest import Forge, Sketch
from tests.wire.h2_client import H2Client
from tests.wire.rig import HEAD, Answer, Client, Doorway, Rig, client_context
from tests.wire.speaker import SPEAKERS
from tests.wire.test_smuggling import (
    test_framing_that_two_servers_may_read_differently_C1 as test_framing_that_two_servers_may_read_differently_C1,
)
from tests.wire.test_smuggling import test_look_alikes_of_managed_names_B2 as test_look_alikes_of_managed_names_B2
from tests.wire.test_smuggling import (
    test_request_lines_and_targets_of_one_spelling_only_A1_A11 as test_request_lines_and_targets_of_one_spelling_only_A1_A11,
)

CACERTS = b"/.well-known/est/cacerts"
LISTENER = b"/.well-known/est/public/simpleenroll"
GATEWAY_NAME = "edge.internal"


class DoorsRig(Rig):
    """Its client is the service orders at the services listener, so the cases of others run there as they stand."""

    def prepare(self, directory: Path) -> None:
        text = (directory / "edge.yaml").read_text()
        doors = 'listeners:\n  enrol: {bind: "127.0.0.1:0"}\n  services: {bind: "127.0.0.1:0"}\n'
        (directory / "edge.yaml").write_text(text.replace("listeners:\n", doors))
        self.forge = OtherAuthority(directory / "forged")

    def trust_the_forge(self) -> None:
        """From now on a second authority, whose key we hold, is in the bundle of the trust domain."""
        bundle = self.gateway.directory / "state" / "identity" / "gateway" / "bundle.pem"
        bundle.write_bytes(bundle.read_bytes() + self.forge.bundle)
        done = run("reload", "-c", self.gateway.directory / "edge.yaml")
        assert done.returncode == 0, done.stderr

    def door(self, name: str, identity: Path | None = None) -> Doorway:
        return Doorway(self.gateway.directory, self.gateway.ports[name], identity)

    @property
    def services(self) -> Doorway:
        return self.door("services", self.gateway.directory / "orders")

    def client(self, server_name: str | None = None) -> Client:
        return Client(self.services, server_name)

    def refusal(self, port: int, within_s: float = 10) -> dict[str, object]:
        """The leaf about the connection that came from `port`."""
        end = time.monotonic() + within_s
        while time.monotonic() < end:
            for leaf in self.leaves():
                if leaf["source.port"] == port and "http.request.method" not in leaf:
                    return leaf
            time.sleep(0.02)
        raise AssertionError(f"no leaf about port {port}")


class OtherAuthority:
    """An authority whose key the test holds: root and svc intermediate as ours has them, valid today."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._forge = Forge()
        self._now = datetime.now(UTC).replace(microsecond=0)
        ca = replace(
            Forge.authority, not_before=self._now - timedelta(days=9), not_after=self._now + timedelta(days=90)
        )
        self._root = self._forge.make(replace(ca, cn="other root", path_length=1))
        self._issuer = self._forge.make(replace(ca, cn="other svc", unit="svc", path_length=0), self._root)
        self.bundle = self._root.pem + self._issuer.pem

    def make(self, name: str, sketch: Sketch) -> Path:
        """A directory with the chain and key of a leaf."""
        dates = replace(
            sketch,
            not_before=self._now - timedelta(minutes=1),
            not_after=self._now + timedelta(days=1, minutes=-2),
        )
        leaf = self._forge.make(dates, self._issuer)
        target = self._directory / name
        target.mkdir(parents=True)
        (target / "chain.pem").write_bytes(leaf.pem + self._issuer.pem)
        (target / "key.pem").write_bytes(private_pem(leaf.key))
        return target


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DoorsRig]:
    rig = DoorsRig(tmp_path_factory.mktemp("doors") / "edge")
    rig.trust_the_forge()
    yield rig
    with Client(rig.services, GATEWAY_NAME) as idle:
        rig.close()
        assert idle.is_closed()  # the drain covers these listeners, too


def ask(door: Doorway, version: str, method: str = "GET", path: bytes = CACERTS, name: str = GATEWAY_NAME) -> Answer:
    if version == "1.1":
        with Client(door, name) as client:
            raw = b"%b %b HTTP/1.1\r\nHost: %b\r\n\r\n" % (method.encode(), path, name.encode())
            return client.send(raw).answer(is_head=method == "HEAD")
    with H2Client(door, name) as stream:
        return stream.answer(stream.request(method, path, authority=name.encode()))


def test_the_ready_line_names_them_in_the_order_of_the_file(running: DoorsRig) -> None:
    assert list(running.gateway.ports) == ["enrol", "services", "public", "admin"]


@pytest.mark.parametrize("version", SPEAKERS)
def test_a_service_is_let_in_by_its_certificate_and_recorded_as_itself(running: DoorsRig, version: str) -> None:
    answer = ask(running.services, version)
    assert (answer.status, answer.fields["content-type"]) == (200, "application/pkcs7-mime")
    leaf = running.record(answer.fields["x-request-id"])
    assert (leaf["route.name"], leaf["http.version"], leaf["authentication.method"]) == (
        "edge-est-cacerts",
        version,
        "mtls",
    )
    assert leaf["tls.client.spiffe_id"] == "spiffe://mesh.internal/svc/orders"
    assert leaf["policy.ids"] == ["edge-est-cacerts"]


@pytest.mark.parametrize(("method", "path"), [("GET", b"/v1/authority/word"), ("POST", LISTENER)])
@pytest.mark.parametrize("version", SPEAKERS)
def test_P10_a_service_may_not_ask_what_gateways_may(running: DoorsRig, version: str, method: str, path: bytes) -> None:
    answer = ask(running.services, version, method, path)
    assert (answer.status, answer.reason) == (403, "forbidden")
    leaf = running.record(answer.fields["x-request-id"])
    assert leaf["event.reason"] == "forbidden"


@pytest.mark.parametrize("version", SPEAKERS)
def test_another_gateway_is_let_in_by_its_certificate(running: DoorsRig, version: str) -> None:
    gateway = running.door("services", running.gateway.directory / "state" / "identity" / "gateway")
    assert ask(gateway, version).status == 200
    assert ask(gateway, version, "POST", LISTENER).body.startswith(b"content-type: ")  # EST, which misses a request


@pytest.mark.parametrize("version", SPEAKERS)
def test_whoever_wants_to_enrol_learns_whom_to_trust(running: DoorsRig, version: str) -> None:
    answer = ask(running.door("enrol"), version, name="localhost")
    root = x509.load_pem_x509_certificate((running.gateway.directory / "state" / "ca" / "root.pem").read_bytes())
    found = pkcs7.load_der_pkcs7_certificates(base64.b64decode(answer.body))
    assert root.fingerprint(SHA256()) in {each.fingerprint(SHA256()) for each in found}
    leaf = running.record(answer.fields["x-request-id"])
    assert (leaf["route.name"], leaf["authentication.method"]) == ("edge-est-cacerts", "anonymous")


def test_openssl_reads_what_enrol_gives(running: DoorsRig) -> None:
    answer = ask(running.door("enrol"), "1.1", name="localhost")
    der = subprocess.run(["openssl", "base64", "-d"], input=answer.body, capture_output=True, check=True, timeout=10)
    command = ["openssl", "pkcs7", "-inform", "DER", "-print_certs", "-noout"]
    assert b"subject=" in subprocess.run(command, input=der.stdout, capture_output=True, check=True, timeout=10).stdout


def test_services_meet_the_identity_of_the_gateway(running: DoorsRig) -> None:
    with Client(running.services, GATEWAY_NAME) as client:
        names = (client.tls.getpeercert() or {}).get("subjectAltName", ())
    assert ("URI", "spiffe://mesh.internal/gw/edge") in names


@pytest.mark.parametrize("version", SPEAKERS)
@pytest.mark.parametrize(
    ("door", "method", "path", "status", "reason"),
    [
        ("services", "GET", b"/v1/status", 404, "no-route"),
        ("services", "GET", b"/orders/7", 404, "no-route"),
        ("services", "POST", CACERTS, 405, "method-not-allowed"),
        ("services", "GET", b"/.well-known/./est/cacerts", 400, "malformed-request"),
        ("enrol", "GET", b"/metrics", 404, "no-route"),
        ("enrol", "POST", CACERTS, 405, "method-not-allowed"),
        ("enrol", "GET", b"/.well-known/est/cacerts/", 404, "no-route"),
    ],
)
def test_what_is_not_in_the_table_is_refused_and_recorded(
    running: DoorsRig, version: str, door: str, method: str, path: bytes, status: int, reason: str
) -> None:
    at = running.services if door == "services" else running.door("enrol")
    answer = ask(at, version, method, path, GATEWAY_NAME if door == "services" else "localhost")
    assert (answer.status, answer.reason) == (status, reason)
    leaf = running.record(answer.fields["x-request-id"])
    assert (leaf["event.outcome"], leaf["event.reason"]) == ("failure", reason)


def test_nothing_there_is_a_websocket(running: DoorsRig) -> None:
    wish = b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    key = b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    with Client(running.services, GATEWAY_NAME) as client:
        host = b"Host: " + GATEWAY_NAME.encode() + b"\r\n"
        answer = client.send(b"GET %b HTTP/1.1\r\n" % CACERTS + host + wish + key + b"\r\n").answer()
    assert (answer.status, answer.reason) == (403, "forbidden")
    assert running.record(answer.fields["x-request-id"])["rule.id"] == "websocket-off"


@pytest.mark.parametrize("version", SPEAKERS)
def test_a_service_that_no_file_names_is_nobody(running: DoorsRig, version: str) -> None:
    issue_while_serving(running.gateway.directory, "stranger")
    answer = ask(running.door("services", running.gateway.directory / "stranger"), version)
    assert (answer.status, answer.reason) == (403, "forbidden")
    leaf = running.record(answer.fields["x-request-id"])
    assert (leaf["tls.client.spiffe_id"], leaf["rule.id"]) == (
        "spiffe://mesh.internal/svc/stranger",
        "no-policy-matched",
    )


def test_a_certificate_in_a_header_is_no_certificate_B6(running: DoorsRig) -> None:
    certificate = (running.gateway.directory / "orders" / "chain.pem").read_text().replace("\n", "%0A").encode()
    with Client(running.door("enrol")) as client:
        fields = b"X-Forwarded-Client-Cert: Cert=" + certificate + b"\r\nSsl-Client-Verify: SUCCESS\r\n"
        answer = client.send(b"GET %b HTTP/1.1\r\n" % CACERTS + HEAD + fields + b"\r\n").answer()
    assert answer.status == 200
    leaf = running.record(answer.fields["x-request-id"])
    assert leaf["authentication.method"] == "anonymous"
    assert "tls.client.spiffe_id" not in leaf


# -- rogues ------------------------------------------------------------------------------------------

GOOD = Sketch()
# Who brings a certificate that proves nothing is in `tests/e2e/test_rogues.py`.
ROGUES: dict[str, tuple[Callable[[DoorsRig], Path | None], int, str, str]] = {
    "without a certificate": (lambda _: None, 496, "credential-missing", "client-certificate"),
    "P01 of a CA of his own": (lambda rig: own_authority(rig), 495, "credential-rejected", "untrusted"),
    "not in our CA's record, though of an authority that is trusted": (
        lambda rig: rig.forge.make("unrecorded", GOOD), 495, "credential-rejected", "not-in-issuance-record",
    ),
}  # fmt: skip


def own_authority(rig: DoorsRig) -> Path:
    other = OtherAuthority(rig.gateway.directory / "own")
    return other.make("orders", GOOD)


@pytest.mark.parametrize("rogue", ROGUES)
def test_a_rogue_gets_no_byte_and_is_recorded_with_the_rule(running: DoorsRig, rogue: str) -> None:
    identity, status, reason, rule = ROGUES[rogue]
    context = client_context(running.door("services", identity(running)), "http/1.1")
    got = b""
    with socket.create_connection(("127.0.0.1", running.gateway.ports["services"]), 15) as raw:
        port = raw.getsockname()[1]
        with contextlib.suppress(OSError), context.wrap_socket(raw, server_hostname=GATEWAY_NAME) as tls:
            tls.sendall(b"GET %b HTTP/1.1\r\nHost: x\r\n\r\n" % CACERTS)
            got = tls.recv(65536)
    assert got == b""
    leaf = running.refusal(port)
    assert (leaf["http.response.status_code"], leaf["event.reason"], leaf["rule.id"]) == (status, reason, rule)
    assert leaf["source.ip"] == "127.0.0.1"


def test_the_alert_says_why_when_no_certificate_comes(running: DoorsRig) -> None:
    with (
        Client(running.door("services"), GATEWAY_NAME) as client,
        pytest.raises(ssl.SSLError, match=r"(?i)certificate.required"),
    ):
        client.tls.recv(1)


def test_plain_text_and_old_tls_do_not_get_in_P40_P42(running: DoorsRig) -> None:
    with socket.create_connection(("127.0.0.1", running.gateway.ports["services"]), 15) as raw:
        port = raw.getsockname()[1]
        raw.sendall(b"GET %b HTTP/1.1\r\nHost: x\r\n\r\n" % CACERTS)
        raw.shutdown(socket.SHUT_WR)
        assert raw.recv(65536) == b""
    assert running.refusal(port)["rule.id"] == "tls-handshake"
    context = client_context(running.services, "http/1.1")
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with socket.create_connection(("127.0.0.1", running.gateway.ports["services"]), 15) as raw:
        with pytest.raises(ssl.SSLError):
            context.wrap_socket(raw, server_hostname=GATEWAY_NAME)


def test_no_session_can_be_resumed_past_a_revocation_P29(running: DoorsRig) -> None:
    with Client(running.services, GATEWAY_NAME) as client:
        assert client.send(b"GET %b HTTP/1.1\r\nHost: x\r\n\r\n" % CACERTS).answer().status == 421
        session = client.tls.session
        assert session is None or not session.has_ticket


# -- the life of a worker ----------------------------------------------------------------------------


def test_a_rolling_restart_moves_services_on_without_a_refused_connection(running: DoorsRig) -> None:
    with Client(running.services, GATEWAY_NAME) as old:
        asking = b"GET %b HTTP/1.1\r\nHost: %b\r\n\r\n" % (CACERTS, GATEWAY_NAME.encode())
        assert old.send(asking).answer().status == 200
        with ThreadPoolExecutor(1) as operator:
            restart = operator.submit(run, "reload", "--workers", "-c", running.gateway.directory / "edge.yaml")
            while (answer := old.send(asking).answer()).fields.get("connection") != "close":
                assert answer.status == 200
                assert not restart.done()
            assert answer.status == 200  # and was asked to connect anew
        assert restart.result().returncode == 0, restart.result().stderr
        for version in SPEAKERS:
            assert ask(running.services, version).status == 200


def test_metrics_count_the_connections_of_each(running: DoorsRig) -> None:
    def shown(name: str) -> float:
        connection = http.client.HTTPConnection("127.0.0.1", running.gateway.admin, timeout=15)
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
        connection.close()
        return sum(float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(f"{name}{{"))

    with Client(running.services, GATEWAY_NAME), Client(running.door("enrol")):
        end = time.monotonic() + 10
        while (shown("edge_services_connections"), shown("edge_enrol_connections")) != (1, 1):
            assert time.monotonic() < end
            time.sleep(0.1)


def test_status_names_them(running: DoorsRig) -> None:
    done = run("status", "--json", "-c", running.gateway.directory / "edge.yaml")
    assert done.returncode == 0, done.stderr
    listeners = json.loads(done.stdout)["listeners"]
    assert {"services", "enrol"} <= set(listeners)
