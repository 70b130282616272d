"""Clients that hold on: many connections of each kind, in waves of kinds, while others are served.

Each kind ends when the gateway cuts it, which must happen by its deadline and not before; nothing is asked of the gateway but
what a client sees, and how large the worker is. What the kernel holds for a client that reads nothing is let go with the
connection, too: the cut is a reset.
"""

from __future__ import annotations

import asyncio
import select
import socket
import ssl
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from edge.accept.deadlines import Deadlines
from edge.serve.children import set_limits
from tests.e2e.load import Load
from tests.e2e.upstream import Upstream
from tests.e2e.whole_gateway import Gateway, Variant, make
from tests.wire.rig import EDGE_YAML, GET, HEAD, POLICY, ROUTES, SERVICES

SLACK_S = 6.0
"""The sweep looks four times a second, and this process has a thousand clients to wake."""
EARLY = 0.95
"""Of a deadline: a loop's clock stands still while it works."""
BIG = 4 << 20
MOST_MIB = 64.0
BASE_MIB = 16.0
"""What a few of each may cost: the load beside them, and what is made once."""
MIB_OF_ONE_OF_EACH = 0.24
LEFT = 0.3
"""Of what the worker may have grown: so much may be left when all are gone, in pieces that something lives in."""
GIVEN_BACK_S = 20.0
POST = b"POST /orders/x HTTP/1.1\r\n" + HEAD
GONE_S = 150.0

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Kind = Callable[[Streams], Awaitable[None]]


@dataclass
class Outcome:
    """What the campaign saw."""

    held_s: dict[str, tuple[float, float]] = field(default_factory=dict)
    """By kind: how long the first and the last could hold on."""
    grown_mib: list[float] = field(default_factory=list)
    """By wave: above what the worker had before it."""
    left_mib: list[float] = field(default_factory=list)
    """The same, when all were gone."""
    served: int = 0
    slowest_s: float = 0.0
    median_s: float = 0.0


class Dial:
    """How a client reaches the gateway."""

    def __init__(self, gateway: Gateway) -> None:
        self._port = gateway.public
        trust = gateway.directory / "state" / "identity" / "public" / "bundle.pem"
        self._context = ssl.create_default_context(cafile=trust)
        self._context.set_alpn_protocols(["http/1.1"])
        self._turn = asyncio.Semaphore(20)  # else the first have no time left when the last have shaken hands

    def _socket(self) -> socket.socket:
        raw = socket.socket()
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)  # so that little fits into the kernel between us
        raw.setblocking(False)
        return raw

    async def tcp(self) -> Streams:
        raw = self._socket()
        await asyncio.get_running_loop().sock_connect(raw, ("127.0.0.1", self._port))
        return await asyncio.open_connection(sock=raw)

    async def tls(self) -> Streams:
        async with self._turn:
            raw = self._socket()
            await asyncio.get_running_loop().sock_connect(raw, ("127.0.0.1", self._port))
            streams = await asyncio.open_connection(
                sock=raw, ssl=self._context, server_hostname="localhost", limit=4096
            )
            streams[1].transport.set_read_buffer_limits(high=4096)  # type: ignore[attr-defined]
            return streams


async def until_cut(streams: Streams, say: bytes = b"", every_s: float = 0.5, *, reads: int = 4096) -> None:
    """Say it, and read so much, again and again until the other side is gone."""
    reader, writer = streams
    watch = select.poll()
    watch.register(writer.get_extra_info("socket").fileno(), 0)  # errors and hang-ups only: nothing is read
    try:
        while not watch.poll(0):
            if say:
                writer.write(say)
            next_s = asyncio.get_running_loop().time() + every_s
            with suppress(TimeoutError):
                async with asyncio.timeout_at(next_s):
                    if reads and await reader.read(reads) == b"":
                        return
            async with asyncio.timeout_at(next_s + 1):
                await asyncio.sleep(next_s - asyncio.get_running_loop().time())
    except OSError:
        pass
    finally:
        writer.transport.abort()


