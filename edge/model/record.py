"""Facts that are known only after a request was admitted, as the access log records them."""

from __future__ import annotations

from dataclasses import dataclass


# Identity is the object: one per upstream connection, so the recorder keys its cache of encoded fragments by it.
@dataclass(slots=True, eq=False)
class UpstreamFacts:
    """Who answered. Built by `forward` once per connection, after the identity was proven; changed by nobody."""

    service: str
    """Name in services.yaml."""
    spiffe_id: str
    """Identity the peer certificate proved."""
    serial: str
    """Serial of the peer's leaf, lower-case hexadecimal."""
    address: str
    """`host:port` dialled, IPv6 in brackets."""
    connect_ns: int = 0
    """What the dial and its handshake took. A property of the connection, not of each request on it."""
