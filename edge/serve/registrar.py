"""Who may register what, and where: one registration from the request to the lease, or to the rule that it breaks.

1. The certificate of the connection is that of the service (`not-yours`). The listener proved it; here it is compared.
2. The body has its form, and what it declares lies inside the grant (`route-outside-grant`).
3. The address is one that may be dialled (`registry.address`). A name is resolved once, and what was judged is what is
dialled.
4. A living lease passes to its holder, or at its address; to nobody else (`instance-taken`). A heartbeat ends here, renewed.
5. The address is dialled back: who answers proves to be the service, and insists on a certificate of us.
6. Nothing has happened to the lease meanwhile (`overtaken`). It is signed, written, and counts.

Requests about one instance take turns in a worker. What other workers and gateways wrote is read before each decision; of
two that write in the same moment the signed sequence decides.
"""

from __future__ import annotations

import asyncio
import ipaddress
import time
from collections.abc import Mapping
from weakref import WeakValueDictionary

import msgspec

from edge.config import registered
from edge.control.inside import Asked
from edge.errors import StoreUnavailable, UpstreamError, UpstreamIdentityRejected
from edge.forward.endpoint import Endpoint
from edge.forward.io_insist import ACCEPTS_ANYONE
from edge.forward.io_pool import Pool
from edge.model.route import Upstream
from edge.registry import admission
from edge.registry.address import Ip, parse, refusal
from edge.registry.admission import DRAIN_S, MAX_INSTANCES, Granted, Refused, Wish
from edge.registry.entry import MAX_TTL_S, Declared, Entry, holder
from edge.registry.grant import Grant
from edge.registry.ledger import Held
from edge.registry.pace import Pace
from edge.serve.registry import Registry, facts
from edge.serve.resolver import Resolver
from pki.spiffe import is_name

_MAX_DIALS = 256
"""Dial-backs under way in one worker; each ends within seconds."""
_MAX_DIALS_EACH = 16
"""Of one service: addresses that never answer keep others from nothing. Who comes then waits a moment for his turn."""
_TURN_S = 2.0
_DUE = 0.8
"""A heartbeat is written when less than this part of the lease is left: more often costs every reader and gains nothing."""


