"""Whether a route takes a WebSocket, and from pages of which origin; who may is the policy's to say, as for any GET.

A browser sends its caller's cookies and reads the answer of a WebSocket whatever page opened it; only `Origin` tells the
page apart (RFC 6455 §10.2). Programs send none, and pass.
"""

from __future__ import annotations

import re

from edge.errors import Forbidden
from edge.model.decision import Denial
from edge.model.http import Request
from edge.model.route import Route
from edge.model.websocket import Handshake

_HOST = r"(?:\[[^\]]*\]|[^:\[\]]*)"
_WITH_DEFAULT_PORT = re.compile(rf"(https://{_HOST}):443|(http://{_HOST}):80")


def require_upgrade(request: Request, route: Route, handshake: Handshake) -> None:
    """Raises: Forbidden; then 403."""
    if route.websocket is None or route.upstream.is_local:
        raise Forbidden(Denial("websocket-off"))
    if handshake.origin is None:
        return
    origin = canonical_origin(handshake.origin.decode("latin-1"))
    if origin != canonical_origin(f"https://{request.authority}") and origin not in route.origins:
        raise Forbidden(Denial("foreign-origin"))


def canonical_origin(text: str) -> str:
    """Lower case, without the port that its scheme has anyway (RFC 6454 §6.2); what is no origin stays what it is."""
    origin = text.lower()
    with_port = _WITH_DEFAULT_PORT.fullmatch(origin)
    return (with_port[1] or with_port[2]) if with_port is not None else origin
