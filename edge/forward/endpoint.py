"""One address of one service as this worker knows it: what waits there, what is under way, how it has done."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from edge.forward.health import TENTHS, Health

if TYPE_CHECKING:
    from edge.forward.io_pool import Pinned

Address = tuple[str, int]
"""(host, port)."""


class Endpoint:
    """Made by the fleet, which puts it together from the file and the roster. One event loop, no lock."""

    __slots__ = (
        "address",
        "check_at_s",
        "check_path",
        "failures",
        "health",
        "idle",
        "in_flight",
        "is_draining",
        "is_member",
        "load_weight",
        "name",
        "service",
        "spiffe_id",
        "weight",
    )

    def __init__(self, service: str, spiffe_id: str, address: Address) -> None:
        self.service = service
        self.spiffe_id = spiffe_id
        self.address = address
        self.name = spell(address)
        """The instance's id; of an endpoint of the file `HOST:PORT`."""
        self.weight = 1
        self.load_weight = TENTHS
        """Of this moment, in tenths of a whole one: less while it starts."""
        self.check_path: str | None = None
        """What it said of itself; None: the service's."""
        self.check_at_s = 0.0
        """When its next check is due."""
        self.in_flight = 0
        """Requests and WebSockets under way, and connections being made for one. The pool alone counts."""
        self.idle: deque[Pinned] = deque()
        """Proven connections that wait for work; the pool's."""
        self.failures = 0
        """Requests that failed, in a row."""
        self.health = Health()
        self.is_member = False
        """It may get new requests, as far as file and roster go."""
        self.is_draining = False
        """It said so itself."""

    @property
    def state(self) -> str:
        """For the operator: `healthy`, `starting`, `ejected`, `unhealthy` (by checks), `draining`, or `gone` (it left, and
        finishes what it has)."""
        if self.is_draining:
            return "draining"
        if not self.is_member:
            return "gone"
        if self.health.is_failing:
            return "unhealthy"
        if self.health.is_ejected:
            return "ejected"
        return "starting" if self.load_weight < TENTHS * self.weight else "healthy"


STATES = ("healthy", "starting", "ejected", "unhealthy", "draining", "gone")


def spell(address: Address) -> str:
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
