"""The shared registry, as one worker reads it: store → verified entries → roster and declared routes.

    look    5 times a second: what was written since, judged entry by entry; leases that ended
    walk    once a second a piece of all that stands: what somebody changed, moved or took away is found, and put back

Each entry is judged in this order, and one that fails changes nothing and is an event in the access log (`registry.forged`):

1. its form is the one spelling of an entry (`form`), and it stands where it belongs (`moved`)
2. it is not older than what is known (`replayed`), and does not reach further into the future than a lease can (`future`)
3. its signer's chain leads to our anchors, in the role of a gateway, not revoked (`signer`), and it says so itself
4. the signature (`signature`)
5. there is room for one more of its service, and for one more at all (`too-many`)

Then it is known, whatever becomes of the store. It is sent requests when its lease holds, services.yaml names its service,
and its address is not one that means something else on this machine than on the gateway that admitted it.
"""

from __future__ import annotations

import asyncio
import hashlib
import ipaddress
import time
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import UTC, datetime

from edge.config.registered import Composed, compose
from edge.errors import StoreUnavailable
from edge.model.instance import Instance
from edge.model.recent import Recent
from edge.registry.address import refusal
from edge.registry.entry import MAX_TTL_S, SKEW_S, Declared, Entry, Sealed, read, seal
from edge.registry.io_store import BAD_ANSWER, RegistryStore
from edge.registry.ledger import Held, Ledger, Moment
from edge.registry.pace import Share
from edge.registry.roster import Roster
from edge.serve.registry_log import RegistryLog
from edge.serve.registry_trust import Signer, Signers, View
from pki.known_status import KnownStatus

LOOK_S = 0.2
WALK_S = 1.0
_ROUNDS_AT_START = 64
_AT_ONCE = 32
"""Entries that are judged before the loop gets its turn: 80 µs each."""
_PUT_BACK = 64
_LATEST_S = MAX_TTL_S + SKEW_S
_PASSING = frozenset(("future", "signer", "too-many"))
"""Refusals that time, or a newer configuration or revocation set, may turn: not remembered by the bytes."""


