"""The head that the upstream gets, rebuilt from what the policy saw; nothing is copied unread.

Removed: hop-by-hop fields and those nominated in `Connection` (RFC 9110 §7.6.1), every managed field a client sent, the
credential unless the route forwards it, and framing, which is said anew. Added: the verified identity,
`X-Request-Id`, `Forwarded` (RFC 7239), `X-Forwarded-*` and `traceparent` (W3C Trace Context).
"""

from __future__ import annotations

import re

from edge.model.decision import Admission
from edge.model.http import RawField, Request
from edge.model.identity import Peer, Principal
from edge.model.route import Route
from edge.verify.form import percent_encoded, scopes_field

HOP_BY_HOP = frozenset(
    (
        b"connection",
        b"keep-alive",
        b"proxy-connection",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
        b"http2-settings",
    )
)

MANAGED = frozenset(
    (
        b"x-auth-subject",
        b"x-auth-issuer",
        b"x-auth-scopes",
        b"x-auth-roles",
        b"x-auth-tenant",
        b"x-request-id",
        b"edge-assertion",
        b"forwarded",
        b"x-forwarded-for",
        b"x-forwarded-proto",
        b"x-forwarded-host",
        b"x-forwarded-port",
        b"x-forwarded-prefix",
        b"x-forwarded-uri",
        b"x-forwarded-method",
        b"x-forwarded-server",
        b"x-forwarded-client-cert",
        b"x-forwarded-user",
        b"x-forwarded-email",
        b"x-forwarded-groups",
        b"x-real-ip",
        b"x-client-ip",
        b"x-original-url",
        b"x-original-uri",
        b"x-rewrite-url",
        b"x-original-method",
        b"x-http-method-override",
        b"x-http-method",
        b"x-method-override",
        b"ssl-client-cert",
        b"ssl-client-verify",
        b"x-ssl-client-cert",
    )
)
"""Names an upstream may take for the gateway's word; a client's own are dropped on every route (attacks B1, B5, B6)."""

OF_A_HANDSHAKE = frozenset(
    (
        b"sec-websocket-key",
        b"sec-websocket-accept",
        b"sec-websocket-version",
        b"sec-websocket-protocol",
        b"sec-websocket-extensions",
    )
)
"""Each leg of a WebSocket shakes hands for itself (`forward/websocket`)."""

_DROPPED = (
    HOP_BY_HOP | MANAGED | OF_A_HANDSHAKE | {b"host", b"content-length", b"expect", b"authorization", b"traceparent"}
)

# version 00, a non-zero trace id, a non-zero parent id (W3C Trace Context §3.2); other versions start a new trace.
_TRACEPARENT = re.compile(rb"00-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-([0-9a-f]{2})")

_principal_heads: dict[Principal, bytes] = {}
_peer_heads: dict[Peer, tuple[str, bytes]] = {}
_CACHED_HEADS_MAX = 16_384


def _principal_head(principal: Principal) -> bytes:
    """The identity fields of one principal; an anonymous one has none."""
    head = _principal_heads.get(principal)
    if head is None:
        if principal.is_anonymous:
            head = b""
        else:
            head = b"x-auth-subject: %b\r\nx-auth-issuer: %b\r\nx-auth-scopes: %b\r\n" % (
                percent_encoded(principal.subject),
                percent_encoded(principal.issuer),
                scopes_field(principal.scopes),
            )
        if len(_principal_heads) >= _CACHED_HEADS_MAX:
            _principal_heads.clear()
        _principal_heads[principal] = head
    return head


def _peer_head(peer: Peer, authority: str) -> bytes:
    """`Forwarded` and its older kin: for the client alone, whether the socket or a proxy that is trusted told who it is."""
    cached = _peer_heads.get(peer)
    if cached is not None and cached[0] == authority:
        return cached[1]
    node = f'"[{peer.ip}]"' if ":" in peer.ip else peer.ip
    head = (
        f'forwarded: for={node};host="{authority}";proto=https\r\n'
        f"x-forwarded-for: {peer.ip}\r\nx-forwarded-proto: https\r\nx-forwarded-host: {authority}\r\n"
    ).encode("ascii")
    if len(_peer_heads) >= _CACHED_HEADS_MAX:
        _peer_heads.clear()
    _peer_heads[peer] = (authority, head)
    return head


