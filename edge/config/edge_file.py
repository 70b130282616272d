"""The tables of edge.yaml: every setting with its type, default, unit and reason (design §6).

Only form is judged here; what needs another file, or two settings together, is judged by `listeners`, `trust` and `parse`.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from edge.config.shape import Expect, Shape, check, pattern
from edge.errors import MalformedRequest
from edge.parse.target import canonical_host
from pki.errors import SpiffeIdError
from pki.spiffe import check_trust_domain

_BIND = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[0-9.]+|localhost):(0|[1-9][0-9]{0,4})")


def parse_bind(text: str) -> tuple[str, int] | None:
    """`127.0.0.1:8443`, `[::1]:0`, `localhost:8443` → (address without brackets, port); None when it is neither."""
    found = _BIND.fullmatch(text)
    if found is None or int(found[2]) > 65535:
        return None
    address = found[1].strip("[]")
    if address != "localhost":
        try:
            address = str(ipaddress.ip_address(address))
        except ValueError:
            return None
    return address, int(found[2])


def parse_host(text: str) -> str | None:
    """A host to answer for, in the one spelling that requests have after `parse.target`; None when it is not one."""
    written = f"[{text}]" if ":" in text and not text.startswith("[") else text
    try:
        host, authority = canonical_host(written.encode("utf-8"))
    except MalformedRequest:
        return None
    return host if host == authority else None  # no port


def _bind_flaw(text: str) -> str | None:
    return None if parse_bind(text) else "not ADDRESS:PORT"


def _host_flaw(text: str) -> str | None:
    return None if parse_host(text) else "not a host name or address"


def _proxy_flaw(text: str) -> str | None:
    try:
        network = ipaddress.ip_network(text)
    except ValueError:
        return "not an address or prefix"
    return None if network.prefixlen else "everybody, who could then say that he is anybody"


def _trust_domain_flaw(text: str) -> str | None:
    try:
        check_trust_domain(text)
    except SpiffeIdError:
        return "not a trust domain"
    return None


def parse_place(text: str) -> tuple[str, int] | None:
    """`gw-a.example.com:9443`, `10.0.0.1:9443`, `[::1]:9443` → (host without brackets, port)."""
    host, _, port = text.rpartition(":")
    if not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536 or not parse_host(host):
        return None
    return host.strip("[]"), int(port)


def _place_flaw(text: str) -> str | None:
    return None if parse_place(text) else "not HOST:PORT"


Place = Annotated[str, check(_place_flaw), Expect("a host and port", "gw-a.example.com:9443")]
Bind = Annotated[str, check(_bind_flaw), Expect("an address and port", "127.0.0.1:8443 or [::1]:8443")]
Host = Annotated[str, check(_host_flaw), Expect("a host name or address without port and wildcard", "api.example.com")]
Prefix = Annotated[str, check(_proxy_flaw), Expect("an address or a prefix of some", "10.0.0.0/8")]
TrustDomain = Annotated[
    str, check(_trust_domain_flaw), Expect("a trust domain of a-z, 0-9, dots, hyphens", "mesh.internal")
]
DnsSuffix = Annotated[
    str, pattern(r"\.?(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"),
    Expect("a lower-case DNS suffix", ".internal"),
]  # fmt: skip
File = Annotated[
    str, Field(min_length=1, max_length=4096), Expect("the path of a file", "a path relative to this file")
]
Directory = Annotated[
    str, Field(min_length=1, max_length=4096), Expect("the path of a directory", "one relative to here")
]
Url = Annotated[str, pattern(r"https://[!-~]{1,1000}"), Expect("an https URL", "https://…")]
Positive = Annotated[int, Field(ge=1, le=10_000_000), Expect("a whole number of 1 to 10000000", "1000")]


class ListenerShape(Shape):
    """`services:`, `enrol:` and `admin:`."""

    bind: Bind


class CertificateShape(Shape):
    """A certificate from elsewhere for the public listener."""

    certificate: File
    """PEM, leaf first."""
    key: File
    hosts: Annotated[tuple[Host, ...], Field(min_length=1), Expect("a list of hosts", "[api.example.com]")] | None = (
        None
    )
    """Shown for these only; absent: for every host of the listener that the certificate names."""


class HstsShape(Shape):
    """`Strict-Transport-Security` (RFC 6797)."""

    max_age_s: Annotated[int, Field(ge=0, le=1 << 31), Expect("a number of seconds", "31536000")] = 31_536_000
    include_subdomains: bool = False
    """Not by default: it would bind names that this gateway does not serve."""


class PublicShape(Shape):
    """`listeners.public:`, the only listener that must be there."""

    bind: Bind
    hosts: Annotated[tuple[Host, ...], Field(min_length=1, max_length=1000), Expect("a list of hosts", "[localhost]")]
    tls: (
        Annotated[
            tuple[CertificateShape, ...],
            Field(min_length=1, max_length=1000),
            BeforeValidator(lambda value: (value,) if isinstance(value, dict) else value),
            Expect("a certificate with its key, or a list of them", "{certificate: FILE, key: FILE}"),
        ]
        | None
    ) = None
    """One table or a list; the first is shown to clients that name no host. Absent: issued by the mini-CA for `hosts`."""
    hsts: Annotated[HstsShape | None, BeforeValidator(lambda value: None if value == "off" else value)] = HstsShape()
    """What every answer says of coming back over TLS only; `off` says nothing."""
    http2: Annotated[Literal["front", "hypercorn", "off"], Expect("front, hypercorn or off", "front")] = "front"
    """Which engine speaks HTTP/2 to the public; `off` offers HTTP/1.1 only."""


class ListenersShape(Shape):
    """A listener that is not written is not opened."""

    public: PublicShape
    services: ListenerShape | None = None
    enrol: ListenerShape | None = None
    admin: ListenerShape | None = None


class IdentityShape(Shape):
    """An outside SPIFFE authority in place of the bundled CA."""

    certificate: File
    """PEM, leaf first; what upstreams see. Needs the clientAuth EKU."""
    key: File
    bundle: File
    """PEM; the anchors that upstreams' certificates must lead to."""


