"""A service behind the gateway, over mTLS, or plain behind a sidecar: it keeps every byte it ever got and answers as told."""

from __future__ import annotations

import queue
import re
import select
import socket
import ssl
import threading
import time
from contextlib import suppress
from pathlib import Path

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


def service_context(identity: Path) -> ssl.SSLContext:
    """mTLS as a service of the mesh does it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(identity / "chain.pem", identity / "key.pem")
    context.load_verify_locations(identity / "bundle.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    return context


class Upstream:
    """The service orders, over mTLS; plain without an identity. `seen` holds every application byte of every connection."""

    def __init__(self, identity: Path | None) -> None:
        self._context: ssl.SSLContext | None = None
        if identity is not None:
            self.present(identity)
        self.port = 0
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._seen: list[bytes] = []
        self.answers: list[bytes] = []
        """What the next requests get, in order; `OK` when empty. `CLOSE` ends the connection there by the book, `CUT` without
        the closing alert."""
        self.by_target: dict[bytes, bytes] = {}
        """What requests for a target always get."""
        self.answers_early = b""
        """What the next request gets as soon as its head is there."""
        self.echoes = False
        """Whether a request gets its own body back."""
        self.requests: list[bytes] = []
        """Each whole request since `clear`, as its bytes came."""
        self.connections = 0
        self.ends: queue.SimpleQueue[tuple[bytes, float]] = queue.SimpleQueue()
        """Of each connection that ended: the target of its last request, and when (`time.monotonic`)."""
        self.callers: set[str] = set()
        """SPIFFE IDs that shook hands."""
        self.let = threading.Event()
        """Cleared: whole requests wait for their answers."""
        self.let.set()
        self.go_on = threading.Event()
        """Cleared: an answer stops at the word `WAIT` in it."""
        self.go_on.set()
        self.given_up = threading.Semaphore(0)
        """Released when the gateway leaves a request that waits."""
        self.asked = threading.Semaphore(0)
        """Released once for every whole request."""
        self.reads = threading.Event()
        """Cleared: whatever is sent is left in the socket."""
        self.reads.set()
        self.patience_s = 20.0
        """How long it waits at a gate, for the gateway to take a write, or to say something."""
        self.start()

    def _secured(self, connection: socket.socket) -> socket.socket:
        """Behind the handshake, where there is one."""
        if self._context is None:
            return connection
        tls = self._context.wrap_socket(connection, server_side=True)
        names = (tls.getpeercert() or {}).get("subjectAltName", ())
        self.callers |= {name[1] for name in names if name[0] == "URI"}  # type: ignore[misc]
        return tls

    def start(self) -> None:
        """Listen; again on the same port after `stop`."""
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def present(self, identity: Path) -> None:
        """Shake hands with this certificate, and whom it trusts, from now on."""
        self._context = service_context(identity)

    def stop(self) -> None:
        """Leave the port, and every connection."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in list(self._open):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        tls, target = connection, b""
        try:
            with self._secured(connection) as tls:
                self.connections += 1
                self._open.add(tls)
                tls.settimeout(self.patience_s)
                buffer = b""
                while self.reads.wait(20) and (piece := tls.recv(65536)):
                    with self._lock:
                        self._seen.append(piece)
                    buffer += piece
                    if self.answers_early and b"\r\n\r\n" in buffer:
                        early, self.answers_early = self.answers_early, b""
                        tls.sendall(early)
                        continue
                    while (message := complete_message(buffer)) is not None:
                        request, buffer = buffer[:message], buffer[message:]
                        target = request.split(b" ", 2)[1]
                        self.requests.append(request)
                        self.asked.release()
                        if not self._may_go_on(self.let, tls):
                            return
                        if self.echoes:  # as it is: random bytes may spell any of the words
                            body = request.partition(b"\r\n\r\n")[2]
                            tls.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
                            continue
                        answer = self.by_target.get(target)
                        if answer is None:
                            answer = self.answers.pop(0) if self.answers else OK
                        if not self._said(answer, tls):
                            return
        except OSError:
            pass
        finally:
            self._open.discard(tls)
            if target:  # else it was the gateway's probe, or nobody
                self.ends.put((target, time.monotonic()))

    def _said(self, answer: bytes, tls: socket.socket) -> bool:
        """Send an answer by the words in it; False when it was the connection's last."""
        body, close, _ = answer.partition(b"CLOSE")
        body, cut, _ = body.partition(b"CUT")
        while b"WAIT" in body:
            first, _, body = body.partition(b"WAIT")
            tls.sendall(first)
            if not self._may_go_on(self.go_on, tls):
                return False
        tls.sendall(body)
        if close and isinstance(tls, ssl.SSLSocket):
            tls.unwrap()
        return not (close or cut)

    def _may_go_on(self, gate: threading.Event, tls: socket.socket) -> bool:
        """False when the gateway hung up before the gate opened."""
        end = time.monotonic() + self.patience_s
        while not gate.wait(0.01) and time.monotonic() < end:
            if select.select([tls], [], [], 0)[0]:
                self.given_up.release()
                return False
        return True

    def clear(self) -> None:
        with self._lock:
            self._seen.clear()
        self.requests.clear()
        self.answers.clear()
        for count in (self.asked, self.given_up):
            while count.acquire(blocking=False):
                pass
        self.answers_early, self.echoes = b"", False

    def wait_for(self, piece: bytes, within_s: float = 5) -> None:
        """Until this has come."""
        end = time.monotonic() + within_s
        while piece not in self.seen:
            assert time.monotonic() < end, f"{piece!r} did not come"
            time.sleep(0.005)

    @property
    def open_connections(self) -> int:
        return len(self._open)

    @property
    def seen(self) -> bytes:
        with self._lock:
            return b"".join(self._seen)

    def close(self) -> None:
        self.let.set()
        self.go_on.set()
        self.stop()


def complete_message(buffer: bytes) -> int | None:
    """Length of the first whole request in the buffer, by the framing the gateway promises; None while it is not whole."""
    end = buffer.find(b"\r\n\r\n") + 4
    if end < 4:
        return None
    length = re.search(rb"\r\ncontent-length: (\d+)\r\n", buffer[:end])
    if length is not None:
        return end + int(length[1]) if len(buffer) >= end + int(length[1]) else None
    if b"\r\ntransfer-encoding: chunked\r\n" in buffer[:end]:
        return _end_of_chunks(buffer, end)
    return end


def _end_of_chunks(buffer: bytes, at: int) -> int | None:
    """Where the chunks that begin at `at` end."""
    while (line_end := buffer.find(b"\r\n", at)) >= 0:
        size = int(buffer[at:line_end], 16)
        at = line_end + 2 + size + 2
        if not size:
            return at if buffer[line_end:at] == b"\r\n\r\n" else None
    return None
