"""The composition root of a sidecar: the line of the gateway, made of fixed parts.

    one route /**   whoever proved to be a gateway that is accepted   one permit   no limits   a plain upstream

`assemble` builds a gateway from its files; here nothing can be configured but who the gateways are and where the service is.
This is the only file that leads to `forward/io_plain`. What a gateway decides (callers, policies, quotas, the log) is decided
before a request comes here; what is decided here is that it came from a gateway, by the same proof that the services listener
asks for, at the handshake and again at each request.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Sequence
from datetime import UTC, datetime

from edge.accept.shed import Shed, ShedSettings
from edge.accept.tls import Pair, anonymous_context, control_context, presented_chain, upstream_context
from edge.authn.chain import Authenticator
from edge.authn.io_keyset import KeySets
from edge.authn.mtls import ClientTrust
from edge.authz import policies
from edge.authz.evaluate import Authorizer
from edge.authz.scan import PolicySource
from edge.downstream import Shared
from edge.forward.io_plain import PlainPool, PlainTarget
from edge.forward.io_proof import UpstreamTrust, generations
from edge.forward.passed import passed_head
from edge.front import Proof
from edge.limit.io_store import LeaseStore
from edge.limit.limiter import Limiter
from edge.limit.store import StoreSettings
from edge.model.route import PathPattern, Route, Upstream, Wildcard
from edge.observe import ROW_BYTES, Observer
from edge.parse.request import METHODS
from edge.pipeline import Gateway
from edge.routing import table
from edge.serve.attach_identity import Held
from edge.serve.attach_log import AttachLog
from edge.serve.report import Report
from edge.verify.form import Mode
from edge.verify.verifier import Settings, Verifier
from pki.bundle import Bundle
from pki.errors import SvidRejected
from pki.known_status import KnownStatus
from pki.spiffe import SpiffeId
from pki.svid import VerifiedSvid, verify

_ROUTE = "edge-attach"
_SERVICE = "edge.attached"
_SERVICE_ID = "spiffe://edge.invalid/svc/attached"
"""What the route forwards to is nobody that could call (RFC 6761)."""
_POLICY = """\
@id("edge-attach")
permit (principal is Edge::Gateway, action, resource == Edge::Route::"edge-attach");
"""
TIMEOUT_S = 3600.0
"""Without a byte of an answer. It is the gateway that knows how long its route may take; it hangs up, and so do we."""
_PROBLEMS = "https://edge.invalid/problems/"
_UNBOUNDED = 1 << 62
"""Of a body: the gateway's route has the bound."""


class _AnyOrigin:
    """Of a WebSocket: the gateway has judged it by its route."""

    def __contains__(self, origin: object) -> bool:
        return True


def open_shared(loop: asyncio.AbstractEventLoop, pool: PlainPool, log: AttachLog, report: Report) -> Shared:
    """What outlives a renewal of the certificate."""
    return Shared(
        loop=loop,
        recorder=log,
        pool=pool,
        shed=Shed(ShedSettings()),
        observer=Observer(memoryview(bytearray(ROW_BYTES))),
        tasks=set(),
        report=report.unexpected,
        head=passed_head,
    )


def build(
    held: Held, gateways: Sequence[str], target: PlainTarget, mode: Mode | None, known: KnownStatus, shared: Shared
) -> tuple[Gateway, Proof]:
    """The line for one certificate and bundle, and what its listener asks. `gateways`: names of those who are let in;
    empty: every gateway of the trust domain. `mode`: of the assertion that each request must bring; None: none.

    Raises: BundleError, ssl.SSLError.
    """
    bundle = Bundle.parse(held.bundle)
    ids = frozenset(str(SpiffeId.of(held.spiffe_id.trust_domain, "gw", name)) for name in gateways)
    trust = ClientTrust(
        trust_domain=held.spiffe_id.trust_domain,
        anchors=bundle.anchors,
        intermediates=bundle.intermediates,
        role_issuers=bundle.role_issuers,
        revoked=known.revoked,
        # What was issued is not told to services: what is believed here ends with the certificate, or with its intermediate.
        check_issued=lambda leaf_sha256, now: None,
        roles=frozenset(("gw",)),
        ids=ids or None,
    )
    route = _route(target)
    compiled = policies.compile(
        [PolicySource("built-in attach", _POLICY.encode("ascii"))],
        schema=None,  # that of the control plane: callers are gateways
        services={_SERVICE: _SERVICE_ID},
        routes=[route],
    )
    key_sets = KeySets(())
    gateway = Gateway(
        routes=table.compile([route], None),
        authenticator=Authenticator((), key_sets, trust, _assertions(held, bundle, ids, mode, known)),
        authorizer=Authorizer(compiled),
        limiter=Limiter((), LeaseStore(StoreSettings())),  # without limits nothing is ever asked of it
        shed=shared.shed,
        trust=_trust(held, bundle, ids, known),
        key_sets=key_sets,
        bundle_hash="",
        problem_base=_PROBLEMS,
        security_fields=(),
    )
    context = control_context(Pair(held.chain, held.key.reveal()), held.bundle, alpn=("http/1.1",))
    return gateway, Proof(context, trust)


def _route(target: PlainTarget) -> Route:
    return Route(
        name=_ROUTE,
        pattern=PathPattern("/**", (Wildcard.REST,)),
        hosts=(),
        methods=tuple(sorted(METHODS)),
        upstream=Upstream(_SERVICE, _SERVICE_ID, target.addresses, timeout_s=TIMEOUT_S),
        auth=("attached",),
        encoded_slash=True,
        forward_token=True,
        max_body_bytes=_UNBOUNDED,
        answer_fields=(),
        origins=_AnyOrigin(),
    )


def _assertions(
    held: Held, bundle: Bundle, ids: frozenset[str], mode: Mode | None, known: KnownStatus
) -> Verifier | None:
    return None if mode is None else Verifier(Settings(str(held.spiffe_id), mode, ids, known.revoked), bundle)


def _trust(held: Held, bundle: Bundle, ids: frozenset[str], known: KnownStatus) -> UpstreamTrust:
    """How the sidecar itself asks a gateway: for its next certificate, and to be registered."""

    def prove(handshake: ssl.SSLObject, spiffe_id: str) -> VerifiedSvid:
        """Whichever gateway is let in may also be asked; by name nobody is."""
        now = datetime.now(UTC)
        proven = verify(
            [*presented_chain(handshake), *bundle.intermediates],
            anchors=bundle.anchors,
            expected_id=None,
            trust_domain=held.spiffe_id.trust_domain,
            usage="server",
            now=now,
            role_issuers=bundle.role_issuers,
            revoked=known.revoked(now),
        )
        if proven.spiffe_id.role != "gw" or (ids and str(proven.spiffe_id) not in ids):
            raise SvidRejected("spiffe-id", f"got {proven.spiffe_id}, which is not a gateway that is accepted here")
        return proven

    context = upstream_context(held.chain, held.key.reveal(), held.bundle)
    anonymous = anonymous_context(held.bundle)
    return UpstreamTrust(next(generations), b"", context, anonymous, prove)