def forget_peer(peer: Peer) -> None:
    """The connection is gone."""
    _peer_heads.pop(peer, None)


def nominated(fields: tuple[RawField, ...]) -> frozenset[bytes]:
    """Field names listed in `Connection`, lower-case; they belong to the hop and never pass (RFC 9110 §7.6.1)."""
    names: set[bytes] = set()
    for name, value in fields:
        if name == b"connection":
            names.update(item.strip(b" \t") for item in value.lower().split(b","))
    return frozenset(names)


def _traceparent(raw_traceparent: bytes | None, trace_hex: bytes) -> bytes:
    match = _TRACEPARENT.fullmatch(raw_traceparent) if raw_traceparent is not None else None
    if match is not None:
        return b"traceparent: 00-%b-%b-%b\r\n" % (match[1], trace_hex[32:], match[2])
    return b"traceparent: 00-%b-%b-00\r\n" % (trace_hex[:32], trace_hex[32:])


def upstream_path(route: Route, path: str) -> str:
    """The path after `strip_prefix`; `config` has proved that every result lies inside the service's grant."""
    prefix = route.upstream.strip_prefix
    if not prefix:
        return path
    if path == prefix:
        return "/"
    if path.startswith(prefix + "/"):  # whole segments only: `/orders` is no prefix of `/orders-admin`
        return path[len(prefix) :]
    return path


def upstream_target(route: Route, request: Request) -> bytes:
    """Path and query as the upstream gets them."""
    target = upstream_path(route, request.path).encode("ascii")
    return b"%b?%b" % (target, request.raw_query) if request.has_query else target


def request_head(admission: Admission, request: Request, peer: Peer, decision_id: str, trace_hex: bytes) -> bytes:
    """The whole head in wire form of HTTP/1.1, with the framing that the request's body will have.

    `trace_hex` is 48 random hexadecimal digits: a trace id (32), used when the client brings no valid trace, and a span id.
    Takes an `Admission`: what was not authenticated, permitted and admitted cannot be put into a head.
    """
    route = admission.permit.match.route
    principal = admission.permit.principal
    memo = request.memo
    found: tuple[Principal, bytes, bytes | None] | None = memo.get(route) if memo is not None else None
    if found is None or found[0] is not principal:
        found = principal, _passed(request, route) + _principal_head(principal), request.field(b"traceparent")
        if memo is not None:
            memo[route] = found
    _, passed, raw_traceparent = found
    if request.content_length is not None:
        framing = b"content-length: %d\r\n\r\n" % request.content_length
    else:
        framing = b"transfer-encoding: chunked\r\n\r\n" if request.chunked else b"\r\n"
    return b"%b%bx-request-id: %b\r\n%b%b" % (
        passed,
        _peer_head(peer, request.authority),
        decision_id.encode("ascii"),
        _traceparent(raw_traceparent, trace_hex),
        framing,
    )


def _passed(request: Request, route: Route) -> bytes:
    """Request line and what the client sent that may pass: all that depends on the request and its route alone."""
    line = b"%b %b HTTP/1.1\r\nhost: %b\r\n"
    parts = [
        line % (request.method.encode("ascii"), upstream_target(route, request), request.authority.encode("ascii"))
    ]
    dropped = _DROPPED
    if any(name == b"connection" for name, _ in request.fields):
        dropped = _DROPPED | nominated(request.fields)
    parts += [b"%b: %b\r\n" % field for field in request.fields if field[0] not in dropped]
    if route.forward_token and request.raw_authorization is not None:
        parts.append(b"authorization: %b\r\n" % request.raw_authorization)
    return b"".join(parts)
