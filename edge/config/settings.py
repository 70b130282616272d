"""`Config`: everything the gateway was told, as frozen values. Made by `parse`; afterwards nobody validates again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from edge.accept.deadlines import Deadlines
from edge.accept.shed import ShedSettings
from edge.accept.tls import Shown
from edge.audit.record import AuditSettings
from edge.authn.issuer import IssuerSettings
from edge.authz.policies import PolicyBundle
from edge.config.secret import Secret
from edge.forward.balance import BalanceSettings
from edge.limit.rules import LimitSettings
from edge.limit.store import StoreSettings
from edge.model.route import Route
from edge.registry.grant import Grant


@dataclass(frozen=True, slots=True)
class Listener:
    """Where to listen; port 0 lets the system choose."""

    bind: tuple[str, int]


@dataclass(frozen=True, slots=True)
class PublicListener:
    """The listener for downstreams."""

    bind: tuple[str, int]
    hosts: tuple[str, ...]
    """Lower-case, without port; IPv6 literals in brackets."""
    shown: tuple[Shown, ...]
    """Certificates by host, the first also without a host. Empty while the mini-CA has not issued it (`Config.unissued`)."""
    uncovered: tuple[str, ...]
    """Hosts that no certificate given for the listener names; they get the first."""
    http2: str = "front"
    """`front`, `hypercorn` or `off`."""
    hsts: str | None = None
    """Value of `Strict-Transport-Security`; None: none is sent."""

    @property
    def alpn(self) -> tuple[str, ...]:
        """What the handshake offers, best first (RFC 7301)."""
        return ("http/1.1",) if self.http2 == "off" else ("h2", "http/1.1")


@dataclass(frozen=True, slots=True)
class Listeners:
    """A listener that is None is not opened."""

    public: PublicListener
    services: Listener | None
    enrol: Listener | None
    admin: Listener | None
    order: tuple[str, ...]
    """Names in the order of the file, as the `ready` line gives them."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Who the gateway is towards upstreams, and whom it trusts to say who they are."""

    chain: bytes
    """PEM, leaf first. Empty while the mini-CA has not issued it (`Config.unissued`)."""
    key: Secret
    bundle: bytes
    """PEM; anchors of the trust domain."""
    outside: bool
    """From `identity:`, an authority that is not ours: no CA is opened, hosted or needed."""
    has_server_auth: bool
    """Without it neither `services` nor `enrol` can be opened."""


@dataclass(frozen=True, slots=True)
class CertificateFacts:
    """When and for whom a certificate counts; `certificates.finding` judges it when it is told the time."""

    name: str
    """`gateway` is shown to upstreams, `public` to clients (`public:FILE` when there are several); `bundle` is the first of
    the anchors to end."""
    not_before_s: int
    not_after_s: int
    """Since the epoch."""
    sha256: str
    foreign_names: str = ""
    """What it is for, when that is none of the listener's hosts."""
    place: tuple[str, int, int] | None = None
    """File, line and column that name it; None where we issue it ourselves, and renew it."""


@dataclass(frozen=True, slots=True)
class Config:
    """One configuration. Holds native policy handles, so it is not pickled: send `Sources` and parse them there."""

    source: Path
    """edge.yaml, absolute."""
    trust_domain: str
    state: Path
    listeners: Listeners
    workers: int
    store: StoreSettings | None
    """None: the embedded store, whose socket the supervisor knows."""
    issuers: tuple[IssuerSettings, ...]
    audit: AuditSettings
    shed: ShedSettings
    deadlines: Deadlines
    trusted_proxies: tuple[str, ...]
    """Address prefixes from which the public listener believes for whom it is asked."""
    identity: Identity
    authority: tuple[str, int] | None
    """Where the gateway is that holds the CA, if that is another one."""
    routes: tuple[Route, ...]
    grants: tuple[Grant, ...]
    balancing: Mapping[str, BalanceSettings]
    """Service → how its instances share its requests."""
    may_loopback: bool
    """Instances may register on the gateway's own loopback."""
    limits: tuple[LimitSettings, ...]
    policies: PolicyBundle
    problem_base: str
    """What `type` of a problem starts with; ends in `/`."""
    dns_suffixes: tuple[str, ...]
    """What the CA may certify."""
    bundle_hash: str
    unissued: tuple[str, ...]
    """`gateway`, `public`: identities under `state/` that must be issued before this configuration can serve."""
    warnings: tuple[str, ...]
    certificates: tuple[CertificateFacts, ...]

    @property
    def opened(self) -> tuple[str, ...]:
        """Listeners that are opened, in the order of the file. An outside authority leaves nothing for services and enrol to
        do: there is no CA of ours to enrol with (design: `identity:`)."""
        return tuple(
            name for name in self.listeners.order if not (self.identity.outside and name in ("services", "enrol"))
        )

    def grant(self, service: str) -> Grant | None:
        return next((grant for grant in self.grants if grant.service == service), None)
