"""The admin listener: Hypercorn in the worker's own loop, on a socket the supervisor made.

Of Hypercorn its public `serve` is used, with the socket passed by number and a protocol that cannot be changed
(`accept/hypercorn_scope`). It never sees a byte of the public listener.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Any

from hypercorn.asyncio import serve
from hypercorn.config import Config

from edge.accept.hypercorn_scope import keep_to_http1

_BACKLOG = 128


class Admin:
    """Hypercorn as one task of the worker."""

    def __init__(self, app: Any, sock: socket.socket) -> None:
        """`sock` becomes Hypercorn's. It listens from here on: a connection made before the task runs waits its turn."""
        keep_to_http1()
        sock.listen(_BACKLOG)
        self._stop = asyncio.Event()
        config = Config()
        config.bind = [f"fd://{sock.detach()}"]
        config.backlog = _BACKLOG
        config.accesslog = None
        config.errorlog = None
        config.include_server_header = False
        config.include_date_header = False  # the application says it
        config.graceful_timeout = 0.5
        config.keep_alive_timeout = 5.0
        config.h11_max_incomplete_size = 16 << 10
        self._task = asyncio.get_running_loop().create_task(
            serve(app, config, shutdown_trigger=self._stop.wait, mode="asgi"), name="admin"
        )

    @property
    def task(self) -> asyncio.Task[None]:
        """Ends only after `close`; an earlier end is a failure of the worker."""
        return self._task

    async def close(self) -> None:
        """Stop accepting, give answers under way half a second."""
        self._stop.set()
        await self._task


def admin_hosts(address: str) -> tuple[str, ...]:
    """The names that mean this listener and no other."""
    return tuple(dict.fromkeys((f"[{address}]" if ":" in address else address, "localhost", "127.0.0.1", "[::1]")))
