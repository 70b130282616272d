"""The tables of services.yaml, routes.yaml and limits.yaml (design §6). Form only; `services`, `routes` and `parse` judge
what lies between them."""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from edge.authz.upgrade import canonical_origin
from edge.config.balancing import (
    DEFAULT_SLOW_START_S,
    Balance,
    Ejection,
    EjectionShape,
    HealthShape,
    InFlightShape,
    SlowStart,
    Weight,
)
from edge.config.edge_file import Host, parse_host
from edge.config.shape import Expect, Shape, check, pattern
from edge.errors import MalformedRequest
from edge.limit.rules import BadSetting, KeyPart, OnStoreFailure, Strategy, is_limit_name, parse_rate
from edge.model.websocket import DEFAULT_BOUNDS
from edge.parse.target import canonicalize
from edge.routing.pattern import Flaw, parse, sample
from pki.spiffe import is_name

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
"""Every method that the public listener takes; CONNECT and TRACE never pass a gateway."""


def pattern_flaw(text: str) -> str | None:
    parsed = parse(text)
    if isinstance(parsed, Flaw):
        return f"{parsed.message}; {parsed.remedy}"
    path = sample(parsed)
    try:
        canonical = canonicalize(path.encode("utf-8"), encoded_slash=True)
    except MalformedRequest as exc:
        return f"no request can have this path: {exc.rule}"
    if canonical.path != path or canonical.has_query:
        return f"requests have it as {canonical.path}"
    return None


def parse_endpoint(text: str) -> tuple[str, int] | None:
    """`127.0.0.1:9101`, `[::1]:9101`, `orders.internal:9101` → (host, port)."""
    host, _, port = text.rpartition(":")
    if not re.fullmatch(r"[1-9][0-9]{0,4}", port) or int(port) > 65535 or (":" in host and not host.startswith("[")):
        return None
    found = parse_host(host)
    return (found.strip("[]"), int(port)) if found else None


def _endpoint_flaw(text: str) -> str | None:
    return None if parse_endpoint(text) else "not HOST:PORT"


def _method_flaw(text: str) -> str | None:
    return None if text in METHODS else f"known: {', '.join(METHODS)}"


def _origin_flaw(text: str) -> str | None:
    scheme, _, authority = text.partition("://")
    host, colon, port = authority.rpartition(":")
    if not colon or authority.endswith("]"):
        host, port = authority, ""
    elif not re.fullmatch(r"[1-9][0-9]{0,4}", port):
        return "not SCHEME://HOST or SCHEME://HOST:PORT"
    if scheme not in ("https", "http") or parse_host(host) is None:
        return "not SCHEME://HOST or SCHEME://HOST:PORT"
    canonical = canonical_origin(text)
    return None if canonical == text else f"browsers send it as {canonical}"


def _prefix_flaw(text: str) -> str | None:
    if not text:
        return None
    if text.endswith("/") or any(mark in text for mark in "*{}"):
        return "literal segments without a final slash"
    return pattern_flaw(text)


def _network_flaw(text: str) -> str | None:
    try:
        ipaddress.ip_network(text)
    except ValueError as exc:
        return str(exc)
    return None


def _rate_flaw(text: str) -> str | None:
    parsed = parse_rate(text)
    return parsed.message if isinstance(parsed, BadSetting) else None


Path = Annotated[str, check(pattern_flaw), Expect("a path pattern", "/orders/**")]
Method = Annotated[str, check(_method_flaw), Expect("an HTTP method in capitals", "GET")]
Name = Annotated[str, check(lambda text: None if is_limit_name(text) else "letters, digits, . _ -, at most 64"),
                 Expect("a name", "orders")]  # fmt: skip
ServiceName = Annotated[str, check(lambda text: None if is_name(text) else "a-z, 0-9 and inner hyphens, at most 63"),
                        Expect("a service name", "orders")]  # fmt: skip
