"""The head of an HTTP/2 request → what `parse.request` takes: method, target and fields as HTTP/1.1 would say them.

HTTP/2 carries any bytes in names and values, so what is legal there can become something else in the HTTP/1.1 that the
upstream reads (attacks C2: smuggling by translation). What cannot be said in exactly one way is refused here (RFC 9113 §8.2
and §8.3): pseudo fields that are missing, repeated, unknown or late; a `Host` that disagrees with `:authority`; fields of the
connection; a `te` other than `trailers`; names with upper case or a colon; values with white space around them. Every other
byte is judged by `parse.fields` and `parse.target`, as it is for HTTP/1.1.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from edge.errors import HeadersTooLarge, MalformedRequest
from edge.model.http import RawField

MAX_HEAD_BYTES = 32_768
"""Of names and values together, as for HTTP/1.1."""

_PSEUDO = (b":method", b":scheme", b":path", b":authority")
_OF_THE_CONNECTION = frozenset(
    (b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade", b"http2-settings")
)
_NAME = re.compile(rb"[!-9;-@\[-~]+")
"""RFC 9113 §8.2.1: neither upper case, nor a colon, nor anything that is not printable ASCII."""
_BAD_VALUE = re.compile(rb"[\x00\r\n]|\A[ \t]|[ \t]\Z")


def translate(head: Sequence[RawField]) -> tuple[str, bytes, tuple[RawField, ...]]:
    """(method, raw target, fields with `host` first) of a head as HPACK gave it, cookie crumbs joined (RFC 9113 §8.2.3).

    Raises:
        MalformedRequest: malformed in the sense of RFC 9113 §8.1.1; then 400, and an error of the stream.
        HeadersTooLarge: then 431.
    """
    if sum(len(name) + len(value) for name, value in head) > MAX_HEAD_BYTES:
        raise HeadersTooLarge("head-size")
    pseudo: dict[bytes, bytes] = {}
    fields: list[RawField] = []
    crumbs: list[bytes] = []
    raw_hosts: list[bytes] = []
    for name, value in head:
        if name[:1] == b":":
            if name not in _PSEUDO or name in pseudo or fields or crumbs or raw_hosts:
                raise MalformedRequest("pseudo-field")
            pseudo[name] = value
            continue
        _require_translatable(name, value)
        if name == b"host":
            raw_hosts.append(value)
        elif name == b"cookie":
            crumbs.append(value)
        else:
            fields.append((name, value))
    if crumbs:
        fields.append((b"cookie", b"; ".join(crumbs)))
    authority = _authority(pseudo, raw_hosts)
    method, raw_target = pseudo.get(b":method"), pseudo.get(b":path")
    if method is None or raw_target is None:
        raise MalformedRequest("pseudo-field")
    if pseudo.get(b":scheme") != b"https":
        raise MalformedRequest("scheme")
    if raw_target[:1] != b"/" and raw_target != b"*":
        raise MalformedRequest("target-form")  # RFC 9113 §8.3.1
    if not raw_target.isascii():
        raise MalformedRequest("target-not-ascii")  # as llhttp does for HTTP/1.1
    return method.decode("latin-1"), raw_target, ((b"host", authority), *fields)


def require_trailers(fields: Sequence[RawField]) -> None:
    """Judge what came behind a body. Nothing of it is passed on (attacks C5).

    Raises: MalformedRequest; pseudo fields, or what may not stand in a head either (RFC 9113 §8.1).
    """
    for name, value in fields:
        if name[:1] == b":":
            raise MalformedRequest("trailer-pseudo-field")
        _require_translatable(name, value)


def _require_translatable(name: bytes, value: bytes) -> None:
    if name in _OF_THE_CONNECTION or (name == b"te" and value != b"trailers"):
        raise MalformedRequest("connection-field")
    if _NAME.fullmatch(name) is None:
        raise MalformedRequest("field-name")
    if _BAD_VALUE.search(value) is not None:
        raise MalformedRequest("field-value")


def _authority(pseudo: Mapping[bytes, bytes], raw_hosts: Sequence[bytes]) -> bytes:
    """The one authority; `:authority` and `Host` may both stand there if they are the same bytes (RFC 9113 §8.3.1)."""
    if len(raw_hosts) > 1:
        raise MalformedRequest("field-repeated", "host")
    authorities = {*raw_hosts, *(pseudo[name] for name in (b":authority",) if name in pseudo)}
    if not authorities:
        raise MalformedRequest("host-missing")
    if len(authorities) > 1:
        raise MalformedRequest("host-disagrees")
    return authorities.pop()
