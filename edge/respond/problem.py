"""The one map from what went wrong to what the downstream is told (RFC 9457 problem documents).

Every concrete error class has exactly one row (a test counts them). `detail` comes from this closed vocabulary: cause, rule
and internals go to the access log, never to the client. An error this table does not know becomes the last row.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache

from edge import errors
from edge.model.http import RawField
from edge.model.route import NOSNIFF


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """One kind of problem."""

    reason: str
    """Last segment of the `type` URI and `event.reason` of the access record."""
    status: int
    title: str
    detail: str
    proxy_error: str | None = None
    """Error type of `Proxy-Status` (RFC 9209 §2.3); None where the request itself is at fault."""
    closes: bool = False
    """The connection cannot be read any further with certainty."""


ROWS: dict[type[errors.EdgeError], Row] = {
    errors.MalformedRequest: Row(
        "malformed-request",
        400,
        "Bad Request",
        "The request is not well-formed or can be read in more than one way.",
        "http_request_error",
        closes=True,
    ),
    errors.PayloadTooLarge: Row(
        "payload-too-large",
        413,
        "Content Too Large",
        "The request body is larger than this route accepts.",
        "http_request_error",
        closes=True,
    ),
    errors.UriTooLong: Row(
        "uri-too-long",
        414,
        "URI Too Long",
        "The request target is longer than this gateway accepts.",
        "http_request_error",
        closes=True,
    ),
    errors.HeadersTooLarge: Row(
        "headers-too-large",
        431,
        "Request Header Fields Too Large",
        "The header fields are too many or too large.",
        "http_request_error",
        closes=True,
    ),
    errors.RouteNotFound: Row("no-route", 404, "Not Found", "No route matches the request."),
    errors.MethodNotAllowed: Row(
        "method-not-allowed",
        405,
        "Method Not Allowed",
        "The route does not accept this method; see Allow.",
    ),
    errors.Misdirected: Row(
        "misdirected",
        421,
        "Misdirected Request",
        "This host is not served on this connection.",
    ),
    errors.WebSocketVersion: Row(
        "websocket-version",
        426,
        "Upgrade Required",
        "This version of WebSocket is not spoken; see Sec-WebSocket-Version.",
        closes=True,
    ),
    errors.CredentialMissing: Row("credential-missing", 401, "Unauthorized", "The route needs a credential."),
    errors.CredentialRejected: Row("credential-rejected", 401, "Unauthorized", "The credential is not accepted."),
    errors.Forbidden: Row(
        "forbidden",
        403,
        "Forbidden",
        "The policy does not allow this request.",
        "http_request_denied",
    ),
    errors.QuotaExceeded: Row(
        "quota-exceeded",
        429,
        "Too Many Requests",
        "A limit is used up; see Retry-After.",
        "http_request_denied",
    ),
    errors.UpstreamUnreachable: Row(
        "upstream-unreachable",
        502,
        "Bad Gateway",
        "The service cannot be reached.",
        "destination_unavailable",
    ),
    errors.UpstreamIdentityRejected: Row(
        "upstream-identity",
        502,
        "Bad Gateway",
        "The service did not prove its identity.",
        "tls_certificate_error",
    ),
    errors.UpstreamProtocolError: Row(
        "upstream-protocol",
        502,
        "Bad Gateway",
        "The service gave an invalid answer.",
        "http_protocol_error",
    ),
    errors.UpstreamTimeout: Row(
        "upstream-timeout",
        504,
        "Gateway Timeout",
        "The service did not answer in time.",
        "http_response_timeout",
    ),
    errors.Shedding: Row(
        "shedding",
        503,
        "Service Unavailable",
        "The gateway is overloaded; try again later.",
        "http_request_denied",
    ),
    errors.NotRecordable: Row(
        "not-recordable",
        503,
        "Service Unavailable",
        "The request cannot be recorded at the moment.",
        "proxy_internal_error",
    ),
    errors.StoreUnavailable: Row(
        "store-unavailable",
        503,
        "Service Unavailable",
        "A limit cannot be checked at the moment.",
        "proxy_internal_error",
    ),
    errors.NotReady: Row(
        "not-ready",
        503,
        "Service Unavailable",
        "The gateway cannot decide at the moment.",
        "proxy_internal_error",
    ),
}

INTERNAL = Row(
    "internal",
    500,
    "Internal Server Error",
    "An unexpected error occurred.",
    "proxy_internal_error",
    closes=True,
)


@dataclass(frozen=True, slots=True)
class Problem:
    """A finished problem answer: fields with lower-case names, without `date` and framing."""

    row: Row
    fields: tuple[RawField, ...]
    body: bytes


def row_of(error: BaseException) -> Row:
    """The row of an error; anything unknown is `INTERNAL`."""
    if isinstance(error, errors.EdgeError):
        return ROWS.get(type(error), INTERNAL)
    return INTERNAL


def _challenge(error: BaseException, row: Row) -> bytes | None:
    """`WWW-Authenticate` (RFC 6750 §3): no error code when nothing was presented."""
    if row.status == 401:
        if isinstance(error, errors.CredentialRejected):
            return b'Bearer realm="edge", error="invalid_token"'
        return b'Bearer realm="edge"'
    if isinstance(error, errors.Forbidden) and error.denial.missing_scopes:
        scopes = " ".join(error.denial.missing_scopes).encode("ascii", "ignore")
        return b'Bearer realm="edge", error="insufficient_scope", scope="%b"' % scopes
    return None


@lru_cache(maxsize=256)
def _opening(base: str, row: Row) -> str:
    """The document up to the decision id; JSON."""
    members = {"type": base + row.reason, "title": row.title, "status": row.status, "detail": row.detail}
    return json.dumps(members, separators=(",", ":"))[:-1] + ',"instance":"urn:edge:decision:'


@lru_cache(maxsize=256)
def _fields(row: Row, challenge: bytes | None) -> tuple[RawField, ...]:
    """What all answers of a row say."""
    fields: list[RawField] = [
        (b"content-type", b"application/problem+json"),
        (b"cache-control", b"no-store"),
        NOSNIFF,
    ]
    if challenge is not None:
        fields.append((b"www-authenticate", challenge))
    if row.status == 503:
        fields.append((b"retry-after", b"1"))
    if row.proxy_error is not None:
        fields.append((b"proxy-status", b"edge; error=%b" % row.proxy_error.encode("ascii")))
    return tuple(fields)


def render(error: BaseException, decision_id: str, base: str) -> Problem:
    """The whole answer to an error. `base` ends in `/`; the reason is appended to make the `type` URI.

    `decision_id` is the recorder's: letters and digits, which JSON takes as they are.
    """
    row = row_of(error)
    body = f'{_opening(base, row)}{decision_id}"}}'.encode("ascii")
    fields = (*_fields(row, _challenge(error, row)), (b"x-request-id", decision_id.encode("ascii")))
    if isinstance(error, errors.MethodNotAllowed):
        fields = (*fields, (b"allow", ", ".join(error.allow).encode("ascii")))
    elif isinstance(error, errors.QuotaExceeded):
        fields = (*fields, (b"retry-after", b"%d" % error.exhausted.retry_after_s))
    elif isinstance(error, errors.WebSocketVersion):
        fields = (*fields, (b"sec-websocket-version", b"13"))
    return Problem(row, fields, body)
