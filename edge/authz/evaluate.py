"""Asking the policies about one request."""

from __future__ import annotations

from edge.authz.policies import PolicyBundle
from edge.model.decision import Denial, Permit
from edge.model.http import Request
from edge.model.identity import Peer, Principal
from edge.model.route import RouteMatch


class Authorizer:
    """The policies of one configuration, with the decisions remembered. Owned by one Gateway."""

    def __init__(self, bundle: PolicyBundle) -> None:
        self._bundle = bundle

    def authorize(
        self, request: Request, match: RouteMatch, principal: Principal, peer: Peer, now_ns: int
    ) -> Permit | Denial:
        """Default deny; a forbid wins over every permit; whatever fails is a denial."""
        return Denial("no-policy-matched")
