"""EST (RFC 7030) by what stands on every machine: openssl makes key and request, curl carries it, the gateway answers.

The client knows two things beforehand: a token, and the fingerprint of the root."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from edge.cli.authority import reach
from pki import desk
from pki.io_authority import Authority
from pki.io_keys import Passphrases, make_ec, private_pem
from pki.issue import IssueRequest, IssuerRole
from pki.tlog.io_reader import LogReader
from tests.e2e.whole_gateway import EDGE_YAML, ROOT, Gateway, Variant, make, routes, serving
from tests.pki.conftest import Forge
from tests.pki.founding import found_authority

DOORS = 'listeners:\n  enrol: {bind: "127.0.0.1:0"}\n  services: {bind: "127.0.0.1:0"}\n'
EST = "/.well-known/est"
needs_clients = pytest.mark.skipif(
    not (shutil.which("openssl") and shutil.which("curl")), reason="openssl or curl is not installed"
)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = make(tmp_path_factory.mktemp("est") / "edge", Variant())
    (directory / "edge.yaml").write_text(EDGE_YAML.replace("listeners:\n", DOORS))
    (directory / "policies" / "routes.yaml").write_text(routes("orders", port=1))
    shutil.rmtree(directory / "state")  # for an authority that is older than the certificate which is due
    (directory / "state").mkdir(mode=0o700)
    found_authority(directory / "state" / "ca", datetime.now(UTC) - timedelta(hours=30))
    return directory


def due(directory: Path, role: IssuerRole, name: str, *dns: str) -> Path:
    """A certificate that was issued 17 hours ago."""
    began, key = datetime.now(UTC) - timedelta(hours=17), make_ec("p256")
    ca, home = directory / "state" / "ca", directory / f"due-{role}-{name}"
    with Authority.open(ca, Passphrases(ca, environ={}), now=began) as authority:
        issued = authority.issue(IssueRequest(role, name, key.public_key(), dns), began)
    home.mkdir()
    (home / "chain.pem").write_bytes(issued.chain_pem)
    (home / "key.pem").write_bytes(private_pem(key))
    return home


@pytest.fixture(scope="module")
def old(directory: Path) -> Path:
    return due(directory, "svc", "orders", "orders.internal")


@pytest.fixture(scope="module")
def operator(directory: Path) -> Path:
    return due(directory, "op", "bob")


@pytest.fixture(scope="module")
def gateway(directory: Path, old: Path, operator: Path) -> Iterator[Gateway]:
    with serving(directory) as gateway:
        yield gateway


def token(directory: Path, role: str = "svc", name: str = "orders") -> desk.TokenMade:
    ca = directory / "state" / "ca"
    with reach(directory / "state", Passphrases(ca, environ={}), {}) as asks:
        dns = ("orders.internal",) if role == "svc" else ()
        made = asks(desk.MakeToken(role, name, dns, 86_400, 600, "test"))  # type: ignore[arg-type]
    assert isinstance(made, desk.TokenMade)
    return made


def run(home: Path, *command: str) -> str:
    done = subprocess.run(command, cwd=home, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, (command, done.stderr)
    return done.stdout


def last_of_ca(directory: Path) -> dict[str, object]:
    leaf: dict[str, object] = json.loads(LogReader(directory / "state" / "ca" / "log").latest(1)[0][1])
    return leaf


def make_request(home: Path) -> None:
    run(home, "openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", "key.pem")
    run(home, "openssl", "req", "-new", "-key", "key.pem", "-subj", "/", "-outform", "DER", "-out", "csr.der")
    run(home, "openssl", "base64", "-in", "csr.der", "-out", "csr.b64")


def unpack(home: Path, source: str, target: str) -> None:
    run(home, "openssl", "base64", "-d", "-in", source, "-out", f"{source}.der")
    run(home, "openssl", "pkcs7", "-inform", "DER", "-in", f"{source}.der", "-print_certs", "-out", target)


def curl(home: Path, gateway: Gateway, door: str, operation: str, *more: str) -> int:
    """The status; the body is in `answer`."""
    host, port = "localhost" if door == "enrol" else "edge.internal", gateway.ports[door]
    url = f"https://{host}:{port}{EST}/{operation}"
    return int(
        run(
            home,
            "curl",
            "-s",
            "--resolve",
            f"{host}:{port}:127.0.0.1",
            "-o",
            "answer",
            "-w",
            "%{http_code}",
            *more,
            url,
        )
    )


POST = ("-H", "Content-Type: application/pkcs10", "--data-binary", "@csr.b64")


@needs_clients
def test_a_service_enrols_and_renews_with_openssl_and_curl(
    gateway: Gateway, directory: Path, old: Path, tmp_path: Path
) -> None:
    made = token(directory)
    assert curl(tmp_path, gateway, "enrol", "cacerts", "--insecure") == 200  # RFC 7030 §4.1.1: then compare the root
    unpack(tmp_path, "answer", "bundle.pem")
    roots = [
        c for c in x509.load_pem_x509_certificates((tmp_path / "bundle.pem").read_bytes()) if c.issuer == c.subject
    ]
    assert [root.fingerprint(SHA256()).hex() for root in roots] == [made.root_sha256]
    make_request(tmp_path)
    trust = ("--cacert", "bundle.pem")
    assert curl(tmp_path, gateway, "enrol", "simpleenroll", *trust, "-u", f"orders:{made.text}", *POST) == 200
    unpack(tmp_path, "answer", "cert.pem")
    run(tmp_path, "openssl", "verify", "-x509_strict", "-purpose", "sslclient", "-CAfile", "bundle.pem", "cert.pem")
    leaf = x509.load_pem_x509_certificate((tmp_path / "cert.pem").read_bytes())
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [str(name.value) for name in names] == ["spiffe://mesh.internal/svc/orders", "orders.internal"]
    # The same token again: nothing, and the reason is in the CA's log.
    assert curl(tmp_path, gateway, "enrol", "simpleenroll", *trust, "-u", f":{made.text}", *POST) == 401
    assert (tmp_path / "answer").read_text().startswith("token: ")
    assert (last_of_ca(directory)["event.action"], last_of_ca(directory)["event.reason"]) == ("pki.refused", "token")
    # The new certificate opens the services listener; it is too young to be renewed. The old one is due.
    run(tmp_path, "sh", "-c", "cat cert.pem bundle.pem > chain.pem")
    make_new = tmp_path / "next"
    make_new.mkdir()
    make_request(make_new)
    bundle = ("--cacert", str(tmp_path / "bundle.pem"))
    own = ("--cert", str(tmp_path / "chain.pem"), "--key", str(tmp_path / "key.pem"))
    assert curl(make_new, gateway, "services", "simplereenroll", *bundle, *own, *POST) == 403
    assert (make_new / "answer").read_text().startswith("not-due: ")
    due = ("--cert", str(old / "chain.pem"), "--key", str(old / "key.pem"))
    assert curl(make_new, gateway, "services", "simplereenroll", *bundle, *due, *POST) == 200
    unpack(make_new, "answer", "cert.pem")
    new = x509.load_pem_x509_certificate((make_new / "cert.pem").read_bytes())
    assert new.extensions.get_extension_for_class(x509.SubjectAlternativeName).value == names


@needs_clients
def test_the_commands_of_the_guide_take_one_root_alone_and_enrol_E2(
    gateway: Gateway, directory: Path, tmp_path: Path
) -> None:
    """As docs/est.md has them; between the first and the second somebody adds a root of his own."""
    made = token(directory)
    guide = (ROOT / "docs" / "est.md").read_text()
    lines = [line for block in re.findall(r"^```sh\n(.*?)^```", guide, re.M | re.S) for line in block.splitlines()]
    names = {"FINGERPRINT": made.root_sha256, "TOKEN": made.text}
    for line in lines:
        here = line.replace("edge.example.com:9444", f"localhost:{gateway.ports['enrol']}")
        subprocess.run(["bash", "-c", here], cwd=tmp_path, env={**os.environ, **names}, check=False, timeout=30)
        if "csplit" in line:
            (tmp_path / "ca-99").write_bytes(Forge().root.pem)
    assert (tmp_path / "root.pem").read_bytes() == (directory / "state" / "ca" / "root.pem").read_bytes()
    leaf = x509.load_pem_x509_certificate((tmp_path / "cert.pem").read_bytes())
    names_of_leaf = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [str(name.value) for name in names_of_leaf] == ["spiffe://mesh.internal/svc/orders", "orders.internal"]


@needs_clients
def test_an_operator_enrols_and_renews_with_openssl_and_curl(
    gateway: Gateway, directory: Path, operator: Path, tmp_path: Path
) -> None:
    """As a service does; what it gets is an operator's certificate, and too young to be renewed again."""
    (tmp_path / "root.pem").write_bytes((directory / "state" / "ca" / "root.pem").read_bytes())
    trust = ("--cacert", "root.pem")
    make_request(tmp_path)
    text = token(directory, "op", "carol").text
    assert curl(tmp_path, gateway, "enrol", "simpleenroll", *trust, "-u", f"carol:{text}", *POST) == 200
    assert names_of(tmp_path) == ["spiffe://mesh.internal/op/carol"]
    make_request(tmp_path)
    shows = ("--cert", str(operator / "chain.pem"), "--key", str(operator / "key.pem"))
    assert curl(tmp_path, gateway, "services", "simplereenroll", *trust, *shows, *POST) == 200
    assert names_of(tmp_path) == ["spiffe://mesh.internal/op/bob"]
    assert curl(tmp_path, gateway, "services", "cacerts", *trust, *shows) == 200
    unpack(tmp_path, "answer", "bundle.pem")
    op_issuer = (directory / "state" / "ca" / "op.pem").read_text()
    (tmp_path / "chain.pem").write_text((tmp_path / "cert.pem").read_text() + op_issuer)
    verify = ("openssl", "verify", "-x509_strict", "-purpose", "sslclient", "-CAfile", "root.pem")
    run(tmp_path, *verify, "-untrusted", "chain.pem", "cert.pem")
    shows = ("--cert", "chain.pem", "--key", "key.pem")
    assert curl(tmp_path, gateway, "services", "simplereenroll", *trust, *shows, *POST) == 403
    assert (tmp_path / "answer").read_text().startswith("not-due: ")
    assert (last_of_ca(directory)["pki.role"], last_of_ca(directory)["event.reason"]) == ("op", "not-due")


