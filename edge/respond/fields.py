"""What of the upstream's answer may reach the downstream, and what the gateway adds.

Removed: hop-by-hop fields and those nominated in `Connection`, framing (the shell writes its own), and whatever tells about
the inside or could lead the client around the gateway (`Server`, `Via`, `X-Powered-By`, `Alt-Svc`: attacks P45).
"""

from __future__ import annotations

from collections.abc import Sequence

from edge.model.http import RawField

_DROPPED = frozenset(
    (
        b"connection",
        b"keep-alive",
        b"proxy-connection",
        b"proxy-authenticate",
        b"proxy-authentication-info",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
        b"http2-settings",
        b"content-length",
        b"server",
        b"via",
        b"x-powered-by",
        b"x-aspnet-version",
        b"x-aspnetmvc-version",
        b"alt-svc",
        b"strict-transport-security",
        b"x-request-id",
        b"ratelimit",
        b"ratelimit-policy",
        b"proxy-status",
    )
)

HSTS: RawField = (b"strict-transport-security", b"max-age=31536000; includeSubDomains")
"""RFC 6797; the public listener speaks nothing but TLS, so every answer may say so."""


def outgoing(fields: Sequence[RawField]) -> list[RawField]:
    """The fields that pass, in order."""
    dropped = _DROPPED
    for name, value in fields:
        if name == b"connection" and value.lower() not in (b"keep-alive", b"close"):
            dropped = dropped | {item.strip(b" \t") for item in value.lower().split(b",")}
    return [field for field in fields if field[0] not in dropped]
