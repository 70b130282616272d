"""Whom a gateway that joins gives its token: the rest of joining is in tests/e2e/test_join.py, over whole gateways."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest

from edge.serve.far_authority import Place, enrol_door
from pki import enrolled, est
from pki.errors import AuthorityLocked
from pki.io_authority import Authority
from pki.io_keys import Passphrases, make_ec, private_pem
from pki.issue import UPSTREAM_ROLES, IssueRequest, IssuerRole
from tests.pki.founding import found_authority

NOW = datetime.now(UTC)


@pytest.fixture
def authority(tmp_path: Path) -> Iterator[Authority]:
    """One whose services may be called localhost."""
    found_authority(tmp_path / "ca", NOW, suffixes=["localhost", ".internal"], unattended=["root", "issuing"])
    with Authority.open(tmp_path / "ca", Passphrases(tmp_path / "ca"), now=NOW) as opened:
        yield opened


@contextmanager
def answering(authority: Authority, role: IssuerRole, directory: Path) -> Iterator[Place]:
    """Who has a certificate of this role for the host localhost, and tells whoever asks whom to trust."""
    key = make_ec("p256")
    issued = authority.issue(IssueRequest(role, "eve", key.public_key(), ("localhost",)), NOW)
    (directory / "own.pem").write_bytes(private_pem(key) + issued.chain_pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(directory / "own.pem")
    body = est.certs_only(enrolled.ders_of(authority.bundle_pem(roles=UPSTREAM_ROLES)))
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with suppress(OSError):  # the end of the test closes the listener
            while True:
                raw, _ = listener.accept()
                with suppress(OSError), context.wrap_socket(raw, server_side=True) as tls:
                    if tls.recv(65536):
                        tls.sendall(answer)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield Place("localhost", listener.getsockname()[1])
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(10)


@pytest.mark.parametrize("role", ["edge", "gw"])
def test_the_listener_of_the_host_is_given_the_token(authority: Authority, tmp_path: Path, role: IssuerRole) -> None:
    with answering(authority, role, tmp_path) as place:
        enrol_door(place, authority.root_sha256).close()


def test_a_service_that_has_the_host_s_name_is_not_given_the_token_P10(authority: Authority, tmp_path: Path) -> None:
    with answering(authority, "svc", tmp_path) as place, pytest.raises(AuthorityLocked, match="no gateway"):
        enrol_door(place, authority.root_sha256)
