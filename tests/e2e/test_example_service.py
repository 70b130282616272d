"""The example service lets the gateway in and nobody else; the example rogue lets everybody in and counts truly."""

from __future__ import annotations

import json
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography.x509 import DNSName, UniformResourceIdentifier

from examples.demo import stranger
from examples.rogue.__main__ import application_bytes

ROOT = Path(__file__).parents[2]
GET = b"GET /orders/7?a=1 HTTP/1.1\r\nhost: orders\r\nX-Auth-Subject: alice\r\n\r\n"
POST = b"POST /orders HTTP/1.1\r\nhost: orders\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
TLS_HELLO = bytes.fromhex("1603010004") + b"abcd"
TLS_ALERT = bytes.fromhex("1503030002") + b"\x02\x28"
TLS_DATA = bytes.fromhex("1703030003") + b"xyz"


@dataclass(frozen=True)
class Identities:
    """Certificates of one authority by SPIFFE path, and of another that uses its name."""

    directory: Path

    def context(self, name: str | None) -> ssl.SSLContext:
        """A caller's, that does not care who answers."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        if name is not None:
            context.load_cert_chain(self.directory / name / "chain.pem", self.directory / name / "key.pem")
        return context


@pytest.fixture(scope="module")
def identities(tmp_path_factory: pytest.TempPathFactory) -> Identities:
    directory = tmp_path_factory.mktemp("identities")
    ours, theirs = (stranger.Authority(stranger.named("mesh")) for _ in range(2))
    for name, authority, path in (
        ("orders", ours, "svc/orders"),
        ("gateway", ours, "gw/edge"),
        ("billing", ours, "svc/billing"),
        ("another-gateway", ours, "gw/edge2"),
        ("impostor", theirs, "gw/edge"),
    ):
        identity = UniformResourceIdentifier(f"spiffe://mesh.internal/{path}")
        authority.issue(directory / name, identity, DNSName("orders.internal"))
        authority.write_root(directory / name / "bundle.pem")
    return Identities(directory)


@contextmanager
def process(module: str, *arguments: str | Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    command = [sys.executable, "-W", "error", "-m", module, *map(str, arguments)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as started:
        assert started.stdout is not None
        word, address = started.stdout.readline().split()
        assert word == "ready"
        yield started, int(address.rpartition(":")[2])
        started.terminate()


@pytest.fixture(scope="module")
def service(identities: Identities) -> Iterator[int]:
    with process("examples.service", "--name", "orders", "--identity", identities.directory / "orders") as (_, port):
        yield port


def ask(port: int, context: ssl.SSLContext, request: bytes) -> bytes:
    """What comes back until one answer is whole or the connection ends; errors of TLS and TCP count as an end."""
    received = b""
    try:
        with socket.create_connection(("127.0.0.1", port), 15) as raw, context.wrap_socket(raw) as tls:
            tls.sendall(request)
            while not received.endswith(b"}") and (some := tls.recv(65536)):
                received += some
    except OSError:
        pass
    return received


def test_the_gateway_is_told_what_was_seen(service: int, identities: Identities) -> None:
    head, _, body = ask(service, identities.context("gateway"), GET).partition(b"\r\n\r\n")
    seen = json.loads(body)
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert seen.pop("served") >= 1
    assert seen == {
        "gateway": "spiffe://mesh.internal/gw/edge",
        "service": "orders",
        "method": "GET",
        "path": "/orders/7?a=1",
        "headers": {"host": "orders", "x-auth-subject": "alice"},
        "body_bytes": 0,
    }


def test_a_body_is_counted(service: int, identities: Identities) -> None:
    body = ask(service, identities.context("gateway"), POST).partition(b"\r\n\r\n")[2]
    assert json.loads(body)["body_bytes"] == 5


@pytest.mark.parametrize("name", [None, "billing", "another-gateway", "impostor"])
def test_nobody_else_gets_an_answer(service: int, identities: Identities, name: str | None) -> None:
    assert ask(service, identities.context(name), GET) == b""


def test_an_older_tls_gets_no_answer(service: int, identities: Identities) -> None:
    context = identities.context("gateway")
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    assert ask(service, context, GET) == b""


def test_what_is_not_http_gets_no_answer(service: int, identities: Identities) -> None:
    assert ask(service, identities.context("gateway"), b"\x00\x01 hello\r\n\r\n") == b""


# -- the rogue -----------------------------------------------------------------------------------------


def counted(rogue: subprocess.Popen[str]) -> dict[str, int]:
    rogue.send_signal(signal.SIGTERM)
    output, _ = rogue.communicate(timeout=15)
    found: dict[str, int] = json.loads(output)
    return found


def test_the_rogue_counts_what_a_careless_caller_sends_over_tls(identities: Identities) -> None:
    directory = identities.directory / "impostor"
    arguments = ("--certificate", directory / "chain.pem", "--key", directory / "key.pem")
    with process("examples.rogue", *arguments) as (rogue, port):
        with socket.create_connection(("127.0.0.1", port), 15) as raw:
            with identities.context("gateway").wrap_socket(raw) as tls:
                tls.sendall(GET)
                assert tls.recv(65536).endswith(b"stolen")
        assert counted(rogue) == {"connections": 1, "handshakes": 1, "application_bytes": len(GET)}


def test_the_rogue_counts_what_a_careless_caller_sends_in_plain_text() -> None:
    with process("examples.rogue") as (rogue, port):
        with socket.create_connection(("127.0.0.1", port), 15) as raw:
            raw.sendall(GET)
            assert raw.recv(65536).endswith(b"stolen")
        assert counted(rogue) == {"connections": 1, "handshakes": 0, "application_bytes": len(GET)}


@pytest.mark.parametrize(
    ("received", "expected"),
    [
        (b"", 0),
        (TLS_HELLO, 0),
        (TLS_HELLO + TLS_ALERT, 0),
        (TLS_HELLO[:3], 0),
        (TLS_HELLO[:7], 0),
        (GET, len(GET)),
        (TLS_HELLO + GET, len(GET)),
        (TLS_HELLO + TLS_DATA + TLS_ALERT, len(TLS_DATA + TLS_ALERT)),
    ],
)
def test_only_a_handshake_is_not_counted(received: bytes, expected: int) -> None:
    assert application_bytes(received) == expected
