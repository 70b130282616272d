"""What the steps decide. Each value holds the one before it, so a step cannot be skipped without a type error:
`Admission` holds a `Permit`, which holds a `Principal` and the `RouteMatch`; forward takes nothing but an `Admission`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from edge.model.identity import Principal
from edge.model.route import RouteMatch


@dataclass(slots=True, eq=False)
class Need:
    """A step lacks something. The shell awaits `fetch()` and calls the same step again.

    `fetch` raises an `Unavailable` when the thing cannot be had; it is single-flight inside.
    """

    what: str
    fetch: Callable[[], Awaitable[None]]


# Permit and Admission are built once per request; see the note on `frozen` in model/http.py.
@dataclass(slots=True, eq=False)
class Permit:
    """The policy allows. Built only inside `authz/` (a test holds this)."""

    principal: Principal
    match: RouteMatch
    policies: tuple[str, ...]
    """Ids of the policies that decided, sorted."""
    is_settled: bool = False
    """Principal, route and method alone decided: the same three are permitted again, whenever and from wherever."""


@dataclass(frozen=True, slots=True)
class Denial:
    """The policy does not allow."""

    reason: str
    """`no-policy-matched`, `forbidden-by-policy` or `policy-error`; of a WebSocket also `websocket-off`, `foreign-origin`."""
    policies: tuple[str, ...] = ()
    missing_scopes: tuple[str, ...] = ()
    """Scopes that would have turned the decision, when a scope is all that is missing; for the challenge."""


@dataclass(slots=True, eq=False)
class QuotaState:
    """One limit as the downstream may see it (RateLimit fields, draft-11)."""

    limit: str
    quota: int
    window_s: int
    remaining: int
    reset_s: int


@dataclass(slots=True, eq=False)
class Admission:
    """The permit, and the quota taken for it. `quotas` is empty when no limit applies to the route."""

    permit: Permit
    quotas: tuple[QuotaState, ...] = ()
    degraded: bool = False
    """The store was down and a `local` limit decided."""


@dataclass(frozen=True, slots=True)
class Exhausted:
    """A limit is used up."""

    limit: str
    quota: int
    window_s: int
    retry_after_s: int
    """Whole seconds, at least 1."""