Endpoint = Annotated[str, check(_endpoint_flaw), Expect("an upstream's HOST:PORT", '"127.0.0.1:9101"')]
DnsName = Annotated[
    str, pattern(r"(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"),
    Expect("a lower-case DNS name without wildcard", "orders.internal"),
]  # fmt: skip
Network = Annotated[str, check(_network_flaw), Expect("a network", "10.20.0.0/16")]
FieldName = Annotated[str, pattern(r"[A-Za-z0-9-]{1,100}"), Expect("a header name of letters, digits, -", "x-version")]
FieldValue = Annotated[str, pattern(r"[!-~](?:[ -~]{0,198}[!-~])?"), Expect("printable ASCII", "v2")]
ANSWER_FIELDS = frozenset((
    "cache-control", "content-security-policy", "content-security-policy-report-only", "cross-origin-embedder-policy",
    "cross-origin-opener-policy", "cross-origin-resource-policy", "permissions-policy", "referrer-policy",
    "x-content-type-options", "x-frame-options",
))  # fmt: skip
"""What a route may say about its answers: how browsers and caches treat them, nothing that frames or routes them."""
FROM_UPSTREAM = "upstream"
"""In place of a value: the upstream's own field passes."""
AnswerField = Annotated[
    str, check(lambda text: None if text in ANSWER_FIELDS else f"known: {', '.join(sorted(ANSWER_FIELDS))}"),
    Expect("a security header in lower case", "content-security-policy"),
]  # fmt: skip
AnswerValue = Annotated[
    str, pattern(r"[!-~](?:[ -~]{0,3998}[!-~])?"), Expect("printable ASCII, or upstream", "default-src 'self'")
]
Origin = Annotated[str, check(_origin_flaw), Expect("an origin", "https://app.example.com")]
Methods = Annotated[tuple[Method, ...], Field(min_length=1), Expect("a list of methods", "[GET, POST]")]
Hosts = Annotated[tuple[Host, ...], Field(min_length=1), Expect("a list of hosts", "[localhost]")]
Conditions = Annotated[dict[FieldName, FieldValue], Field(max_length=20)]


class ServiceShape(Shape):
    """One entry of `services:`: who may serve what."""

    may_serve: Annotated[
        tuple[Path, ...], Field(min_length=1, max_length=200), Expect("a list of patterns", "[/orders/**]")
    ]
    hosts: Hosts | None = None
    """Absent: all of the public listener's."""
    methods: Methods | None = None
    """Absent: all."""
    dns: tuple[DnsName, ...] | None = None
    """Names for its certificates; absent: `<name>.internal`."""
    balance: Balance = "round_robin"
    """Which of its instances gets the next request; the choice and the bounds below are `forward/balance`'s."""
    slow_start_s: SlowStart = DEFAULT_SLOW_START_S
    """How long the weight of an instance grows that is new, or comes back."""
    max_in_flight: InFlightShape = InFlightShape()
    ejection: Ejection = EjectionShape()
    health: HealthShape | None = None
    assertion: Annotated[Literal["subject", "request"], Expect("subject or request", "subject")] | None = None
    """Sign who calls it, or each request; absent: neither."""
    addresses: Annotated[
        tuple[Network, ...], Field(max_length=100), Expect("a list of networks", "[10.20.0.0/16]")
    ] = ()
    """Where its instances may be although they register from elsewhere."""


class MatchShape(Shape):
    """What a request must be to belong to a route."""

    path: Path
    hosts: Hosts | None = None
    """Absent: any of the public listener's."""
    methods: Methods | None = None
    """Absent: all."""
    headers: Conditions = Field(default_factory=dict)
    """Each must occur exactly once with this value."""
    query: Annotated[dict[str, str], Field(max_length=20)] = Field(default_factory=dict)
    """Each parameter must occur exactly once with this value (both decoded)."""


