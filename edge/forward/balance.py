"""Which endpoint of a service gets the next request: round robin. A decision only; the pool dials."""

from __future__ import annotations

from edge.model.route import Upstream

Address = tuple[str, int]
"""(host, port)."""


class RoundRobin:
    """Takes the endpoints of each service in turn.

    Owner: the gateway's pool, one per worker; no lock, one event loop.
    """

    def __init__(self) -> None:
        self._turns: dict[str, int] = {}

    def order(self, upstream: Upstream) -> tuple[Address, ...]:
        """All endpoints, the one whose turn it is first; empty when the service has none."""
        endpoints = upstream.endpoints
        count = len(endpoints)
        if count <= 1:
            return endpoints
        turn = self._turns.get(upstream.service, 0) % count
        self._turns[upstream.service] = turn + 1
        return endpoints[turn:] + endpoints[:turn]