class Registry:
    """Owner: `Serving`. One event loop, no lock."""

    def __init__(
        self,
        store: RegistryStore,
        roster: Roster,
        status: KnownStatus,
        view: View,
        log: RegistryLog,
        on_routes: Callable[[], None],
        *,
        tells_ends: bool,
    ) -> None:
        """`on_routes` is called when the declared routes that live have changed. `tells_ends`: of the workers of a gateway
        one writes down which of its leases ended."""
        self.ledger = Ledger()
        self.view = view
        self.composed = Composed()
        self.log = log
        self._store = store
        self._roster = roster
        self._status = status
        self._on_routes = on_routes
        self._tells_ends = tells_ends
        self._claims: Counter[tuple[str, Declared]] = Counter()
        self._counted: dict[tuple[str, str], tuple[Declared, ...]] = {}
        self._has_new_claims = False
        self._composing = Share(share=0.2, burst_s=1.0)
        self._listed: frozenset[tuple[bytes, int]] = frozenset()
        self._signers = Signers(view)
        self._refused: Recent[bytes, bool] = Recent(4096)
        self._doubted: Recent[bytes, bool] = Recent(4096)
        self._read_before: Recent[bytes, bool] = Recent(8192)
        self._walked: set[tuple[str, str]] = set()
        self._round_began_s = time.monotonic()
        self._is_reachable = True

    # -- what others ask ------------------------------------------------------------------------

    def moment(self) -> Moment:
        return Moment(time.time_ns() // 1_000_000, time.monotonic(), self._status.listed)

    def why_not(self, held: Held) -> str | None:
        """Why a known instance gets no requests; None: it does."""
        entry = held.entry
        if not held.is_living:
            return (
                "gone" if entry.gone else "revoked" if any(c in self._listed for c in held.certificates) else "expired"
            )
        if entry.service not in self.view.grants:
            return "not-granted"
        address = ipaddress.ip_address(entry.host)
        # It was judged where it was admitted; loopback of another machine is not ours.
        return refusal(address, address, (), may_loopback=self.view.may_loopback)

    async def write(self, entry: Entry) -> None:
        """Sign it, tell everybody, and believe it. Raises: StoreUnavailable."""
        view = self.view
        raw = seal(entry, view.key, view.leaf, view.trust_domain)
        await self._store.publish(f"{entry.service}/{entry.instance}", raw)
        own = self._signers.find(view.leaf, self._status.listed)
        if self.ledger.take(entry, raw, own.certificates if own is not None else (), self.moment()):
            self._changed(entry.key)
        self._compose()

    def adopt(self, view: View) -> Composed:
        """Another generation begins to serve; its routes with those that are declared."""
        self.view = view
        self._doubt_nothing()
        for held in self.ledger.all():
            self._changed(held.entry.key)
        self._has_new_claims = False
        self.composed = compose(self._claims, view.grants, view.routes, self.composed)
        return self.composed

    # -- reading --------------------------------------------------------------------------------

    async def start(self) -> None:
        """Read all that stands, so that nobody is asked before he knows. What cannot be read now is read later."""
        try:
            await self._store.changes()
            for _ in range(_ROUNDS_AT_START):
                found, is_last = await self._store.walk()
                for field, raw in found:
                    self._judge(raw, field)
                if is_last:
                    break
        except StoreUnavailable as exc:
            self._unreachable(exc)
        self._compose()

    async def catch_up(self) -> None:
        """Read what was written until now, here or elsewhere: what is decided then knows of it. Raises: StoreUnavailable."""
        for at, raw in enumerate(await self._store.changes(), 1):
            self._judge(raw, None)
            if not at % _AT_ONCE:
                await asyncio.sleep(0)

    async def look(self) -> None:
        """Called each LOOK_S by a timer."""
        try:
            await self.catch_up()
            self._reachable()
        except StoreUnavailable as exc:
            self._unreachable(exc)
        self.sweep()
        self.log.flush()

    def sweep(self) -> None:
        """End what is over: by its time, or because more is revoked."""
        listed = self._status.listed
        is_new = listed != self._listed
        self._listed = listed
        if is_new:
            self._doubt_nothing()
        for held in self.ledger.sweep(self.moment(), is_revocation_new=is_new):
            self._changed(held.entry.key)
            self._settle(held)
            if self._tells_ends and held.entry.gateway == self.view.gateway_id:
                self.log.change(f"registry.{self.why_not(held)}", facts(held.entry))
        self._compose()

    def _settle(self, held: Held) -> None:
        """An ended lease that the ledger forgot in the same sweep is in the roster no more."""
        if self.ledger.find(*held.entry.key) is None:
            self._place(held.entry.key, None)

    async def walk(self) -> None:
        """Called each WALK_S by a timer."""
        try:
            found, is_last = await self._store.walk()
            for at, (field, raw) in enumerate(found, 1):
                if self._judge(raw, field):
                    await self._store.drop(field, raw)
                if not at % _AT_ONCE:
                    await asyncio.sleep(0)
            if is_last:
                await self._put_back()
        except StoreUnavailable as exc:
            self._unreachable(exc)
        self._compose()

    async def _put_back(self) -> None:
        """What is known and was not met in a whole round was taken away: put it back, whoever admitted it."""
        walked, self._walked = self._walked, set()
        began_s, self._round_began_s = self._round_began_s, time.monotonic()
        now_ms = self.moment().now_ms
        missing = [
            held
            for held in self.ledger.all()
            if held.entry.key not in walked and held.published_s < began_s and now_ms < held.entry.expires_ms
        ]
        for held in missing[:_PUT_BACK]:
            self.log.forged("missing", facts(held.entry))
            await self._store.publish("/".join(held.entry.key), held.raw)
            held.published_s = time.monotonic()

    def _reachable(self) -> None:
        if not self._is_reachable:
            self._is_reachable = True
            self.log.reached()

    def _unreachable(self, exc: StoreUnavailable) -> None:
        """What is known stands until it ends by its own time."""
        if self._is_reachable:
            self._is_reachable = False
            self.log.lost(exc.detail)
            if exc.rule == BAD_ANSWER:
                self.log.forged("answer", {"service.name": "", "message": exc.detail})

    # -- judging --------------------------------------------------------------------------------

    def _judge(self, raw: bytes, field: bytes | None) -> bool:
        """Take what is news. Whether it should be removed from where it stands (`field`)."""
        digest = hashlib.blake2b(raw, digest_size=16).digest()
        if self._refused.find(digest):
            return field is not None
        sealed = read(raw)
        if sealed is None:
            return self._refuse("form", {"service.name": ""}, digest, field)
        entry = sealed.unverified
        now = datetime.now(UTC)
        revoked = self._status.revoked(now)
        if revoked is None:
            return False  # nobody new is believed; the walk meets it again
        known = self.ledger.find(*entry.key)
        is_moved = field is not None and field != "/".join(entry.key).encode("ascii")
        if known is not None and known.raw == raw and not is_moved:
            known.published_s = time.monotonic()
            self._walked.add(entry.key)
            return False
        if now.timestamp() * 1000 >= entry.expires_ms:
            return field is not None  # whoever signed it, it says nothing any more
        if self._doubted.find(digest):
            return False
        signer = self._signers.find(sealed.leaf, revoked)
        rule = "moved" if is_moved else self._flaw(sealed, raw, signer, now)
        if rule is not None or signer is None:
            return self._refuse(rule or "signer", self._known_only(facts(entry)), digest, field)
        return self._take(entry, raw, signer, digest, field)

    def _doubt_nothing(self) -> None:
        """Who may sign has changed."""
        self._signers = Signers(self.view)
        self._doubted = Recent(4096)

    def _refuse(self, rule: str, values: Mapping[str, str | int], digest: bytes, field: bytes | None) -> bool:
        self.log.forged(rule, values)
        if rule in _PASSING:
            self._doubted.put(digest, True)
            return False  # another gateway may know better, or the time may come
        if rule != "moved":  # its bytes are good ones, where they belong
            self._refused.put(digest, True)
        return field is not None

    def _take(self, entry: Entry, raw: bytes, signer: Signer, digest: bytes, field: bytes | None) -> bool:
        """The signature holds. An older one is a late write once, and a replay when it comes again."""
        known = self.ledger.find(*entry.key)
        was = known.entry if known is not None and known.is_living else None
        if self.ledger.take(entry, raw, signer.certificates, self.moment()):
            self._changed(entry.key)
            if was is not None and self._tells_ends:
                self._hear(was, entry)
        elif self.ledger.is_stale(entry):
            if field is not None or self._read_before.find(digest):
                self.log.forged("replayed", facts(entry))
            self._read_before.put(digest, True)
            return field is not None
        self._read_before.put(digest, True)
        if field is not None:
            self._walked.add(entry.key)
        return False

    def _hear(self, was: Entry, now: Entry) -> None:
        """Another gateway says that a living instance left, moved or changed hands. It may, since any gateway may be the one
        that the service spoke to next; that it did is in each gateway's own log, out of the other's reach."""
        stays = (was.host, was.port, was.holder) == (now.host, now.port, now.holder)
        if now.gateway != self.view.gateway_id and (now.gone or not stays):
            before = f"was at {was.host}:{was.port} through {was.gateway}"
            self.log.change(
                "registry.heard-gone" if now.gone else "registry.heard-moved", {**facts(now), "message": before}
            )

    def _flaw(self, sealed: Sealed, raw: bytes, signer: Signer | None, now: datetime) -> str | None:
        entry = sealed.unverified
        now_ms = self.moment().now_ms
        if entry.expires_ms > now_ms + _LATEST_S * 1000 or entry.sequence > (now_ms + SKEW_S * 1000) * 1_000_000:
            return "future"
        if signer is None or signer.gateway_id != entry.gateway or now >= signer.not_after:
            return "signer"
        if not sealed.is_signed(self.view.trust_domain):
            return "signature"
        return None if self.ledger.has_room(entry, raw) else "too-many"

    def _known_only(self, values: Mapping[str, str | int]) -> Mapping[str, str | int]:
        """What a stranger wrote names no service in the log that we do not have: tallies are kept by it."""
        return values if values.get("service.name") in self.view.grants else {"service.name": ""}

    # -- what follows ---------------------------------------------------------------------------

    def _changed(self, key: tuple[str, str]) -> None:
        held = self.ledger.find(*key)
        self._place(key, held if held is not None and self.why_not(held) is None else None)

    def _place(self, key: tuple[str, str], held: Held | None) -> None:
        """Into the roster and the claims, or out of both."""
        if held is None:
            self._roster.remove(*key)
            routes: tuple[Declared, ...] = ()
        else:
            entry, routes = held.entry, held.entry.routes
            self._roster.put(
                Instance(
                    *key,
                    address=(entry.host, entry.port),
                    weight=entry.weight,
                    health_path=entry.health_path,
                    since_s=entry.since_ms / 1000,
                    is_draining=entry.draining,
                )
            )
        before = self._counted.pop(key, ())
        if routes:
            self._counted[key] = routes
        if before != routes:
            self._count(key[0], before, routes)

    def _count(self, service: str, before: tuple[Declared, ...], after: tuple[Declared, ...]) -> None:
        for declared in after:
            self._claims[service, declared] += 1
            self._has_new_claims = self._has_new_claims or self._claims[service, declared] == 1
        for declared in before:
            self._claims[service, declared] -= 1
            if not self._claims[service, declared]:
                del self._claims[service, declared]
                self._has_new_claims = True

    def why_not_live(self, service: str, path: str) -> str | None:
        """Why a declared route is not live; None: it is."""
        reason = self.composed.reasons.get((service, path))
        if reason is None and self._has_new_claims:
            is_live = any(route.name == f"{service}:{path}" for route in self.composed.routes)
            return None if is_live else "pending"
        return reason

    def _compose(self) -> None:
        """Draw up the declared routes anew, if that may change anything; swap when it does. With a thousand services it
        takes a tenth of a second, and whoever declares something else twenty times a second must not have the loop for it:
        then it is the next look that does it, or one after."""
        began_s = time.monotonic()
        if not self._has_new_claims or not self._composing.may_begin(began_s):
            return
        self._has_new_claims = False
        before = self.composed
        self.composed = compose(self._claims, self.view.grants, self.view.routes, before)
        if self.composed.routes != before.routes:  # by identity: routes that stayed are the same objects
            self._on_routes()
        self._composing.spent(began_s, time.monotonic())

    async def close(self) -> None:
        await self._store.close()


def facts(entry: Entry) -> dict[str, str | int]:
    """What the access log says of an instance."""
    host = f"[{entry.host}]" if ":" in entry.host else entry.host
    return {
        "service.name": entry.service,
        "service.node.name": entry.instance,
        "service.address": f"{host}:{entry.port}",
        "registry.gateway": entry.gateway,
    }
