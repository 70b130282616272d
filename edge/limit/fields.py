"""Limits as the downstream sees them: `RateLimit-Policy` and `RateLimit` of draft-ietf-httpapi-ratelimit-headers-11.

    RateLimit-Policy: "orders-subject";q=100;w=60
    RateLimit: "orders-subject";r=42;t=17

Both are lists of Structured Fields strings with parameters (RFC 9651): q quota, w window in seconds, r what is left, t
seconds until it is restored. Names of limits need no escaping (`rules.is_limit_name`).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from edge.model.decision import Exhausted, QuotaState
from edge.model.http import RawField


@lru_cache(maxsize=1024)
def _policy(limit: str, quota: int, window_s: int) -> str:
    return f'"{limit}";q={quota};w={window_s}'


@lru_cache(maxsize=1024)
def _policy_field(limit: str, quota: int, window_s: int) -> RawField:
    return b"ratelimit-policy", _policy(limit, quota, window_s).encode("ascii")


def ratelimit_fields(quotas: Sequence[QuotaState]) -> list[RawField]:
    """Both fields for an admitted request; none when no limit applies."""
    if len(quotas) == 1:
        state = quotas[0]
        return [
            _policy_field(state.limit, state.quota, state.window_s),
            (b"ratelimit", f'"{state.limit}";r={state.remaining};t={state.reset_s}'.encode("ascii")),
        ]
    if not quotas:
        return []
    policies = ", ".join([_policy(state.limit, state.quota, state.window_s) for state in quotas])
    states = ", ".join([f'"{state.limit}";r={state.remaining};t={state.reset_s}' for state in quotas])
    return [(b"ratelimit-policy", policies.encode("ascii")), (b"ratelimit", states.encode("ascii"))]


def exhausted_fields(exhausted: Exhausted) -> list[RawField]:
    """The same two for a 429, about the limit that is used up; `Retry-After` stands in the problem itself.

    None for the window of bad credentials, which has no quota to tell: it is not the caller's to plan with.
    """
    if not exhausted.quota:
        return []
    retry = exhausted.retry_after_s
    return ratelimit_fields((QuotaState(exhausted.limit, exhausted.quota, exhausted.window_s, 0, retry),))
