"""THE LINE: every step of a request in its one legal order. Nothing else is in this file.

accept → parse → route → authenticate → authorize → limit → forward → respond → audit

The shells did `accept` (connection → `Peer`) and `parse` (raw head → `Request`) before they call `decide`; what comes out
is an `Admission`, the only thing that `forward` takes. Each type holds the one before it: another order is a type error. The
line is synchronous: a step that lacks something returns a `Need`, the shell awaits it and calls again from that step.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from edge.accept.proxies import NOBODY, Proxies
from edge.accept.shed import Shed
from edge.authn.chain import Authenticator
from edge.authn.io_keyset import KeySets
from edge.authz.evaluate import Authorizer
from edge.errors import CredentialRejected, Forbidden, PayloadTooLarge, QuotaExceeded
from edge.forward.asgi import AsgiApp
from edge.forward.io_proof import UpstreamTrust
from edge.limit.limiter import Asked, Limiter, Plan
from edge.model.decision import Admission, Denial, Exhausted, Need, Permit
from edge.model.http import RawField, Request
from edge.model.identity import Peer, Principal, Standing
from edge.model.route import RouteMatch
from edge.routing.match import match
from edge.routing.table import Table


@dataclass(frozen=True, slots=True, eq=False)
class Gateway:
    """One generation of everything configured. A reload builds a new one and swaps one reference."""

    routes: Table
    authenticator: Authenticator
    authorizer: Authorizer
    limiter: Limiter
    shed: Shed
    trust: UpstreamTrust
    key_sets: KeySets  # behind `authenticator`; here for the timer that renews them
    bundle_hash: str
    problem_base: str
    security_fields: tuple[RawField, ...]  # what every answer of the listener says, such as HSTS
    application: AsgiApp | None = None  # the upstream in this process, for routes whose `upstream.is_local`
    proxies: Proxies = NOBODY  # who may say for whom it asks


@dataclass(slots=True, eq=False)
class Walk:
    """How far one request has come. A step that is done is not done again after a `Need`."""

    request: Request
    peer: Peer
    match: RouteMatch | None = field(default=None)
    principal: Principal | None = field(default=None)
    permit: Permit | None = field(default=None)
    asked: Asked | None = field(default=None)


@dataclass(slots=True, eq=False)
class _Settled:
    """What the steps up to the permit said about a head that the shell keeps by its bytes, and what it rests on."""

    sni: str | None
    standing: Standing
    permit: Permit
    plan: Plan | None


def decide(gateway: Gateway, walk: Walk, wall_ns: int, mono_ns: int) -> Admission | Need:
    """Walk the line up to the admission.
    `wall_ns` is since the epoch, for what tokens and policies speak of; `mono_ns` never goes back, for budgets and windows.

    Raises: Refusal, Unavailable; `respond/problem.py` maps them to the answer.
    """
    request, peer = walk.request, walk.peer
    if gateway.shed.pressure.is_high and walk.match is None:
        gateway.shed.pressure.demand(is_known=gateway.authenticator.knows(request))
    admission = _decide_again(gateway, walk, wall_ns, mono_ns)
    if admission is not None:
        return admission

    # route: also 421, because the table knows the hosts.
    if walk.match is None:
        walk.match = match(gateway.routes, request, peer.sni)
        if request.content_length is not None and request.content_length > walk.match.route.max_body_bytes:
            raise PayloadTooLarge("content-length-above-route-limit")
    route_match = walk.match

    # authenticate: the per-address window stands before any signature is checked.
    if walk.principal is None:
        if not gateway.shed.may_check(peer.prefix, mono_ns):
            raise QuotaExceeded(Exhausted("failed-credentials", 0, 1, 1))
        try:
            authenticated = gateway.authenticator.authenticate(request, peer, route_match.route, wall_ns)
        except CredentialRejected:
            gateway.shed.failed(peer.prefix, mono_ns)
            raise
        if isinstance(authenticated, Need):
            return authenticated
        walk.principal = authenticated

    # authorize: default deny.
    if walk.permit is None:
        decision = gateway.authorizer.authorize(request, route_match, walk.principal, peer, wall_ns)
        if isinstance(decision, Denial):
            raise Forbidden(decision)
        walk.permit = decision
        _settle(gateway, walk, decision)

    # limit: after the permit, so that refused requests cost the principal nothing.
    waited = walk.asked.verdict if walk.asked is not None else None
    verdict = waited or gateway.limiter.admit(walk.permit, peer, mono_ns)
    if isinstance(verdict, Exhausted):
        raise QuotaExceeded(verdict)
    if isinstance(verdict, Asked):
        walk.asked = verdict
    return verdict


def _settle(gateway: Gateway, walk: Walk, permit: Permit) -> None:
    """Keep what the head alone decided, for the next time that the same bytes come."""
    memo, peer, standing = walk.request.memo, walk.peer, permit.principal.standing
    if memo is not None and permit.is_settled and standing is not None and peer.spiffe_id is None:
        memo[gateway] = _Settled(peer.sni, standing, permit, gateway.limiter.plan(permit, peer))


def _decide_again(gateway: Gateway, walk: Walk, wall_ns: int, mono_ns: int) -> Admission | None:
    """The same bytes again: as before while everything still holds that the permit rests on and the bytes do not say.

    None: walk all steps. Only what the head alone decides is settled: the connection, the credential's standing and the
    limits are asked each time.
    """
    memo, peer = walk.request.memo, walk.peer
    settled = memo.get(gateway) if memo is not None and walk.match is None else None
    if (
        settled is None
        or peer.sni != settled.sni
        or peer.spiffe_id is not None
        or not settled.standing.holds(wall_ns)
        or not gateway.shed.may_check(peer.prefix, mono_ns)
    ):
        return None
    permit = settled.permit
    admission = gateway.limiter.admit(permit, peer, mono_ns, settled.plan)
    if not isinstance(admission, Admission):
        return None  # nothing was taken
    walk.match, walk.principal, walk.permit = permit.match, permit.principal, permit
    return admission
