"""The upstream of a sidecar: one service on this machine, in plain HTTP/1.1, over loopback or a unix socket.

A gateway cannot have such an upstream. No setting leads here: the only file that imports this is the composition root of
`edge attach`, and a test holds that. What is accepted as a target cannot leave the machine: addresses are loopback literals,
never names that somebody else resolves.

    http://127.0.0.1:8001   http://[::1]:8001   http://localhost:8001   unix:/run/orders.sock
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import time
from collections import deque
from dataclasses import dataclass

from edge.errors import UpstreamTimeout, UpstreamUnreachable
from edge.forward.endpoint import Address, Endpoint, spell
from edge.forward.http1 import UpstreamConnection
from edge.forward.io_pool import Pinned, PoolKey
from edge.model.record import UpstreamFacts
from edge.model.route import RouteMatch, Upstream
from edge.writes import Writes

DIAL_TIMEOUT_S = 2.0
"""On one machine: whoever does not accept by then has a full queue."""
MAX_IDLE = 256
MAX_IDLE_S = 3.0
"""Under the 5 s after which Node closes idle connections, which is the soonest of common servers: a request that is no GET
and meets a connection that is just being closed cannot be sent again. A new one costs little here."""

_HTTP = re.compile(r"http://(\[[0-9A-Fa-f:.]+\]|[0-9A-Za-z.-]+):([0-9]{1,5})/?\Z")
_NAME = "localhost"
_LOOPBACK = ("127.0.0.1", "::1")


@dataclass(frozen=True, slots=True)
class PlainTarget:
    """Where the service listens."""

    addresses: tuple[Address, ...]
    """(loopback address, port), tried in their order; of a socket (path, 0)."""
    is_socket: bool


class BadTarget(ValueError):
    """Not a place that a sidecar may forward to. The text says what is."""


def parse_target(text: str) -> PlainTarget:
    """Raises: BadTarget."""
    if text.startswith("unix:"):
        path = text.removeprefix("unix:")
        if not path.startswith("/") or len(path.encode()) > 107 or "\0" in path:
            raise BadTarget(f"{text!r}: a socket is written unix:/path, of at most 107 bytes")
        return PlainTarget(((path, 0),), is_socket=True)
    found = _HTTP.match(text)
    if found is None:
        raise BadTarget(f"{text!r} is neither http://127.0.0.1:PORT nor unix:/path")
    host, port = found[1].strip("[]"), int(found[2])
    if not 0 < port < 65_536:
        raise BadTarget(f"{text!r}: no such port")
    if host == _NAME:  # not resolved: a resolver could lead it elsewhere, and some servers take one of the two for it
        return PlainTarget(tuple((each, port) for each in _LOOPBACK), is_socket=False)
    try:
        is_here = ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_here = False
    if not is_here:
        raise BadTarget(
            f"{text!r} is not on this machine: only loopback addresses and unix sockets are spoken to plainly"
        )
    return PlainTarget(((host, port),), is_socket=False)


class PlainPool:
    """Connections to the one service. Owner: the sidecar; one event loop, no lock."""

    def __init__(self, loop: asyncio.AbstractEventLoop, target: PlainTarget) -> None:
        self._loop = loop
        self._writes = Writes(loop.call_soon)
        self._target = target
        self._endpoints = tuple(Endpoint("", "", address) for address in target.addresses)
        self._all: dict[UpstreamConnection, Pinned] = {}
        self._idle: deque[Pinned] = deque()

    def addresses(self, found: RouteMatch) -> tuple[Endpoint, ...]:
        """All of them, in the order in which they are tried."""
        return self._endpoints

    def acquire(self, endpoint: Endpoint) -> Pinned | None:
        """A connection that waits for work, wherever it leads: behind all addresses is the same service."""
        now_s = self._loop.time()
        while self._idle:
            pinned = self._idle.pop()
            if now_s - pinned.idle_since_s < MAX_IDLE_S and not pinned.connection.is_closed:
                return pinned
            pinned.connection.abort()
        return None

    async def dial(self, upstream: Upstream, addresses: tuple[Endpoint, ...]) -> Pinned:
        """Raises: UpstreamUnreachable, UpstreamTimeout."""
        began_ns = time.perf_counter_ns()
        cause: OSError | None = None
        for address in [each.address for each in addresses]:
            connection = UpstreamConnection(self._on_idle, self._on_gone, self._writes, self._loop.call_later)
            try:
                async with asyncio.timeout(DIAL_TIMEOUT_S):
                    await self._connect(connection, address)
            except TimeoutError as exc:
                raise UpstreamTimeout("dial-timeout", _text(address)) from exc
            except OSError as exc:
                cause = exc
                continue
            facts = UpstreamFacts(upstream.service, "", "", _text(address), time.perf_counter_ns() - began_ns)
            key = PoolKey("", address, 0)
            # Nothing was proven, so there is nothing whose end would end it.
            pinned = Pinned(key, connection, facts, (), born_s=self._loop.time(), not_after_s=float("inf"))
            self._all[connection] = pinned
            return pinned
        raise UpstreamUnreachable("dial-failed", ", ".join(_text(each.address) for each in addresses)) from cause

    async def _connect(self, connection: UpstreamConnection, address: Address) -> None:
        if self._target.is_socket:
            await self._loop.create_unix_connection(lambda: connection, address[0])
        else:
            await self._loop.create_connection(lambda: connection, *address)

    def release(self, pinned: Pinned) -> None:
        """Nobody counts what is under way: the gateway does."""

    def prove_again(self, pinned: Pinned) -> None:
        """There is nothing to prove."""

    def _on_idle(self, connection: UpstreamConnection) -> None:
        pinned = self._all.get(connection)
        if pinned is None or len(self._idle) >= MAX_IDLE:
            connection.abort()
            return
        pinned.idle_since_s = self._loop.time()
        self._idle.append(pinned)

    def _on_gone(self, connection: UpstreamConnection) -> None:
        pinned = self._all.pop(connection, None)
        if pinned is not None and pinned in self._idle:
            self._idle.remove(pinned)

    def sweep(self) -> None:
        """Close what has waited too long; called by a timer."""
        now_s = self._loop.time()
        while self._idle and now_s - self._idle[0].idle_since_s >= MAX_IDLE_S:
            self._idle.popleft().connection.abort()

    def close(self) -> None:
        """Abort everything; the last step of a drain."""
        for connection in list(self._all):
            connection.abort()
        self._all.clear()
        self._idle.clear()


def _text(address: Address) -> str:
    return spell(address) if address[1] else f"unix:{address[0]}"
