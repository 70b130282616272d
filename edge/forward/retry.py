"""Whether a request may be sent again after the connection that carried it failed.

Only if it has no body, its method is idempotent, and the connection had waited in the pool and closed before one byte of an
answer (RFC 9110 §9.2.2): then nobody acted on it, or acting twice is acting once.
"""

from __future__ import annotations

from typing import Protocol

from edge.errors import UpstreamError, UpstreamUnreachable
from edge.model.http import Request

IDEMPOTENT = frozenset(("GET", "HEAD", "OPTIONS", "PUT", "DELETE"))
MAX_RETRIES = 2
"""One idle close may follow another: an upstream ends all its connections at once."""


class Carrier(Protocol):
    """What carried it."""

    @property
    def is_reused(self) -> bool: ...

    @property
    def answer_started(self) -> bool: ...


def may_be_sent_again(request: Request, error: UpstreamError, connection: Carrier, retries: int) -> bool:
    """`retries`: how often it was already."""
    return (
        isinstance(error, UpstreamUnreachable)
        and connection.is_reused
        and not connection.answer_started
        and not request.has_body
        and request.method in IDEMPOTENT
        and retries < MAX_RETRIES
    )
