"""The header blocks of one HTTP/2 connection: put together from their frames, and decoded in the order in which they came.

A block is always decoded, also for a stream that is refused, or the tables of the two sides would differ (RFC 9113 §4.3).
"""

from __future__ import annotations

from edge.errors import HeadersTooLarge, MalformedRequest
from edge.front import frames
from edge.front.frames import GO_ON, Code
from edge.front.heads import KnownBlocks
from edge.model.http import RawField, Request
from edge.parse import hpack

MAX_BLOCK_BYTES = 65_536
MAX_CONTINUATIONS = 16
"""Of one header block (CVE-2024-27316)."""


class HeadReader:
    """What was read last stands in the attributes until the next block."""

    __slots__ = (
        "_before",
        "_blocks",
        "_continuations",
        "_table",
        "block",
        "fields",
        "is_end",
        "is_self_dependent",
        "known",
        "waits_for",
    )

    def __init__(self, blocks: KnownBlocks) -> None:
        self._blocks = blocks
        self._table = self._before = hpack.EMPTY
        self._continuations = 0
        self.waits_for = 0
        """The stream of a block that is not whole; 0: none."""
        self.block = b""
        self.is_end = False
        """Nothing follows the block on its stream."""
        self.is_self_dependent = False
        self.fields: list[RawField] = []
        self.known: Request | None = None
        """What the fields were parsed to before; then they are not decoded again."""

    def again(self, block: bytes) -> Request | None:
        """What a whole block without padding was parsed to before, as the one of a request without a body. None: it was not,
        and nothing was done with it."""
        found = self._blocks.get((self._table, block))
        if found is None:
            return None
        known, self._table = found
        return known

    def begin(self, flags: int, stream_id: int, payload: bytes) -> Code:
        """A HEADERS frame."""
        if self.is_self_dependent:
            self.is_self_dependent = False
        if flags & (frames.PADDED | frames.HAS_PRIORITY):
            start = (1 if flags & frames.PADDED else 0) + (5 if flags & frames.HAS_PRIORITY else 0)
            if len(payload) < start:
                return Code.FRAME_SIZE_ERROR
            end = len(payload) - (payload[0] if flags & frames.PADDED else 0)
            if end < start:
                return Code.PROTOCOL_ERROR
            if flags & frames.HAS_PRIORITY:
                self.is_self_dependent = frames.read_u31(payload[start - 5 : start - 1]) == stream_id
            payload = payload[start:end]
        self.block = payload
        self.is_end = bool(flags & frames.END_STREAM)
        if not flags & frames.END_HEADERS:
            self.waits_for = stream_id
            self._continuations = 0
        return GO_ON

    def go_on(self, flags: int, stream_id: int, payload: bytes) -> Code:
        """A CONTINUATION frame (RFC 9113 §6.10)."""
        if not self.waits_for:
            return Code.PROTOCOL_ERROR
        self.block += payload
        self._continuations += 1
        if self._continuations > MAX_CONTINUATIONS or len(self.block) > MAX_BLOCK_BYTES:
            return Code.ENHANCE_YOUR_CALM
        if flags & frames.END_HEADERS:
            self.waits_for = 0
        return GO_ON

    def decode(self) -> Code:
        """Read the whole block: afterwards `known` or `fields` say what it means."""
        self._before = before = self._table
        if self.is_end:
            found = self._blocks.get((before, self.block))
            if found is not None:
                self.known, self._table = found
                return GO_ON
        self.known = None
        try:
            self.fields, self._table = hpack.decode(before, self.block)
        except HeadersTooLarge:
            return Code.ENHANCE_YOUR_CALM
        except MalformedRequest:
            return Code.COMPRESSION_ERROR
        return GO_ON

    def remember(self, request: Request) -> None:
        """What the block just decoded was parsed to."""
        self._blocks.put((self._before, self.block), request, self._table)
