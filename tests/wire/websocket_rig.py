"""A gateway with WebSocket routes, and both of its ends driven frame by frame: bytes on sockets, no library in between."""

from __future__ import annotations

import queue
import re
import socket
import ssl
import struct
import threading
from base64 import b64encode
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha1
from pathlib import Path

import h2.exceptions

from tests.e2e.upstream import service_context
from tests.wire.h2_client import H2Client
from tests.wire.rig import Answer, Rig, has_ended

ROUTES = """\
routes:
  - name: orders
    match: {{path: /orders/**, methods: [GET, POST]}}
    upstream: {{service: orders, endpoints: ["127.0.0.1:{port}"], timeout_s: 2}}
    origins: ["https://app.example.com", "http://localhost:3000"]
    public: {{reason: a test without tokens}}
  - name: quick
    match: {{path: /quick/**, methods: [GET]}}
    upstream: {{service: orders, endpoints: ["127.0.0.1:{port}"], timeout_s: 0.5}}
    websocket: {{idle_s: 0.6, max_message_bytes: 1000, max_message_frames: 4, max_control_frames_per_s: 5}}
    public: {{reason: a test without tokens}}
  - name: small
    match: {{path: /small/**, methods: [GET]}}
    upstream: {{service: orders, endpoints: ["127.0.0.1:{port}"], timeout_s: 2}}
    websocket: false
    public: {{reason: a test without tokens}}
  - name: slashes
    match: {{path: /slashes/**, methods: [POST]}}
    upstream: {{service: orders, endpoints: ["127.0.0.1:{port}"], timeout_s: 2}}
    public: {{reason: a test without tokens}}
"""
KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
FIELDS = {
    "Host": "localhost",
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Key": KEY.decode(),
    "Sec-WebSocket-Version": "13",
}
CONT, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
MASK = b"\x12\x34\x56\x78"


def accept_of(key: bytes) -> bytes:
    return b64encode(sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())


def handshake(path: str = "/orders/socket", method: str = "GET", **changes: str | None) -> bytes:
    """A whole handshake with some fields changed (`Sec_WebSocket_Key="…"`), or left out (None)."""
    fields: dict[str, str | None] = {**FIELDS, **{name.replace("_", "-"): value for name, value in changes.items()}}
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items() if value is not None)
    return f"{method} {path} HTTP/1.1\r\n{lines}\r\n".encode()


def frame(opcode: int, payload: bytes = b"", *, fin: bool = True, mask: bytes | None = None, rsv: int = 0) -> bytes:
    """One frame, right or wrong."""
    size = len(payload)
    if size < 126:
        length = bytes([size])
    else:
        length = b"\x7e" + struct.pack("!H", size) if size < 65_536 else b"\x7f" + struct.pack("!Q", size)
    if mask is not None:
        length = bytes([length[0] | 0x80]) + length[1:] + mask
        payload = bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))
    return bytes([fin << 7 | rsv << 4 | opcode]) + length + payload


def sent(opcode: int, payload: bytes = b"", *, fin: bool = True) -> bytes:
    """As a client sends it."""
    return frame(opcode, payload, fin=fin, mask=MASK)


def close(code: int, reason: bytes = b"") -> bytes:
    return struct.pack("!H", code) + reason


@dataclass
class Got:
    """One frame as it came."""

    opcode: int
    payload: bytes
    fin: bool
    masked: bool


class End:
    """One end of a WebSocket."""

    is_to_head = False
    """What it was asked was HEAD: an answer other than a 101 has no body either."""

    def __init__(self, tls: ssl.SSLSocket, rest: bytes = b"") -> None:
        self.tls = tls
        self._buffer = rest

    def send(self, data: bytes) -> End:
        self.tls.sendall(data)
        return self

    def take(self, size: int) -> bytes:
        while len(self._buffer) < size:
            self._fill()
        taken, self._buffer = self._buffer[:size], self._buffer[size:]
        return taken

    def _fill(self) -> None:
        piece = self.tls.recv(65536)
        if not piece:
            raise EOFError
        self._buffer += piece

    def head(self) -> bytes:
        while b"\r\n\r\n" not in self._buffer:
            self._fill()
        return self.take(self._buffer.index(b"\r\n\r\n") + 4)

    def answer(self) -> Answer:
        """The answer to a request; of a 101 and to HEAD the head."""
        self.tls.settimeout(10)
        lines = self.head().decode("latin-1").split("\r\n")
        fields: dict[str, str] = {}
        for line in lines[1:-2]:
            name, _, value = line.partition(": ")
            fields[name] = f"{fields[name]}, {value}" if name in fields else value
        status = int(lines[0].split(" ")[1])
        body = b"" if status == 101 or self.is_to_head else self.take(int(fields.get("content-length", "0")))
        return Answer(status, fields, body)

    def frame(self) -> Got:
        first, second = self.take(2)
        size = second & 0x7F
        if size > 125:
            size = int.from_bytes(self.take(2 if size == 126 else 8), "big")
        mask = self.take(4) if second & 0x80 else b""
        payload = self.take(size)
        if mask:
            payload = bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))
        return Got(first & 0x7F, payload, bool(first & 0x80), bool(mask))

    def message(self) -> bytes:
        """The frames of one message, joined."""
        got = self.frame()
        whole = got.payload
        while not got.fin:
            got = self.frame()
            assert got.opcode == CONT
            whole += got.payload
        return whole

    def is_quiet(self, for_s: float) -> bool:
        """Whether nothing comes for a while."""
        self.tls.settimeout(for_s)
        try:
            self._fill()
        except TimeoutError:
            return True
        finally:
            self.tls.settimeout(10)
        return False

    def closed(self) -> tuple[int, bytes]:
        """The Close that comes next."""
        got = self.frame()
        assert got.opcode == CLOSE, got
        return int.from_bytes(got.payload[:2], "big"), got.payload[2:]

    def is_ended(self, within_s: float = 5) -> bool:
        """Whether the connection ends without another byte."""
        return self._buffer == b"" and has_ended(self.tls, within_s)

    def end(self) -> None:
        """Leave without a word."""
        with suppress(OSError):
            self.tls.shutdown(socket.SHUT_RDWR)
        self.tls.close()


