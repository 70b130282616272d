"""Header hygiene: which names and values may enter, which may stand once only, and what frames the body.

The parser in front of us (llhttp, or an HTTP/2 engine) has split the head into fields; here every field is judged before
any step reads it. A name is `[A-Za-z0-9-]` only: an upstream that maps other bytes to `-` (CGI, WSGI) would else read a
look-alike of a header that the gateway manages (attacks B2), so anything else is refused, never cleaned.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from edge.errors import HeadersTooLarge, MalformedRequest
from edge.model.http import RawField

MAX_FIELDS = 128
"""More than any browser or SDK sends; 5000 passed through Hypercorn (research: http-hardening)."""

_NAME = re.compile(rb"[a-z0-9-]{1,64}")
_ALLOWED_IN_VALUE = bytes(byte for byte in range(256) if byte == 9 or (byte >= 32 and byte != 127))
_LENGTH = re.compile(rb"[0-9]{1,15}")

SINGLE = frozenset(
    # What frames the message, and who is asked and asks.
    b"host content-length transfer-encoding expect authorization proxy-authorization cookie "
    # About the body.
    b"content-type content-encoding content-range content-location content-disposition content-md5 last-modified etag "
    # About the target and the caller.
    b"date from if-modified-since if-unmodified-since if-range max-forwards origin range referer user-agent "
    b"upgrade-insecure-requests idempotency-key dpop traceparent x-requested-with x-api-key x-csrf-token x-xsrf-token "
    b"access-control-request-method sec-fetch-dest sec-fetch-mode sec-fetch-site sec-fetch-user "
    b"sec-websocket-key sec-websocket-version".split()
)
"""Fields of one value: two of them are two readings of one request, since some servers take the first and some the last (RFC
9110 §5.3, attacks A8). Every other field is a list, or nothing that decides: its lines pass in their order. `Cookie` is here
by RFC 6265 §5.4; the crumbs of HTTP/2 are joined before (RFC 9113 §8.2.3)."""

# Names seen before, so that the usual request pays one set lookup a field. Bounded: a flood of odd names cannot grow it.
_known_names: set[bytes] = set(SINGLE)
_KNOWN_NAMES_MAX = 1024

_INTERESTING = SINGLE | {b"upgrade"}


@dataclass(slots=True, eq=False)
class Framing:
    """What the header fields say about the message itself."""

    raw_host: bytes | None = None
    raw_authorization: bytes | None = None
    content_length: int | None = None
    chunked: bool = False
    expects_continue: bool = False
    has_upgrade: bool = False


def is_valid_name(name: bytes) -> bool:
    """Whether a lower-case field name may enter at all."""
    if name in _known_names:
        return True
    if _NAME.fullmatch(name) is None:
        return False
    if len(_known_names) < _KNOWN_NAMES_MAX:
        _known_names.add(name)
    return True


def inspect(fields: Sequence[RawField], protocol: str) -> Framing:
    """Judge all fields (lower-case names) and read the framing.

    Raises:
        MalformedRequest: a name or value that may not enter, a repeated singleton, or ambiguous framing; then 400.
        HeadersTooLarge: more than `MAX_FIELDS`; then 431.
    """
    framing = Framing()
    seen: set[bytes] = set()
    if len(fields) > MAX_FIELDS:
        raise HeadersTooLarge("field-count")
    for name, value in fields:
        if name not in _known_names and not is_valid_name(name):
            raise MalformedRequest("field-name")
        if value.translate(None, _ALLOWED_IN_VALUE):  # what is left over is forbidden; a third of a regex's cost
            raise MalformedRequest("field-value")
        if name in _INTERESTING:
            if name in seen and name in SINGLE:
                raise MalformedRequest("field-repeated", name.decode("ascii"))
            seen.add(name)
            _read(framing, name, value, protocol)
    if framing.chunked and framing.content_length is not None:
        raise MalformedRequest("framing-both")  # RFC 9112 §6.3: the smuggler's opening (attacks C1)
    return framing


def _read(framing: Framing, name: bytes, value: bytes, protocol: str) -> None:
    if name == b"host":
        framing.raw_host = value
    elif name == b"authorization":
        framing.raw_authorization = value
    elif name == b"content-length":
        if _LENGTH.fullmatch(value) is None:
            raise MalformedRequest("content-length")
        framing.content_length = int(value)
    elif name == b"transfer-encoding":
        # Only the one coding every recipient agrees on, and never in a protocol that has no chunks (RFC 9112 §6.1).
        if value.lower() != b"chunked" or protocol != "1.1":
            raise MalformedRequest("transfer-encoding")
        framing.chunked = True
    elif name == b"expect":
        if value.lower() != b"100-continue":
            raise MalformedRequest("expect")
        framing.expects_continue = protocol != "1.0"  # RFC 9110 §10.1.1: of HTTP/1.0 it is ignored
    elif name == b"upgrade":
        framing.has_upgrade = True
