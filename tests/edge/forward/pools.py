"""A pool whose connections are made as a test says: the far side of the wall, in memory."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Coroutine, Sequence
from random import Random
from typing import Any

from edge.errors import UpstreamError
from edge.forward.balance import DEFAULT, BalanceSettings
from edge.forward.endpoint import Endpoint
from edge.forward.fleet import Fleet
from edge.forward.http1 import UpstreamConnection
from edge.forward.io_pool import Pinned, Pool, PoolKey
from edge.forward.io_proof import UpstreamTrust
from edge.model.http import RawField
from edge.model.record import UpstreamFacts
from edge.model.route import Upstream
from edge.registry.roster import Roster
from edge.writes import Writes
from pki.svid import VerifiedSvid
from tests.edge.forward.house import to
from tests.edge.forward.transcript import Clock

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
_FAR_S = 4e9
_CONTEXT = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


class Wire(asyncio.Transport):
    """The upstream's socket; what is aborted is lost at once."""

    def __init__(self, connection: UpstreamConnection) -> None:
        super().__init__()
        self.written = b""
        self.connection = connection
        self._is_lost = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += data

    def is_closing(self) -> bool:
        return self._is_lost

    def abort(self) -> None:
        if not self._is_lost:
            self._is_lost = True
            self.connection.connection_lost(None)


class Listener:
    """The exchange, which hears everything and says nothing."""

    def on_upstream_head(
        self, status: int, fields: Sequence[RawField], content_length: int | None, *, has_body: bool
    ) -> None: ...

    def on_upstream_body(self, body: bytes) -> None: ...

    def on_upstream_end(self) -> None: ...

    def on_upstream_flush(self) -> None: ...

    def on_upstream_failed(self, error: UpstreamError) -> None: ...

    def on_upstream_paused(self, *, is_paused: bool) -> None: ...


class Dialling(Pool):
    """`reach` is awaited before a connection stands; `wires` are the sockets of those that do, oldest first."""

    def __init__(self, settings: BalanceSettings = DEFAULT, *upstreams: Upstream) -> None:
        loop = asyncio.get_running_loop()
        self.roster = Roster()
        super().__init__(loop, Fleet(self.roster, Random(1).random), lambda where, turn: None)
        self.reach: Callable[[tuple[str, int]], Coroutine[Any, Any, None]] = _reached
        self.wires: list[Wire] = []
        self.generation = 1
        self.renew()
        self.configure({"orders": settings}, upstreams)

    def renew(self) -> None:
        self.generation += 1
        self.trust(UpstreamTrust(self.generation, b"", _CONTEXT, _CONTEXT, _nobody))

    async def _dial_one(self, upstream: Upstream, address: tuple[str, int]) -> Pinned:
        await self.reach(address)
        connection = UpstreamConnection(self._on_idle, self._on_gone, Writes(lambda end: end()), Clock().call_later)
        self.wires.append(Wire(connection))
        connection.connection_made(self.wires[-1])
        facts = UpstreamFacts(upstream.service, upstream.spiffe_id, "1", f"{address[0]}:{address[1]}", 1)
        key = PoolKey(upstream.spiffe_id, address, self.generation)
        pinned = Pinned(key, connection, facts, (), born_s=self._loop.time(), not_after_s=_FAR_S)
        self._all[connection] = connection.pinned = pinned
        return pinned

    def back(self, pinned: Pinned) -> None:
        """Its answer is complete."""
        self._on_idle(pinned.connection)

    def at(self, address: tuple[str, int]) -> Endpoint:
        return next(each for each in self.fleet.endpoints() if each.address == address)

    async def ask(self, where: Upstream) -> Pinned:
        """What an exchange does."""
        addresses = self.addresses(to(where))
        pinned = self.acquire(addresses[0]) or await self.dial(where, addresses)
        pinned.connection.start(Listener(), b"", is_head_method=False, is_complete=True)
        return pinned


def _nobody(handshake: ssl.SSLObject, spiffe_id: str) -> VerifiedSvid:
    raise AssertionError("nobody shook hands")


async def _reached(address: tuple[str, int]) -> None:
    pass


def answer(pinned: Pinned, raw: bytes = OK) -> None:
    pinned.connection.data_received(raw)
