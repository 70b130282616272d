"""What a service may ask of its registration, and how it is refused: the words of the contract in docs/registration.md.

Wish       the body of a PUT, as it was sent; its form is sound and nothing else was judged
Granted    the lease that came of it
Refused    a rule, which stays the same for programs, and what to tell people
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Final

import msgspec

from edge.registry.entry import MAX_ROUTES, MAX_TTL_S, MAX_WEIGHT, Entry, HealthPath

MAX_BODY_BYTES: Final = 65_536
DRAIN_S: Final = 2.0
"""After a lease was given up, requests may come this long: every worker and gateway has heard within a second."""
MAX_INSTANCES: Final = 500
"""Of one service."""
_Host = Annotated[str, msgspec.Meta(max_length=300)]


class WishedRoute(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A route as a service declares it."""

    path: Annotated[str, msgspec.Meta(max_length=1024)]
    methods: Annotated[tuple[_Host, ...], msgspec.Meta(min_length=1, max_length=16)] | None = None
    """Absent: all of the grant; so with hosts."""
    hosts: Annotated[tuple[_Host, ...], msgspec.Meta(min_length=1, max_length=100)] | None = None


class Wish(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of a PUT."""

    address: _Host
    ttl_s: Annotated[int, msgspec.Meta(ge=1, le=MAX_TTL_S)] = 30
    weight: Annotated[int, msgspec.Meta(ge=1, le=MAX_WEIGHT)] = 1
    health_path: HealthPath | None = None
    draining: bool = False
    routes: Annotated[tuple[WishedRoute, ...], msgspec.Meta(max_length=MAX_ROUTES)] = ()


@dataclass(frozen=True, slots=True)
class Refused:
    """Why not. Nothing has changed."""

    rule: str
    """A key of REFUSALS."""
    detail: str = ""
    """For the access log, never for the client."""
    retry_after_s: int = 0


@dataclass(frozen=True, slots=True)
class Granted:
    """The lease as it is now."""

    entry: Entry
    is_new: bool
    ttl_s: int
    expires_in_s: float
    reasons: Mapping[str, str]
    """Path of a declared route → why it is not live."""


REFUSALS: Mapping[str, tuple[int, str]] = {
    "body": (400, "the body is not JSON of the documented form"),
    "instance-name": (400, "the id of an instance is a-z, 0-9 and inner hyphens, at most 63"),
    "address-malformed": (400, "the address is neither HOST:PORT nor :PORT"),
    "not-yours": (403, "this certificate is not the one of that service"),
    "route-outside-grant": (403, "a declared route is not inside the grant of the service"),
    "address-foreign": (403, "the address is neither the connection's own nor in a network granted to the service"),
    "address-loopback": (403, "instances on the loopback of the gateway are not allowed here"),
    "address-special": (403, "no instance can be at a link-local, metadata, multicast or reserved address"),
    "address-unresolved": (403, "the name has no address"),
    "identity": (403, "who answers at the address did not prove to be this service"),
    "accepts-anyone": (403, "who answers at the address takes clients without a certificate"),
    "instance-taken": (409, "a living lease of this id belongs to another certificate at another address"),
    "overtaken": (409, "the lease was changed by another request meanwhile"),
    "no-lease": (404, "there is no lease of this id"),
    "too-many": (429, "too many changes or instances of this service"),
    "unreachable": (502, "nobody answers at the address"),
    "store": (503, "the shared registry cannot be reached"),
}
"""Rule → status and sentence."""

_read = msgspec.json.Decoder(Wish).decode


def read(body: bytes) -> Wish | Refused:
    """The body of a PUT."""
    if len(body) > MAX_BODY_BYTES:
        return Refused("body", "too large")
    try:
        return _read(body)
    except (msgspec.MsgspecError, UnicodeDecodeError) as exc:
        return Refused("body", str(exc))


def is_heartbeat(known: Entry, offered: Entry) -> bool:
    """Whether nothing but time has passed: the same holder says the same, so nobody need be dialled."""
    return (
        msgspec.structs.replace(
            offered,
            gateway=known.gateway,
            sequence=known.sequence,
            expires_ms=known.expires_ms,
            since_ms=known.since_ms,
            draining=known.draining,
        )
        == known
    )


def may_change(known: Entry, offered: Entry) -> bool:
    """Whether a living lease may pass to what is offered: from its own holder, or at its own address, where it is proven
    anew who answers. Another certificate at another address waits until the lease has ended (attack P49)."""
    return known.holder == offered.holder or (known.host, known.port) == (offered.host, offered.port)