def names_of(home: Path) -> list[str]:
    """Of the certificate in `answer`, which is then in cert.pem."""
    unpack(home, "answer", "cert.pem")
    leaf = x509.load_pem_x509_certificate((home / "cert.pem").read_bytes())
    return [str(name.value) for name in leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value]


@needs_clients
def test_the_spiffe_bundle_is_served_with_its_sequence(gateway: Gateway, directory: Path, tmp_path: Path) -> None:
    """To anybody at `enrol`, where other trust domains fetch it; at `services` to who has a certificate."""
    root = directory / "state" / "ca" / "root.pem"
    port = gateway.ports["enrol"]
    url = ("--resolve", f"localhost:{port}:127.0.0.1", f"https://localhost:{port}/v1/bundle")
    document = json.loads(run(tmp_path, "curl", "-sf", "--cacert", str(root), *url))
    (key,) = document["keys"]
    assert (document["spiffe_sequence"] >= 1, document["spiffe_refresh_hint"], key["use"]) == (True, 300, "x509-svid")
    der = x509.load_pem_x509_certificate(root.read_bytes()).public_bytes(Encoding.DER)
    assert [base64.b64decode(each) for each in key["x5c"]] == [der]


def enrol(port: int, root: Path, credentials: str, body: bytes) -> int:
    return int(asked_to_enrol(port, root, credentials, body).split(b" ", 2)[1])


