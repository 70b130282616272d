"""Routes and path patterns as values. `config` builds them, `routing` compiles and matches them."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Literal

from edge.model.http import RawField
from edge.model.websocket import DEFAULT_BOUNDS, WebSocketBounds

if TYPE_CHECKING:
    from edge.forward.balance import Turns

NOSNIFF: RawField = (b"x-content-type-options", b"nosniff")
"""A browser takes an answer for what its `Content-Type` says, and for nothing else."""


class Wildcard(Enum):
    """What a pattern segment may be instead of a literal."""

    ONE = "*"
    """Exactly one segment."""
    REST = "**"
    """The prefix itself and everything below it; only as the last segment."""


@dataclass(frozen=True, slots=True)
class Capture:
    """`{name}`: one segment, captured."""

    name: str


Segment = str | Capture | Wildcard


@dataclass(frozen=True, slots=True)
class PathPattern:
    """A parsed path pattern; `text` is what the file said. `/orders/{id}/**` → ("orders", Capture("id"), REST)."""

    text: str
    segments: tuple[Segment, ...]


@dataclass(frozen=True, slots=True)
class FieldCondition:
    """A header or query parameter that must equal a value; the name of a header is lower-case."""

    name: str
    value: str


@dataclass(frozen=True, slots=True, eq=False)
class Upstream:
    """Where a route forwards to. `spiffe_id` is who must answer there, whatever the address."""

    service: str
    spiffe_id: str
    endpoints: tuple[tuple[str, int], ...] = ()
    """(host, port) pairs written in the file; registered instances join them."""
    weights: tuple[int, ...] = ()
    """Of the endpoints, in their order; empty: all are equal."""
    strip_prefix: str = ""
    timeout_s: float = 10.0
    is_local: bool = False
    """It is the application in this process (`Gateway.application`): nobody is dialled."""
    assertion: Literal["subject", "request"] | None = None
    """What is signed for the service: who calls it, or this one request (`forward/assertion`)."""


@dataclass(frozen=True, slots=True, eq=False)
class Route:
    """One route of routes.yaml. Identity is the object; names are unique."""

    name: str
    pattern: PathPattern
    hosts: tuple[str, ...]
    methods: tuple[str, ...]
    upstream: Upstream
    auth: tuple[str, ...]
    """Authentication methods in the order they are tried; empty only when `public_reason` is set."""
    public_reason: str | None = None
    headers: tuple[FieldCondition, ...] = ()
    query: tuple[FieldCondition, ...] = ()
    encoded_slash: bool = False
    """`%2F` in a path segment is allowed on this route."""
    forward_token: bool = False
    """Pass `Authorization` on to the upstream."""
    max_body_bytes: int = 1 << 30
    answer_fields: tuple[RawField, ...] = (NOSNIFF,)
    """What every answer of the route says, in place of what the upstream says; lower-case names."""
    websocket: WebSocketBounds | None = DEFAULT_BOUNDS
    """None: no WebSocket, whatever the methods."""
    origins: Container[str] = ()
    """Origins beside the request's own that may open a WebSocket; lower-case, without a default port."""
    place: tuple[str, int, int] = field(default=("routes.yaml", 1, 1), compare=False)
    """(file, line, column) for messages."""


class RouteMatch:
    """A route together with the segments it captured."""

    __slots__ = ("params", "route", "turns")

    def __init__(self, route: Route, params: dict[str, str], turns: Turns | None = None) -> None:
        self.route = route
        self.params = params
        self.turns = turns
        """Whose turn it is at the route's upstream. Balancing's, kept here because nothing is nearer to a request: no table
        is looked into. None: the pool has not been asked."""
