"""What of the upstream's answer may reach the downstream, and what the gateway adds.

Removed: hop-by-hop fields and those nominated in `Connection`, framing (the shell writes its own), and whatever tells about
the inside or could lead the client around the gateway (`Server`, `Via`, `X-Powered-By`, `Alt-Svc`: attacks P45). What a route
says about its answers stands in place of what the upstream says.
"""

from __future__ import annotations

from collections.abc import Sequence

from edge.model.http import KnownFields, RawField
from edge.model.route import Route

_DROPPED = frozenset(
    # Of the hop, and framing.
    b"connection keep-alive proxy-connection proxy-authenticate proxy-authentication-info te trailer transfer-encoding "
    b"upgrade http2-settings content-length sec-websocket-accept sec-websocket-protocol sec-websocket-extensions "
    # What the gateway alone says.
    b"strict-transport-security alt-svc x-request-id ratelimit ratelimit-policy proxy-status "
    # What runs inside.
    b"server via x-powered-by x-aspnet-version x-aspnetmvc-version x-generator x-runtime x-backend-server x-served-by "
    b"x-upstream x-envoy-upstream-service-time x-varnish x-debug-token x-debug-token-link "
    b"x-accel-redirect x-accel-buffering x-sendfile "
    # What the gateway told the upstream, echoed: who the caller is to us, and how we say it, is not the caller's to read.
    b"edge-assertion x-auth-subject x-auth-issuer x-auth-scopes x-auth-roles x-auth-tenant "
    b"forwarded x-forwarded-for x-forwarded-proto x-forwarded-host x-real-ip".split()
)


_dropped_by_route: dict[Route, frozenset[bytes]] = {}
_ROUTES_MAX = 4096
_known: dict[tuple[KnownFields, Route], list[RawField]] = {}
_KNOWN_MAX = 1024


def outgoing(fields: Sequence[RawField], route: Route) -> list[RawField]:
    """The fields that pass, in order, and those that the route says itself (`answer_headers:`)."""
    if isinstance(fields, KnownFields):
        answer = _known.get((fields, route))
        if answer is None:
            answer = _outgoing(fields, route)
            if len(_known) >= _KNOWN_MAX:
                _known.clear()
            _known[fields, route] = answer
        return answer.copy()
    return _outgoing(fields, route)


def _outgoing(fields: Sequence[RawField], route: Route) -> list[RawField]:
    dropped = _dropped_by_route.get(route) or _dropped(route)
    dates = 0
    for name, value in fields:
        if name == b"connection" and value.lower() not in (b"keep-alive", b"close"):
            dropped = dropped | {item.strip(b" \t") for item in value.lower().split(b",")}
        elif name == b"date":
            dates += 1
    answer = [field for field in fields if field[0] not in dropped]
    if dates > 1:  # RFC 9110 §6.6.1 has one; the first is the service's, others came on the way
        said_at = [at for at, (name, _) in enumerate(answer) if name == b"date"]
        for at in reversed(said_at[1:]):
            del answer[at]
    answer += route.answer_fields
    return answer


def _dropped(route: Route) -> frozenset[bytes]:
    if len(_dropped_by_route) >= _ROUTES_MAX:  # routes of old generations
        _dropped_by_route.clear()
    dropped = _dropped_by_route[route] = _DROPPED | {name for name, _ in route.answer_fields}
    return dropped
