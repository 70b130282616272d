"""The rogues, one by one, over real sockets: at a service's address, and at the listeners for services (attacks P).

Upstream: the caller gets 502, whoever answered got not one byte of the request, the log names the rule. Downstream: not one
byte of an answer, and the rule in the log. The gateway trusts its own authority, whose keys a thief holds.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.rogue import Rogue, server_context
from tests.e2e.thief import Thief
from tests.e2e.whole_gateway import issue_while_serving
from tests.wire.rig import GET, Client, client_context
from tests.wire.test_doors import CACERTS, GATEWAY_NAME, DoorsRig


class Rogues(DoorsRig):
    """The rig with all doors open, and the keys of its authority."""

    def prepare(self, directory: Path) -> None:
        super().prepare(directory)
        self.thief = Thief(directory / "state" / "ca")
        self.bundle = (directory / "orders" / "bundle.pem").read_bytes()


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rogues]:
    rogues = Rogues(tmp_path_factory.mktemp("rogues") / "edge")
    rogues.upstream.stop()
    yield rogues
    assert rogues.gateway.stop() == 0


def rule_of_upstream(rig: Rogues, directory: Path, made: tuple[bytes, bytes]) -> str:
    """Somebody with this chain and key answers where the service orders should; → why he got nothing."""
    rogue = Rogue(rig.upstream.port, server_context(directory, made, client_anchors=rig.bundle))
    try:
        with Client(rig.gateway) as client:
            answer = client.send(GET).answer()
        assert (answer.status, answer.reason) == (502, "upstream-identity")
        assert rogue.received == b""
        return str(rig.record(answer.fields["x-request-id"])["rule.id"])
    finally:
        rogue.close()


def rule_of_client(rig: Rogues, directory: Path, made: tuple[bytes, bytes]) -> str:
    """Somebody with this chain and key comes to the services listener; → why he got nothing."""
    (directory / "chain.pem").write_bytes(made[0])
    (directory / "key.pem").write_bytes(made[1])
    context, got = client_context(rig.door("services", directory), "http/1.1"), b""
    with socket.create_connection(("127.0.0.1", rig.gateway.ports["services"]), 5) as raw:
        port = raw.getsockname()[1]
        with contextlib.suppress(OSError), context.wrap_socket(raw, server_hostname=GATEWAY_NAME) as tls:
            tls.sendall(b"GET %b HTTP/1.1\r\nHost: %b\r\n\r\n" % (CACERTS, GATEWAY_NAME.encode()))
            got = tls.recv(65536)
    assert got == b""
    return str(rig.refusal(port)["rule.id"])


def test_a_stolen_intermediate_alone_makes_nobody_a_service(rig: Rogues, tmp_path: Path) -> None:
    made = rig.thief.chain(rig.thief.leaf())
    assert rule_of_upstream(rig, tmp_path, made) == "not-in-issuance-record"
    assert rule_of_client(rig, tmp_path, made) == "not-in-issuance-record"


def test_who_was_certified_a_moment_ago_is_known_at_his_first_handshake(rig: Rogues) -> None:
    for _ in range(3):
        issue_while_serving(rig.gateway.directory, "orders")
        rig.upstream.present(rig.gateway.directory / "orders")
        rig.upstream.start()
        try:
            with Client(rig.gateway) as client:
                assert client.send(GET).answer().status == 200
        finally:
            rig.upstream.stop()
