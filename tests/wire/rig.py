"""A whole gateway, a raw TLS client, and an upstream that keeps every byte it ever got and answers what it is told."""

from __future__ import annotations

import json
import select
import socket
import ssl
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import pytest

from tests.e2e.upstream import OK as OK
from tests.e2e.upstream import Upstream
from tests.e2e.whole_gateway import Gateway, Variant, events_in_log, eventually, make, requests_in_log

EDGE_YAML = """\
trust_domain: mesh.internal
listeners:
  public: {bind: "127.0.0.1:0", http2: HTTP2, hosts: [localhost, 127.0.0.1]}
  admin: {bind: "127.0.0.1:0"}
audit: {paths: plain}
"""
SERVICES = """\
services:
  orders: {may_serve: ["/orders/**", "/slashes/**", "/small/**", "/quick/**", "/api/orders/**"]}
"""
POLICY = """\
@id("anybody")
permit (principal is Edge::Anonymous, action in [Edge::Action::"read", Edge::Action::"write", Edge::Action::"OPTIONS"],
        resource in Edge::Service::"orders");
"""
ROUTES = """\
routes:
  - name: orders
    match: {{path: /orders/**, methods: [GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS]}}
    upstream: {{service: orders, endpoints: ["127.0.0.1:{port}"], timeout_s: 2}}
    public: {{reason: a test without tokens}}
  - name: quick
    match: {{path: /quick/**, methods: [GET, POST]}}
    upstream: {{service: orders, endpoints: ["127.0.0.1:{port}"], timeout_s: 0.5}}
    public: {{reason: a test without tokens}}
  - name: small
    match: {{path: /small/**, methods: [POST]}}
    upstream: {{service: orders, endpoints: ["127.0.0.1:{port}"], timeout_s: 2}}
    max_body_bytes: 1000
    public: {{reason: a test without tokens}}
  - name: stripped
    match: {{path: /api/orders/**, methods: [GET]}}
    upstream: {{service: orders, endpoints: ["127.0.0.1:{port}"], timeout_s: 2, strip_prefix: /api}}
    public: {{reason: a test without tokens}}
  - name: slashes
    match: {{path: /slashes/**, methods: [GET]}}
    upstream: {{service: orders, endpoints: ["127.0.0.1:{port}"], timeout_s: 2}}
    encoded_slash: true
    public: {{reason: a test without tokens}}
"""
HEAD = b"Host: localhost\r\n"
GET = b"GET /orders/7 HTTP/1.1\r\n" + HEAD + b"\r\n"


@dataclass
class Answer:
    """One answer as a strict client reads it."""

    status: int
    fields: dict[str, str]
    body: bytes
    rest: bytes = field(repr=False, default=b"")

    @property
    def reason(self) -> str:
        """Of a problem document."""
        return str(json.loads(self.body)["type"]).rpartition("/")[2]


class Listening(Protocol):
    """A gateway, or what is left of one."""

    @property
    def directory(self) -> Path: ...

    @property
    def public(self) -> int:
        """The port."""


@dataclass(frozen=True)
class Doorway:
    """Another listener of a gateway, and the certificate that its clients show: `chain.pem` and `key.pem` of a directory."""

    directory: Path
    public: int
    identity: Path | None = None


def client_context(gateway: Listening, *alpn: str) -> ssl.SSLContext:
    """Trusts the gateway's CA, and shows a certificate where the way leads through a doorway that asks for one."""
    context = ssl.create_default_context(cafile=gateway.directory / "state" / "identity" / "public" / "bundle.pem")
    context.set_alpn_protocols(list(alpn))
    if isinstance(gateway, Doorway) and gateway.identity is not None:
        context.load_cert_chain(gateway.identity / "chain.pem", gateway.identity / "key.pem")
    return context


def has_ended(tls: ssl.SSLSocket, within_s: float) -> bool:
    """Whether the other side ends the connection, without another byte."""
    tls.settimeout(within_s)
    try:
        return tls.recv(1) == b""
    except TimeoutError:
        return False
    except OSError:
        return True


