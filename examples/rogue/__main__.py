"""Runs the rogue: see the package's docstring."""

from __future__ import annotations

import argparse
import json
import signal
import socket
import ssl
import threading
from dataclasses import asdict, dataclass
from pathlib import Path

_ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 6\r\n\r\nstolen"
_HANDSHAKE_TYPES = (20, 21, 22)
"""TLS records that carry nothing of an application: change_cipher_spec, alert, handshake (RFC 8446 §5.1)."""
_PATIENCE_S = 10.0


@dataclass(slots=True)
class Count:
    """What came in, over all connections."""

    connections: int = 0
    handshakes: int = 0
    application_bytes: int = 0


class Rogue:
    """A listener and one thread per connection; `count` is shared under `_lock`."""

    def __init__(self, port: int, context: ssl.SSLContext | None) -> None:
        self.count = Count()
        self.listener = socket.create_server(("127.0.0.1", port), backlog=64)
        self._context = context
        self._lock = threading.Lock()

    def accept(self) -> None:
        """Take whoever comes, until the process ends."""
        while True:
            connection, _ = self.listener.accept()
            with self._lock:
                self.count.connections += 1
            threading.Thread(target=self._lure, args=(connection,), daemon=True).start()

    def _lure(self, connection: socket.socket) -> None:
        connection.settimeout(_PATIENCE_S)
        try:
            with connection:
                if self._context is None:
                    self._lure_in_plain_text(connection)
                else:
                    with self._context.wrap_socket(connection, server_side=True) as tls:
                        self._lure_over_tls(tls)
        except OSError:
            pass  # refused, which is what a rogue has to live with

    def _lure_over_tls(self, tls: ssl.SSLSocket) -> None:
        with self._lock:
            self.count.handshakes += 1
        while raw := tls.recv(65536):
            with self._lock:
                self.count.application_bytes += len(raw)
            tls.sendall(_ANSWER)

    def _lure_in_plain_text(self, connection: socket.socket) -> None:
        received, counted = b"", 0
        while raw := connection.recv(65536):
            received += raw
            found = application_bytes(received)
            with self._lock:
                self.count.application_bytes += found - counted
            counted = found
            connection.sendall(_ANSWER)


def application_bytes(received: bytes) -> int:
    """How many of the first bytes of a TCP connection are not a TLS handshake: from the first other record on, all."""
    place = 0
    while place < len(received):
        if received[place] not in _HANDSHAKE_TYPES:
            return len(received) - place
        if len(received) < place + 5:
            break
        place += 5 + int.from_bytes(received[place + 3 : place + 5], "big")
    return 0


def main() -> None:
    """Listen until SIGTERM, then say what came."""
    parser = argparse.ArgumentParser(prog="python -m examples.rogue", description="Takes any traffic it can get.")
    parser.add_argument("--port", type=int, default=0, help="0 lets the system choose")
    parser.add_argument("--certificate", type=Path, help="PEM chain; without one it speaks plain text")
    parser.add_argument("--key", type=Path, help="PEM key of the certificate")
    arguments = parser.parse_args()
    context = None
    if arguments.certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(arguments.certificate, arguments.key)
    ends = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, ends)  # before the threads, so that they leave the signals to `sigwait`
    rogue = Rogue(arguments.port, context)
    threading.Thread(target=rogue.accept, daemon=True).start()
    print(f"ready 127.0.0.1:{rogue.listener.getsockname()[1]}", flush=True)
    signal.sigwait(ends)
    print(json.dumps(asdict(rogue.count)), flush=True)


if __name__ == "__main__":
    main()
