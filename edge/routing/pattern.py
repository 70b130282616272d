"""The language of path patterns: literal segments, `*`, `{name}`, and a final `/**`.

This room reads a pattern; `table` orders patterns in a tree, `registry.grant` asks whether one lies inside others.
A pattern is matched segment by segment against the canonical path, case-sensitive, never as a string prefix
(attack class P52: `/orders` is not a prefix of `/orders-admin`).

    /orders/**         /orders, /orders/, /orders/7, /orders/7/lines
    /orders/*          /orders/7               not /orders, /orders/ or /orders/7/x
    /orders/{id}       the same paths, and the segment is captured
    /orders/           exactly this
    /**                everything

`*` and `{name}` never match an empty segment; the only path that has one ends in `/`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from edge.model.route import Capture, PathPattern, Segment, Wildcard

_CAPTURE = re.compile(r"\{([a-z][a-z0-9_]{0,31})\}")
_MAX_SEGMENTS = 32
_MAX_CHARACTERS = 1024


@dataclass(frozen=True, slots=True)
class Flaw:
    """Why a text is not a pattern, and what to write instead."""

    message: str
    remedy: str


def parse(text: str) -> PathPattern | Flaw:
    """`/orders/{id}/**` → its segments, or what is wrong with it.

    Whether the literal segments are canonical is for the caller to check with `parse.target` (see `sample`).
    """
    if not text.startswith("/"):
        return Flaw(f'a path pattern starts with "/", got "{text}"', f'write "/{text}"')
    if len(text) > _MAX_CHARACTERS:
        return Flaw(f"a pattern of {len(text)} characters", f"stay within {_MAX_CHARACTERS}")
    parts = text.split("/")[1:]
    if len(parts) > _MAX_SEGMENTS:
        return Flaw(f"a pattern of {len(parts)} segments", f"stay within {_MAX_SEGMENTS}; end it in /**")
    segments: list[Segment] = []
    names: set[str] = set()
    for position, part in enumerate(parts):
        is_last = position == len(parts) - 1
        segment = _segment(part, is_last=is_last)
        if isinstance(segment, Flaw):
            return segment
        if isinstance(segment, Capture):
            if segment.name in names:
                return Flaw(f"the name {{{segment.name}}} is used twice", "give each captured segment its own name")
            names.add(segment.name)
        segments.append(segment)
    return PathPattern(text, tuple(segments))


def _segment(part: str, *, is_last: bool) -> Segment | Flaw:
    if part == "**":
        return Wildcard.REST if is_last else Flaw('"**" stands before the end of the pattern', "use it only as the end")
    if part == "*":
        return Wildcard.ONE
    captured = _CAPTURE.fullmatch(part)
    if captured is not None:
        return Capture(captured[1])
    if not part and not is_last:
        return Flaw('the pattern holds "//"', "no request path can; write a single slash")
    if any(mark in part for mark in "*{}"):
        return Flaw(
            f'"{part}" mixes a wildcard with other characters',
            "a wildcard is a whole segment: *, {name} (a-z, 0-9, _, starting with a letter) or a final **",
        )
    return part


def sample(pattern: PathPattern) -> str:
    """A path that the pattern matches: each wildcard stands as `x`. It is canonical exactly if the literals are."""
    return "/" + "/".join(segment if isinstance(segment, str) else "x" for segment in pattern.segments)


def shape(pattern: PathPattern) -> tuple[str | Wildcard, ...]:
    """The segments without the names of captures: patterns of equal shape match exactly the same paths."""
    return tuple(Wildcard.ONE if isinstance(segment, Capture) else segment for segment in pattern.segments)
