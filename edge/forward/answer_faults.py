"""What is wrong with the head of an upstream's answer, beyond what llhttp refuses."""

from __future__ import annotations

from collections.abc import Sequence

from edge.errors import UpstreamProtocolError
from edge.model.http import RawField

MAX_HEAD_BYTES = 65_536
"""An answer's head above this is an error: 64 KiB is more than twice what browsers accept."""
MAX_FIELDS = 256
"""Of an answer; twice what a request may have."""
_FRAMING = frozenset((b"content-length", b"transfer-encoding"))


def fault_in_interim(status: int, fields: Sequence[RawField]) -> UpstreamProtocolError | None:
    """Of an answer below 200."""
    if status < 100:
        return UpstreamProtocolError("upstream-status")
    if any(name in _FRAMING for name, _ in fields):
        # RFC 9110 §8.6, RFC 9112 §6.1: it has none. llhttp would read the body, and give it before any head.
        return UpstreamProtocolError("upstream-interim-framing")
    return None


def fault_in_bounds(status: int, fields: Sequence[RawField]) -> UpstreamProtocolError | None:
    """Of a final answer. The fields' own size counts: what was read holds what came with them too."""
    if status > 599:
        return UpstreamProtocolError("upstream-status")
    if len(fields) > MAX_FIELDS:
        return UpstreamProtocolError("upstream-field-count")
    size = sum(len(name) + len(value) + 4 for name, value in fields)
    return UpstreamProtocolError("upstream-head-size") if size > MAX_HEAD_BYTES else None
