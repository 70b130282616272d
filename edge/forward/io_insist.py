"""Does the upstream insist on a client certificate? One that answers anybody is mTLS in name only (attack P41).

Whether a server asks for a certificate cannot be seen in CPython; what it does without one can. So each address is called
once without a certificate before the first request goes there, and again from time to time. Laws:

- The probe carries no caller's data, and goes to nobody who has not proven in its handshake to be the service.
- A failed handshake, an alert, a close, or 400, 401, 403, 495, 496 is a refusal: the upstream insists. Any other byte is not.
- In TLS 1.3 the refusal comes after our own Finished (RFC 8446 §4.4.2.4), so the probe writes a request and reads.
- An address that was not seen to insist gets no request. One that was stays in use while later probes cannot reach it: that
  nobody answers says nothing about certificates.
- One that answered is out, with an alarm, until a later probe is refused.
"""

from __future__ import annotations

import asyncio
import random
import re
import ssl
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from typing import Any

from edge.errors import UpstreamError, UpstreamIdentityRejected, UpstreamTimeout, UpstreamUnreachable
from edge.forward.endpoint import Address
from edge.forward.io_dial import BROKEN, HANDSHAKE, dial

ACCEPTS_ANYONE = "accepts-anyone"
"""Rule in the access log."""
ANSWER_TIMEOUT_S = 5.0
"""For the refusal; a server that wants a certificate has nothing to think about."""
AGAIN_S = 60.0
"""Between two probes of an address in use, more or less a fifth, so that many addresses are not asked in one moment."""
OUT_AGAIN_S = 1.0
"""After the last probe of an address that is out the next request may ask again."""

_REQUEST = b"HEAD / HTTP/1.1\r\nhost: %b\r\nuser-agent: edge-probe\r\nconnection: close\r\n\r\n"
_REFUSAL = re.compile(rb"HTTP/1\.[01] (?:400|401|403|495|496)[ \r]")
_VERSION = b"HTTP/1."
_ENOUGH_BYTES = 16
"""Of an answer, to know its status."""

Where = tuple[str, Address]
"""(SPIFFE ID, address)."""


class Turn(Enum):
    """What an address did."""

    OUT = "out"
    BACK = "back"


Alarm = Callable[[Where, Turn], None]


class _Listener(asyncio.Protocol):
    """Keeps the first bytes of whatever is answered; `is_over` when they say enough, or no more will come."""

    def __init__(self) -> None:
        self.is_over = asyncio.Event()
        self.received = b""

    def data_received(self, data: bytes) -> None:
        self.received += data
        if len(self.received) >= _ENOUGH_BYTES or not _VERSION.startswith(self.received[: len(_VERSION)]):
            self.is_over.set()

    def eof_received(self) -> None:
        self.is_over.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_over.set()


async def insists(address: Address, anonymous: ssl.SSLContext, prove: Callable[[ssl.SSLObject], object]) -> None:
    """Call without a certificate, and be refused. `anonymous` shows none; `prove` raises when it is not the service.

    Only for an address whose TLS is known to work with our certificate: any failed handshake counts as a refusal here.

    Raises:
        UpstreamIdentityRejected: `accepts-anyone`; or whatever `prove` or the handshake says about who answered.
        UpstreamUnreachable, UpstreamTimeout: nothing was found out.
    """
    try:
        transport, listener = await dial(address, anonymous, _Listener)
    except (UpstreamIdentityRejected, UpstreamUnreachable) as exc:
        if exc.rule in (HANDSHAKE, BROKEN):
            return
        raise
    try:
        if listener.received or not listener.is_over.is_set():
            prove(transport.get_extra_info("ssl_object"))
            host = f"[{address[0]}]" if ":" in address[0] else address[0]
            transport.write(_REQUEST % host.encode("idna"))
        with suppress(TimeoutError):
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                await listener.is_over.wait()
    finally:
        transport.abort()
    place = f"{address[0]}:{address[1]}"
    if not listener.received and not listener.is_over.is_set():
        raise UpstreamTimeout("probe-timeout", place)
    if listener.received and not _REFUSAL.match(listener.received):
        raise UpstreamIdentityRejected(ACCEPTS_ANYONE, place)


