"""Sources → `Config`, or every fault there is. The one place where all files of a configuration meet.

1. edge.yaml is read and fitted; what it refers to is judged (`trust`, issuers, store).
2. The tables are read (`tables`), grants first, then the routes against them, then the limits against both.
3. The policies are compiled against the names of both tables.

Whoever looks up a name in a file that has faults of its own does not report it as unknown: one mistake gives one line.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from edge.accept.deadlines import Deadlines
from edge.accept.shed import ShedSettings
from edge.audit.record import AuditSettings
from edge.authn.issuer import IssuerSettings
from edge.authz import policies as cedar
from edge.authz.policies import PolicyBundle, PolicySource
from edge.config import certificates, document, routes, services, tables, trust
from edge.config.document import Document
from edge.config.edge_file import EdgeShape, HstsShape, IssuerShape, parse_bind, parse_place
from edge.config.policy_files import LimitShape
from edge.config.services import Grants, Mesh
from edge.config.settings import Config, Identity, Listener, Listeners, PublicListener
from edge.config.shape import fit
from edge.config.sources import Sources, is_url, variable
from edge.config.tables import PolicyFiles, Table
from edge.errors import ConfigError, Fault
from edge.limit.rules import BadSetting, LimitSettings, Rate, parse_rate
from edge.limit.store import StoreSettings, is_loopback, parse_store


def parse(sources: Sources) -> Config:
    """Raises: ConfigError with all faults, in order of files and lines."""
    faults: list[Fault] = []
    edge_document = document.read(sources.edge.name, sources.edge.raw)
    faults += edge_document.faults
    edge = fit(EdgeShape, edge_document, (), faults) if edge_document.root is not None else None
    mesh = Mesh(edge.trust_domain, services.canonical_hosts(edge.listeners.public.hosts)) if edge else _NO_MESH
    files = tables.read(sources, edge_document, faults)
    grants = services.read(files.services, mesh, faults)
    found_routes = routes.read(files.routes, grants, mesh, faults)
    limits = _limits(files.limits, grants, found_routes, faults)
    bundle = _policies(files, grants, found_routes, faults)
    if edge is None:
        raise ConfigError(faults)
    shown = certificates.front(edge, mesh.hosts or (), edge_document, sources, faults)
    listeners = _listeners(edge, mesh, shown, edge_document, faults)
    identity = trust.identity(edge, edge_document, sources, faults)
    if identity.outside and any(grant.assertion for grant in grants.sound.values()):
        faults += trust.assertion_faults(identity.chain, edge_document)
    issuers = tuple(_issuers(edge, edge_document, sources, faults))
    store = _store(edge, edge_document, sources, faults)
    authority = _authority(edge, edge_document, faults)
    if faults or bundle is None:
        raise ConfigError(faults)
    return Config(
        source=sources.source,
        trust_domain=edge.trust_domain,
        state=Path(sources.path(edge.state)),
        listeners=listeners,
        workers=edge.workers,
        store=store,
        issuers=issuers,
        audit=_audit(edge),
        shed=_shed(edge),
        deadlines=_deadlines(edge),
        trusted_proxies=edge.trusted_proxies,
        identity=identity,
        authority=authority,
        routes=found_routes.sound,
        grants=tuple(grants.sound.values()),
        balancing=grants.balancing,
        may_loopback=edge.registration.loopback,
        limits=limits,
        policies=bundle,
        problem_base=edge.problem_base,
        dns_suffixes=edge.dns_suffixes if edge.dns_suffixes is not None else (".internal", edge.trust_domain),
        bundle_hash=sources.bundle_hash,
        unissued=_unissued(listeners.public, identity),
        warnings=tuple(_warnings(listeners, identity, issuers, found_routes)),
        certificates=(*certificates.identity_facts(identity, edge_document), *shown.certificates),
    )


_NO_MESH = Mesh("unknown", None)


def _listeners(
    edge: EdgeShape, mesh: Mesh, shown: certificates.Front, edge_document: Document, faults: list[Fault]
) -> Listeners:
    table = edge_document.node(("listeners",))
    order = tuple(table.entries or ()) if table is not None else ()
    shapes = {
        name: shape for name in order if (shape := getattr(edge.listeners, name)) is not None
    }  # `admin: null` is not written
    binds: dict[str, tuple[str, int]] = {}
    for name, shape in shapes.items():
        bind = parse_bind(shape.bind)
        assert bind is not None, shape.bind
        if bind[1] and bind in binds.values():
            message = f"{shape.bind} is taken by another listener"
            faults.append(
                edge_document.fault(("listeners", name, "bind"), "duplicate-bind", message, "use another port")
            )
        binds[name] = bind
    if "admin" in binds and not is_loopback(binds["admin"][0]):
        message = "the admin listener is for this machine only"
        faults.append(
            edge_document.fault(("listeners", "admin", "bind"), "exposed", message, "bind it to 127.0.0.1 or [::1]")
        )
    others = {name: Listener(bind) for name, bind in binds.items() if name != "public"}
    return Listeners(
        public=PublicListener(
            bind=binds["public"],
            hosts=mesh.hosts or (),
            shown=shown.shown,
            uncovered=shown.uncovered,
            http2=edge.listeners.public.http2,
            hsts=_hsts(edge.listeners.public.hsts),
        ),
        services=others.get("services"),
        enrol=others.get("enrol"),
        admin=others.get("admin"),
        order=tuple(binds),
    )


def _hsts(hsts: HstsShape | None) -> str | None:
    if hsts is None:
        return None
    return f"max-age={hsts.max_age_s}{'; includeSubDomains' if hsts.include_subdomains else ''}"


def _audit(edge: EdgeShape) -> AuditSettings:
    audit = edge.audit
    return AuditSettings(
        origin=audit.origin or f"{edge.trust_domain}/log",
        durability=audit.durability,
        checkpoint_every_s=audit.checkpoint_every_s,
        witnesses=audit.witnesses,
        paths=audit.paths,
        reserve_bytes=audit.reserve_bytes,
    )


def _shed(edge: EdgeShape) -> ShedSettings:
    shed = edge.shed
    return ShedSettings(
        max_connections=shed.max_connections,
        max_connections_per_prefix=shed.max_connections_per_prefix,
        failed_checks_per_s=shed.failed_checks_per_s,
        failed_checks_burst=shed.failed_checks_burst,
        max_held_bytes=shed.max_held_bytes,
    )


def _deadlines(edge: EdgeShape) -> Deadlines:
    found = edge.deadlines
    return Deadlines(
        handshake_s=found.handshake_s,
        head_s=found.head_s,
        idle_s=found.idle_s,
        body_s=found.body_s,
        write_s=found.write_s,
        least_bytes_per_s=found.least_bytes_per_s,
    )


def _issuers(
    edge: EdgeShape, edge_document: Document, sources: Sources, faults: list[Fault]
) -> Iterator[IssuerSettings]:
    seen: set[str] = set()
    for at, shape in enumerate(edge.issuers):
        way = ("issuers", at)
        if shape.issuer in seen:
            message = f'"{shape.issuer}" stands here twice'
            faults.append(edge_document.fault((*way, "issuer"), "duplicate-name", message, "merge the two"))
        seen.add(shape.issuer)
        settings = _issuer(at, shape, edge_document, sources, faults)
        if settings is not None:
            faults.extend(
                edge_document.fault((*way, flaw.field), flaw.rule, flaw.message, flaw.remedy)
                for flaw in settings.faults()
            )
            yield settings


def _issuer(
    at: int, shape: IssuerShape, edge_document: Document, sources: Sources, faults: list[Fault]
) -> IssuerSettings | None:
    way = ("issuers", at)
    keys = anchors = None
    if shape.jwks is not None and not is_url(shape.jwks):
        keys = trust.content((*way, "jwks"), shape.jwks, edge_document, sources, faults)
        if keys is None:
            return None
    if shape.ca is not None:
        anchors = trust.content((*way, "ca"), shape.ca, edge_document, sources, faults)
        if anchors is None:
            return None
    return IssuerSettings(
        issuer=shape.issuer,
        audience=shape.audience,
        algorithms=shape.algorithms,
        jwks=shape.jwks if keys is None else None,
        jwks_document=keys.reveal() if keys is not None else None,
        ca_pem=anchors.reveal() if anchors is not None else None,
        max_lifetime_s=shape.max_lifetime_s,
        leeway_s=shape.leeway_s,
    )


def _store(edge: EdgeShape, edge_document: Document, sources: Sources, faults: list[Fault]) -> StoreSettings | None:
    if edge.store == "embedded":
        return None
    url, name = edge.store, variable(edge.store)
    if name is not None:
        if name not in sources.variables:
            message = f"the environment variable {name} is not set"
            faults.append(edge_document.fault(("store",), "missing-variable", message, "set it to the store's URL"))
            return None
        url = sources.variables[name].reveal().decode("utf-8", "replace")
    settings = parse_store(url)
    if isinstance(settings, BadSetting):
        faults.append(edge_document.fault(("store",), "store", settings.message, settings.remedy))
        return None
    return replace(settings, min_replicas=edge.workers)


def _authority(edge: EdgeShape, edge_document: Document, faults: list[Fault]) -> tuple[str, int] | None:
    if edge.authority is None:
        return None
    if edge.identity is not None:
        message = "with identity: certificates come from that authority, not from another gateway"
        faults.append(edge_document.fault(("authority",), "two-authorities", message, "remove one of the two"))
    return parse_place(edge.authority)


def _limits(table: Table, grants: Grants, found: routes.Routes, faults: list[Fault]) -> tuple[LimitSettings, ...]:
    limits: dict[str, LimitSettings] = {}
    for way in table.ways:
        shape = fit(LimitShape, table.document, way, faults)
        if shape is None:
            continue
        if shape.name in limits:
            message = f'"{shape.name}" is the name of another limit'
            faults.append(table.document.fault((*way, "name"), "duplicate-name", message, "give each its own name"))
        for field, name, names, is_whole in (
            ("service", shape.match.service, grants.names, grants.is_whole),
            ("route", shape.match.route, found.names, found.is_whole),
        ):
            if name is not None and is_whole and name not in names:
                message = f"there is no {field} {name}, so the limit would never apply"
                faults.append(
                    table.document.fault((*way, "match", field), f"unknown-{field}", message, "correct the name")
                )
        rate = parse_rate(shape.rate)
        assert isinstance(rate, Rate), shape.rate
        limits[shape.name] = LimitSettings(
            name=shape.name,
            quota=rate.quota,
            window_s=rate.window_s,
            service=shape.match.service,
            route=shape.match.route,
            key=tuple(dict.fromkeys(shape.key)),
            strategy=shape.strategy,
            on_store_failure=shape.on_store_failure,
        )
    return tuple(limits.values())


def _policies(files: PolicyFiles, grants: Grants, found: routes.Routes, faults: list[Fault]) -> PolicyBundle | None:
    if files.schema is None:
        return None  # missed by `tables`
    try:
        return cedar.compile(
            [PolicySource(file.name, file.raw) for file in files.cedar],
            schema=PolicySource(files.schema.name, files.schema.raw),
            services={name: grant.spiffe_id for name, grant in grants.sound.items()},
            routes=found.sound,
        )
    except ConfigError as exc:
        unsure = set() if grants.is_whole and len(grants.sound) == len(grants.names) else {"unknown-service"}
        if not found.is_whole:
            unsure |= {"unknown-route", "unknown-param"}
        faults.extend(fault for fault in exc.faults if fault.rule not in unsure)
        return None


def _unissued(public: PublicListener, identity: Identity) -> tuple[str, ...]:
    names = {"gateway": identity.chain, "public": public.shown}
    return tuple(name for name, found in names.items() if not found)


def _warnings(
    listeners: Listeners, identity: Identity, issuers: tuple[IssuerSettings, ...], found: routes.Routes
) -> Iterator[str]:
    """What is legal and surprises."""
    closed = [name for name in listeners.order if name in ("services", "enrol")] if identity.outside else []
    if closed:
        yield f"listeners.{' and '.join(closed)}: accepted, but not opened: with identity: there is no CA to enrol with"
    if listeners.public.uncovered and listeners.public.uncovered != listeners.public.hosts:  # else it is a finding
        yield f"listeners.public.tls: no certificate is for {', '.join(listeners.public.uncovered)}"
    if not issuers and any("jwt" in route.auth for route in found.sound):
        yield "issuers: none is configured, so every route with auth: [jwt] refuses every request"
