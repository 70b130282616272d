"""Whole gateways for the tests that meet them as an operator does: processes, callers, an upstream, and the log."""

from __future__ import annotations

import http.client
import json
import re
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from edge.audit.verify import verify
from pki import io_output
from pki.io_authority import Authority
from pki.io_keys import Passphrases, make_ec, private_pem
from pki.issue import IssueRequest
from pki.tlog.io_log import head_copy_of
from pki.tlog.io_reader import LogReader
from pki.tlog.note import Verifier

ROOT = Path(__file__).parents[2]
EDGE = [sys.executable, "-m", "edge"]
CHILDREN = ("edge-worker", "edge-notary", "valkey-server", "edge-watcher")

EDGE_YAML = """\
trust_domain: mesh.internal
listeners:
  public: {bind: "127.0.0.1:0", hosts: [localhost]}
  admin: {bind: "127.0.0.1:0"}
"""
SERVICES = 'services:\n  orders: {may_serve: ["/orders/**", "/new/**"], methods: [GET]}\n'
POLICY = """\
@id("anybody")
permit (principal is Edge::Anonymous, action in Edge::Action::"read", resource in Edge::Service::"orders");
"""


def route(name: str, port: int) -> str:
    return (
        f"  - name: {name}\n    match: {{hosts: [localhost], path: /{name}/**, methods: [GET]}}\n"
        f'    upstream: {{service: orders, endpoints: ["127.0.0.1:{port}"], timeout_s: 10}}\n'
        "    public: {reason: a test without tokens}\n"
    )


def routes(*names: str, port: int) -> str:
    return "routes:\n" + "".join(route(name, port) for name in names)


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*EDGE, *map(str, arguments)], capture_output=True, text=True, cwd=ROOT, timeout=30)


class Service:
    """An upstream over mTLS that counts requests and answers when it is let."""

    def __init__(self, identity: Path) -> None:
        self.let = threading.Event()
        self.let.set()
        self.asked = threading.Semaphore(0)
        self.callers: set[str] = set()
        """SPIFFE IDs that shook hands."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.load_cert_chain(identity / "chain.pem", identity / "key.pem")
        context.load_verify_locations(identity / "bundle.pem")
        context.verify_mode = ssl.CERT_REQUIRED
        self._context = context
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            with self._context.wrap_socket(connection, server_side=True) as tls:
                names = (tls.getpeercert() or {}).get("subjectAltName", ())
                self.callers |= {name[1] for name in names if name[0] == "URI"}  # type: ignore[misc]
                while head := tls.recv(65536):
                    if b"\r\n\r\n" in head:
                        self.asked.release()
                        self.let.wait(10)
                        tls.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        except OSError:
            pass  # the gateway hung up, or never finished the handshake

    def close(self) -> None:
        self.let.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(5)


class Gateway:
    """One `edge serve` in a session of its own, and what it said on stderr."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.started = time.monotonic()
        self.process = subprocess.Popen(
            [*EDGE, "serve", "-c", str(directory / "edge.yaml")],
            stderr=subprocess.PIPE,
            cwd=ROOT,
            text=True,
            start_new_session=True,
        )
        self.lines: list[str] = []
        self._heard = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        ready = self.line(r"^ready ")
        found = re.fullmatch(r"ready public=127\.0\.0\.1:(\d+) admin=127\.0\.0\.1:(\d+)", ready)
        assert found, ready
        self.public, self.admin = int(found[1]), int(found[2])

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            with self._heard:
                self.lines.append(line.rstrip("\n"))
                self._heard.notify_all()

    def line(self, pattern: str, within_s: float = 15) -> str:
        """The first line that matches."""

        def found() -> str | None:
            return next((line for line in self.lines if re.search(pattern, line)), None)

        with self._heard:
            self._heard.wait_for(lambda: found() is not None or self.process.poll() is not None, within_s)
        line = found()
        assert line is not None, f"no line {pattern!r} in {self.lines}"
        return line

    def connect(self, timeout_s: float = 5) -> http.client.HTTPSConnection:
        bundle = self.directory / "state" / "identity" / "public" / "bundle.pem"
        context = ssl.create_default_context(cafile=bundle)
        return http.client.HTTPSConnection("localhost", self.public, timeout=timeout_s, context=context)

    def get(self, path: str, timeout_s: float = 5) -> tuple[int, str]:
        """Status, and the problem's reason or the body; over a connection of its own."""
        connection = self.connect(timeout_s)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            body = answer.read().decode()
            if answer.headers["content-type"] == "application/problem+json":
                body = json.loads(body)["type"].rpartition("/")[2]
            return answer.status, body
        finally:
            connection.close()

    def ask_admin(self, path: str) -> tuple[int, dict[str, object]]:
        connection = http.client.HTTPConnection("127.0.0.1", self.admin, timeout=5)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        finally:
            connection.close()

    def children(self) -> dict[str, int]:
        """Living children by the name the kernel knows them by."""
        found = {}
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                head, _, tail = stat.read_text().rpartition(")")
            except OSError:
                continue
            state, parent = tail.split()[:2]
            if int(parent) == self.process.pid and state not in "ZX":
                found[head.partition("(")[2]] = int(stat.parent.name)
        return found

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.ended()

    def ended(self) -> int:
        code = self.process.wait(20)
        self._reader.join(5)
        assert self.process.stderr is not None
        self.process.stderr.close()
        return code