@dataclass(slots=True)
class _Verdict:
    """What the last probe that was conclusive said, and when the next one is due."""

    is_good: bool
    next_s: float


class Insistence:
    """What is known of each address. Owner: the pool; one event loop, no lock."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        probe: Callable[[Where], Coroutine[Any, Any, None]],
        turned: Alarm,
    ) -> None:
        """`probe` asks once, raising as `insists`."""
        self._loop = loop
        self._probe = probe
        self._turned = turned
        self._verdicts: dict[Where, _Verdict] = {}
        # Probes under way, by address: all requests that need one wait for the same. Each ends by its own timeouts.
        self._flights: dict[Where, asyncio.Task[None]] = {}
        self.out: set[Where] = set()
        """Addresses that answered without a certificate. Written here only; the pool reads it on every request."""

    def is_known(self, where: Where) -> bool:
        """Was this address seen to insist? Else `require` it."""
        verdict = self._verdicts.get(where)
        return verdict is not None and verdict.is_good

    async def require(self, where: Where) -> None:
        """Find out, unless the address was found to be out a moment ago.

        Raises:
            UpstreamIdentityRejected, UpstreamUnreachable, UpstreamTimeout
        """
        if where in self.out and self._loop.time() < self._verdicts[where].next_s:
            raise UpstreamIdentityRejected(ACCEPTS_ANYONE, f"{where[1][0]}:{where[1][1]}")
        await self._ask(where)

    def renew(self) -> None:
        """Our trust changed: all are asked again at the next turn of the timer."""
        for verdict in self._verdicts.values():
            verdict.next_s = 0.0

    async def look_again(self, is_used: Callable[[Where], bool]) -> None:
        """A turn of the timer: ask who is due; forget whom nobody uses, for he is asked anew before his next request."""
        now_s = self._loop.time()
        due = [where for where, verdict in self._verdicts.items() if verdict.next_s <= now_s]
        await asyncio.gather(*(self._again(where, is_used=is_used(where)) for where in due))

    async def _again(self, where: Where, *, is_used: bool) -> None:
        verdict = self._verdicts.get(where)
        if verdict is None:  # a request found out meanwhile that somebody else is there
            return
        if verdict.is_good and not is_used:
            del self._verdicts[where]
            return
        try:
            await self._ask(where)
        except (UpstreamUnreachable, UpstreamTimeout):
            if verdict.is_good:
                verdict.next_s = self._next_s(AGAIN_S)
            else:
                self._forget(where)
        except UpstreamError:
            pass  # kept in `_verdicts`, or forgotten: somebody else is there now, and every dial says so

    def _ask(self, where: Where) -> Awaitable[None]:
        """One probe at a time; who waits may leave, the others still get its result."""
        flight = self._flights.get(where)
        if flight is None:
            flight = self._flights[where] = self._loop.create_task(self._fly(where))
            flight.add_done_callback(lambda task: self._landed(where, task))
        return asyncio.shield(flight)

    def _landed(self, where: Where, flight: asyncio.Task[None]) -> None:
        self._flights.pop(where, None)
        if not flight.cancelled():
            flight.exception()  # the waiters were told; they may all have left

    async def _fly(self, where: Where) -> None:
        try:
            await self._probe(where)
        except UpstreamIdentityRejected as exc:
            if exc.rule != ACCEPTS_ANYONE:
                self._forget(where)
                raise
            self._verdicts[where] = _Verdict(is_good=False, next_s=self._loop.time() + OUT_AGAIN_S)
            if where not in self.out:
                self.out.add(where)
                self._turned(where, Turn.OUT)
            raise
        self._verdicts[where] = _Verdict(is_good=True, next_s=self._next_s(AGAIN_S))
        if where in self.out:
            self.out.discard(where)
            self._turned(where, Turn.BACK)

    def _forget(self, where: Where) -> None:
        self._verdicts.pop(where, None)
        self.out.discard(where)

    def _next_s(self, interval_s: float) -> float:
        return self._loop.time() + interval_s * random.uniform(0.8, 1.2)  # noqa: S311 - spreads load, hides nothing

    def close(self) -> None:
        """Nobody needs to know any more."""
        for flight in self._flights.values():
            flight.cancel()
