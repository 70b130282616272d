"""The pool of connections to upstreams, and the only place that dials and counts.

A connection belongs to exactly one `PoolKey`: (SPIFFE ID, address, generation of our trust and our own certificate). It is
handed out only after the peer proved the key's identity in its own handshake, and before that not one byte is written; nor to
an address that was not seen to insist on a client certificate (`io_insist`).
A new generation (reload, new bundle, new own certificate) makes every older connection unusable at once.

What is under way to an endpoint is counted here and nowhere else: one more when a connection is handed out, or begins to be
made, for a request; one less when it comes back, is gone, or was never made. Every way in which an exchange or a WebSocket
can end is one of these, so nobody has to remember. How it ended is told to the fleet, which judges.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass

from edge.errors import Shedding, UpstreamError, UpstreamIdentityRejected, UpstreamTimeout, UpstreamUnreachable
from edge.forward.balance import BalanceSettings
from edge.forward.endpoint import Address, Endpoint
from edge.forward.fleet import Fleet
from edge.forward.http1 import UpstreamConnection
from edge.forward.io_dial import dial
from edge.forward.io_insist import ACCEPTS_ANYONE, Alarm, Insistence, Turn, Where, insists
from edge.forward.io_proof import UpstreamTrust, prove, proven_soon
from edge.model.record import UpstreamFacts
from edge.model.route import RouteMatch, Upstream
from edge.writes import Writes
from pki.svid import Revoked

MAX_IDLE_PER_KEY = 256
MAX_AGE_S = 3600.0
"""A connection is not reused longer than this, nor past the peer's certificate: then a new handshake proves it again."""
MAX_IDLE_S = 55.0
"""Under the 60–75 s after which common servers close idle connections."""
_NO_FAULT = frozenset(("revocation-unknown", ACCEPTS_ANYONE))
"""Rules of a refused connection that are no failure of the instance: we do not know enough, or the address is out anyway."""


@dataclass(frozen=True, slots=True)
class PoolKey:
    """What must agree for a connection to be used again."""

    spiffe_id: str
    address: Address
    generation: int


@dataclass(slots=True, eq=False)
class Pinned:
    """A connection and what its handshake proved."""

    key: PoolKey
    connection: UpstreamConnection
    facts: UpstreamFacts
    certificates: tuple[tuple[bytes, int], ...]
    """What the proof rests on, as a revocation names them."""
    born_s: float
    idle_since_s: float = 0.0
    not_after_s: float = 0.0
    endpoint: Endpoint | None = None
    """Where it waits when it is idle; None: it is used once."""
    is_counted: bool = False
    """It carries one of the endpoint's requests under way."""

    def rests_on(self, revoked: Revoked) -> bool:
        return any(named in revoked for named in self.certificates)


