"""Before TLS: addresses take turns, who has not said hello costs a descriptor, and who is cut leaves nothing (attacks C4).

The front of a gateway in this process, on a real socket; its loop goes on only while the test lets it.
"""

from __future__ import annotations

import asyncio
import gc
import select
import socket
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import uvloop

from edge.accept.deadlines import Deadlines
from edge.accept.shed import ShedSettings
from tests.wire.hello import Hello
from tests.wire.rig import GET, Rig, client_context
from tests.wire.test_deadlines import SHORT, Near, near

CROWD = 120
AT_EASE = 16
"""Of one address; more are a crowd."""
GARBAGE = b"\x16\x03\x01\x00\x05" + bytes(5)
PATIENT, QUICK = replace(SHORT, handshake_s=60), replace(SHORT, handshake_s=0.2)


class Crowd:
    """Sockets connected to one front. The kernel connects them, so its loop need not run meanwhile."""

    def __init__(self, there: Near, stack: ExitStack) -> None:
        self._port, self._stack = there.public, stack

    def connected(self, said: bytes, source: str = "127.0.0.1") -> socket.socket:
        raw = self._stack.enter_context(socket.create_connection(("127.0.0.1", self._port), 9, (source, 0)))
        if said:
            raw.sendall(said)
        return raw

    def of(self, count: int, said: bytes) -> list[socket.socket]:
        return [self.connected(said) for _ in range(count)]


@asynccontextmanager
async def crowding(running: Rig, tmp_path: Path, deadlines: Deadlines = PATIENT) -> AsyncIterator[tuple[Near, Crowd]]:
    directory = running.gateway.directory
    async with near(directory, tmp_path / "w.ring", ShedSettings(), deadlines=deadlines) as there:
        with ExitStack() as stack:
            yield there, Crowd(there, stack)


def heard(crowd: Sequence[socket.socket]) -> int:
    """How many of them have an answer, or an end."""
    return len(select.select(crowd, [], [], 0)[0])


async def until(is_so: Callable[[], bool], pause_s: float = 0.005) -> None:
    for _ in range(3000):
        if is_so():
            return
        await asyncio.sleep(pause_s)
    raise AssertionError("it never is")


@pytest.mark.parametrize("said", [GARBAGE, b"a hello"], ids=["garbage", "hellos"])
def test_one_address_does_not_stand_behind_the_crowd_of_another_C4(running: Rig, tmp_path: Path, said: bytes) -> None:
    async def scene() -> int:
        async with crowding(running, tmp_path) as (there, clients):
            hello = Hello(there, "localhost").flight()
            crowd = clients.of(CROWD, hello if said == b"a hello" else said)
            other = clients.connected(hello, "127.0.0.2")
            await until(lambda: heard([other]) == 1, 0)  # turn by turn
            before = heard(crowd)
            await until(lambda: heard(crowd) == CROWD)
            return before

    assert uvloop.run(scene()) <= CROWD // 4


def of_tls() -> Counter[str]:
    """Objects of a TLS connection that this process has, those included that wait for the collector."""
    names = [type(each).__name__ for each in gc.get_objects()]
    return Counter(name for name in names if name in ("_Accepted", "SSLProtocol", "TCPTransport", "Http1", "Message"))


def test_of_a_crowd_who_has_not_said_hello_costs_a_descriptor_until_it_is_cut_C4(running: Rig, tmp_path: Path) -> None:
    async def scene() -> None:
        async with crowding(running, tmp_path, QUICK) as (there, clients):
            shed, before = there.front.shared.shed, of_tls()
            half = Hello(there, "localhost").flight()[:-1]
            crowd = [*clients.of(20, b""), *clients.of(20, half[:3]), *clients.of(20, half)]
            await until(lambda: shed.open_total == 60)
            await asyncio.sleep(0.05)  # a few turns
            assert max((of_tls() - before).values()) == AT_EASE
            await until(lambda: shed.open_total == 0)
            assert heard(crowd) == 60

    uvloop.run(scene())


def test_who_leaves_before_hello_is_given_back_at_once_C4(running: Rig, tmp_path: Path) -> None:
    async def scene() -> None:
        async with crowding(running, tmp_path) as (there, clients):
            shed = there.front.shared.shed
            for said in (b"", b"\x16\x03"):
                crowd = clients.of(20, said)
                await until(lambda: shed.open_total == 20)
                for raw in crowd:
                    raw.close()
                await until(lambda: shed.open_total == 0)

    uvloop.run(scene())


def test_a_gate_that_closes_shakes_hands_with_whom_it_accepted(running: Rig, tmp_path: Path) -> None:
    def asked(raw: socket.socket) -> bytes:
        with client_context(there_is, "http/1.1").wrap_socket(raw, server_hostname="localhost") as tls:
            tls.sendall(GET)
            return tls.recv(12)

    there_is = running.gateway

    async def scene() -> bytes:
        async with crowding(running, tmp_path) as (there, clients):
            raw = clients.connected(b"")
            await until(lambda: there.front.shared.shed.open_total == 1)
            there.gate.close()
            return await asyncio.get_running_loop().run_in_executor(None, asked, raw)

    assert uvloop.run(scene()) == b"HTTP/1.1 200"


def asked_and_closed(clients: Crowd, context: ssl.SSLContext) -> None:
    with context.wrap_socket(clients.connected(b""), server_hostname="localhost") as tls:
        tls.sendall(GET.replace(b"/7", b"/%d" % tls.getsockname()[1]))  # a head that was not met before
        assert tls.recv(12) == b"HTTP/1.1 200"


def test_who_is_gone_leaves_nothing_to_the_collector_C4(running: Rig, tmp_path: Path) -> None:
    """It comes when many objects were made, however large they are; a flood must not hold its buffers until then."""

    async def scene() -> Counter[str]:
        async with crowding(running, tmp_path, QUICK) as (there, clients):
            shed, loop = there.front.shared.shed, asyncio.get_running_loop()
            hello = Hello(there, "localhost").flight()
            context = client_context(running.gateway, "http/1.1")
            await loop.run_in_executor(None, asked_and_closed, clients, context)  # what is made once, and kept
            await until(lambda: shed.open_total == 0)
            before = of_tls()
            for said in (b"", hello[:50], hello, GARBAGE, b"GET / HTTP/1.1\r\n\r\n"):
                crowd = clients.of(10, said)
                await asyncio.sleep(0.05)  # for the loop to take them
                for raw in crowd[:5]:
                    raw.close()
                await until(lambda: shed.open_total == 0)
            for _ in range(5):
                await loop.run_in_executor(None, asked_and_closed, clients, context)
            await until(lambda: shed.open_total == 0)
            await asyncio.sleep(0.05)  # for the loop to let go of what it has closed
            return of_tls() - before

    gc.collect()
    gc.disable()
    try:
        assert uvloop.run(scene()) == Counter()
    finally:
        gc.enable()
