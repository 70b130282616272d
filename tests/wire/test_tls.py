"""TLS of the public listener of a whole gateway: certificates by name, exchanged while it runs, and who is not let in."""

from __future__ import annotations

import json
import os
import socket
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme

from edge.serve.control_socket import ask as ask_supervisor
from tests.e2e.whole_gateway import eventually, run
from tests.wire.rig import GET, Answer, Client, Rig

HOSTS = ("localhost", "a.edge.test", "b.edge.test")
EDGE = """\
trust_domain: mesh.internal
listeners:
  public:
    bind: "127.0.0.1:0"
    hosts: [localhost, a.edge.test, b.edge.test]
    tls:
      - {certificate: tls/localhost.pem, key: tls/localhost.key}
      - {certificate: tls/star.pem, key: tls/star.key}
      - {certificate: tls/star-rsa.pem, key: tls/star-rsa.key, hosts: [a.edge.test]}
  admin: {bind: "127.0.0.1:0"}
audit: {paths: plain}
"""


class Own(Rig):
    """The rig with certificates that the operator gives, started where a key log is asked for."""

    def prepare(self, directory: Path) -> None:
        self.authority = trustme.CA(key_type=trustme.KeyType.ECDSA)
        self.tls = directory / "tls"
        self.tls.mkdir(mode=0o700)
        self.give("localhost", "localhost")
        self.give("star", "*.edge.test")
        self.give("star-rsa", "*.edge.test", rsa=True)
        (directory / "edge.yaml").write_text(EDGE)
        # Where the test's own client looks for what to trust.
        (directory / "state" / "identity" / "public" / "bundle.pem").write_bytes(self.authority.cert_pem.bytes())
        self.key_log = directory / "keys.log"

    def give(self, file: str, *names: str, rsa: bool = False, until: datetime | None = None) -> None:
        """Write a pair: the key first, as careful operators do."""
        key_type = trustme.KeyType.RSA if rsa else trustme.KeyType.ECDSA
        made = self.authority.issue_cert(*names, key_type=key_type, not_after=until)
        chain = b"".join(blob.bytes() for blob in made.cert_chain_pems)
        for ending, raw in (("key", made.private_key_pem.bytes()), ("pem", chain)):
            fresh = self.tls / f".{file}.{ending}"
            fresh.touch(mode=0o600)
            fresh.write_bytes(raw)
            fresh.rename(self.tls / f"{file}.{ending}")

    def shown(self, name: str | None, *, alpn: tuple[str, ...] = (), rsa: bool = False) -> tuple[set[str], str]:
        """(names, serial) of the certificate for `name`."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        self.authority.configure_trust(context)
        if alpn:
            context.set_alpn_protocols(list(alpn))
        if rsa:
            context.maximum_version = ssl.TLSVersion.TLSv1_2
            context.set_ciphers("ECDHE-RSA-AES128-GCM-SHA256")
        with (
            socket.create_connection(("127.0.0.1", self.gateway.public), 15) as raw,
            context.wrap_socket(raw, server_hostname=name) as tls,
        ):
            facts = tls.getpeercert()
            assert facts
            return {str(entry[1]) for entry in facts["subjectAltName"]}, str(facts["serialNumber"])

    def status(self) -> dict[str, object]:
        found: dict[str, object] = json.loads(
            run("status", "-c", self.gateway.directory / "edge.yaml", "--json").stdout
        )
        return found


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Own]:
    directory = tmp_path_factory.mktemp("own") / "edge"
    os.environ["SSLKEYLOGFILE"] = str(directory.parent / "keys.log")  # the gateway inherits it
    try:
        rig = Own(directory)
    finally:
        del os.environ["SSLKEYLOGFILE"]
    yield rig
    rig.close()


@pytest.fixture
def own(running: Own) -> Own:
    running.upstream.clear()
    return running


def ask(client: Client, host: str) -> Answer:
    return client.send(GET.replace(b"localhost", host.encode())).answer()


def test_each_name_gets_its_certificate(own: Own) -> None:
    for name, expected in (("localhost", "localhost"), (None, "localhost"), ("a.edge.test", "*.edge.test")):
        assert own.shown(name)[0] == {expected}
    assert own.shown("A.Edge.Test", rsa=True)[0] == {"*.edge.test"}
    with pytest.raises((ssl.SSLError, OSError)):
        own.shown("b.edge.test", rsa=True)  # its RSA pair is for a.edge.test alone


def test_the_name_of_the_handshake_binds_the_request_whatever_the_certificate_covers_A12(own: Own) -> None:
    with own.client("a.edge.test") as client:
        assert ask(client, "a.edge.test").status == 200
        answer = ask(client, "b.edge.test")
        assert (answer.status, answer.reason) == (421, "misdirected")
    assert own.upstream.seen.count(b"GET ") == 1


def sequence(own: Own) -> int:
    """The number that the log gives to a request of now, which goes no further than the routes."""
    with own.client() as client:
        answer = client.send(GET.replace(b"/orders/7", b"/nowhere")).answer()
    return int(str(own.record(answer.fields["x-request-id"])["event.sequence"]))


@pytest.mark.parametrize(
    ("name", "alpn", "reason"),
    [
        ("evil.example", ("http/1.1",), "UNRECOGNIZED_NAME"),
        ("localhost", ("h3", "ftp"), "NO_APPLICATION_PROTOCOL"),
        (None, ("smtp",), "NO_APPLICATION_PROTOCOL"),
    ],
)
def test_who_asks_for_what_is_not_served_is_told_in_the_handshake_A12(
    own: Own, name: str | None, alpn: tuple[str, ...], reason: str
) -> None:
    before = sequence(own)
    with pytest.raises((ssl.SSLError, OSError)) as caught:
        own.shown(name, alpn=alpn)
    assert reason in str(caught.value).upper().replace(" ", "_")
    assert own.upstream.seen == b""
    assert sequence(own) == before + 1  # no request, so nothing to record


@pytest.mark.parametrize(
    ("raw", "alert"),
    [
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", b""),
        (b"\x15\x03\x01\x00\x02\x02\x28", bytes((21, 3, 1, 0, 2, 2, 10))),
        (b"\x16\x03\x01\x00\x04\x02\x00\x00\x00", bytes((21, 3, 3, 0, 2, 2, 10))),
    ],
)
def test_a_handshake_that_failed_ends_its_connection_behind_the_alert_C4(own: Own, raw: bytes, alert: bytes) -> None:
    """RFC 8446 §6.2: immediately; not when the client goes, or the deadline of handshakes (10 s) comes."""
    with socket.create_connection(("127.0.0.1", own.gateway.public), 8) as plain:
        plain.sendall(raw)
        heard = b""
        while piece := plain.recv(100):
            heard += piece
        assert heard == alert


def test_names_that_are_no_text_leave_no_trace_and_no_connection(own: Own) -> None:
    from tests.edge.accept.test_client_hello import body, handshake, record, sni

    with socket.create_connection(("127.0.0.1", own.gateway.public), 15) as raw:
        raw.sendall(record(handshake(body(sni(b"\xff\xfe")))))
        assert raw.recv(100) == bytes((21, 3, 3, 0, 2, 2, 112))
        assert raw.recv(100) == b""
    assert not [line for line in own.gateway.lines if "Traceback" in line or "decode" in line]


def test_a_renewed_pair_is_shown_at_once_and_open_connections_live_on(own: Own) -> None:
    before = own.shown("a.edge.test")[1]
    with own.client("a.edge.test") as client:
        assert ask(client, "a.edge.test").status == 200
        own.give("star", "*.edge.test")
        eventually(lambda: own.shown("a.edge.test")[1] != before, 15)
        assert ask(client, "a.edge.test").status == 200
    assert own.shown("localhost")[0] == {"localhost"}


@pytest.mark.parametrize("flaw", ["key", "expired", "names", "garbage", "gone"])
def test_a_bad_pair_changes_nothing_and_says_why(own: Own, flaw: str) -> None:
    place, serial = own.tls / "star.pem", own.shown("a.edge.test")[1]
    good = place.read_bytes(), (own.tls / "star.key").read_bytes()
    said = {
        "key": "certificate: listeners.public.tls[1].certificate: the key belongs to another certificate",
        "expired": "certificate-expired: public:tls/star.pem: it has ended; give a renewed one",
        "names": "certificate-names: public:tls/star.pem: it is for none of the listener's hosts, but for other.test",
        "garbage": "certificate: listeners.public.tls[1].certificate: no certificate in PEM",
        "gone": "missing-file: listeners.public.tls[1].certificate: cannot read tls/star.pem: no such file or directory",
    }[flaw]
    refused = own.status()["reloads_refused"]
    try:
        if flaw == "key":
            place.write_bytes((own.tls / "star-rsa.pem").read_bytes())
        elif flaw == "expired":
            own.give("star", "*.edge.test", until=datetime.now(UTC) - timedelta(hours=1))
        elif flaw == "names":
            own.give("star", "other.test")
        elif flaw == "garbage":
            place.write_bytes(b"x")
        else:
            place.unlink()
        own.gateway.line(rf"^edge\.yaml:8:\d+: {said}".replace("[", r"\[").replace("]", r"\]"))
        eventually(lambda: own.status()["reloads_refused"] != refused, 15)
        assert own.shown("a.edge.test")[1] == serial
        checked = run("check", "-c", own.gateway.directory / "edge.yaml")
        assert checked.returncode == 1
        assert said in checked.stdout
    finally:
        generation = own.status()["generation"]
        (own.tls / "star.key").write_bytes(good[1])
        place.write_bytes(good[0])
        place.chmod(0o600)
    assert ask_supervisor(own.gateway.directory / "state" / "run", "reload", 30).ok
    assert own.status()["generation"] == generation  # back where it was
    assert own.shown("a.edge.test")[1] == serial


def test_status_and_metrics_show_the_end_of_each(own: Own) -> None:
    certificates = own.status()["certificates"]
    assert isinstance(certificates, list)
    names = {each["name"] for each in certificates}
    assert names == {"gateway", "bundle", *(f"public:tls/{file}.pem" for file in ("localhost", "star", "star-rsa"))}
    with socket.create_connection(("127.0.0.1", own.gateway.admin), 15) as raw:
        raw.sendall(b"GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
        metrics = b"".join(iter(lambda: raw.recv(65536), b"")).decode()
    for name in names:
        assert f'edge_certificate_expiry_timestamp_seconds{{certificate="{name}"}} ' in metrics


def test_hsts_is_said_by_answers_and_problems_until_it_is_turned_off(own: Own) -> None:
    def said() -> tuple[str | None, str | None]:
        with own.client() as client:
            good = client.send(GET).answer()
            bad = client.send(GET.replace(b"/orders/7", b"/nowhere")).answer()
        assert (good.status, bad.status) == (200, 404)
        return tuple(each.fields.get("strict-transport-security") for each in (good, bad))  # type: ignore[return-value]

    assert said() == ("max-age=31536000", "max-age=31536000")
    path = own.gateway.directory / "edge.yaml"
    path.write_text(EDGE.replace("    tls:", "    hsts: off\n    tls:", 1))
    try:
        eventually(lambda: said() == (None, None), 15)
    finally:
        path.write_text(EDGE)
    eventually(lambda: said() == ("max-age=31536000", "max-age=31536000"), 15)


def test_the_gateway_writes_no_key_log_though_its_environment_names_one_P47(own: Own) -> None:
    with own.client() as client:
        assert client.send(GET).answer().status == 200  # both sides have shaken hands
    environment = Path(f"/proc/{own.gateway.children()['edge-worker']}/environ").read_bytes()
    assert b"SSLKEYLOGFILE=" in environment
    written = own.gateway.directory.parent / "keys.log"
    # A context that a library makes and nobody uses leaves a heading; a key would be a line below it.
    assert not written.exists() or not [line for line in written.read_text().splitlines() if line[:1] != "#"]
