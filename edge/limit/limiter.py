"""Admit a permitted request, or say that a limit is used up. Synchronous; what must be fetched comes back as a `Need`.

    admit → Admission            every limit of the route had a unit in hand; one was taken from each
          → Exhausted            a limit is known to be used up; nothing was taken
          → Asked                a `Need` to ask the store; when fetched, it holds the verdict

Laws:

- One unit of every limit that applies, or of none.
- The verdict reached while a request waited is in the `Asked` that it was given, and nobody else has it: a request asks
  at most once, and cannot lose its unit to one that came later.
- A limit that is known to be used up costs no question. A store that is known to be away costs no waiting.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from edge.limit.lease import Lease, Ticket
from edge.limit.rules import LimitSettings, counts_by_address, key_parts, store_key
from edge.model.decision import Admission, Exhausted, Need, Permit, QuotaState
from edge.model.identity import Peer, Principal
from edge.model.recent import Recent
from edge.model.route import Route

_NS = 1_000_000_000
_MAX_PLANS = 16_384

Attempt = Callable[[int, Ticket | None], tuple[Lease, ...]]
"""(now_ns, answered ticket) → the leases that still lack a unit; none = the verdict is reached."""


class Store(Protocol):
    """What the limiter asks of `io_store.LeaseStore`; tests put a simulator of the far side here."""

    leases: Recent[str, Lease]
    """Kept by the store, not by the limiter: a reload makes a new limiter, and leases survive it."""
    is_down: bool
    replicas: int

    def settle(self, attempt: Attempt) -> Awaitable[None]: ...


class Plan:
    """The leases that one principal needs on one route."""

    __slots__ = ("by_address", "leases")

    def __init__(self, leases: tuple[Lease, ...], *, by_address: bool) -> None:
        self.leases = leases
        self.by_address = by_address
        """The leases depend on the address too and stand under (principal, route, prefix)."""


@dataclass(slots=True, eq=False)
class Asked(Need):
    """What one request waits for. The unit it is given is taken when the store's answer comes, not when it is looked at."""

    verdict: Admission | Exhausted | None = None


class Limiter:
    """All limits of one generation of the configuration."""

    def __init__(self, settings: Sequence[LimitSettings], store: Store) -> None:
        self._settings = tuple(settings)
        self._store = store
        # Owned by this limiter and used from the worker's loop only.
        self._plans: Recent[tuple[object, ...], Plan] = Recent(_MAX_PLANS)

    def plan(self, permit: Permit, peer: Peer) -> Plan | None:
        """What to hand to `admit` with this permit, whoever its peer; None when that depends on the address."""
        plan = self._find_plan(permit.principal, permit.match.route, peer)
        by_route = self._plans.find((permit.principal, permit.match.route))
        return plan if plan is by_route else None

    def admit(self, permit: Permit, peer: Peer, now_ns: int, plan: Plan | None = None) -> Admission | Exhausted | Asked:
        """Take one unit of every limit of the route, or none.

        `now_ns` is monotonic (`time.monotonic_ns()`), never the wall clock: a clock that is set back would let a lease
        outlive its window.

        Raises (from `Need.fetch`):
            StoreUnavailable: the store does not answer and a limit says `closed`; then 503.
        """
        if plan is None:
            plan = self._find_plan(permit.principal, permit.match.route, peer)
        leases = plan.leases
        if len(leases) == 1:  # the common case, spelled out: 0.5 µs less than the general one
            lease = leases[0]
            if lease.units > 0 and now_ns < lease.dies_ns and not lease.is_local:
                lease.units -= 1
                return Admission(permit, (_state(lease, now_ns),))
        elif not leases:
            return Admission(permit)
        result = self._decide(permit, leases, now_ns, None)
        if isinstance(result, tuple):
            return self._ask(permit, leases)
        return result

    def _ask(self, permit: Permit, leases: tuple[Lease, ...]) -> Asked:
        def attempt(now_ns: int, ticket: Ticket | None) -> tuple[Lease, ...]:
            """One try of the waiting request: keep the verdict, or name what it lacks."""
            result = self._decide(permit, leases, now_ns, ticket)
            if isinstance(result, tuple):
                return result
            asked.verdict = result
            return ()

        asked = Asked("quota", partial(self._store.settle, attempt))
        return asked

    def _decide(
        self, permit: Permit, leases: tuple[Lease, ...], now_ns: int, ticket: Ticket | None
    ) -> Admission | Exhausted | tuple[Lease, ...]:
        down = self._store.is_down
        lacking = tuple(
            lease
            for lease in leases
            if not (ticket is not None and ticket.owes(lease))
            and not lease.is_ready(now_ns, is_store_down=down)
            and not (
                down and lease.limit.on_store_failure == "local" and lease.start_local(now_ns, self._store.replicas)
            )
        )
        if not lacking:
            return self._take(permit, leases, now_ns, ticket)
        # The store's no to this ticket is the answer, also when the window moved on while the answer travelled.
        refused = ticket.refused if ticket is not None else None
        worst = max(lacking, key=lambda lease: lease.free_again_ns(is_store_down=down))
        if worst.free_again_ns(is_store_down=down) > now_ns:
            refused = worst
        if refused is None:
            return lacking
        wait_ns = refused.free_again_ns(is_store_down=down) - now_ns
        limit = refused.limit
        # Rolling windows count a little longer than they are; whole seconds must not make a second of that.
        wait_s = min(max(1, -(-wait_ns // _NS)), limit.window_s)
        return Exhausted(limit.name, limit.quota, limit.window_s, wait_s)

    def _take(self, permit: Permit, leases: tuple[Lease, ...], now_ns: int, ticket: Ticket | None) -> Admission:
        is_degraded = False
        for lease in leases:
            if ticket is not None and ticket.owes(lease):
                ticket.claim(lease)
            else:
                lease.units -= 1
                is_degraded = is_degraded or lease.is_local
        return Admission(permit, tuple([_state(lease, now_ns) for lease in leases]), is_degraded)

    def _find_plan(self, principal: Principal, route: Route, peer: Peer) -> Plan:
        plan = self._plans.find((principal, route))
        if plan is not None and plan.by_address:
            plan = self._plans.find((principal, route, peer.prefix))
        if plan is not None:
            return plan
        settings = [limit for limit in self._settings if limit.applies_to(route)]
        leases = tuple(self._lease(limit, principal, route, peer) for limit in settings)
        plan = Plan(leases, by_address=False)
        if any(counts_by_address(limit, principal) for limit in settings):
            self._plans.put((principal, route), Plan((), by_address=True))
            self._plans.put((principal, route, peer.prefix), plan)
        else:
            self._plans.put((principal, route), plan)
        return plan

    def _lease(self, limit: LimitSettings, principal: Principal, route: Route, peer: Peer) -> Lease:
        key = store_key(limit, key_parts(limit, principal, route, peer))
        lease = self._store.leases.find(key)
        if lease is None or lease.limit.on_store_failure != limit.on_store_failure:
            lease = Lease(limit, key)
            self._store.leases.put(key, lease)
        return lease


def _state(lease: Lease, now_ns: int) -> QuotaState:
    """The limit as the downstream may see it; what other replicas took since the last grant is not known here."""
    limit = lease.limit
    return QuotaState(
        limit.name,
        limit.quota,
        limit.window_s,
        lease.free + lease.units,
        max(0, (lease.reset_ns - now_ns + 999_999_999) // _NS),
    )
