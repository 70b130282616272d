"""The composition root: the only file that builds shared mutable objects, and the order in which they begin and end.

    open_shared   once per worker: pool, lease store, address budgets, and the recorder that the worker brings
    build         one `Gateway` per generation of the configuration; touches nothing that serves
    prepare       what must be awaited before a generation may serve (key sets); failures are tolerated and told at use
    adopt         the swap: from now on this generation decides
    close         the reverse order

What a reload must not lose lives in `Shared`: connections, leases, budgets, the ring. What a reload must not keep lives in
`Gateway`: routes, policies, limits, and tokens that were verified under the old audience.
"""

from __future__ import annotations

import asyncio
import hashlib
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from random import Random

from edge.accept.proxies import NOBODY, Proxies
from edge.accept.shed import Shed
from edge.accept.tls import anonymous_context, presented_chain, upstream_context
from edge.audit.recorder import Recorder
from edge.authn.chain import Authenticator
from edge.authn.io_keyset import KeySets
from edge.authn.mtls import ClientTrust
from edge.authz import policies
from edge.authz.evaluate import Authorizer
from edge.authz.scan import PolicySource
from edge.config.settings import Config, Identity, PublicListener
from edge.control.table import ROUTES, ControlRoute
from edge.downstream import Shared
from edge.errors import NotReady
from edge.forward.asgi import AsgiApp
from edge.forward.assertion import Assertions
from edge.forward.fleet import Fleet
from edge.forward.io_insist import Alarm
from edge.forward.io_pool import Pool
from edge.forward.io_proof import UpstreamTrust, generations
from edge.limit.io_connect import connect
from edge.limit.io_store import LeaseStore
from edge.limit.limiter import Limiter
from edge.limit.store import StoreSettings
from edge.model.http import RawField
from edge.model.route import PathPattern, Route, Upstream
from edge.observe import Observer
from edge.pipeline import Gateway
from edge.registry.io_store import RegistryStore
from edge.registry.roster import Roster
from edge.routing import pattern, table
from pki.bundle import Bundle
from pki.errors import SvidRejected
from pki.io_issuance import IssuanceRecord
from pki.io_status import STATUS
from pki.known_status import KnownStatus
from pki.spiffe import ROLES, SpiffeId
from pki.svid import VerifiedSvid, verify

_CONTROL = "edge.control"
"""No service of services.yaml can have this name: a dot is not allowed there."""
_RECORD_LAG_S = 0.3
"""From the authority's heartbeat to the files of a gateway that follows it: some milliseconds, and a machine that is busy."""
_CONTROL_ID = "spiffe://edge.invalid/gw/edge"
"""The control app is no service that anybody could dial: `.invalid` is reserved for names that never exist (RFC 6761)."""


@dataclass(frozen=True, slots=True, eq=False)
class WorkerShared(Shared):
    """A gateway's worker: its log is signed, its upstreams are pinned, its limits hold across workers."""

    recorder: Recorder
    pool: Pool
    roster: Roster
    """Registered instances, for the pool to join with those of the files. Filled by who reads the shared registry."""
    status: KnownStatus
    """What is revoked, as the authority says it. Filled by `serve/revocations.py`."""
    issuances: IssuanceRecord
    """What our CA handed out."""
    store: LeaseStore
    registry: RegistryStore


def open_shared(
    config: Config,
    recorder: Recorder,
    store: StoreSettings,
    loop: asyncio.AbstractEventLoop,
    report: Callable[[BaseException], None],
    observer: Observer,
    alarm: Alarm,
) -> WorkerShared:
    """Build what outlives reloads. `store` is `config.store`, or the embedded one's socket; `alarm` is the pool's."""
    roster = Roster()
    fleet = Fleet(roster, Random().random)  # noqa: S311 - whose turn it is may be guessed
    return WorkerShared(
        loop=loop,
        recorder=recorder,
        roster=roster,
        pool=Pool(loop, fleet, alarm),
        status=KnownStatus(),
        issuances=IssuanceRecord(config.state / STATUS),
        store=LeaseStore(store),
        registry=RegistryStore(partial(connect, store), store.timeout_s),
        shed=Shed(config.shed.share(config.workers)),
        observer=observer,
        tasks=set(),
        report=report,
    )