class Client:
    """A TLS socket on which a test writes bytes."""

    def __init__(self, gateway: Listening, server_name: str | None = "localhost", *, source: str = "127.0.0.1") -> None:
        """`source` is the address to connect from."""
        context = client_context(gateway, "http/1.1")
        if server_name is None:
            context.check_hostname = False
        raw = socket.create_connection(("127.0.0.1", gateway.public), 9, (source, 0))
        raw.setsockopt(
            socket.IPPROTO_TCP, socket.TCP_NODELAY, 1
        )  # else what is cut in two waits for an acknowledgement
        try:
            self.tls = context.wrap_socket(raw, server_hostname=server_name)
        except OSError:
            raw.close()
            raise
        self._buffer = b""

    def send(self, data: bytes) -> Client:
        self.tls.sendall(data)
        return self

    def send_while_reading(self, data: bytes, within_s: float = 20) -> Client:
        """Send and receive at the same time, in one thread: a TLS session is not for two."""
        view, end = memoryview(data), time.monotonic() + within_s
        self.tls.setblocking(False)
        while view:
            assert time.monotonic() < end, "the gateway neither takes nor gives"
            moved = False
            try:
                view = view[self.tls.send(view[:65536]) :]
                moved = True
            except (ssl.SSLWantWriteError, ssl.SSLWantReadError):
                pass
            try:
                piece = self.tls.recv(65536)
                if not piece:
                    break
                self._buffer += piece
                moved = True
            except (ssl.SSLWantWriteError, ssl.SSLWantReadError):
                pass
            if not moved:
                select.select([self.tls], [self.tls], [], 0.05)
        self.tls.settimeout(9)
        return self

    def answer(self, *, is_head: bool = False) -> Answer:
        """Read one answer; an EOFError when the gateway closes instead."""
        while (end := self._buffer.find(b"\r\n\r\n") + 4) < 4:
            self._fill()
        head, rest = self._buffer[:end], self._buffer[end:]
        lines = head.decode("latin-1").split("\r\n")
        status = int(lines[0].split(" ")[1])
        fields: dict[str, str] = {}
        for line in lines[1:-2]:
            name, _, value = line.partition(": ")
            fields[name] = f"{fields[name]}, {value}" if name in fields else value
        self._buffer = rest
        if status == 100:
            return Answer(status, fields, b"")
        body = b"" if is_head or status in (204, 304) else self._body(fields)
        return Answer(status, fields, body)

    def _body(self, fields: dict[str, str]) -> bytes:
        if "content-length" in fields:
            length = int(fields["content-length"])
            while len(self._buffer) < length:
                self._fill()
            body, self._buffer = self._buffer[:length], self._buffer[length:]
            return body
        body = b""
        if fields.get("transfer-encoding") == "chunked":
            while True:
                while b"\r\n" not in self._buffer:
                    self._fill()
                size_line, _, rest = self._buffer.partition(b"\r\n")
                size = int(size_line, 16)
                while len(rest) < size + 2:
                    self._buffer = rest
                    self._fill()
                    rest = self._buffer
                body, self._buffer = body + rest[:size], rest[size + 2 :]
                if not size:
                    return body
        while True:
            try:
                self._fill()
            except EOFError:
                body, self._buffer = self._buffer, b""
                return body

    def read_until(self, marker: bytes) -> None:
        """Read of an answer until this has come; an EOFError when the gateway closes instead."""
        while marker not in self._buffer:
            self._fill()

    def _fill(self) -> None:
        piece = self.tls.recv(65536)
        if not piece:
            raise EOFError
        self._buffer += piece

    def is_closed(self, within_s: float = 9) -> bool:
        """Whether the gateway ends the connection, without another byte."""
        return self._buffer == b"" and has_ended(self.tls, within_s)

    def close(self) -> None:
        self.tls.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Rig:
    """Gateway and upstream together, and the reasons that the log gives."""

    def __init__(self, directory: Path, http2: str = "front") -> None:
        edge_yaml = EDGE_YAML.replace("HTTP2", http2)
        make(directory, Variant(edge=edge_yaml, services=SERVICES, policy=POLICY, hosts=("localhost", "127.0.0.1")))
        self.upstream = Upstream(directory / "orders")
        (directory / "policies" / "routes.yaml").write_text(ROUTES.format(port=self.upstream.port))
        self.prepare(directory)
        self.gateway = Gateway(directory)

    def prepare(self, directory: Path) -> None:
        """What another rig writes differently."""

    def client(self, server_name: str | None = "localhost") -> Client:
        return Client(self.gateway, server_name)

    def leaves(self) -> list[dict[str, object]]:
        """Of all requests so far."""
        return requests_in_log(self.gateway.directory)

    def events(self, kind: str) -> list[dict[str, object]]:
        """Of one kind, oldest first."""
        return events_in_log(self.gateway.directory, kind)

    def record(self, decision_id: str, within_s: float = 15) -> dict[str, object]:
        """The leaf of one decision."""
        end = time.monotonic() + within_s
        while time.monotonic() < end:
            for leaf in self.leaves():
                if leaf["event.id"] == decision_id:
                    return leaf
            time.sleep(0.02)
        raise AssertionError(f"no leaf for {decision_id}")

    def leaf_where(self, wanted: dict[str, object], since: int = 0) -> dict[str, object]:
        """The first leaf behind number `since` that says so; for exchanges whose client was told nothing."""
        found: list[dict[str, object]] = []

        def is_there() -> bool:
            found[:] = [leaf for leaf in self.leaves()[since:] if wanted.items() <= leaf.items()]
            return bool(found)

        eventually(is_there, 15)
        return found[0]

    def resident_bytes(self) -> int:
        """Of the worker."""
        pid = self.gateway.children()["edge-worker"]
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096

    def close(self) -> None:
        assert self.gateway.stop() == 0
        self.upstream.close()


def cut_behind(rig: Rig, begun: bytes, rest: bytes) -> None:
    """An upstream's answer breaks off by `rest` when the client has `begun`; then it is cut off too."""
    rig.upstream.go_on.clear()
    rig.upstream.answers = [begun + b"WAIT" + rest]
    with rig.client() as client:
        client.send(GET).read_until(begun.rpartition(b"\r\n")[2])
        rig.upstream.go_on.set()
        with pytest.raises((EOFError, OSError)):
            client.answer()


def refused(rig: Rig, raw: bytes, status: int, reason: str, rule: str | None = None) -> None:
    """The client gets the problem, the connection closes, the upstream saw nothing, and the log names the rule."""
    with rig.client() as client:
        answer = client.send(raw).answer()
        assert (answer.status, answer.reason) == (status, reason)
        if status in (400, 413, 414, 431):
            assert answer.fields["connection"] == "close"
            assert client.is_closed()
    assert rig.upstream.seen == b""
    leaf = rig.record(answer.fields["x-request-id"])
    assert (leaf["event.outcome"], leaf["event.reason"], leaf["http.response.status_code"]) == (
        "failure",
        reason,
        status,
    )
    if rule is not None:
        assert leaf["rule.id"] == rule