class Registrar:
    """Owner: `Serving`. One event loop; `Registry` holds what is known."""

    def __init__(self, registry: Registry, pool: Pool) -> None:
        self._registry = registry
        self._pool = pool
        self._changes = Pace(per_s=20, burst=200)
        self._heartbeats = Pace(per_s=200, burst=1000)
        self._turns: WeakValueDictionary[tuple[str, str], asyncio.Lock] = WeakValueDictionary()
        self._dials = 0
        # By service of services.yaml, so there are no more of them than grants.
        self._dials_each: dict[str, asyncio.Semaphore] = {}
        self._resolver = Resolver()

    async def register(self, asked: Asked, body: bytes) -> Granted | Refused:
        """PUT."""
        outcome = await self._register(asked, body)
        if isinstance(outcome, Refused):
            self._tell(asked, outcome)
        return outcome

    async def leave(self, asked: Asked) -> float | Refused:
        """DELETE; → for how many seconds requests may still come."""
        outcome = await self._leave(asked)
        if isinstance(outcome, Refused):
            self._tell(asked, outcome)
        return outcome

    async def _register(self, asked: Asked, body: bytes) -> Granted | Refused:
        grant = self._granted(asked)
        if isinstance(grant, Refused):
            return grant
        wish = admission.read(body)
        if isinstance(wish, Refused):
            return wish
        declared = _declared(wish, grant)
        if isinstance(declared, Refused):
            return declared
        address = await self._address(wish.address, asked, grant)
        if isinstance(address, Refused):
            return address
        async with self._turn(asked):
            behind = await self._catch_up()
            if behind is not None:
                return behind
            now_ms = time.time_ns() // 1_000_000
            known = self._registry.ledger.find(asked.service, asked.instance)
            offered = Entry(
                service=asked.service,
                instance=asked.instance,
                gateway=self._registry.view.gateway_id,
                sequence=self._sequence(known),
                expires_ms=now_ms + wish.ttl_s * 1000,
                gone=False,
                host=str(address[0]),
                port=address[1],
                weight=wish.weight,
                health_path=wish.health_path,
                draining=wish.draining,
                since_ms=now_ms,
                holder=holder(asked.peer.certificates),
                routes=declared,
            )
            if known is not None and known.is_living:
                if admission.is_heartbeat(known.entry, offered):
                    return await self._renew(known, offered, wish.ttl_s)
                if not admission.may_change(known.entry, offered):
                    return Refused("instance-taken", _where(known.entry))
            return await self._admit(grant, known, offered, wish.ttl_s)

    def _granted(self, asked: Asked) -> Grant | Refused:
        grant = self._registry.view.grants.get(asked.service)
        if grant is None or grant.spiffe_id != asked.subject:
            return Refused("not-yours", asked.subject)
        return grant if is_name(asked.instance) else Refused("instance-name")

    async def _renew(self, known: Held, offered: Entry, ttl_s: int) -> Granted | Refused:
        left_s = known.entry.expires_ms / 1000 - time.time()
        turns = known.entry.draining is not offered.draining
        if not turns and ttl_s * _DUE < left_s <= ttl_s:
            return self._grant(known.entry, ttl_s, is_new=False)
        wait_s = (self._changes if turns else self._heartbeats).retry_after_s(offered.service, time.monotonic_ns())
        if wait_s:
            return Refused("too-many", "heartbeats", wait_s)
        entry = msgspec.structs.replace(offered, since_ms=known.entry.since_ms)
        refused = await self._write(entry, "registry.changed" if turns else None)
        return refused or self._grant(entry, ttl_s, is_new=False)

    async def _admit(self, grant: Grant, known: Held | None, offered: Entry, ttl_s: int) -> Granted | Refused:
        """A new lease, or one that changes: who answers there is proven."""
        wait_s = self._changes.retry_after_s(grant.service, time.monotonic_ns())
        if wait_s or self._dials >= _MAX_DIALS:
            return Refused("too-many", "changes", max(wait_s, 1))
        if known is None and self._registry.ledger.count(grant.service) >= MAX_INSTANCES:
            return Refused("too-many", "instances", MAX_TTL_S)
        refused = await self._prove_in_turn(grant, (offered.host, offered.port)) or await self._catch_up()
        if refused is not None:
            return refused
        if self._registry.ledger.find(*offered.key) is not known:
            return Refused("overtaken")
        now_ms = time.time_ns() // 1_000_000
        held = known.entry if known is not None and known.is_living else None
        stays = held is not None and (held.host, held.port) == (offered.host, offered.port)
        entry = msgspec.structs.replace(
            offered,
            sequence=self._sequence(known),
            expires_ms=now_ms + ttl_s * 1000,
            since_ms=held.since_ms if held is not None and stays else now_ms,
        )
        kind = "registered" if held is None else "changed" if held.holder == entry.holder else "taken-over"
        return await self._write(entry, f"registry.{kind}") or self._grant(entry, ttl_s, is_new=held is None)

    async def _prove_in_turn(self, grant: Grant, address: tuple[str, int]) -> Refused | None:
        own = self._dials_each.setdefault(grant.service, asyncio.Semaphore(_MAX_DIALS_EACH))
        try:
            async with asyncio.timeout(_TURN_S):
                await own.acquire()
        except TimeoutError:
            return Refused("too-many", "dials", 1)
        self._dials += 1
        try:
            return await self._prove(grant, address)
        finally:
            self._dials -= 1
            own.release()

    async def _prove(self, grant: Grant, address: tuple[str, int]) -> Refused | None:
        """Dial back as for a request: the handshake proves who it is, the probe that it insists."""
        upstream = Upstream(grant.service, grant.spiffe_id, (address,))
        try:
            pinned = await self._pool.connect(upstream, Endpoint(grant.service, grant.spiffe_id, address))
        except UpstreamIdentityRejected as exc:
            return Refused(ACCEPTS_ANYONE if exc.rule == ACCEPTS_ANYONE else "identity", str(exc))
        except UpstreamError as exc:
            return Refused("unreachable", str(exc))
        pinned.connection.abort()
        return None

    async def _leave(self, asked: Asked) -> float | Refused:
        grant = self._granted(asked)
        if isinstance(grant, Refused):
            return grant
        async with self._turn(asked):
            behind = await self._catch_up()
            if behind is not None:
                return behind
            known = self._registry.ledger.find(asked.service, asked.instance)
            if known is None or not known.is_living:
                return Refused("no-lease")
            if known.entry.holder != holder(asked.peer.certificates):
                return Refused("instance-taken", _where(known.entry))
            gone = msgspec.structs.replace(
                known.entry,
                gone=True,
                gateway=self._registry.view.gateway_id,
                sequence=self._sequence(known),
                # As long as anything that it cancels, whatever that was signed for.
                expires_ms=max(known.keep_until_ms, time.time_ns() // 1_000_000 + MAX_TTL_S * 1000),
                routes=(),
            )
            return await self._write(gone, "registry.deregistered") or DRAIN_S

    async def _catch_up(self) -> Refused | None:
        """What another worker or gateway decided a moment ago counts here."""
        try:
            await self._registry.catch_up()
        except StoreUnavailable as exc:
            return Refused("store", exc.detail, 1)
        return None

    async def _write(self, entry: Entry, kind: str | None) -> Refused | None:
        """`kind`: the event that it is; None for a heartbeat, which changes nothing."""
        try:
            await self._registry.write(entry)
        except StoreUnavailable as exc:
            return Refused("store", exc.detail, 1)
        if kind is not None:
            serial = f"{entry.certificates[0][1]:x}" if entry.holder else ""
            self._registry.log.change(kind, {**facts(entry), "pki.serial": serial})
        return None

    def _grant(self, entry: Entry, ttl_s: int, *, is_new: bool) -> Granted:
        return Granted(
            entry,
            is_new,
            ttl_s,
            max(0.0, entry.expires_ms / 1000 - time.time()),
            {each.path: reason for each in entry.routes if (reason := self._why_not(entry, each))},
        )

    def _why_not(self, entry: Entry, route: Declared) -> str | None:
        return self._registry.why_not_live(entry.service, route.path)

    async def _address(self, text: str, asked: Asked, grant: Grant) -> tuple[Ip, int] | Refused:
        announced = parse(text)
        if announced is None:
            return Refused("address-malformed")
        own = ipaddress.ip_address(asked.peer.ip)
        found: list[Ip] = [announced.literal] if announced.literal is not None else [own]
        if announced.literal is None and announced.host:
            found = await self._resolver.addresses(grant.service, announced.host)
        broken = "address-unresolved"
        for each in found:
            rule = refusal(each, own, grant.addresses, may_loopback=self._registry.view.may_loopback)
            if rule is None:
                return each, announced.port
            broken = rule
        return Refused(broken, " ".join(map(str, found[:4])))

    def _sequence(self, known: Held | None) -> int:
        """Greater than all that is known of the instance, on whichever gateway."""
        return max(time.time_ns(), known.entry.sequence + 1 if known is not None else 0)

    def _turn(self, asked: Asked) -> asyncio.Lock:
        """Gone when nobody waits for it any more."""
        return self._turns.setdefault((asked.service, asked.instance), asyncio.Lock())

    def _tell(self, asked: Asked, refused: Refused) -> None:
        values: Mapping[str, str | int] = {
            "service.name": asked.service if asked.service in self._registry.view.grants else "",
            "service.node.name": asked.instance,
            "tls.client.spiffe_id": asked.subject,
            "tls.client.hash.sha256": asked.peer.certificate_sha256 or "",
            "source.ip": asked.peer.ip,
            "message": refused.detail,
        }
        self._registry.log.refused(refused.rule, values, time.time())


def _declared(wish: Wish, grant: Grant) -> tuple[Declared, ...] | Refused:
    found = []
    for route in wish.routes:
        declared = registered.declare(route.path, route.methods, route.hosts, grant)
        if isinstance(declared, str):
            return Refused("route-outside-grant", declared)
        found.append(declared)
    return tuple(found)


def _where(entry: Entry) -> str:
    return f"held at {entry.host}:{entry.port} through {entry.gateway}"
