"""One place where a service answers: a line of `endpoints:` in a route, or an instance that registered itself."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Instance:
    """What balancing may know. Who answers there is proven at each handshake, whatever stands here."""

    service: str
    name: str
    """Its id within the service; an endpoint of the file is called `HOST:PORT`."""
    address: tuple[str, int]
    """(host, port); of a registered instance always an IP literal: its name was resolved once, at admission."""
    weight: int = 1
    health_path: str | None = None
    since_s: float = 0.0
    """Unix time at which it was admitted; 0 for an endpoint of the file, which was always there."""
    is_draining: bool = False
    """It finishes what it has, and gets nothing new."""
