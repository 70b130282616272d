"""Somebody who answers on a service's address, and counts what it is sent: that number is the promise of this project."""

from __future__ import annotations

import socket
import ssl
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.e2e.whole_gateway import eventually
from tests.wire.rig import GET, OK, Rig


@dataclass
class Rogue:
    """Somebody on a service's address. `received` is every byte it ever read above its own handshake."""

    port: int
    context: ssl.SSLContext | None
    received: bytes = b""
    answer: bytes = OK
    """Empty: it leaves."""
    connections: int = 0
    listener: socket.socket = field(init=False)
    _open: set[socket.socket] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", self.port))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        connection.settimeout(1)
        try:
            with (
                connection if self.context is None else self.context.wrap_socket(connection, server_side=True) as stream
            ):
                self._open.add(stream)
                while piece := stream.recv(65536):
                    self.received += piece
                    if self.context is not None:
                        if not self.answer:
                            return
                        stream.sendall(self.answer)
        except OSError:
            pass

    def close(self) -> None:
        """Leave the port, and every connection."""
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for stream in list(self._open):
            with suppress(OSError):
                stream.shutdown(socket.SHUT_RDWR)


class Talker(Rogue):
    """One that knows nothing of TLS, and answers before it is asked."""

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            connection.sendall(self.answer)
            self.received += connection.recv(65536)


def server_context(
    directory: Path, made: tuple[bytes, bytes], *, client_anchors: bytes | None = None
) -> ssl.SSLContext:
    """Nobody is asked for a certificate, unless it is said whose are believed."""
    chain, key = made
    (directory / "rogue.pem").write_bytes(key + b"\n" + chain)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(directory / "rogue.pem")
    if client_anchors is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(cadata=client_anchors.decode("ascii"))
    return context


def refused_upstream(rig: Rig, rogue: Rogue, reason: str, rules: set[str] | None) -> None:
    """The caller of a request with a body gets 502, the rogue got not one byte, the log names the rule."""
    before = rogue.connections
    with rig.client() as client:
        answer = client.send(GET.replace(b"GET", b"POST")[:-2] + b"Content-Length: 6\r\n\r\nsecret").answer()
    assert (answer.status, answer.reason) == (502, reason)
    assert answer.fields["proxy-status"].startswith("edge; error=")
    eventually(lambda: rogue.connections > before, 15)
    leaf = rig.record(answer.fields["x-request-id"])
    assert (leaf["event.reason"], leaf["event.outcome"]) == (reason, "failure")
    assert rules is None or leaf["rule.id"] in rules, leaf["rule.id"]
    assert rogue.received == b""
