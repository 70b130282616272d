"""Heads that were parsed before, by their very bytes.

Most requests on a connection repeat an earlier head to the last byte: the same caller asks the same thing again. Parsing is a
pure function of these bytes, so the same bytes are the same `Request`, and what steps derived from it stays in its `memo`.
Only whole, well-formed heads that keep the connection are remembered, of requests without a body or with one whose length
they say: what is counted needs no parser. The key is all of the head:
nothing is compared but bytes with bytes, so one caller's head can never stand for another's.
"""

from __future__ import annotations

from edge.model.http import Request
from edge.parse.hpack import Table

Block = tuple[Table, bytes]
"""A header block, and the table it was decoded with."""

MAX_HEADS = 2048
MAX_HEAD_BYTES = 2048
"""8 MiB in all at the worst; a flood of different heads costs its own parsing and nothing else."""


class KnownHeads:
    """Owner: the front, one per worker; one loop, no lock. Emptied with each generation: memos name its objects."""

    __slots__ = ("_at_most", "get", "known")

    def __init__(self, at_most: int = MAX_HEADS) -> None:
        """`at_most` 0: none is kept, where none comes twice."""
        self._at_most = at_most
        self.known: dict[bytes, Request] = {}
        self.get = self.known.get

    def put(self, head: bytes, request: Request) -> None:
        """Remember a head that was parsed, and let steps keep what they derive from it."""
        if len(head) <= MAX_HEAD_BYTES and self._at_most:
            if len(self.known) >= self._at_most:
                self.known.clear()
            request.memo = {}
            self.known[head] = request

    def clear(self) -> None:
        self.known.clear()


class KnownBlocks:
    """The same for HTTP/2, where a head is a header block and means what the table before it makes of it.

    A table equals itself only. That of a new connection is one and the same, and what follows on a block met before is the
    table that followed then; so all connections that say the same share their tables. Owner: the front, as above.
    """

    __slots__ = ("get", "known")

    def __init__(self) -> None:
        self.known: dict[Block, tuple[Request, Table]] = {}
        self.get = self.known.get

    def put(self, block: Block, request: Request, table: Table) -> None:
        """Remember a whole request without a body, and the table behind its head."""
        if len(block[1]) <= MAX_HEAD_BYTES:
            if len(self.known) >= MAX_HEADS:
                self.known.clear()
            request.memo = {}
            self.known[block] = request, table

    def clear(self) -> None:
        self.known.clear()
