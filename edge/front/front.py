"""The public listener's side of every shell: makes a protocol per connection, knows them all, sweeps and drains them."""

from __future__ import annotations

import asyncio
import time
from abc import abstractmethod
from collections.abc import Callable
from email.utils import formatdate
from typing import TYPE_CHECKING

from edge.accept import proxies
from edge.accept.deadlines import Deadlines
from edge.accept.peer import Transport, peer_of
from edge.accept.pressure import Reading
from edge.downstream import Shared
from edge.front import tunnels
from edge.front.heads import KnownBlocks, KnownHeads
from edge.model.http import RawField
from edge.model.identity import Peer
from edge.pipeline import Gateway
from edge.tunnel import Tunnel
from edge.writes import Writes

if TYPE_CHECKING:
    from edge.front.http2_stream import Stream

SWEEP_S = 0.25
"""From one look at all connections to the next."""


class Connection(asyncio.Protocol):
    """What the front asks of one downstream connection, whatever it speaks."""

    peer: Peer

    @abstractmethod
    def close_if_idle(self) -> None: ...

    @abstractmethod
    def check_deadline(self, now_s: float) -> None: ...

    @abstractmethod
    def cut(self) -> None: ...

    def waiting_bytes(self) -> int:
        """What is kept for this client: of answers that it does not take, of requests that were not read yet."""
        return 0

    def cut_late(self, rule: str) -> None:
        """It had its time (`deadline`), holds what others need (`held-bytes`), or was `revoked`: the log of a request under
        way says which."""
        self.cut()


class Front:
    """Makes a protocol for each connection of the public listener, and knows them all.

    Owner of `gateway`: the worker's reload, which swaps the reference; each request reads it once, at its start.
    """

    def __init__(
        self,
        gateway: Gateway,
        shared: Shared,
        deadlines: Deadlines,
        protocol: Callable[[Front], Connection],
        heads: KnownHeads | None = None,
    ) -> None:
        """`heads`: what HTTP/1.1 remembers of them; None: as many as a worker may."""
        self._gateway = gateway
        self.heads = heads or KnownHeads()
        self.blocks = KnownBlocks()
        self.shared = shared
        self.deadlines = deadlines
        self.connections: set[Connection] = set()
        self.tunnels: set[Tunnel] = set()
        """Every open WebSocket that began here; each leaves by itself."""
        self.writes = Writes(shared.loop.call_soon)
        """Sends the answers of HTTP/1.1; HTTP/2 gathers its own."""
        self._protocol = protocol
        self.take_http2: Callable[[asyncio.Transport], object] | None = None
        """Given each connection that chose `h2` with what it counts for, before a byte of it was read. None: not offered."""
        self.take_tunnel: Callable[[Stream, list[RawField]], None] | None = None
        """Given each head of `front/http2` that asks for a WebSocket, as HPACK gave it; attaches to the stream and answers
        (RFC 8441). None: extended CONNECT is not offered. Read when a connection begins."""
        self.is_draining = False
        self._date_s = 0
        self._date_line = b""
        self._all_gone: asyncio.Event | None = None
        self._weighed_s = shared.loop.time()
        self._computed_s = time.process_time()

    @property
    def gateway(self) -> Gateway:
        """The generation that decides. A request reads it once, at its start."""
        return self._gateway

    @gateway.setter
    def gateway(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self.heads.clear()
        self.blocks.clear()
        if self.tunnels:
            self.shared.spawn(tunnels.reconsider(self.tunnels, gateway))

    def __call__(self) -> asyncio.Protocol:
        return self._protocol(self)

    def peer_of(self, transport: Transport) -> Peer:
        """The other end of a connection whose handshake is done."""
        peer = peer_of(transport)
        if self._gateway.proxies.trusts(peer.ip):
            peer.behind = proxies.behind(peer, lambda: self._gateway.proxies)
        return peer

    def date_line(self) -> bytes:
        """`Date` (RFC 9110 §6.6.1), made once a second."""
        now_s = int(time.time())
        if now_s != self._date_s:
            self._date_s = now_s
            self._date_line = b"date: %b\r\n" % formatdate(now_s, usegmt=True).encode("ascii")
        return self._date_line

    def sweep(self) -> None:
        """Cut what is past its deadline; called each `SWEEP_S` by a timer."""
        now_s = self.shared.loop.time()
        for connection in list(self.connections):
            connection.check_deadline(now_s)
        tunnels.sweep(self.tunnels, now_s)

    def weigh(self) -> None:
        """See how much this worker bears; called each `SWEEP_S` by a timer, of the public listener's front alone."""
        now_s, computed_s = self.shared.loop.time(), time.process_time()
        shed = self.shared.shed
        held_bytes = sum(connection.waiting_bytes() for connection in self.connections)
        lag_s = min(now_s - self._weighed_s - SWEEP_S, computed_s - self._computed_s)
        self._weighed_s, self._computed_s = now_s, computed_s
        shed.pressure.weigh(Reading(lag_s, held_bytes, *self.shared.recorder.room))
        if held_bytes > shed.max_held_bytes:
            self._relieve(held_bytes - shed.max_held_bytes)

    def _relieve(self, bytes_too_many: int) -> None:
        """Cut those for whom most is held: they are behind anyway, and everybody else would be refused for them."""
        for connection in sorted(self.connections, key=lambda each: each.waiting_bytes(), reverse=True):
            if bytes_too_many <= 0:
                return
            bytes_too_many -= connection.waiting_bytes()
            connection.cut_late("held-bytes")

    def begin_retire(self) -> None:
        """Another process takes the new connections: whoever is answered here from now on is told to connect anew.

        An idle connection is not closed yet: a request may be on its way on it (RFC 9112 §9.3.1), and would be lost.
        """
        self.is_draining = True

    def begin_drain(self) -> None:
        """Idle connections close now, busy ones after the answer under way; WebSockets are told to go."""
        self.is_draining = True
        tunnels.drain(self.tunnels)
        for connection in list(self.connections):
            connection.close_if_idle()

    async def emptied(self, timeout_s: float) -> bool:
        """Wait until every connection is gone, at most `timeout_s`."""
        self._all_gone = asyncio.Event()
        if self.connections:
            try:
                async with asyncio.timeout(timeout_s):
                    await self._all_gone.wait()
            except TimeoutError:
                return False
        return True

    async def drained(self, timeout_s: float) -> bool:
        """As `emptied`, but what is left at the end is aborted."""
        if await self.emptied(timeout_s):
            return True
        for connection in list(self.connections):
            connection.cut()
        return False

    def forget(self, connection: Connection) -> None:
        self.connections.discard(connection)
        if not self.connections and self._all_gone is not None:
            self._all_gone.set()
