"""The head that a plain service gets from its sidecar: what the gateway said, as it said it.

The gateway has rebuilt the head, dropped what clients may not say, and added who the caller is (`forward/fields`). Nothing
but a gateway gets this far, so all of it passes: identity, `X-Request-Id`, `Forwarded`, `traceparent`, an `Edge-Assertion`,
and the token where a route forwards it. Only what belongs to the hop is said anew: framing, and a WebSocket's handshake.
"""

from __future__ import annotations

from edge.forward.fields import HOP_BY_HOP, OF_A_HANDSHAKE, nominated
from edge.model.decision import Admission
from edge.model.http import Request
from edge.model.identity import Peer

_DROPPED = HOP_BY_HOP | OF_A_HANDSHAKE | {b"host", b"content-length", b"expect"}


def passed_head(admission: Admission, request: Request, peer: Peer, decision_id: str, trace_hex: bytes) -> bytes:
    """In the place of `fields.request_head`, which says what the arguments are; the last three are of no use here."""
    target = request.path.encode("ascii")
    if request.has_query:
        target = b"%b?%b" % (target, request.raw_query)
    line = b"%b %b HTTP/1.1\r\nhost: %b\r\n"
    parts = [line % (request.method.encode("ascii"), target, request.authority.encode("ascii"))]
    dropped = _DROPPED
    if any(name == b"connection" for name, _ in request.fields):
        dropped = _DROPPED | nominated(request.fields)
    parts += [b"%b: %b\r\n" % field for field in request.fields if field[0] not in dropped]
    if request.content_length is not None:
        parts.append(b"content-length: %d\r\n\r\n" % request.content_length)
    else:
        parts.append(b"transfer-encoding: chunked\r\n\r\n" if request.chunked else b"\r\n")
    return b"".join(parts)