def build(config: Config, shared: WorkerShared, previous: Gateway | None = None) -> Gateway:
    """One generation. `previous` lends the keys of issuers that did not change, and the trust if it is the same."""
    key_sets = KeySets(config.issuers, previous=previous.key_sets if previous is not None else None)
    return Gateway(
        routes=table.compile(config.routes, config.listeners.public.hosts, shared.pool.fleet.turns),
        authenticator=Authenticator(config.issuers, key_sets, client_trust(config, shared)),
        authorizer=Authorizer(config.policies),
        limiter=Limiter(config.limits, shared.store),
        shed=shared.shed,
        trust=_trust(config, shared, previous.trust if previous is not None else None),
        key_sets=key_sets,
        bundle_hash=config.bundle_hash,
        problem_base=config.problem_base,
        security_fields=_security_fields(config.listeners.public),
        proxies=Proxies(config.trusted_proxies),
    )


def with_declared(gateway: Gateway, config: Config, shared: WorkerShared, declared: Sequence[Route]) -> Gateway:
    """The same generation with routes that services declare. Memories of what was decided start anew, as at a reload."""
    if not declared:
        return gateway
    bundle = config.policies.with_routes({route.name: route.upstream.service for route in declared})
    return replace(
        gateway,
        routes=table.compile((*config.routes, *declared), config.listeners.public.hosts, shared.pool.fleet.turns),
        authorizer=Authorizer(bundle),
    )


def client_trust(config: Config, shared: WorkerShared) -> ClientTrust | None:
    """Whom the services listener believes; None where it is not opened."""
    if "services" not in config.opened:
        return None
    bundle = Bundle.parse(config.identity.bundle)
    return ClientTrust(
        config.trust_domain,
        bundle.anchors,
        bundle.intermediates,
        bundle.role_issuers,
        revoked=shared.status.revoked,
        check_issued=check_issued(config.identity, bundle, shared.issuances, config.trust_domain),
        roles=frozenset(ROLES),
    )


def check_issued(
    identity: Identity, bundle: Bundle, issuances: IssuanceRecord, trust_domain: str
) -> Callable[[bytes, datetime], None]:
    """What an outside authority issues is in no record of ours."""

    def check(leaf_sha256: bytes, now: datetime) -> None:
        if not identity.outside:
            issuances.check(leaf_sha256, anchors=bundle.anchors, trust_domain=trust_domain, now=now)

    return check


def build_control(
    listener: str,
    gateway: Gateway,
    shared: WorkerShared,
    application: AsgiApp,
    *,
    hosts: Sequence[str] | None,
    services: Mapping[str, str],
) -> Gateway:
    """The generation of a listener whose one upstream is this process: the rows of `control.table`, under their own policies.

    `hosts` None: any. `services`: name → SPIFFE ID, of services.yaml; a certificate of any other service is nobody here.
    """
    rows = ROUTES[listener]
    routes = [_control_route(row) for row in rows]
    bundle = policies.compile(
        [PolicySource(f"built-in {listener}", row.policy.encode("ascii")) for row in rows],
        schema=None,
        services={**services, _CONTROL: _CONTROL_ID},
        routes=routes,
    )
    return replace(
        gateway,
        routes=table.compile(routes, hosts),
        authorizer=Authorizer(bundle),
        limiter=Limiter((), shared.store),
        application=application,
        proxies=NOBODY,
        security_fields=(),  # of the public listener alone: over plain HTTP it must be ignored (RFC 6797 §8.1)
    )