class StreamEnd(End):
    """A client's end that is a stream of an HTTP/2 connection (RFC 8441)."""

    def __init__(self, client: H2Client, stream: int) -> None:
        super().__init__(client.tls)
        self.h2 = client
        self.stream = stream

    def send(self, data: bytes) -> End:
        self.h2.send(self.stream, data)
        return self

    def _fill(self) -> None:
        body = self.h2.bodies.setdefault(self.stream, bytearray())
        while not body:
            if self.stream in self.h2.ended or self.stream in self.h2.resets:
                raise EOFError
            self.h2.pump()
        self._buffer += bytes(body)
        body.clear()

    def answer(self) -> Answer:
        self.tls.settimeout(10)
        while self.stream not in self.h2.heads:
            self.h2.pump()
        if dict(self.h2.heads[self.stream])[b":status"] != b"200":
            return self.h2.answer(self.stream)
        fields = {name.decode("latin-1"): value.decode("latin-1") for name, value in self.h2.heads[self.stream]}
        return Answer(int(fields.pop(":status")), fields, b"")

    def is_ended(self, within_s: float = 5) -> bool:
        try:
            return self._buffer == b"" and self.is_quiet(within_s) and False
        except EOFError:
            return True

    def end(self) -> None:
        with suppress(OSError, h2.exceptions.ProtocolError):
            self.h2.reset(self.stream)
        super().end()


def accepting(head: bytes) -> bytes:
    """The answer of an upstream that does it right, without a subprotocol."""
    key = re.search(rb"sec-websocket-key: (\S+)\r\n", head)
    assert key is not None
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n"
        b"sec-websocket-accept: %b\r\n\r\n"
    ) % accept_of(key[1])


class SocketUpstream:
    """The service orders, over mTLS: answers each head as told; the test drives what follows."""

    def __init__(self, identity: Path) -> None:
        self._context = service_context(identity)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.answer: Callable[[bytes], bytes] = accepting
        self.heads: list[bytes] = []
        self.ends: queue.Queue[End] = queue.Queue()
        """Connections that were answered, in order."""
        self._open: list[End] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            tls = self._context.wrap_socket(connection, server_side=True)
            tls.settimeout(10)
            end = End(tls)
            self._open.append(end)
            head = end.head()
            self.heads.append(head)
            tls.sendall(self.answer(head))
            self.ends.put(end)
        except (OSError, EOFError):
            connection.close()

    def clear(self) -> None:
        self.answer = accepting
        self.heads.clear()
        while self._open:
            self._open.pop().end()
        while not self.ends.empty():
            self.ends.get()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.clear()


def extended_connect(raw: bytes) -> list[tuple[bytes, bytes]]:
    """The same handshake as a head of HTTP/2."""
    line, *lines = raw.partition(b"\r\n\r\n")[0].split(b"\r\n")
    fields = [(name.lower(), value) for name, _, value in (each.partition(b": ") for each in lines)]
    authority = dict(fields)[b"host"]
    return [
        (b":method", b"CONNECT"),
        (b":protocol", b"websocket"),
        (b":scheme", b"https"),
        (b":path", line.split(b" ")[1]),
        (b":authority", authority),
        *(field for field in fields if field[0] not in (b"host", b"connection", b"upgrade", b"sec-websocket-key")),
    ]


class SocketRig(Rig):
    """Its services speak WebSocket."""

    sockets: SocketUpstream
    over = "h1"
    """What the clients of this test speak."""

    def prepare(self, directory: Path) -> None:
        self._clients: list[End] = []
        self.sockets = SocketUpstream(directory / "orders")
        (directory / "policies" / "routes.yaml").write_text(ROUTES.format(port=self.sockets.port))

    @property
    def switched(self) -> int:
        """The status of an open WebSocket."""
        return 200 if self.over == "h2" else 101

    def ask(self, raw: bytes) -> tuple[End, Answer]:
        """Send a handshake and read the head of the answer (and its body, unless it is a 101)."""
        end: End
        if self.over == "h2":
            client = H2Client(self.gateway)
            end = StreamEnd(client, client.head(extended_connect(raw), is_end=False))
            self._clients.append(end)
            end.send(raw.partition(b"\r\n\r\n")[2])
        else:
            end = End(self.client().tls)
            self._clients.append(end)
            end.send(raw)
            end.is_to_head = raw.startswith(b"HEAD ")
        return end, end.answer()

    def open(self, raw: bytes = b"") -> Pair:
        """An open WebSocket."""
        client, answer = self.ask(raw or handshake())
        assert answer.status == self.switched, answer
        return Pair(client, self.sockets.ends.get(timeout=15), answer.fields["x-request-id"])

    def clear(self) -> None:
        """Nobody is connected, and nothing was seen."""
        while self._clients:
            self._clients.pop().end()
        self.sockets.clear()

    def close(self) -> None:
        super().close()
        self.sockets.close()


@dataclass
class Pair:
    client: End
    upstream: End
    decision: str
