"""Whole connections for the fuzzer: the real protocol objects on sockets that are lists, in a loop that runs by hand."""

from __future__ import annotations

import asyncio
import atexit
import ssl
import tempfile
import time
from contextlib import suppress
from dataclasses import replace
from functools import cache
from pathlib import Path

import hpack

from edge import assemble
from edge.audit.drain import RingReader
from edge.audit.io_recorder import open_recorder
from edge.audit.ring import Ring
from edge.config.parse import parse
from edge.front import Deadlines, Front, Http1, Http2
from edge.front.frames import frame
from edge.limit.store import StoreSettings
from edge.model.decision import Need
from edge.model.websocket import WebSocketBounds
from edge.observe import ROW_BYTES, Observer
from edge.parse.frames import Frame, FrameReader, Violation, encode
from tests.edge.accept import test_tls
from tests.edge.authn.simulator import KeySourceInMemory
from tests.edge.config.house import sources
from tests.edge.forward.transcript import Case
from tests.edge.test_pipeline import House

HEAD = b"Host: localhost\r\n"
REQUESTS = [
    b"\0GET /orders/7 HTTP/1.1\r\n" + HEAD + b"\r\n",
    b"\1POST /orders/7 HTTP/1.1\r\n" + HEAD + b"Authorization: Bearer e30.e30.AA\r\nContent-Length: 5\r\n\r\nhello"
    b"GET /nowhere HTTP/1.1\r\n" + HEAD + b"\r\n",
    b"\1PUT /orders/7 HTTP/1.1\r\n" + HEAD + b"Authorization: Bearer x\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"5;a=b\r\nhello\r\n0\r\nX-T: 1\r\n\r\nGET / HTTP/1.0\r\n" + HEAD + b"\r\n",
    b"\0HEAD /orders/7?a=b HTTP/1.1\r\n"
    + HEAD
    + b"Expect: 100-continue\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n",
]
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_HEAD = hpack.Encoder().encode(
    [(":method", "POST"), (":scheme", "https"), (":path", "/orders/7"), (":authority", "localhost"), ("cookie", "a=1")]
)
STREAMS = [
    b"\0" + frame(4, 0, 0, b"\0\3\0\0\0\1") + frame(1, 4, 1, _HEAD) + frame(0, 1, 1, b"hello"),
    b"\1" + frame(4, 0, 0, b"") + frame(1, 0, 1, _HEAD[:9]) + frame(9, 4, 1, _HEAD[9:]) + frame(3, 0, 1, bytes(4)),
    b"\2" + frame(4, 1, 0, b"") + frame(6, 0, 0, bytes(8)) + frame(8, 0, 0, b"\0\0\1\0") + frame(7, 0, 0, bytes(8)),
]
MESSAGES = [
    b"\1"
    + encode(Frame(1, "ä text".encode()), b"abcd")
    + encode(Frame(9, b"p"), b"abcd")
    + encode(Frame(8, b"\3\xe8"), b"abcd"),
    b"\0" + encode(Frame(2, b"x" * 200, is_final=False), None) + encode(Frame(0, b"y"), None),
]
ANSWERS = [
    b"\0HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-A: b \r\n\r\nhello",
    b"\1HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-Trailer: evil\r\n\r\n",
    b"\2HTTP/1.1 304 Not Modified\r\nETag: x\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
    b"\0HTTP/1.1 100 Continue\r\n\r\nHTTP/1.0 200 OK\r\n\r\nuntil the end",
    b"\0HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n",
]


class Wire(asyncio.Transport):
    """A downstream's socket."""

    def __init__(self) -> None:
        super().__init__({"peername": ("192.0.2.1", 4711)})
        self.written: list[bytes] = []
        self.is_over = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self.is_over
        self.written.append(bytes(data))

    def close(self) -> None:
        self.is_over = True

    abort = close

    def is_closing(self) -> bool:
        return self.is_over

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None: ...

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None: ...

    def get_write_buffer_size(self) -> int:
        return 0


class Silent(KeySourceInMemory):
    """An issuer whose keys never come: the request waits, and its body with it."""

    def get(self, issuer: str) -> None:
        return None

    def need(self, issuer: str, now_ns: int) -> Need | None:
        async def fetch() -> None:
            await asyncio.Event().wait()

        return Need(f"key-set {issuer}", fetch)