class Pool:
    """Connections by key. Owner: the worker; one event loop, no lock. Built in assemble, outlives reloads."""

    def __init__(self, loop: asyncio.AbstractEventLoop, fleet: Fleet, alarm: Alarm) -> None:
        """`alarm` hears of an address that answered without a certificate, and when it does no more."""
        self._loop = loop
        self._writes = Writes(loop.call_soon)
        self._alarm = alarm
        self._insistence = Insistence(loop, self._probe, self._turned)
        self._out = self._insistence.out
        self.fleet = fleet
        self._registered = fleet.registered
        self._all: dict[UpstreamConnection, Pinned] = {}
        self._trust: UpstreamTrust | None = None

    def trust(self, trust: UpstreamTrust) -> None:
        """Use this from now on; idle connections of older generations close at once, busy ones after their answer."""
        self._trust = trust
        for endpoint in self.fleet.endpoints():
            _abort_idle(endpoint)
        self._insistence.renew()

    def configure(self, settings: Mapping[str, BalanceSettings], upstreams: Collection[Upstream]) -> None:
        """Another configuration: how each service is balanced, and the upstreams that the routes name."""
        self.fleet.configure(settings, upstreams, self._loop.time())

    def addresses(self, found: RouteMatch) -> tuple[Endpoint, ...]:
        """Where this request may go, in order: the first is whose turn it is. Of the file and of the roster.

        Raises:
            UpstreamUnreachable: the service has no endpoint; then 502.
            Shedding: as much as its limits allow is under way; then 503.
        """
        turns = found.turns
        if turns is None or turns.generation != self._registered.generation:
            turns = found.turns = self.fleet.arranged(found.route.upstream, self._loop.time()).turns
        order = turns.order()
        if self._out:
            return tuple(each for each in order if (each.spiffe_id, each.address) not in self._out) or order
        return order

    def acquire(self, endpoint: Endpoint, *, counts: bool = True) -> Pinned | None:
        """A proven connection to it that waits for work, or None: then `dial`. Without `counts`: for what is no request."""
        waiting = endpoint.idle
        if waiting:
            now_s = self._loop.time()
            while waiting:
                pinned = waiting.pop()  # the most recent one: the rest may grow old and close
                if self._is_usable(pinned, now_s):
                    if counts:
                        pinned.is_counted = True
                        endpoint.in_flight += 1
                    return pinned
                pinned.connection.abort()
        return None

    def release(self, pinned: Pinned) -> None:
        """It carries no request any more, though it may take a while to close."""
        if pinned.is_counted and pinned.endpoint is not None:
            pinned.is_counted = False
            pinned.endpoint.in_flight -= 1

    def _is_usable(self, pinned: Pinned, now_s: float) -> bool:
        return (
            not pinned.connection.is_closed
            and now_s - pinned.idle_since_s < MAX_IDLE_S
            and now_s - pinned.born_s < MAX_AGE_S
            and time.time() < pinned.not_after_s
        )

    async def dial(self, upstream: Upstream, addresses: tuple[Endpoint, ...]) -> Pinned:
        """Connect to the first of `addresses` that can be reached. An impostor is not passed over: it ends the try. The
        service itself is, where it lets anybody in: the address is out until it does not.

        Raises:
            UpstreamUnreachable, UpstreamTimeout, UpstreamIdentityRejected
            Shedding: what else began meanwhile is as much as the limits allow.
        """
        last: UpstreamError | Shedding | None = None
        rotation = self.fleet.arranged(upstream, self._loop.time())
        for endpoint in addresses:
            limit = rotation.full(endpoint)
            if limit is not None:
                last = last or Shedding(limit, upstream.service)
                continue
            try:
                return await self._dial_counted(upstream, endpoint)
            except (UpstreamUnreachable, UpstreamTimeout) as exc:
                last = exc
            except UpstreamIdentityRejected as exc:
                if exc.rule != ACCEPTS_ANYONE:
                    raise
                last = exc
        raise last or UpstreamUnreachable("no-endpoint", upstream.service)

    async def _dial_counted(self, upstream: Upstream, endpoint: Endpoint) -> Pinned:
        pinned: Pinned | None = None
        endpoint.in_flight += 1
        try:
            pinned = await self.connect(upstream, endpoint)
        except UpstreamError as exc:
            if exc.rule not in _NO_FAULT:
                self.fleet.failed(endpoint, self._loop.time())
            raise
        finally:
            if pinned is None:  # also when nobody waits any more
                endpoint.in_flight -= 1
        pinned.is_counted = True
        return pinned

    async def connect(self, upstream: Upstream, endpoint: Endpoint) -> Pinned:
        """A new proven connection, which does not count. Raises: as `dial`, but Shedding."""
        pinned = await self._dial_one(upstream, endpoint.address)
        pinned.endpoint = endpoint
        return pinned

    async def _dial_one(self, upstream: Upstream, address: Address) -> Pinned:
        trust = self._trust
        assert trust is not None
        key = PoolKey(upstream.spiffe_id, address, trust.generation)
        began_ns = time.perf_counter_ns()
        transport, connection = await dial(
            address,
            trust.context,
            lambda: UpstreamConnection(self._on_idle, self._on_gone, self._writes, self._loop.call_later),
        )
        is_believed = False
        try:
            handshake, where = transport.get_extra_info("ssl_object"), (upstream.spiffe_id, address)
            proven = await proven_soon(trust, handshake, upstream.spiffe_id)
            connect_ns = time.perf_counter_ns() - began_ns
            if not self._insistence.is_known(where):
                await self._insistence.require(where)
                # What is believed, or revoked, may have changed meanwhile.
                proven = prove(self._trust or trust, handshake, upstream.spiffe_id)
            is_believed = True
        finally:
            if not is_believed:
                connection.abort()
        if connection.is_closed:  # while it was proven, when nobody could be told
            raise UpstreamUnreachable("upstream-closed")
        now_s = self._loop.time()
        facts = UpstreamFacts(
            service=upstream.service,
            spiffe_id=upstream.spiffe_id,
            serial=f"{proven.serial:x}",
            address=f"{address[0]}:{address[1]}",
            connect_ns=connect_ns,
        )
        ends_s = proven.not_after.timestamp()
        pinned = Pinned(key, connection, facts, proven.certificates, born_s=now_s, not_after_s=ends_s)
        self._all[connection] = connection.pinned = pinned
        return pinned

    def prove_again(self, pinned: Pinned) -> None:
        """Hold a connection in use against the trust of today, by what its handshake showed.

        Raises:
            UpstreamIdentityRejected
        """
        trust = self._trust
        assert trust is not None
        transport = pinned.connection.transport
        if pinned.key.generation == trust.generation or transport is None:
            return
        prove(trust, transport.get_extra_info("ssl_object"), pinned.key.spiffe_id)

    async def _probe(self, where: Where) -> None:
        trust, (spiffe_id, address) = self._trust, where
        assert trust is not None
        await insists(address, trust.anonymous, lambda handshake: prove(trust, handshake, spiffe_id))

    async def probe_due(self) -> None:
        """Ask again who is due to be asked without a certificate; called by a timer."""
        used = {(pinned.key.spiffe_id, pinned.key.address) for pinned in self._all.values()}
        await self._insistence.look_again(used.__contains__)

    def _turned(self, where: Where, turn: Turn) -> None:
        """What waits for work at an address that is out gets none; what is busy ends with its answer."""
        if turn is Turn.OUT:
            for pinned in [each for each in self._all.values() if (each.key.spiffe_id, each.key.address) == where]:
                if pinned.endpoint is not None and pinned in pinned.endpoint.idle:
                    pinned.connection.abort()
                else:
                    pinned.key = PoolKey(*where, generation=0)  # of no trust there ever is
        self._alarm(where, turn)

    @property
    def out(self) -> int:
        """How many addresses get no request because they let anybody in."""
        return len(self._insistence.out)

    def revoke(self, revoked: Revoked) -> int:
        """Abort every connection, idle or busy, whose proof rests on what is revoked; → how many that were.

        Exchanges are told; of WebSockets the front has to be told before, since their connections tell nobody.
        """
        resting = [each for each in self._all.values() if each.rests_on(revoked)]
        for pinned in resting:
            pinned.connection.fail(UpstreamIdentityRejected("revoked", pinned.facts.serial))
        return len(resting)

    def _on_idle(self, connection: UpstreamConnection) -> None:
        pinned = connection.pinned
        if pinned is None or self._trust is None or pinned.key.generation != self._trust.generation:
            connection.abort()
            return
        endpoint = pinned.endpoint
        if endpoint is None or len(endpoint.idle) >= MAX_IDLE_PER_KEY:
            connection.abort()
            return
        now_s = self._loop.time()
        if pinned.is_counted:
            pinned.is_counted = False
            endpoint.in_flight -= 1
            if connection.status >= 500 or endpoint.failures:
                self.fleet.answered(endpoint, connection.status, now_s)
        pinned.idle_since_s = now_s
        endpoint.idle.append(pinned)

    def _on_gone(self, connection: UpstreamConnection) -> None:
        pinned = self._all.pop(connection, None)
        endpoint = pinned.endpoint if pinned is not None else None
        if pinned is None or endpoint is None:
            return
        if pinned.is_counted:
            pinned.is_counted = False
            endpoint.in_flight -= 1
            self._judge(endpoint, connection)
        else:
            with suppress(ValueError):  # a WebSocket's, or it waits no more
                endpoint.idle.remove(pinned)

    def _judge(self, endpoint: Endpoint, connection: UpstreamConnection) -> None:
        """A connection ended with the exchange on it: by whose doing?"""
        failure = connection.failure
        if failure is None:
            if connection.answer_ended:
                self.fleet.answered(endpoint, connection.status, self._loop.time())
            return  # else the client left, or we refused
        is_idle_close = isinstance(failure, UpstreamUnreachable) and connection.is_reused
        if not is_idle_close and not isinstance(failure, UpstreamIdentityRejected):  # the latter: it was revoked
            self.fleet.failed(endpoint, self._loop.time())

    def sweep(self) -> None:
        """Close idle connections that may not be used again, or whose endpoint has left; called by a timer."""
        now_s = self._loop.time()
        for endpoint in self.fleet.forget_departed():
            _abort_idle(endpoint)
        stale = [p for each in self.fleet.endpoints() for p in each.idle if not self._is_usable(p, now_s)]
        for pinned in stale:
            pinned.connection.abort()

    def tick(self) -> None:
        """What time alone changes about the endpoints; called by a timer."""
        self.fleet.tick(self._loop.time())

    @property
    def now_s(self) -> float:
        """Of the clock by which endpoints are judged."""
        return self._loop.time()

    @property
    def open_connections(self) -> int:
        return len(self._all)

    @property
    def idle_connections(self) -> int:
        return sum(len(endpoint.idle) for endpoint in self.fleet.endpoints())

    def close(self) -> None:
        """Abort everything; the last step of a drain."""
        self._insistence.close()
        self._trust = None  # what is still busy does not wait for more
        for connection in list(self._all):
            connection.abort()
        self._all.clear()
        for endpoint in self.fleet.endpoints():
            endpoint.idle.clear()


def _abort_idle(endpoint: Endpoint) -> None:
    while endpoint.idle:
        endpoint.idle.pop().connection.abort()
