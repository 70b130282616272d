"""The request as the policy sees it and the upstream gets it. Built by `parse`, read by everybody, changed by nobody."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

RawField = tuple[bytes, bytes]
"""(lower-case name, value without surrounding white space)."""


class KnownFields(tuple[RawField, ...]):
    """Fields of a head that is kept for the next time that the same bytes come. Equal to themselves only: what is derived
    from them is looked up by them, without a look at any of them."""

    __slots__ = ()
    __eq__ = object.__eq__
    __hash__ = object.__hash__


# Not frozen: built once per request on the hot path, where `frozen` costs 0.5 µs (style §2, Pure core).
@dataclass(slots=True, eq=False)
class Request:
    """One canonical request."""

    method: str
    """Upper-case token."""
    path: str
    """Canonical path, percent-encoded ASCII, starts with `/`, no query (design §6, Paths)."""
    raw_query: bytes
    """What follows `?`, without it; empty when there is none. Never part of a match on the path."""
    has_query: bool
    """Tells `/a?` from `/a`."""
    host: str
    """Host without port, lower-case; an IPv6 literal keeps its brackets."""
    authority: str
    """Host with the port as sent, lower-case; for `Forwarded` and the upstream's `Host`."""
    fields: tuple[RawField, ...]
    """All header fields in order, as received; hop-by-hop and managed ones included (the forward step removes them)."""
    raw_authorization: bytes | None
    """The one `Authorization` value, or None. Duplicates were refused by parse."""
    content_length: int | None
    """None when there is no body or it is chunked."""
    chunked: bool
    """The body comes in chunks of unknown total."""
    protocol: str = "1.1"
    """HTTP version as in `http.version` of ECS: `1.0`, `1.1`, `2`."""
    memo: dict[object, Any] | None = None
    """What steps derived from this request alone, each under an object of its own; None unless the shell keeps the request
    for the next time that the same bytes come (`front/heads`)."""

    @property
    def has_body(self) -> bool:
        return self.chunked or bool(self.content_length)

    def field(self, name: bytes) -> bytes | None:
        """The first value of the lower-case `name`, or None."""
        for field_name, value in self.fields:
            if field_name == name:
                return value
        return None