class Worker:
    """What a worker has behind its connections, with a log that is drained by hand and no upstream."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        atexit.register(self.loop.close)
        self.unexpected: list[BaseException] = []
        self.loop.set_exception_handler(lambda _, context: self.unexpected.append(context["exception"]))
        place = Path(tempfile.mkdtemp(prefix="edge-fuzz-")) / "ring"
        config = parse(sources())
        ring = Ring.create(place, "worker-0")
        self.reader = RingReader.attach(place, "worker-0")
        place.unlink()
        place.parent.rmdir()
        shared = assemble.open_shared(
            config,
            open_recorder(ring, config.audit, b"k" * 32),
            StoreSettings(socket_path="/nowhere"),
            self.loop,
            self.unexpected.append,
            Observer(memoryview(bytearray(ROW_BYTES))),
            lambda where, turn: None,
        )
        ready, waiting = House(), House()
        waiting.keys = Silent()
        gateways = [replace(house.build(burst=1 << 40), shed=shared.shed) for house in (ready, waiting)]
        self.fronts = [Front(gateway, shared, Deadlines(), Http1) for gateway in gateways]
        self.shared = shared

    async def serve(self, front: Front, pieces: list[bytes], *, is_http2: bool = False) -> list[bytes]:
        self.reader.beat(time.monotonic_ns())
        assert self.shared.shed.open("192.0.2.1")  # as the gate does, before the handshake
        wire = Wire()
        if is_http2:
            connection: asyncio.Protocol = Http2(front, wire)
        else:
            connection = front()
            connection.connection_made(wire)
        for piece in pieces:
            if wire.is_over:
                break
            connection.data_received(piece)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        connection.connection_lost(None)
        for task in list(self.shared.tasks):
            task.cancel()
        await asyncio.gather(*self.shared.tasks, return_exceptions=True)
        while found := self.reader.read(256):
            self.reader.acknowledge(len(found))
        assert not self.unexpected, self.unexpected
        assert not front.connections
        return wire.written


@cache
def _worker() -> Worker:
    return Worker()


def run_http1(data: bytes) -> None:
    """Bytes of a client, whole and in pieces: the same answers, each of them HTTP/1.1, and nothing left behind.

    The first byte chooses what is behind the line and how the bytes are cut.
    """
    worker = _worker()
    flags, stream = data[:1] or b"\0", data[1:]
    step = (1, 2, 7, 100)[flags[0] >> 1 & 3]
    front = worker.fronts[flags[0] & 1]
    said = []
    for size in (len(stream) or 1, step):
        pieces = [stream[at : at + size] for at in range(0, len(stream), size)]
        written = b"".join(worker.loop.run_until_complete(worker.serve(front, pieces)))
        assert not written or written.startswith(b"HTTP/1.1 ")
        said.append(written[9:10])
    assert said[0] == said[1], said


def run_h2(data: bytes) -> None:
    """Bytes behind the preface, whole and in pieces: what comes back are whole frames, and nothing is left behind."""
    worker = _worker()
    flags, stream = data[:1] or b"\0", PREFACE + data[1:]
    front = worker.fronts[flags[0] & 1]
    for size in (len(stream), (1, 2, 7, 100)[flags[0] >> 1 & 3]):
        pieces = [stream[at : at + size] for at in range(0, len(stream), size)]
        written = b"".join(worker.loop.run_until_complete(worker.serve(front, pieces, is_http2=True)))
        at = 0
        while at < len(written):
            assert len(written) >= at + 9
            assert written[at + 3] <= 9
            at += 9 + int.from_bytes(written[at : at + 3], "big")
        assert at == len(written)


def run_websocket(data: bytes) -> None:
    """Frames of either side, whole and in pieces: the same violation, if any; printed and read again they stay."""
    flags, stream = data[:1] or b"\0", data[1:]
    is_masked = bool(flags[0] & 1)
    seen = []
    for size in (len(stream) or 1, (1, 3, 50)[flags[0] % 3]):
        reader = FrameReader(WebSocketBounds(), is_masked=is_masked)
        found = [each for at in range(0, len(stream), size) for each in reader.feed(stream[at : at + size])]
        seen.append(found)
    violations = [[each for each in found if isinstance(each, Violation)] for found in seen]
    assert violations[0] == violations[1]
    key = b"\1\2\3\4" if is_masked else None
    printed = b"".join(encode(each, key) for each in seen[0] if isinstance(each, Frame))
    again = FrameReader(WebSocketBounds(), is_masked=is_masked).feed(printed)
    assert again == [each for each in seen[0] if isinstance(each, Frame)]


def run_answer(data: bytes) -> None:
    """Bytes of an upstream, whole and in pieces: a head, its body, one end; what cannot be trusted ends the connection.

    How much of an answer that fails was passed on before depends on the pieces.
    """
    flags, stream = data[:1] or b"\0", data[1:]
    heard = []
    for size in (len(stream) or 1, (1, 3, 50)[flags[0] % 3]):
        case = Case(is_head=bool(flags[0] & 2))
        for at in range(0, len(stream), size):
            if not case.wire.aborted:
                case.connection.data_received(stream[at : at + size])
        if not case.wire.aborted:
            case.connection.eof_received()
            case.connection.connection_lost(None)
        kinds = [kind for kind in case.kinds if kind != "paused"]
        ends = [kind for kind in kinds if kind in ("end", "failed")]
        assert len(ends) == 1
        assert kinds.count("head") <= 1
        assert kinds[-1] == ends[0]
        assert ends == ["failed"] or kinds[0] == "head"
        heard.append((ends, case.heard.body if ends == ["end"] else b""))
    assert heard[0] == heard[1], heard


def shake_hands(data: bytes) -> None:
    """Whatever a client sends first ends in a wait or in our refusal."""
    server = test_tls.server().wrap_bio(incoming := ssl.MemoryBIO(), ssl.MemoryBIO(), server_side=True)
    incoming.write(data)
    for _ in range(2):
        with suppress(ssl.SSLError):
            server.do_handshake()
            raise AssertionError("nobody can have proven a key")
