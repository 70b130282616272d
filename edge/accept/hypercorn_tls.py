"""A TLS connection that chose `h2`, served by Hypercorn's machinery in this loop, ending in an ASGI application.

The connection's transport is given a `StreamReaderProtocol`, and Hypercorn's `TCPServer` does the rest with the protocol of
`hypercorn_h2`. What touches Hypercorn's inside stands in the three files `hypercorn_*` of this room and nowhere else; its
minor version is pinned, and tests/edge/accept/test_hypercorn_tls.py fails when one of the things relied on moves.
Hypercorn tells an application nothing of a client's certificate; here `scope["extensions"]["tls"]` does, as ASGI has it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from h2.errors import ErrorCodes
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.asyncio.tcp_server import TCPServer
from hypercorn.asyncio.worker_context import WorkerContext
from hypercorn.config import Config
from hypercorn.events import Closed
from hypercorn.typing import LifespanState

from edge.accept.hypercorn_h2 import EdgeH2
from edge.accept.hypercorn_stream import Tasks
from edge.model.identity import Peer

App = Callable[[Any, Any, Any], Awaitable[None]]
"""An ASGI application."""


def hypercorn_config() -> Config:
    """What Hypercorn may do by itself: nothing that the shell does."""
    config = Config()
    config.accesslog = None
    config.errorlog = None
    config.include_server_header = False
    config.include_date_header = False
    config.read_timeout = None  # deadlines are the sweep's
    return config


class Server(TCPServer):
    """One connection. Made with a transport whose handshake is done and whose ALPN is `h2`."""

    protocol: EdgeH2  # type: ignore[assignment]

    def __init__(
        self, app: App, loop: asyncio.AbstractEventLoop, transport: asyncio.Transport, peer: Peer, config: Config
    ) -> None:
        reader = asyncio.StreamReader(loop=loop)
        bridge = asyncio.StreamReaderProtocol(reader, loop=loop)
        transport.set_protocol(bridge)
        bridge.connection_made(transport)
        writer = asyncio.StreamWriter(transport, bridge, reader, loop)
        super().__init__(ASGIWrapper(app), loop, config, WorkerContext(None), LifespanState({}), reader, writer)
        self.peer = peer
        self.has_served = False
        self.since_s = loop.time()
        """When it became idle."""
        self._is_leaving = False

    async def run(self) -> None:
        address = self.writer.get_extra_info("sockname") or ("", 0)
        try:
            async with Tasks(self.loop) as group:
                self.protocol = EdgeH2(self, group, address[:2])
                await self.protocol.initiate()
                if self._is_leaving:
                    self.leave()
                await self._read_data()
        except OSError:
            pass
        finally:
            self.writer.transport.abort()

    async def protocol_send(self, event: Any) -> None:
        """From the protocol: the connection is over. Whatever is under way ends now, whenever the client may close."""
        if isinstance(event, Closed):
            self.close()
            await self.protocol.handle(event)

    def write(self, data: bytes) -> None:
        if not self.writer.transport.is_closing():
            self.writer.write(data)

    async def writable(self) -> None:
        """Wait while the client takes nothing."""
        with suppress(OSError):  # told again to whoever reads
            await self.writer.drain()

    def note(self) -> None:
        """A stream ended."""
        self.has_served = True
        self.since_s = self.loop.time()
        if self._is_leaving and self.is_idle:
            self._farewell()

    @property
    def is_idle(self) -> bool:
        return not hasattr(self, "protocol") or self.protocol.is_idle

    @property
    def is_closing(self) -> bool:
        return self.writer.transport.is_closing()

    def goodbye(self) -> None:
        if hasattr(self, "protocol"):
            self.protocol.goodbye()

    def leave(self) -> None:
        """Close now when nothing is under way, else behind the last answer."""
        self._is_leaving = True
        if self.is_idle:
            self._farewell()
        else:
            self.goodbye()

    @property
    def is_acknowledged(self) -> bool:
        return hasattr(self, "protocol") and self.protocol.is_acknowledged

    def give_up(self) -> None:
        """The client never acknowledged our SETTINGS, so nobody knows what it goes by (RFC 9113 §6.5.3)."""
        if hasattr(self, "protocol"):
            self.protocol.farewell(ErrorCodes.SETTINGS_TIMEOUT)
        self.close()

    def _farewell(self) -> None:
        if hasattr(self, "protocol"):
            self.protocol.farewell()
        self.close()

    def close(self) -> None:
        """Say so behind what is written; the reader is woken by the end of the transport."""
        if not self.is_closing:
            self.writer.close()
