"""What a service may serve: the answer to the rogue service. A grant is written by the operator, never by the service.

A route (written in a file now, declared by a service itself later) is taken only if it lies inside the grant of the service
it forwards to: its hosts and methods are subsets, and *every* path it can match is matched by one of the grant's patterns
(attacks E3, P48, P52). That is decided exactly, on the patterns, not by trying paths and not by comparing strings:
`/orders/**` covers `/orders/{id}` and `/orders`, not `/orders-admin/**`, `/*/7` or `/**`.

The question "is the language of one pattern inside the union of others" is answered by walking all of them at once, one
path segment at a time. What tells segments apart is finite: each literal that occurs, the empty segment (only a path that
ends in `/` has one, at its end), and one stand-in for every other text.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from edge.model.route import PathPattern, Segment, Wildcard

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_OTHER = "\0other"
"""Stands for any segment that no pattern spells out; no path holds a NUL."""


@dataclass(frozen=True, slots=True)
class Grant:
    """One entry of services.yaml."""

    service: str
    spiffe_id: str
    """Who must answer: `spiffe://<trust_domain>/svc/<service>`."""
    may_serve: tuple[PathPattern, ...]
    hosts: tuple[str, ...]
    """Written out: all of the public listener's when the file names none."""
    methods: tuple[str, ...]
    dns: tuple[str, ...]
    """DNS names that its certificates may hold; for issuing only."""
    assertion: Literal["subject", "request"] | None = None
    """Whether what it is sent is signed, and about what."""
    addresses: tuple[Network, ...] = ()
    """Where its instances may be although they register from elsewhere."""

    def covers(self, pattern: PathPattern) -> bool:
        """Whether every path that `pattern` can match is matched by one of `may_serve`."""
        return is_covered(pattern.segments, [each.segments for each in self.may_serve])

    def outside(self, pattern: PathPattern, methods: Sequence[str], hosts: Sequence[str]) -> str | None:
        """What of a route is not granted, in words; None when all of it is."""
        if not self.covers(pattern):
            return f"the path {pattern.text}"
        for method in methods:
            if method not in self.methods:
                return f"the method {method}"
        for host in hosts:
            if host not in self.hosts:
                return f"the host {host}"
        return None

    def allows(self, path: str) -> bool:
        """Whether one canonical path is matched by one of `may_serve`."""
        return is_covered(tuple(path.split("/")[1:]), [each.segments for each in self.may_serve])


Segments = tuple[Segment, ...]


def is_covered(inner: Segments, outer: Iterable[Segments]) -> bool:
    """Whether the union of `outer` matches every path that `inner` matches. A path is a pattern without wildcards."""
    if not inner:
        return False  # not a path
    states = frozenset(outer)
    symbols = {segment for each in (inner, *states) for segment in each if isinstance(segment, str)} | {_OTHER, ""}
    seen: set[tuple[Segments, frozenset[Segments]]] = set()
    todo = [(inner, states)]
    while todo:
        rest, others = todo.pop()
        for symbol in symbols:
            after = _after(rest, symbol)
            if after is None:
                continue
            left = frozenset(rest_of for each in others if (rest_of := _after(each, symbol)) is not None)
            # Asked after a segment only: no path is without one, so `/` and `/*/**` together are all that `/**` matches.
            if _may_end(after) and not any(map(_may_end, left)):
                return False
            if (after, left) not in seen:
                seen.add((after, left))
                todo.append((after, left))
    return True


def _may_end(segments: Segments) -> bool:
    """Whether a path may end here."""
    return not segments or segments == (Wildcard.REST,)


def _after(segments: Segments, symbol: str) -> Segments | None:
    """What is left of a pattern after one segment of the path, or None when it does not fit.

    After the empty segment nothing can follow: canonical paths have it at their end only.
    """
    if not segments:
        return None
    first = segments[0]
    if first is Wildcard.REST:
        return segments if symbol else ()
    if isinstance(first, str):
        return segments[1:] if first == symbol else None
    return segments[1:] if symbol else None