def _control_route(row: ControlRoute) -> Route:
    path = pattern.parse(row.path)
    assert isinstance(path, PathPattern), row.path
    return Route(
        name=row.name,
        pattern=path,
        hosts=(),
        methods=row.methods,
        upstream=Upstream(_CONTROL, _CONTROL_ID, timeout_s=row.timeout_s, is_local=True),
        auth=row.auth,
        public_reason=None if row.auth else row.open_because,
        forward_token=row.forward_token,
        max_body_bytes=row.max_body_bytes,
    )


async def prepare(gateway: Gateway) -> tuple[NotReady, ...]:
    """Fetch what the generation needs to decide. What fails is told by the requests that need it, and tried again."""
    return await gateway.key_sets.prefetch(time.time_ns())


def adopt(config: Config, gateway: Gateway, shared: WorkerShared, previous: Gateway | None) -> None:
    """The generation begins to serve. Upstream connections live on unless the trust behind them changed."""
    if previous is None or previous.trust is not gateway.trust:
        shared.pool.trust(gateway.trust)
    settings = {service: found.share(config.workers) for service, found in config.balancing.items()}
    named = [route.upstream for route in config.routes]
    # Services that no route of the file leads to may bring their own; their instances are checked before.
    others = {grant.service: grant.spiffe_id for grant in config.grants}
    for upstream in named:
        others.pop(upstream.service, None)
    shared.pool.configure(settings, [*named, *(Upstream(*other) for other in others.items())])


async def close(shared: WorkerShared, gateway: Gateway) -> None:
    """End what `open_shared` and `build` began, in reverse order. The recorder is the worker's, and closes after us."""
    for task in list(shared.tasks):
        task.cancel()
    await asyncio.gather(*shared.tasks, return_exceptions=True)
    await gateway.key_sets.close()
    await shared.registry.close()
    await shared.store.close()
    shared.pool.close()


def _security_fields(public: PublicListener) -> tuple[RawField, ...]:
    """RFC 6797; the public listener speaks nothing but TLS, so every answer may say so, problems included."""
    return ((b"strict-transport-security", public.hsts.encode("ascii")),) if public.hsts is not None else ()


def _trust(config: Config, shared: WorkerShared, previous: UpstreamTrust | None) -> UpstreamTrust:
    identity, asking = (
        config.identity,
        frozenset(each.spiffe_id for each in config.grants if each.assertion is not None),
    )
    key_pem = identity.key.reveal()
    parts = (identity.chain, key_pem, identity.bundle, *(spiffe_id.encode() for spiffe_id in sorted(asking)))
    digest = hashlib.sha256(b"\0".join(parts)).digest()
    if previous is not None and previous.digest == digest:
        return previous
    bundle = Bundle.parse(identity.bundle)
    # An outside authority has no role intermediates; ours has, and then an identity of another role is refused.
    role_issuers = None if identity.outside else bundle.role_issuers

    def prove(handshake: ssl.SSLObject, spiffe_id: str) -> VerifiedSvid:
        presented = presented_chain(handshake)
        if not presented:
            raise SvidRejected("malformed", "no certificate was presented")
        now, expected = datetime.now(UTC), SpiffeId.parse(spiffe_id)
        proven = verify(
            [*presented, *bundle.intermediates],
            anchors=bundle.anchors,
            expected_id=expected,
            usage="server",
            now=now,
            role_issuers=role_issuers,
            # What an outside authority revokes it ends soon, or says in ways of its own; ours says it here.
            revoked=frozenset() if identity.outside else shared.status.revoked(now),
        )
        check_issued(identity, bundle, shared.issuances, expected.trust_domain)(proven.leaf_sha256, now)
        return proven

    return UpstreamTrust(
        generation=next(generations),
        digest=digest,
        context=upstream_context(identity.chain, key_pem, identity.bundle),
        anonymous=anonymous_context(identity.bundle),
        verify=prove,
        record_lag_s=_RECORD_LAG_S if config.authority is not None else 0.0,
        assertions=Assertions(identity.chain, key_pem, identity.bundle, asking) if asking else None,
    )