class IssuerShape(Shape):
    """One token issuer; the values are judged by `authn.issuer.IssuerSettings`."""

    issuer: str
    """Equal to `iss`, character by character."""
    audience: tuple[str, ...]
    algorithms: tuple[str, ...]
    """Pinned: nothing else is verified."""
    jwks: File | None = None
    """URL or file; absent: by discovery."""
    ca: File | None = None
    """PEM trust anchors for fetching from this issuer; absent: those of the system."""
    max_lifetime_s: int = 90_000
    leeway_s: int = 5


class AuditShape(Shape):
    """The access log; see `audit.record.AuditSettings` for what each means."""

    durability: Literal["standard", "strict"] = "standard"
    origin: Annotated[
        str | None, pattern(r"[!-*,-~]{1,200}"), Expect("a log origin without blanks and +", "edge.example.com/log")
    ] = None
    """Absent: `<trust_domain>/log`."""
    checkpoint_every_s: Annotated[float, Field(ge=0.05, le=3600), Expect("seconds, 0.05 to 3600", "1")] = 1.0
    witnesses: Annotated[
        tuple[str, ...], Field(max_length=0), Expect("an empty list (no witness is asked yet)", "[]")
    ] = ()
    paths: Literal["hashed", "plain"] = "hashed"
    reserve_bytes: Annotated[int, Field(ge=0, le=1 << 50), Expect("a number of bytes", "67108864")] = 64 << 20


class ShedShape(Shape):
    """What one address may cost before anybody knows who it is; defaults as in `accept.shed.ShedSettings`."""

    max_connections: Positive = 20_000
    max_connections_per_prefix: Positive = 2_000
    failed_checks_per_s: Positive = 20_000
    failed_checks_burst: Positive = 40_000
    max_held_bytes: Annotated[int, Field(ge=1 << 20, le=1 << 40), Expect("a number of bytes", "268435456")] = 256 << 20


class RegistrationShape(Shape):
    """What services may announce of themselves; who may is in services.yaml."""

    loopback: bool = False
    """Instances on 127.0.0.1 and ::1: only where the services share the gateway's machine."""


Seconds = Annotated[float, Field(ge=0.1, le=3600), Expect("seconds, 0.1 to 3600", "10")]


class DeadlinesShape(Shape):
    """How long a client may take; what each means, and why, is in `accept.deadlines.Deadlines`, whose defaults these are."""

    handshake_s: Seconds = 10.0
    head_s: Seconds = 10.0
    idle_s: Seconds = 60.0
    body_s: Seconds = 30.0
    write_s: Seconds = 30.0
    least_bytes_per_s: Annotated[float, Field(ge=1, le=1e9), Expect("bytes a second, 1 or more", "240")] = 240.0


class EdgeShape(Shape):
    """edge.yaml."""

    trust_domain: TrustDomain
    listeners: ListenersShape
    state: Directory = "state"
    """Relative to this file; 0700: CA, keys, log, embedded store."""
    workers: Annotated[int, Field(ge=1, le=64), Expect("a number of processes, 1 to 64", "1")] = 1
    store: Annotated[str, Field(min_length=1), Expect("embedded or a store's URL", "embedded")] = "embedded"
    """`${NAME}` takes the URL from the environment, because it may hold a password."""
    policies: Directory = "policies"
    identity: IdentityShape | None = None
    authority: Place | None = None
    """The services listener of the gateway that holds the CA, for one that joined it: certificates are renewed there, and
    from there it hears what is revoked and whom to trust."""
    issuers: Annotated[tuple[IssuerShape, ...], Field(max_length=100)] = ()
    audit: AuditShape = AuditShape()
    shed: ShedShape = ShedShape()
    deadlines: DeadlinesShape = DeadlinesShape()
    registration: RegistrationShape = RegistrationShape()
    trusted_proxies: Annotated[tuple[Prefix, ...], Field(max_length=1000)] = ()
    """Who stands before the public listener and says, in `X-Forwarded-For` or `Forwarded`, for whom he asks."""
    dns_suffixes: (
        Annotated[tuple[DnsSuffix, ...], Field(max_length=50), Expect("a list of DNS suffixes", "[.internal]")] | None
    ) = None
    """What the CA may certify; absent: `.internal` and the trust domain."""
    problem_base: Annotated[
        str, pattern(r"https://[!-~]{1,200}/"), Expect("an https URL ending in /", "https://example.com/problems/")
    ] = "https://edge.invalid/problems/"
    """What `type` of a problem document starts with; the reason follows."""
