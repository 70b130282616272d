"""The shared store of the windows, as one process sees it: its questions, its leases, its health.

What is decided where: `lease` sizes and hands out units, `script` counts inside the store, `limiter` decides about one
request. Here is only what awaits: questions that come up in one tick of the loop, and all that come while an earlier
batch is under way, travel together in one call.

When the store fails, everything that waits fails at once, nothing asks again until a probe found it well (every 0.2 s),
and limits that say `local` decide by themselves. Nobody waits for a store that is known to be away.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import time
from collections import deque
from collections.abc import Sequence
from itertools import islice

from valkey.exceptions import NoScriptError, ValkeyClusterException, ValkeyError

from edge.errors import StoreUnavailable
from edge.limit.io_connect import Client, connect
from edge.limit.lease import Answer, Lease, Question, Ticket
from edge.limit.limiter import Attempt
from edge.limit.script import BEAT, TAKE, answers, arguments
from edge.limit.store import StoreSettings
from edge.model.recent import Recent

_MAX_LEASES = 32_768
_MAX_BATCH = 64
"""Groups in one call: the store serves nobody else meanwhile (about 4 µs each)."""
_PROBE_S = 0.2
_BEAT_NS = 2_000_000_000
_RENEW_S = 0.2
"""Renewals of this time go together, because a call costs ten times what one more lease in it does. They have time: the
last window that a lease has units for has begun, and is a second or longer."""
REPLICA_LIFE_MS = 10_000
"""A replica that was not heard for this long counts no more."""
_REPLICAS_KEY = "{edge:limit}:replicas"
_FAILURES = (ValkeyError, ValkeyClusterException, OSError)
"""Everything the client raises; a timeout is an OSError."""
_SHA = {text: hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest() for text in (TAKE, BEAT)}


class _Flight:
    """A ticket under way, and the requests that wait for its answer, each with its own future: one may be cancelled."""

    __slots__ = ("is_renewal", "ticket", "waiters")

    def __init__(self, ticket: Ticket, *, is_renewal: bool = False) -> None:
        self.ticket = ticket
        self.is_renewal = is_renewal
        """Asked although nobody waits: for the next window of a lease that was used in the last one."""
        self.waiters: list[asyncio.Future[bool]] = []

    def land(self, *, is_answered: bool) -> None:
        if not is_answered:
            self.ticket.abandon()
        for waiter in self.waiters:
            if not waiter.done():
                waiter.set_result(is_answered)
        self.waiters.clear()


class LeaseStore:
    """One per process, shared by the limiters of successive configurations. Used from one loop only: no lock."""

    def __init__(self, settings: StoreSettings) -> None:
        self._settings = settings
        self._replica = secrets.token_hex(8)
        self._client: Client | None = None
        self.leases: Recent[str, Lease] = Recent(_MAX_LEASES)
        self.is_down = False
        self.replicas = settings.min_replicas
        """Gateways that share the store, as last heard; at least the workers of this one."""
        self.last_error = ""
        """Why the store was last found to be away; for the operator and the access log."""
        self._was_reached = False
        self._beaten_ns: int | None = None
        self._gathering: dict[tuple[Lease, ...], _Flight] = {}
        self._pump: asyncio.Task[None] | None = None
        self._probe: asyncio.Task[None] | None = None
        self._mark = 0
        self._is_closed = False
        # By length of window: leases in the order in which the last window begins that they have units for.
        self._aging: dict[int, deque[tuple[int, Lease]]] = {}
        self._alarm: asyncio.TimerHandle | None = None

    @property
    def healthy(self) -> bool:
        """The last word from the store was good."""
        return self._was_reached and not self.is_down

    async def settle(self, attempt: Attempt) -> None:
        """Ask for what `attempt` lacks until it has reached its verdict.

        Raises:
            StoreUnavailable: the store is away and a `closed` limit lacks a unit.
        """
        ticket: Ticket | None = None
        while True:
            now_ns = time.monotonic_ns()
            lacking = attempt(now_ns, ticket)
            if ticket is not None:
                ticket.leave(now_ns)
            if not lacking:
                return
            ticket = await self._ask(lacking)

    async def beat(self) -> None:
        """Say that this replica lives and hear how many do. Never raises; a timer calls it every 2 s."""
        if self._is_closed:
            return
        self._beaten_ns = time.monotonic_ns()
        try:
            count = await self._call(BEAT, [_REPLICAS_KEY], [self._replica, str(REPLICA_LIFE_MS)])
        except _FAILURES as exc:
            await self._fall(f"{type(exc).__name__}: {exc}")
            return
        if isinstance(count, int):
            self.replicas = max(self._settings.min_replicas, count)
        self._was_reached = True
        self.is_down = False

    async def close(self) -> None:
        """Stop; whatever still waits gets `StoreUnavailable`. Units in hand end with their windows."""
        self._is_closed = self.is_down = True
        if self._alarm is not None:
            self._alarm.cancel()
        tasks = [task for task in (self._pump, self._probe) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._ground()  # a pump that was cancelled before its first step never came to its own end
        await self._drop_client()

    async def _ask(self, lacking: tuple[Lease, ...]) -> Ticket | None:
        """Wait for one answer about `lacking`; None when there was none."""
        if self.is_down:
            raise StoreUnavailable("store-away", self.last_error)
        flight = self._gathering.get(lacking)
        if flight is None:
            flight = _Flight(Ticket(lacking))
            self._gathering[lacking] = flight
            if self._pump is None:
                self._pump = asyncio.create_task(self._send_all())
        waiter: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        flight.waiters.append(waiter)
        flight.ticket.present += 1
        try:
            is_answered = await waiter
        except asyncio.CancelledError:
            flight.ticket.leave(time.monotonic_ns())
            raise
        return flight.ticket if is_answered else None

    async def _send_all(self) -> None:
        """Send what has gathered until nothing gathers any more. Starts one tick later, so a tick's questions meet."""
        batch: list[_Flight] = []
        try:
            while self._gathering:
                lots = list(islice(self._gathering, _MAX_BATCH))
                batch = [self._gathering.pop(lot) for lot in lots]
                await self._send([flight for flight in batch if self._must_ask(flight)])
                for flight in batch:
                    flight.land(is_answered=False)  # those not sent: they find units now, or ask again
                if self._beaten_ns is None or time.monotonic_ns() - self._beaten_ns > _BEAT_NS:
                    await self.beat()
        finally:
            self._pump = None
            for flight in batch:
                flight.land(is_answered=False)
            self._ground()

    @staticmethod
    def _must_ask(flight: _Flight) -> bool:
        """Not when nobody waits any more, nor when the answer before brought units: a question would forget them."""
        now_ns, leases = time.monotonic_ns(), flight.ticket.leases
        if flight.is_renewal and all(lease.is_worth_renewing(now_ns) for lease in leases):
            return True
        filled = any(lease.is_ready(now_ns, is_store_down=False) for lease in leases)
        return not filled and flight.ticket.present > 0

    def _ground(self) -> None:
        """Whatever has gathered will not be sent."""
        for flight in self._gathering.values():
            flight.land(is_answered=False)
        self._gathering.clear()

    async def _send(self, batch: Sequence[_Flight]) -> None:
        if self.is_down or not batch:
            for flight in batch:
                flight.land(is_answered=False)
            return
        self._mark += 1
        mark = self._mark
        sent_ns = time.monotonic_ns()
        present = [flight.ticket.present for flight in batch]
        groups = [(n, f.ticket.questions(sent_ns, self.replicas)) for n, f in zip(present, batch, strict=True)]
        try:
            reply = await self._take(mark, groups)
        except _FAILURES as exc:
            await self._fall(f"{type(exc).__name__}: {exc}")
            reply = None
        else:
            if reply is None:
                await self._fall("the answer does not fit the question")
        heard_ns = time.monotonic_ns()
        for index, flight in enumerate(batch):
            if reply is not None:
                flight.ticket.settle(reply[index], present[index], sent_ns, heard_ns)
                self._was_reached = True
                self._watch(flight.ticket)
            flight.land(is_answered=reply is not None)

    def _watch(self, ticket: Ticket) -> None:
        """Remember when the last window begins that these leases have units for."""
        for lease in ticket.leases:
            if lease.later:
                aging = self._aging.setdefault(lease.limit.window_s, deque(maxlen=_MAX_LEASES))
                aging.append((lease.later[-1].starts_ns, lease))
        if self._alarm is None and any(self._aging.values()) and not self._is_closed:
            self._alarm = asyncio.get_running_loop().call_later(_RENEW_S, self._renew)

    def _renew(self) -> None:
        """Ask, in one batch, for the next windows of all leases that were used and have units for the present one only.

        Else each of them would make a request wait when that ends: with windows of a second, that is most of all requests.
        """
        self._alarm = None
        if self.is_down or self._is_closed:
            self._aging.clear()
            return
        now_ns = time.monotonic_ns()
        for aging in self._aging.values():
            while aging and aging[0][0] <= now_ns:
                lots = (aging.popleft()[1],)
                if lots[0].is_worth_renewing(now_ns) and lots not in self._gathering:
                    self._gathering[lots] = _Flight(Ticket(lots), is_renewal=True)
        if self._gathering and self._pump is None:
            self._pump = asyncio.create_task(self._send_all())
        starts = [aging[0][0] for aging in self._aging.values() if aging]
        if starts:
            wait_s = max(_RENEW_S, (min(starts) - now_ns) / 1_000_000_000)
            self._alarm = asyncio.get_running_loop().call_later(wait_s, self._renew)

    async def _take(self, mark: int, groups: Sequence[tuple[int, tuple[Question, ...]]]) -> list[list[Answer]] | None:
        keys, args = arguments(mark, groups)
        return answers(await self._call(TAKE, keys, args), mark, groups)

    async def _call(self, text: str, keys: Sequence[str], args: Sequence[str]) -> object:
        """Run a script, sending its text only when the store does not have it.

        A timeout ends the connection: a late answer must not be taken for the next one's.
        """
        if self._client is None:
            self._client = connect(self._settings)
        async with asyncio.timeout(self._settings.timeout_s):
            try:
                return await self._client.execute_command("EVALSHA", _SHA[text], len(keys), *keys, *args)
            except NoScriptError:  # a store that was started anew; nothing was executed
                return await self._client.execute_command("EVAL", text, len(keys), *keys, *args)

    async def _fall(self, cause: str) -> None:
        """The store failed: say so, forget the connection, look for it in the background."""
        self.is_down = True
        self.last_error = cause
        for lease in self.leases.values():
            lease.forget_later()
        await self._drop_client()
        if self._probe is None and not self._is_closed:
            self._probe = asyncio.create_task(self._look_for_store())

    async def _look_for_store(self) -> None:
        try:
            while self.is_down:
                await asyncio.sleep(_PROBE_S)
                await self.beat()
        finally:
            self._probe = None

    async def _drop_client(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            try:
                await client.aclose()
            except _FAILURES:
                pass  # it is gone; that was the purpose
