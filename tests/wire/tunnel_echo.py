"""A tunnel over a stream of HTTP/2 that says back what it hears, in capitals."""

from __future__ import annotations

from edge.errors import RuledError
from edge.front.http2_stream import Stream
from edge.model.http import RawField


class Echo:
    """What a tunnel may be made of."""

    is_body_complete = False

    def __init__(self, stream: Stream, head: list[RawField], seen: list[str]) -> None:
        self._stream, self._seen = stream, seen
        seen.append(dict(head)[b":protocol"].decode())
        stream.attach(self)
        stream.send_head(200, [], None, has_body=True)
        stream.flush()

    def on_body(self, body: bytes) -> None:
        self._stream.send_body(body.upper())
        self._stream.flush()

    def on_body_end(self) -> None:
        self._seen.append("end")
        self._stream.send_end()
        self._stream.flush()

    def on_gone(self, error: RuledError | None = None) -> None:
        self._seen.append("gone")

    def pause_answer(self, *, is_paused: bool) -> None:
        """It has nobody to pause."""

    def check_deadline(self, now_s: float) -> None:
        """It may take its time."""
