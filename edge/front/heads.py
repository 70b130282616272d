"""Heads that were parsed before, by their very bytes.

Most requests on a connection repeat an earlier head to the last byte: the same caller asks the same thing again. Parsing is a
pure function of these bytes, so the same bytes are the same `Request`, and what steps derived from it stays in its `memo`.
Only whole, well-formed heads of requests without a body that keep the connection are remembered. The key is all of the head:
nothing is compared but bytes with bytes, so one caller's head can never stand for another's.
"""

from __future__ import annotations

from edge.model.http import Request

MAX_HEADS = 2048
MAX_HEAD_BYTES = 2048
"""8 MiB in all at the worst; a flood of different heads costs its own parsing and nothing else."""


class KnownHeads:
    """Owner: the front, one per worker; one loop, no lock. Emptied with each generation: memos name its objects."""

    __slots__ = ("get", "known")

    def __init__(self) -> None:
        self.known: dict[bytes, Request] = {}
        self.get = self.known.get

    def put(self, head: bytes, request: Request) -> None:
        """Remember a head that was parsed, and let steps keep what they derive from it."""
        if len(head) <= MAX_HEAD_BYTES:
            if len(self.known) >= MAX_HEADS:
                self.known.clear()
            request.memo = {}
            self.known[head] = request

    def clear(self) -> None:
        self.known.clear()
