"""An upstream's connection whose socket is a list, and what an exchange hears of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from edge.errors import UpstreamError
from edge.forward.http1 import UpstreamConnection
from edge.model.http import RawField
from edge.writes import Writes

Event = tuple[object, ...]


class Wire(asyncio.Transport):
    """The upstream's socket."""

    def __init__(self, extra: dict[str, object] | None = None) -> None:
        super().__init__(extra)
        self.written = b""
        self.aborted = False
        self.reading = True

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += bytes(data)

    def abort(self) -> None:
        self.aborted = True

    def is_closing(self) -> bool:
        return self.aborted

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True


class Listener:
    """What the exchange would hear."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.end_is_flushed = False

    def on_upstream_head(
        self, status: int, fields: Sequence[RawField], content_length: int | None, *, has_body: bool
    ) -> None:
        self.events.append(("head", status, content_length, has_body))
        self.fields = list(fields)

    def on_upstream_body(self, body: bytes) -> None:
        self.events.append(("body", body))

    def on_upstream_end(self) -> None:
        self.events.append(("end",))

    def on_upstream_flush(self) -> None:
        self.end_is_flushed = self.events[-1:] == [("end",)]

    def on_upstream_failed(self, error: UpstreamError) -> None:
        self.events.append(("failed", type(error), error.rule))

    def on_upstream_paused(self, *, is_paused: bool) -> None:
        self.events.append(("paused", is_paused))

    @property
    def body(self) -> bytes:
        return b"".join(e[1] for e in self.events if e[0] == "body" and isinstance(e[1], bytes))


class Clock:
    """Of a loop: time that passes at once unless it is held."""

    def __init__(self, *, is_held: bool = False) -> None:
        self.is_held = is_held
        self.due: list[Callable[[], None]] = []
        self.cancelled = 0

    def call_later(self, _: float, callback: Callable[[], None]) -> asyncio.TimerHandle:
        self.due.append(callback)
        if not self.is_held:
            self.pass_by()
        return self  # type: ignore[return-value] # what is asked of it is there

    def cancel(self) -> None:
        self.cancelled += 1
        self.due.clear()

    def pass_by(self) -> None:
        while self.due:
            self.due.pop()()


class Case:
    """One connection with an exchange started on it."""

    def __init__(self, *, is_head: bool = False, is_complete: bool = True, is_held: bool = False) -> None:
        self.idle: list[UpstreamConnection] = []
        self.gone: list[UpstreamConnection] = []
        self.clock = Clock(is_held=is_held)
        self.connection = UpstreamConnection(
            self.idle.append, self.gone.append, Writes(lambda end: end()), self.clock.call_later
        )
        self.wire = Wire()
        self.connection.connection_made(self.wire)
        self.heard = Listener()
        self.start(is_head=is_head, is_complete=is_complete)

    def start(self, *, is_head: bool = False, is_complete: bool = True) -> None:
        self.connection.start(self.heard, b"GET / HTTP/1.1\r\n\r\n", is_head_method=is_head, is_complete=is_complete)

    def receive(self, raw: bytes, *, pieces: int = 1) -> Case:
        size = max(1, len(raw) // pieces)
        for start in range(0, len(raw), size):
            self.connection.data_received(raw[start : start + size])
        return self

    @property
    def kinds(self) -> list[object]:
        return [event[0] for event in self.heard.events]

    @property
    def failure(self) -> tuple[object, ...]:
        assert self.heard.events[-1][0] == "failed"
        return self.heard.events[-1][1:]
