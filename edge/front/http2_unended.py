"""A stream whose answer is out while its request goes on: half-closed by us, and judged like any other (RFC 9113 §5.1, §8.1).

It is not reset at once. Most requests end by themselves within a round trip, some clients take a reset for a failure of
the answer before it, and what comes may still be malformed, which the client has to be told instead.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge.errors import MalformedRequest
from edge.front.frames import Code

if TYPE_CHECKING:
    from edge.front.http2_roles import AnsweringStream, Wire

MAX_DROPPED_BYTES = 16_384
"""Of a body for which nobody waits; then the client is asked to stop."""


class UnendedRequest:
    """An `OpenStream` that takes and throws away, until its request has ended or took too long or too much."""

    __slots__ = (
        "_body_left",
        "_dropped_bytes",
        "_until_s",
        "_wire",
        "is_request_ended",
        "receive_left",
        "send_left",
        "stream_id",
    )

    is_answered = True

    def __init__(self, wire: Wire, stream: AnsweringStream, until_s: float) -> None:
        """In place of the stream that was answered."""
        self._wire = wire
        self.stream_id = stream.stream_id
        self.send_left = stream.send_left
        self.receive_left = stream.receive_left
        self.is_request_ended = False
        self._body_left = stream.body_left
        self._dropped_bytes = 0
        self._until_s = until_s

    def take(self, body: bytes, *, is_end: bool) -> None:
        count = len(body)
        self.give_back(count)
        if self._body_left is not None:
            self._body_left -= count
            if self._body_left < 0 or (is_end and self._body_left):
                self.fail(MalformedRequest("framing-disagrees"))
                return
        self._dropped_bytes += count
        if is_end:
            self._wire.session.close(self.stream_id)
            self._wire.gone()
        elif self._dropped_bytes > MAX_DROPPED_BYTES:
            self._ask_to_stop()

    def give_back(self, count: int) -> None:
        """To the connection only: on this stream no more is wanted."""
        self._wire.session.give_back(count)

    def fail(self, error: MalformedRequest) -> None:
        """Nobody is there to be answered: the exchange has its record, the client its answer."""
        self._wire.spend(self._wire.session.reset(self.stream_id, Code.PROTOCOL_ERROR))

    def drop(self) -> None:
        self._wire.gone()

    def hold_back(self, *, is_held_back: bool) -> None:
        """Nothing: it has nothing to send."""

    def check_deadline(self, now_s: float) -> None:
        if now_s > self._until_s:
            self._ask_to_stop()

    def cut_late(self, rule: str) -> None:
        """Nothing that could be recorded: its exchange has its record."""
        self._ask_to_stop()

    def _ask_to_stop(self) -> None:
        self._wire.session.cancel(self.stream_id, Code.NO_ERROR)
        self._wire.gone()
