"""Raw head → the one canonical `Request`. Nobody parses again behind this door."""

from __future__ import annotations

from functools import lru_cache

from edge.errors import MalformedRequest, UriTooLong
from edge.model.http import RawField, Request
from edge.parse.fields import Framing, inspect
from edge.parse.target import canonical_host, canonicalize

MAX_TARGET_BYTES = 8192
"""RFC 9110 §4.1 recommends to support at least 8000 octets."""

MAX_QUERY_PARAMETERS = 512
"""Upstreams that make a table of them pay for each one (attacks C4, CVE-2026-39825)."""

METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))
"""All that a route may name. TRACE reflects credentials and CONNECT opens tunnels; matching is case-sensitive."""

# A listener serves a handful of hosts; a refused one raises and is not kept, so the bound is for the odd port.
_host = lru_cache(maxsize=1024)(canonical_host)


def build(method: str, raw_target: bytes, protocol: str, fields: tuple[RawField, ...]) -> tuple[Request, Framing]:
    """The canonical request and its framing; `fields` have lower-case names and trimmed values.

    Raises:
        MalformedRequest, UriTooLong, HeadersTooLarge: then 400, 414, 431.
    """
    if method not in METHODS:
        raise MalformedRequest("method")
    if len(raw_target) > MAX_TARGET_BYTES:
        raise UriTooLong("target-length")
    framing = inspect(fields, protocol)
    if framing.raw_host is None:
        raise MalformedRequest("host-missing")
    if framing.has_upgrade and (framing.chunked or framing.content_length):
        raise MalformedRequest("upgrade-with-body")
    host, authority = _host(framing.raw_host)
    target = canonicalize(raw_target, encoded_slash=True)
    if target.has_query:
        raw_query = target.raw_query
        if raw_query.count(b"&") + raw_query.count(b";") >= MAX_QUERY_PARAMETERS:  # some servers split at `;` too
            raise UriTooLong("query-parameters")
    return (
        Request(
            method=method,
            path=target.path,
            raw_query=target.raw_query,
            has_query=target.has_query,
            host=host,
            authority=authority,
            fields=fields,
            raw_authorization=framing.raw_authorization,
            content_length=framing.content_length,
            chunked=framing.chunked,
            protocol=protocol,
        ),
        framing,
    )