def asked_to_enrol(port: int, root: Path, credentials: str, body: bytes) -> bytes:
    """The whole answer."""
    context = ssl.create_default_context(cafile=root)
    with (
        socket.create_connection(("127.0.0.1", port), 20) as raw,
        context.wrap_socket(raw, server_hostname="localhost") as tls,
    ):
        basic = base64.b64encode(credentials.encode()).decode()
        head = (
            f"POST {EST}/simpleenroll HTTP/1.1\r\nHost: localhost\r\nAuthorization: Basic {basic}\r\n"
            f"Content-Type: application/pkcs10\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        )
        tls.sendall(head.encode() + body)
        answer = b""
        while part := tls.recv(1 << 16):
            answer += part
    return answer


def test_P31_of_100_replays_at_once_exactly_one_has_a_certificate(gateway: Gateway, directory: Path) -> None:
    made = token(directory, "op", "alice")
    root = directory / "state" / "ca" / "root.pem"
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    bodies = [base64.b64encode(builder.sign(make_ec("p256"), SHA256()).public_bytes(Encoding.DER)) for _ in range(100)]
    statuses: list[int] = []
    start = threading.Barrier(100)

    def replay(body: bytes) -> None:
        start.wait(30)
        statuses.append(enrol(gateway.ports["enrol"], root, f"alice:{made.text}", body))

    threads = [threading.Thread(target=replay, args=(body,)) for body in bodies]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(statuses) == 100
    assert statuses.count(200) == 1
    assert set(statuses) <= {200, 401, 503}
    ca = directory / "state" / "ca"
    with reach(directory / "state", Passphrases(ca, environ={}), {}) as asks:
        shown = asks(desk.Show())
    assert isinstance(shown, desk.Shown)
    assert [(each.state, each.requester) for each in shown.certificates if each.name == "alice"] == [
        ("issued", "est-enrol")
    ]


@pytest.mark.parametrize("credentials", ["orders:guess", "pay:{token}", ":"])
def test_P32_what_is_no_token_of_that_name_gives_nothing(gateway: Gateway, directory: Path, credentials: str) -> None:
    made = token(directory)
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    body = base64.b64encode(builder.sign(make_ec("p256"), SHA256()).public_bytes(Encoding.DER))
    root = directory / "state" / "ca" / "root.pem"
    assert enrol(gateway.ports["enrol"], root, credentials.format(token=made.text), body) == 401
    assert enrol(gateway.ports["enrol"], root, f"orders:{made.text}", body) == 200  # a failed try spends nothing


def test_D9_an_answer_to_a_wrong_password_does_not_tell_who_exists(gateway: Gateway, directory: Path) -> None:
    """The one place of passwords: a name without a token, one whose token waits, a token of another, none at all."""
    waiting = token(directory)
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    body = base64.b64encode(builder.sign(make_ec("p256"), SHA256()).public_bytes(Encoding.DER))
    root, port = directory / "state" / "ca" / "root.pem", gateway.ports["enrol"]
    wrong = waiting.text[:-1] + ("A" if waiting.text[-1] != "A" else "B")
    tried = (f"orders:{wrong}", f"nobody:{wrong}", f"nobody:{waiting.text}", "orders:x", "nobody:")
    answers = {without_moment(asked_to_enrol(port, root, credentials, body)) for credentials in tried}
    (answer,) = answers
    assert answer.startswith(b"HTTP/1.1 401 ")


def without_moment(answer: bytes) -> bytes:
    """But for what differs in every answer."""
    return re.sub(rb"(?im)^(date|x-request-id):.*\r\n", b"", answer)