def eventually(what: Callable[[], bool], within_s: float) -> float:
    """Seconds until it held."""
    began = time.monotonic()
    while not what():
        assert time.monotonic() - began < within_s, f"not within {within_s} s"
        time.sleep(0.01)
    return time.monotonic() - began


def records(directory: Path) -> int:
    """Leaves of a log that verifies."""
    log = directory / "state" / "log"
    report = verify(log, Verifier.parse((log / "verifier.key").read_text().strip()))
    assert report.ok, report
    assert head_copy_of(log).exists()
    return report.size


def issue_orders(directory: Path) -> None:
    now, key = datetime.now(UTC), make_ec("p256")
    ca = directory / "state" / "ca"
    with Authority.open(ca, Passphrases(ca, environ={}), now=now) as authority:
        issued = authority.issue(IssueRequest("svc", "orders", key.public_key(), ("orders.internal",)), now)
        io_output.write(
            directory / "orders",
            issued,
            key_pem=private_pem(key),
            bundle_pem=authority.bundle_pem(roles=("gw",)),
            root_sha256=authority.root_sha256,
            replace=True,
        )


class Load:
    """Callers on connections of their own that remember each answer by the id it carries."""

    def __init__(self, gateway: Gateway, callers: int = 4) -> None:
        self.answered: dict[str, tuple[int, str]] = {}
        self.broken = 0
        self._gateway = gateway
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._call, daemon=True) for _ in range(callers)]
        for thread in self._threads:
            thread.start()

    def _call(self) -> None:
        connection = self._gateway.connect(3)
        while not self._stop.is_set():
            try:
                connection.request("GET", "/orders/7")
                answer = connection.getresponse()
                body = answer.read().decode()
                decision = answer.headers["x-request-id"]
            except (OSError, http.client.HTTPException):
                connection.close()
                with self._lock:
                    self.broken += 1
                continue
            with self._lock:
                self.answered[decision] = (answer.status, body)
        connection.close()

    def count(self, status: int) -> int:
        with self._lock:
            return sum(answer[0] == status for answer in self.answered.values())

    def end(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(10)


def requests_in_log(directory: Path) -> list[dict[str, object]]:
    entries = [json.loads(entry) for _, entry in LogReader(directory / "state" / "log").latest(1_000_000)]
    found = [entry for entry in entries if entry["event.action"] == "request"]
    assert len({entry["event.id"] for entry in found}) == len(found)  # exactly one leaf each
    return found
