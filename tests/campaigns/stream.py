"""Gigabytes through the gateway, up and down, over each protocol: what arrives is what was sent, memory stays where it
was, and whoever reads slowly slows down whoever sends.

Each transfer first meets a reader that takes nothing. The sender must come to a halt: what is held between the two is bounded
by the buffers of three connections. Then the reader goes on, and the content's hash is compared at the other end.
"""

from __future__ import annotations

import hashlib
import socket
import ssl
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from tests.campaigns.frames import Caller
from tests.e2e.upstream import service_context
from tests.e2e.whole_gateway import Gateway, Variant, make, serving

MAX_GROWTH_BYTES = 16 << 20
MAX_HELD_BYTES = 48 << 20
"""Between sender and reader while the reader takes nothing: mostly the kernel's buffers of two connections, which it lets
grow to 6 MiB and more at each end."""
HALTED_S = 0.5
BLOCK = hashlib.shake_256(b"a block that compresses badly").digest(1 << 20)
WINDOW = 4 << 20
WARM_BYTES = 16 << 20
VERSIONS = ("1.1", "2")
SERVICES = 'services:\n  orders: {may_serve: ["/orders/**"]}\n'
POLICY = """\
@id("anybody")
permit (principal is Edge::Anonymous, action in [Edge::Action::"read", Edge::Action::"write"],
        resource in Edge::Service::"orders");
"""
ROUTES = """\
routes:
  - name: orders
    match: {{path: /orders/**, methods: [GET, POST]}}
    upstream: {{service: orders, endpoints: ["127.0.0.1:{port}"], timeout_s: 60}}
    max_body_bytes: 1099511627776
    public: {{reason: a campaign without tokens}}
"""


@dataclass
class Transfer:
    """One direction over one protocol."""

    version: str
    direction: str
    mebibytes: int
    mib_per_s: float
    held_mib: float
    """Between sender and reader when the reader took nothing."""
    grown_mib: float
    """Peak resident size of the worker above what it was before."""


@dataclass
class End:
    """What one end of a transfer did, seen by the other thread."""

    moved: int = 0
    digest: str = ""
    may_read: threading.Event = field(default_factory=threading.Event)


def blocks(count: int) -> Iterator[memoryview]:
    """`count` bytes, no two blocks of them alike."""
    view, number = memoryview(BLOCK), 0
    while count > 0:
        piece = min(count, len(view))
        yield memoryview(number.to_bytes(8, "big") + BLOCK[8:])[:piece] if piece > 8 else view[:piece]
        count, number = count - piece, number + 1


def digest_of(count: int) -> str:
    found = hashlib.sha256()
    for block in blocks(count):
        found.update(block)
    return found.hexdigest()


class Upstream:
    """Gives as many bytes as the target asks for, and takes what it is sent: its answer is the hash of it."""

    def __init__(self, identity: Path) -> None:
        self._context = service_context(identity)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.end = End()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                raw = self._listener.accept()[0]
            except OSError:
                return
            threading.Thread(target=self._serve, args=(raw,), daemon=True).start()

    def _serve(self, raw: socket.socket) -> None:
        try:
            with self._context.wrap_socket(raw, server_side=True) as tls, tls.makefile("rb") as reader:
                while line := reader.readline():
                    fields: dict[bytes, bytes] = {}
                    while field_line := reader.readline().rstrip():
                        name, _, value = field_line.partition(b": ")
                        fields[name] = value
                    if line.startswith(b"GET "):
                        self._give(tls, int(line.split(b" ")[1].rpartition(b"/")[2]))
                    else:
                        self._take(tls, reader, fields)
        except OSError:
            pass  # the gateway hung up

    def _give(self, tls: ssl.SSLSocket, count: int) -> None:
        tls.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % count)
        for block in blocks(count):
            tls.sendall(block)
            self.end.moved += len(block)

    def _take(self, tls: ssl.SSLSocket, reader: BinaryIO, fields: dict[bytes, bytes]) -> None:
        self.end.may_read.wait(60)
        found = hashlib.sha256()
        for piece in content(reader, fields):
            found.update(piece)
            self.end.moved += len(piece)
        digest = found.hexdigest().encode("ascii")
        tls.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(digest), digest))

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


def content(reader: BinaryIO, fields: dict[bytes, bytes]) -> Iterator[bytes]:
    """Of a message, by the framing its fields announce."""
    if b"content-length" in fields:
        yield from exactly(reader, int(fields[b"content-length"]))
        return
    assert fields[b"transfer-encoding"] == b"chunked", fields
    while size := int(reader.readline(), 16):
        yield from exactly(reader, size)
        assert reader.readline() == b"\r\n"
    assert reader.readline() == b"\r\n"


def exactly(reader: BinaryIO, count: int) -> Iterator[bytes]:
    while count:
        piece = reader.read(min(count, 1 << 18))
        if not piece:
            raise EOFError
        count -= len(piece)
        yield piece


