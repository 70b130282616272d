"""Answers of upstreams: who gets one, and heads that were met before, by their very bytes.

An upstream says the same of the same thing again, and within a second to the last byte. What a head means is a function of
its bytes alone, so behind one that was met before a whole answer needs no parser: as `front/heads` for requests.

Laws:
- Remembered is only what came in one read as a whole answer and met no complaint: a body of the length that was announced,
  on a connection that both sides keep. So what follows from the bytes is all of it again, or the parser reads them.
- Nothing is compared but bytes with bytes. What sets a cookie is not kept: it is a secret, and never comes twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from edge.errors import UpstreamError
from edge.model.http import KnownFields, RawField

MAX_HEADS = 2048
MAX_HEAD_BYTES = 2048
"""Sixteen mebibytes in all at the worst: the fields are as long as the bytes, and objects around them. A thousand callers
whose answers say who they are have room."""
_END = b"\r\n\r\n"


class Receiver(Protocol):
    """Who gets the answer. Calls come in this order; `on_upstream_failed` may come at any point and is the last."""

    def on_upstream_head(
        self, status: int, fields: Sequence[RawField], content_length: int | None, *, has_body: bool
    ) -> None: ...

    def on_upstream_body(self, body: bytes) -> None: ...

    def on_upstream_end(self) -> None: ...

    def on_upstream_flush(self) -> None:
        """All of one read has been delivered: write now, in one piece."""

    def on_upstream_failed(self, error: UpstreamError) -> None: ...

    def on_upstream_paused(self, *, is_paused: bool) -> None:
        """The upstream cannot take more of the request body at the moment (or can again)."""


@dataclass(slots=True, eq=False)
class AnswerHead:
    """What a head says."""

    status: int
    fields: KnownFields
    content_length: int
    end: int
    """Of its bytes."""


# Of this process, whoever the upstream: the same bytes mean the same thing. One loop, no lock.
_known: dict[bytes, AnswerHead] = {}


def recall(data: bytes) -> AnswerHead | None:
    """The head of `data`, if it was met before and `data` is exactly one answer."""
    head = _known.get(data[: data.find(_END) + 4])
    return head if head is not None and head.end + head.content_length == len(data) else None


def remember(data: bytes, status: int, fields: Sequence[RawField]) -> None:
    """`data` was one whole answer. Whether there is a body of announced length, and only then, is looked at here."""
    end = data.find(_END) + 4
    lengths = [value for name, value in fields if name == b"content-length"]
    is_kept = end <= MAX_HEAD_BYTES and len(lengths) == 1 and lengths[0] == b"%d" % (len(data) - end)
    if is_kept and len(data) > end and all(name != b"set-cookie" for name, _ in fields):
        if len(_known) >= MAX_HEADS:
            _known.clear()
        _known[data[:end]] = AnswerHead(status, KnownFields(fields), len(data) - end, end)
