"""Deadlines that really cut: the front of the gateway in this process, with seconds made short, on a real socket over TLS."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import uvloop

from edge import assemble
from edge.accept.shed import ShedSettings
from edge.accept.tls import public_context
from edge.audit.drain import RingReader
from edge.audit.io_recorder import open_recorder
from edge.audit.ring import Ring
from edge.config.io_load import load
from edge.config.parse import parse
from edge.dataplane import DataPlane
from edge.front import Deadlines, Front, Gate, Http1, Http2, HypercornHttp2
from edge.limit.store import StoreSettings
from edge.observe import ROW_BYTES, Observer
from edge.timers import Timers
from tests.e2e.whole_gateway import eventually
from tests.wire.rig import GET, HEAD, Client, Rig

SHORT = Deadlines(
    handshake_s=0.5, head_s=0.5, idle_s=0.5, body_s=0.5, write_s=0.5, linger_s=0.3, least_bytes_per_s=1000.0
)
BIG = 8 << 20
BIG_GET = b"GET /orders/big HTTP/1.1\r\n" + HEAD
POST = b"POST /orders/x HTTP/1.1\r\n" + HEAD + b"Content-Length: 100000\r\n\r\n"


class Near:
    """Where the short-lived front listens, and what it thinks of its connections."""

    def __init__(self, directory: Path, front: Front, gate: Gate, port: int) -> None:
        self.directory, self.front, self.gate, self.public = directory, front, gate, port

    def client(self) -> Client:
        return Client(self, "localhost")


@asynccontextmanager
async def near(
    directory: Path, ring_path: Path, shed: ShedSettings, *, http2: str = "front", deadlines: Deadlines = SHORT
) -> AsyncIterator[Near]:
    """The parts of a worker that serve the public, without its processes."""
    loop = asyncio.get_running_loop()
    config = parse(load(directory / "edge.yaml", os.environ))
    object.__setattr__(config, "shed", shed)
    ring = Ring.create(ring_path, "worker-0")
    reader = RingReader.attach(ring_path, "worker-0")
    reader.beat(time.monotonic_ns())
    recorder = open_recorder(ring, config.audit, b"k" * 32)
    unexpected: list[BaseException] = []
    observer = Observer(memoryview(bytearray(ROW_BYTES)))
    shared = assemble.open_shared(
        config,
        recorder,
        StoreSettings(socket_path="/nowhere"),
        loop,
        unexpected.append,
        observer,
        lambda where, turn: None,
    )
    gateway = assemble.build(config, shared)
    assemble.adopt(config, gateway, shared, None)
    front = Front(gateway, shared, deadlines, Http1)
    streams = DataPlane(front)
    if http2 == "front":
        front.take_http2 = lambda transport: Http2(front, transport)
    else:
        front.take_http2 = lambda transport: HypercornHttp2(front, transport, streams)
    public = config.listeners.public
    context = public_context(public.shown, public.alpn)
    listening = socket.create_server(("127.0.0.1", 0))
    public_port = listening.getsockname()[1]
    gate = Gate(front, listening, context)
    timers = Timers(lambda _, exc: unexpected.append(exc))
    timers.every(0.05, "deadlines", front.sweep)
    timers.every(0.05, "stream deadlines", streams.sweep)
    timers.every(0.05, "beat", lambda: reader.beat(time.monotonic_ns()))
    try:
        yield Near(directory, front, gate, public_port)
        assert not unexpected
    finally:
        gate.close()
        front.begin_drain()
        await front.drained(0.1)
        await timers.close()
        await assemble.close(shared, gateway)
        ring.close()


Attack = Callable[[Near], None]


async def play(there: Near, attack: Attack, pool: ThreadPoolExecutor) -> float:
    """How long the attack, which ends when it is cut, could hold on."""
    began = time.monotonic()
    await asyncio.get_running_loop().run_in_executor(pool, attack, there)
    return time.monotonic() - began


def until_cut(client: Client, say: bytes = b"", every_s: float = 0.05, at_most_s: float = 9) -> None:
    """Send `say` again and again, reading nothing, until the other side is gone."""
    end = time.monotonic() + at_most_s
    client.tls.settimeout(every_s)
    with client:
        while time.monotonic() < end:
            try:
                if say:
                    client.tls.sendall(say)
                    time.sleep(every_s)
                elif client.tls.recv(1) == b"":
                    return
            except TimeoutError:
                continue
            except OSError:
                return
    raise AssertionError("it was never cut")


def says_nothing(there: Near) -> None:
    until_cut(there.client())


def dribbles_a_head(there: Near) -> None:
    until_cut(there.client().send(b"GET /orders/7 HTTP/1.1\r\n"), b"X-A: b\r\n")


def dribbles_empty_lines(there: Near) -> None:
    until_cut(there.client(), b"\r\n")


def rests_after_an_answer(there: Near) -> None:
    client = there.client()
    assert client.send(GET).answer().status == 200
    until_cut(client)


def dribbles_a_second_head(there: Near) -> None:
    client = there.client()
    assert client.send(GET).answer().status == 200
    until_cut(client.send(b"GET"), b"T")


def stops_in_its_body(there: Near) -> None:
    until_cut(there.client().send(POST + b"begin"))


def dribbles_a_body(there: Near) -> None:
    until_cut(there.client().send(POST), b"x")


def dribbles_chunks(there: Near) -> None:
    chunked = POST.replace(b"Content-Length: 100000", b"Transfer-Encoding: chunked")
    until_cut(there.client().send(chunked), b"1\r\nx\r\n")


def dribbles_an_extension(there: Near) -> None:
    chunked = POST.replace(b"Content-Length: 100000", b"Transfer-Encoding: chunked")
    until_cut(there.client().send(chunked + b"1;"), b"x")


def waits_after_expect(there: Near) -> None:
    client = there.client().send(POST.replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n"))
    assert client.answer().status == 100
    until_cut(client)


def never_closes(there: Near) -> None:
    client = there.client().send(GET[:-2] + b"Connection: close\r\n\r\n")
    assert client.answer().status == 200
    until_cut(client)


def keeps_sending_after_a_refusal(there: Near) -> None:
    client = there.client().send(POST.replace(b"/orders/", b"/nowhere/"))
    until_cut(client, b"x" * 1000)


def half_a_handshake(there: Near) -> None:
    with socket.create_connection(("127.0.0.1", there.public), 4) as raw:
        raw.sendall(b"\x16\x03\x01\x02\x00\x01")
        assert raw.recv(1) == b""


def takes_nothing(there: Near, extra: bytes = b"") -> None:
    with there.client() as client:
        client.send(BIG_GET + extra + b"\r\n")
        end = time.monotonic() + 9
        time.sleep(0.1)
        while there.front.connections:  # seen from inside: what the kernel holds is not the gateway's any more
            assert time.monotonic() < end, "it was never cut"
            time.sleep(0.01)


def takes_nothing_of_a_last_answer(there: Near) -> None:
    takes_nothing(there, b"Connection: close\r\n")


def takes_slowly(there: Near, extra: bytes = b"") -> None:
    with there.client() as client:
        client.send(BIG_GET + extra + b"\r\n")
        got = 0
        while got < BIG:
            piece = client.tls.recv(16_384)
            assert piece, f"cut after {got}"
            got += len(piece)
            time.sleep(0.003)


def takes_a_last_answer_slowly(there: Near) -> None:
    takes_slowly(there, b"Connection: close\r\n")


def sends_slowly(there: Near) -> None:
    with there.client() as client:
        client.send(POST)
        for _ in range(20):
            client.send(bytes(5000))
            time.sleep(0.06)
        assert client.answer().status == 200


def rests_after_a_large_answer(there: Near) -> None:
    client = there.client().send(BIG_GET + b"\r\n")
    time.sleep(0.2)  # long enough for the gateway to be held up by us
    assert len(client.answer().body) == BIG
    until_cut(client)


ENDS: dict[Attack, tuple[float, float]] = {
    says_nothing: (0, 2),
    dribbles_a_head: (0, 2),
    dribbles_empty_lines: (0, 2),
    rests_after_an_answer: (0, 2),
    dribbles_a_second_head: (0, 2),
    stops_in_its_body: (0, 2),
    dribbles_a_body: (0, 2),
    dribbles_chunks: (0, 2),
    dribbles_an_extension: (0, 2),
    waits_after_expect: (0, 2),
    never_closes: (0, 2),
    keeps_sending_after_a_refusal: (0, 2),
    half_a_handshake: (0, 2),
    takes_nothing: (0, 3),
    takes_nothing_of_a_last_answer: (0, 3),
    rests_after_a_large_answer: (0, 3),
    takes_slowly: (2 * SHORT.write_s, 9),
    takes_a_last_answer_slowly: (2 * SHORT.write_s, 9),
    sends_slowly: (2 * SHORT.body_s, 9),
}
"""At least and at most so many seconds: who holds on is cut, and who is slow but goes on is not."""

ALONE = (takes_nothing, takes_nothing_of_a_last_answer)


def is_kept(attack: Attack, found: float | BaseException) -> bool:
    least_s, most_s = ENDS[attack]
    return not isinstance(found, BaseException) and least_s < found < most_s


@pytest.fixture(scope="module")
def held(running: Rig, tmp_path_factory: pytest.TempPathFactory) -> dict[Attack, float | BaseException]:
    """All at once: they wait, mostly. Who was too early or too late plays again: the deadlines are as short as a busy
    machine stands still, and what is wrong is wrong each time."""
    running.upstream.by_target[b"/orders/big"] = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % BIG + bytes(BIG)

    async def all_of_them() -> dict[Attack, float | BaseException]:
        ring = tmp_path_factory.mktemp("ring") / "w.ring"
        async with near(running.gateway.directory, ring, ShedSettings()) as there:
            with ThreadPoolExecutor(len(ENDS)) as pool:
                together = [attack for attack in ENDS if attack not in ALONE]
                found = await asyncio.gather(
                    *(play(there, attack, pool) for attack in together), return_exceptions=True
                )
                end = time.monotonic() + 9
                while there.front.connections:
                    assert time.monotonic() < end, "connections are left"
                    await asyncio.sleep(0.01)
                outcomes = dict(zip(together, found, strict=True))
                for attack in (*ALONE, *ALONE, *together, *together):
                    if attack not in outcomes or not is_kept(attack, outcomes[attack]):
                        (outcomes[attack],) = await asyncio.gather(play(there, attack, pool), return_exceptions=True)
        return outcomes

    return uvloop.run(all_of_them())


@pytest.mark.parametrize("attack", ENDS, ids=lambda attack: attack.__name__)
def test_who_holds_on_is_cut_and_who_goes_on_is_not_C4(
    held: dict[Attack, float | BaseException], attack: Attack
) -> None:
    found = held[attack]
    if isinstance(found, BaseException):
        raise found
    assert is_kept(attack, found), found


def crowded(running: Rig, tmp_path: Path, crowd: Attack) -> None:
    """Play it against a front that lets each address have two connections."""

    async def alone() -> None:
        shed = ShedSettings(max_connections_per_prefix=2)
        async with near(running.gateway.directory, tmp_path / "w.ring", shed) as there:
            with ThreadPoolExecutor(1) as pool:
                await play(there, crowd, pool)

    uvloop.run(alone())


def is_let_in(there: Near) -> bool:
    try:
        with there.client() as client:
            return client.send(GET).answer().status == 200
    except (OSError, EOFError):
        return False


def test_one_address_has_so_many_connections_and_gets_them_back_C4(running: Rig, tmp_path: Path) -> None:
    def crowd(there: Near) -> None:
        clients = [there.client() for _ in range(2)]
        assert [client.send(GET).answer().status for client in clients] == [200, 200]
        assert not is_let_in(there)
        clients[0].close()
        eventually(lambda: len(there.front.connections) == 1, 15)
        assert is_let_in(there)
        for client in clients:
            client.close()

    crowded(running, tmp_path, crowd)


def test_handshakes_that_never_end_count_until_they_are_cut_C4(running: Rig, tmp_path: Path) -> None:
    def crowd(there: Near) -> None:
        half = [socket.create_connection(("127.0.0.1", there.public), 4) for _ in range(2)]
        eventually(lambda: there.front.shared.shed.open_total == 2, 15)
        assert not is_let_in(there)
        eventually(lambda: there.front.shared.shed.open_total == 0, 15)
        assert is_let_in(there)
        assert [each.recv(1) for each in half] == [b"", b""]
        for each in half:
            each.close()

    crowded(running, tmp_path, crowd)


def test_failed_handshakes_are_given_back_C4(running: Rig, tmp_path: Path) -> None:
    def crowd(there: Near) -> None:
        for _ in range(4):
            with socket.create_connection(("127.0.0.1", there.public), 4) as raw:
                raw.sendall(b"GET / HTTP/1.1\r\n\r\n")
                assert len(raw.recv(100)) in (0, 7)  # an alert, perhaps
            with pytest.raises(OSError):
                Client(there, "elsewhere.example")
            eventually(lambda: there.front.shared.shed.open_total == 0, 15)
        assert is_let_in(there)

    crowded(running, tmp_path, crowd)