class Client:
    """One transfer from the public's side; runs in a thread of its own."""

    def __init__(self, gateway: Gateway, version: str) -> None:
        self.end = End()
        self._version = version
        context = ssl.create_default_context(cafile=gateway.directory / "state" / "identity" / "public" / "bundle.pem")
        context.set_alpn_protocols(["h2" if version == "2" else "http/1.1"])
        raw = socket.create_connection(("127.0.0.1", gateway.public), 60)
        self._tls = context.wrap_socket(raw, server_hostname="localhost")

    def close(self) -> None:
        self._tls.close()

    def download(self, count: int) -> str:
        """The hash of what came."""
        if self._version == "2":
            caller = Caller(self._tls, WINDOW)
            caller.ask("GET", f"/orders/{count}", is_end=True)
            self.end.may_read.wait(60)
            return self._hashed(caller.content())
        self._tls.sendall(b"GET /orders/%d HTTP/1.1\r\nHost: localhost\r\n\r\n" % count)
        self.end.may_read.wait(60)
        return self._hashed(self._answer())

    def upload(self, count: int) -> str:
        """The hash that the other end says it got."""
        if self._version == "2":
            caller = Caller(self._tls)
            caller.settle()
            caller.ask("POST", "/orders/7", is_end=False)
            for block in blocks(count):
                caller.send(block)
                self.end.moved += len(block)
            caller.finish()
            return b"".join(caller.content()).decode("ascii")
        self._tls.sendall(b"POST /orders/7 HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % count)
        for block in blocks(count):
            self._tls.sendall(block)
            self.end.moved += len(block)
        return b"".join(self._answer()).decode("ascii")

    def _hashed(self, pieces: Iterator[bytes]) -> str:
        found = hashlib.sha256()
        for piece in pieces:
            found.update(piece)
            self.end.moved += len(piece)
        return found.hexdigest()

    def _answer(self) -> Iterator[bytes]:
        with self._tls.makefile("rb") as reader:
            assert reader.readline().startswith(b"HTTP/1.1 200 ")
            fields: dict[bytes, bytes] = {}
            while line := reader.readline().rstrip():
                name, _, value = line.partition(b": ")
                fields[name] = value
            yield from content(reader, fields)


def memory(pid: int, name: str) -> int:
    """`VmRSS`, or `VmHWM`, its peak since it was last forgotten; bytes."""
    status = Path(f"/proc/{pid}/status").read_text()
    return 1024 * int(next(line for line in status.splitlines() if line.startswith(f"{name}:")).split()[1])


def forget_peak(pid: int) -> None:
    Path(f"/proc/{pid}/clear_refs").write_text("5")  # proc_pid_clear_refs(5)


def halted(end: End) -> None:
    """Until nothing was moved for a while."""
    seen, since_s = -1, time.monotonic()
    while not seen or time.monotonic() - since_s < HALTED_S:
        if end.moved != seen:
            seen, since_s = end.moved, time.monotonic()
        time.sleep(0.01)


def warm_up(gateway: Gateway, upstream: Upstream, version: str, direction: str) -> None:
    """What is made once, for the first transfer."""
    upstream.end = End()
    upstream.end.may_read.set()
    with closing(Client(gateway, version)) as client:
        client.end.may_read.set()
        (client.upload if direction == "up" else client.download)(WARM_BYTES)


def transfer(gateway: Gateway, upstream: Upstream, version: str, direction: str, count: int) -> Transfer:
    """One, with a reader that takes nothing at first."""
    worker = gateway.children()["edge-worker"]
    before = memory(worker, "VmRSS")
    forget_peak(worker)
    upstream.end = End()
    with closing(Client(gateway, version)) as client, ThreadPoolExecutor(1) as thread:
        sender, reader = (client.end, upstream.end) if direction == "up" else (upstream.end, client.end)
        work = thread.submit(client.upload if direction == "up" else client.download, count)
        try:
            halted(sender)
            held = sender.moved - reader.moved
        finally:
            reader.may_read.set()
        began_s = time.monotonic()
        assert work.result(600) == digest_of(count)
        seconds = time.monotonic() - began_s
    assert reader.moved == count, reader
    grown = memory(worker, "VmHWM") - before
    return Transfer(
        version, direction, count >> 20, round((count >> 20) / seconds), round(held / 2**20, 1), round(grown / 2**20, 1)
    )


def campaign(directory: Path, mebibytes: int, versions: Iterable[str] = VERSIONS) -> list[Transfer]:
    """Up and down over each protocol."""
    make(directory, Variant(services=SERVICES, policy=POLICY))
    found = []
    with closing(Upstream(directory / "orders")) as upstream:
        (directory / "policies" / "routes.yaml").write_text(ROUTES.format(port=upstream.port))
        with serving(directory) as gateway:
            for version in versions:
                for direction in ("up", "down"):
                    warm_up(gateway, upstream, version, direction)
                    found.append(transfer(gateway, upstream, version, direction, mebibytes << 20))
            assert gateway.stop() == 0
    for each in found:
        assert each.held_mib < min(mebibytes, MAX_HELD_BYTES >> 20), found
        assert each.grown_mib <= MAX_GROWTH_BYTES >> 20, found
    return found
