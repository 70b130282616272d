"""Names of registrations → addresses, a few at a time.

The loop's resolver has four threads for everything that the gateway looks up, and a lookup that nobody answers keeps one of
them for many seconds, also when we have stopped waiting. Whoever may register could keep them all with a name of his own, and
with them upstreams and key sets that are configured by name. So lookups for registrations have two places, and a service one:
a place is free again when its lookup has ended, not when its request has.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable

from edge.registry.address import Ip

WITHIN_S = 2.0
"""For one request, the wait for its place included."""
PLACES = 2
Lookup = Callable[[str], Awaitable[list[Ip]]]
"""Raises OSError, UnicodeError or ValueError where there is no address."""


async def by_the_loop(host: str) -> list[Ip]:
    """Every address of a name, once, as the system knows it."""
    found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(ipaddress.ip_address(each[4][0]) for each in found))


class Resolver:
    """Owner: the worker; one event loop. Services are those of services.yaml, so there are no more lines than grants."""

    def __init__(self, lookup: Lookup = by_the_loop) -> None:
        self._lookup = lookup
        self._places = asyncio.Semaphore(PLACES)
        self._lines: dict[str, asyncio.Lock] = {}

    async def addresses(self, service: str, host: str) -> list[Ip]:
        """Empty: there is none, or it could not be learnt in time."""
        line = self._lines.setdefault(service, asyncio.Lock())
        try:
            async with asyncio.timeout(WITHIN_S):
                await line.acquire()
                try:
                    await self._places.acquire()
                except asyncio.CancelledError:
                    line.release()
                    raise
                return await asyncio.shield(self._begin(host, line))
        except (TimeoutError, OSError, UnicodeError, ValueError):
            return []

    def _begin(self, host: str, line: asyncio.Lock) -> asyncio.Future[list[Ip]]:
        def ended(lookup: asyncio.Future[list[Ip]]) -> None:
            line.release()
            self._places.release()
            if not lookup.cancelled():
                lookup.exception()  # whoever waited has it, or has left

        lookup = asyncio.ensure_future(self._lookup(host))
        lookup.add_done_callback(ended)
        return lookup
