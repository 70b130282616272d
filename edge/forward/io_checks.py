"""Checks of ours: each instance is asked now and then whether it can serve, over the same proven connections as requests.

Each worker asks for itself: it has connections and a view of its own, and what one cannot reach another may. An idle
connection is used where one waits, else one is made, which also shows that the instance still takes new ones. Laws:

- At most `MAX_AT_ONCE` checks are under way; who is due later waits for his turn. Times are spread by a tenth.
- A check is no request: it is not recorded, counts for no limit, and brings no caller's data.
- Where the service asks for assertions, it is vouched for as what it is: this one GET, for nobody (`Assertions.vouch_check`).
- Only the status counts. Of an answer's content `MAX_BODY_BYTES` are read, then the connection goes.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from edge.errors import UpstreamError, UpstreamUnreachable
from edge.forward.assertion import Assertions
from edge.forward.endpoint import Endpoint, spell
from edge.forward.health import CheckSettings
from edge.forward.io_pool import Pinned, Pool
from edge.model.http import RawField
from edge.model.route import Upstream

INSTANCES_S = 0.25
"""From one turn to the next."""
MAX_AT_ONCE = 128
MAX_BODY_BYTES = 65_536
"""Of a page that should hold a word."""

_REQUEST = b"GET %b HTTP/1.1\r\nhost: %b\r\nuser-agent: edge-health\r\naccept: */*\r\n%b\r\n"


class HealthChecks:
    """Owner: the worker; one event loop, no lock."""

    def __init__(
        self,
        pool: Pool,
        loop: asyncio.AbstractEventLoop,
        spawn: Callable[[Coroutine[Any, Any, None]], object],
        draw: Callable[[], float],
        assertions: Callable[[], Assertions | None],
    ) -> None:
        """`spawn` begins what it is given, and ends it with the worker; `draw` gives numbers from 0 to below 1; `assertions`
        are those of the generation in force, None where nobody asks for any."""
        self._pool = pool
        self._loop = loop
        self._spawn = spawn
        self._draw = draw
        self._assertions = assertions
        self._under_way: set[Endpoint] = set()

    def turn(self) -> None:
        """What time alone changes about the instances, and who is due is asked; called by a timer."""
        self._pool.tick()
        now_s = self._loop.time()
        for endpoint, settings in self._pool.fleet.checks():
            if len(self._under_way) >= MAX_AT_ONCE:
                return
            if endpoint.check_at_s <= now_s and endpoint not in self._under_way:
                endpoint.check_at_s = now_s + settings.every_s * (0.9 + 0.2 * self._draw())
                self._under_way.add(endpoint)
                self._spawn(self._check(endpoint, settings))

    async def _check(self, endpoint: Endpoint, settings: CheckSettings) -> None:
        try:
            async with asyncio.timeout(settings.timeout_s):
                status = await self._ask(endpoint, endpoint.check_path or settings.path)
            passed = 200 <= status < 300
        except (UpstreamError, TimeoutError):
            passed = False
        finally:
            self._under_way.discard(endpoint)
        self._pool.fleet.checked(endpoint, self._loop.time(), passed=passed)

    async def _ask(self, endpoint: Endpoint, path: str) -> int:
        """The status of its answer. Raises: UpstreamError"""
        request = self._request(endpoint, path)
        waiting = self._pool.acquire(endpoint, counts=False)
        if waiting is not None:
            try:
                return await _answer(waiting, request)
            except UpstreamUnreachable:
                pass  # closed while it waited: that says nothing
        upstream = Upstream(endpoint.service, endpoint.spiffe_id)
        return await _answer(await self._pool.connect(upstream, endpoint), request)

    def _request(self, endpoint: Endpoint, path: str) -> bytes:
        assertions, authority, vouched = self._assertions(), spell(endpoint.address), b""
        if assertions is not None:
            check_id = f"check-{secrets.token_hex(14)}"  # no decision of the line has such an id
            vouched = assertions.vouch_check(endpoint.spiffe_id, authority, path, check_id, time.time_ns())
        return _REQUEST % (path.encode("ascii"), authority.encode("ascii"), vouched)


async def _answer(pinned: Pinned, request: bytes) -> int:
    answer = _Answer(pinned)
    try:
        pinned.connection.start(answer, request, is_head_method=False, is_complete=True)
        return await answer.status
    finally:
        if pinned.connection.receiver is answer:  # nobody waits any more
            pinned.connection.abort()


class _Answer:
    """The `Receiver` of one check."""

    def __init__(self, pinned: Pinned) -> None:
        self.status: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._pinned = pinned
        self._status = 0
        self._left = MAX_BODY_BYTES

    def on_upstream_head(
        self, status: int, fields: Sequence[RawField], content_length: int | None, *, has_body: bool
    ) -> None:
        self._status = status

    def on_upstream_body(self, body: bytes) -> None:
        self._left -= len(body)

    def on_upstream_end(self) -> None:
        self._settle()

    def on_upstream_flush(self) -> None:
        if self._left < 0:
            self._pinned.connection.abort()
            self._settle()

    def _settle(self) -> None:
        if not self.status.done():
            self.status.set_result(self._status)

    def on_upstream_failed(self, error: UpstreamError) -> None:
        if not self.status.done():
            self.status.set_exception(error)

    def on_upstream_paused(self, *, is_paused: bool) -> None:
        """A check has no body that could wait."""