async def slow_handshake(streams: Streams) -> None:
    streams[1].write(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
    await until_cut(streams, b"\x00")


async def silence(streams: Streams) -> None:
    await until_cut(streams)


async def slow_head(streams: Streams) -> None:
    streams[1].write(b"GET /orders/7 HTTP/1.1\r\nX-A: ")
    await until_cut(streams, b"b")


async def slow_body(streams: Streams) -> None:
    streams[1].write(POST + b"Content-Length: 1000000\r\n\r\n")
    await until_cut(streams, b"b" * 25)


async def slow_chunks(streams: Streams) -> None:
    streams[1].write(POST + b"Transfer-Encoding: chunked\r\n\r\n")
    await until_cut(streams, b"1\r\nb\r\n")


async def no_read(streams: Streams) -> None:
    writer = streams[1]
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    writer.write(b"GET /orders/big HTTP/1.1\r\n" + HEAD + b"\r\n")
    await until_cut(streams, reads=0)


async def slow_read(streams: Streams) -> None:
    """200 bytes a second, which is less than the least rate."""
    streams[1].write(b"GET /orders/big HTTP/1.1\r\n" + HEAD + b"\r\n")
    await until_cut(streams, reads=100)


async def idle(streams: Streams) -> None:
    reader, writer = streams
    writer.write(GET)
    await reader.readuntil(b"ok")
    await until_cut(streams)


def kinds(deadlines: Deadlines) -> dict[Kind, tuple[float, float]]:
    """Each kind, and when it is cut: at the earliest and at the latest, in seconds from when it was connected."""
    return {
        slow_handshake: (deadlines.handshake_s, deadlines.handshake_s),
        silence: (deadlines.head_s, deadlines.head_s),
        slow_head: (deadlines.head_s, deadlines.head_s),
        slow_body: (deadlines.body_s, deadlines.body_s * 1.5),  # what came was counted to its credit
        slow_chunks: (deadlines.body_s, deadlines.body_s * 1.5),
        no_read: (deadlines.write_s, 2 * deadlines.write_s),
        slow_read: (deadlines.write_s, 2 * deadlines.write_s),
        idle: (deadlines.idle_s, deadlines.idle_s),
    }


async def hold(kind: Kind, dial: Dial) -> tuple[float, float]:
    """How long it could hold on: from before its first packet, and from the end of its handshake. The gateway's clock began
    somewhere between the two."""
    before_s = time.monotonic()
    streams = await (dial.tcp() if kind is slow_handshake else dial.tls())
    began_s = time.monotonic()
    with suppress(OSError):
        await kind(streams)
    ended_s = time.monotonic()
    return ended_s - before_s, ended_s - began_s


WAVES: tuple[tuple[Kind, ...], ...] = (
    (no_read,),
    (slow_read,),
    (slow_handshake, silence, slow_head, slow_body, slow_chunks, idle),
)
"""What comes at once in a large campaign. The memory is bounded for each wave: those that take nothing cost most."""


async def attack(gateway: Gateway, wave: Sequence[Kind], each: int, outcome: Outcome) -> None:
    """Some kinds at once, and a look at the worker twice a second."""
    before = largest = resident_bytes(gateway)
    dial = Dial(gateway)
    runs = {kind: [asyncio.create_task(hold(kind, dial)) for _ in range(each)] for kind in wave}
    everyone = asyncio.gather(*(task for tasks in runs.values() for task in tasks))
    try:
        async with asyncio.timeout(GONE_S):
            while not everyone.done():
                largest = max(largest, resident_bytes(gateway))
                await asyncio.wait([everyone], timeout=0.5)
            await everyone
    finally:
        everyone.cancel()
    for kind, tasks in runs.items():
        held = [task.result() for task in tasks]
        first_s, last_s = min(longer for longer, _ in held), max(shorter for _, shorter in held)
        outcome.held_s[kind.__name__] = (round(first_s, 1), round(last_s, 1))
    outcome.grown_mib.append(round((largest - before) / (1 << 20), 1))
    end_s = time.monotonic() + GIVEN_BACK_S
    while True:
        left_mib = round((resident_bytes(gateway) - before) / (1 << 20), 1)
        if left_mib <= LEFT * most_mib(each) or time.monotonic() > end_s:
            outcome.left_mib.append(left_mib)
            return
        await asyncio.sleep(0.5)


def most_mib(each: int) -> float:
    """What the worker may grow."""
    return min(MOST_MIB, BASE_MIB + each * MIB_OF_ONE_OF_EACH)


def resident_bytes(gateway: Gateway) -> int:
    pid = gateway.children()["edge-worker"]
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096


def campaign(directory: Path, each: int, deadlines: Deadlines, waves: Sequence[Sequence[Kind]] = WAVES) -> Outcome:
    """`each` connections of each kind."""
    set_limits()
    names = ("handshake_s", "head_s", "idle_s", "body_s", "write_s")
    table = ", ".join(f"{name}: {getattr(deadlines, name)}" for name in names)
    make(directory, Variant(EDGE_YAML.replace("HTTP2", "front") + f"deadlines: {{{table}}}\n", SERVICES, POLICY))
    upstream = Upstream(directory / "orders")
    upstream.patience_s = GONE_S  # it is the gateway that must not wait
    (directory / "policies" / "routes.yaml").write_text(ROUTES.format(port=upstream.port))
    upstream.by_target[b"/orders/big"] = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % BIG + bytes(BIG)
    gateway = Gateway(directory)
    outcome = Outcome()
    try:
        load = Load(gateway, 2, pause_s=0.02)
        for wave in waves:
            asyncio.run(attack(gateway, wave, each, outcome))
        load.end()
        assert gateway.stop() == 0
    finally:
        if gateway.process.poll() is None:
            gateway.process.kill()
            gateway.ended()
        upstream.close()
    took_s = sorted(call.ended_s - call.began_s for call in load.calls)
    outcome.served, outcome.slowest_s, outcome.median_s = len(took_s), round(took_s[-1], 3), statistics.median(took_s)
    judge(load, each, deadlines, outcome)
    return outcome


def judge(load: Load, each: int, deadlines: Deadlines, outcome: Outcome) -> None:
    """Everybody was cut in time, everybody else was served, and the memory was bounded."""
    for kind, (least_s, most_s) in kinds(deadlines).items():
        first_s, last_s = outcome.held_s[kind.__name__]
        assert first_s >= EARLY * least_s, (kind.__name__, "was cut early", outcome)
        assert last_s <= most_s + SLACK_S, (kind.__name__, "was cut late", outcome)
    assert not load.failures, load.failures[:3]
    assert {call.status for call in load.calls} == {200}
    assert max(outcome.grown_mib) <= most_mib(each), outcome
    assert max(outcome.left_mib) <= LEFT * most_mib(each), outcome