class UpstreamShape(Shape):
    """Where a route forwards to. The service's identity is what counts; an address is only where to look for it."""

    service: ServiceName
    strip_prefix: Annotated[str, check(_prefix_flaw), Expect("leading segments to remove", "/api")] = ""
    endpoints: Annotated[tuple[Endpoint, ...], Field(max_length=1000)] = ()
    weights: Annotated[dict[Endpoint, Weight], Field(max_length=1000)] = Field(default_factory=dict)
    """Of endpoints that are to get more than others; the rest have 1."""
    timeout_s: Annotated[float, Field(gt=0, le=86_400), Expect("a number of seconds > 0", "10")] = 10.0
    """From the first byte sent to the head of the answer."""


class PublicAccessShape(Shape):
    """`public:` in place of `auth:`: nobody is asked who he is, and the file says why."""

    reason: Annotated[str, Field(min_length=1, max_length=500), Expect("the reason, in words", '"health page"')]


class WebSocketShape(Shape):
    """`websocket:` of a route; the reason for each bound stands in `model/websocket`."""

    max_message_bytes: Annotated[int, Field(ge=1, le=1 << 40), Expect("a number of bytes", "16777216")] = (
        DEFAULT_BOUNDS.max_message_bytes
    )
    max_message_frames: Annotated[int, Field(ge=1, le=1 << 30), Expect("a number of frames", "65536")] = (
        DEFAULT_BOUNDS.max_message_frames
    )
    max_control_frames_per_s: Annotated[int, Field(ge=1, le=100_000), Expect("a number of frames", "50")] = (
        DEFAULT_BOUNDS.max_control_frames_per_s
    )
    idle_s: Annotated[float, Field(gt=0, le=86_400), Expect("a number of seconds > 0", "300")] = DEFAULT_BOUNDS.idle_s


def _no_websocket(value: object) -> object:
    if value is None:
        raise ValueError("nothing is neither yes nor no")
    return None if value is False else {} if value is True else value


class RouteShape(Shape):
    """One entry of `routes:`."""

    name: Name
    match: MatchShape
    upstream: UpstreamShape
    auth: (
        Annotated[tuple[str, ...], Field(min_length=1), Expect("a list of methods of authentication", "[jwt]")] | None
    ) = None
    """Methods in the order they are tried. Exactly one of `auth` and `public` must be there."""
    public: PublicAccessShape | None = None
    encoded_slash: bool = False
    """Allow `%2F` within a segment."""
    forward_token: bool = False
    """Pass `Authorization` on to the upstream."""
    max_body_bytes: Annotated[int, Field(ge=0, le=1 << 40), Expect("a number of bytes", "1048576")] = 1 << 30
    websocket: Annotated[
        WebSocketShape | None, BeforeValidator(_no_websocket), Expect("false, or a table of bounds", "false")
    ] = WebSocketShape()
    """`false`: none. Else its bounds; a route whose methods include GET takes WebSockets."""
    origins: Annotated[tuple[Origin, ...], Field(max_length=100)] = ()
    """Whose pages may open one, beside the request's own origin."""
    answer_headers: dict[AnswerField, AnswerValue] = Field(default_factory=dict)
    """Said in every answer in place of what the upstream says; by default `x-content-type-options: nosniff`."""


class LimitMatchShape(Shape):
    """To which routes a limit applies; none of both: to all."""

    service: ServiceName | None = None
    route: Name | None = None


class LimitShape(Shape):
    """One entry of `limits:`."""

    name: Name
    rate: Annotated[str, check(_rate_flaw), Expect("AMOUNT/PERIOD", "100/minute")]
    match: LimitMatchShape = LimitMatchShape()
    key: Annotated[tuple[KeyPart, ...], Field(max_length=7)] = ("subject",)
    """What is counted apart from each other; empty: all requests together."""
    strategy: Strategy = "fixed-window"
    on_store_failure: OnStoreFailure = "closed"
