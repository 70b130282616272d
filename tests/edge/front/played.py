"""A client's bytes played to a session of HTTP/2, and what it said and did."""

from __future__ import annotations

from dataclasses import dataclass, field

from edge.errors import MalformedRequest
from edge.front import frames
from edge.front.frames import GO_ON, Code
from edge.front.heads import KnownBlocks
from edge.front.http2_session import (
    STREAM_WINDOW_BYTES,
    Session,
)
from edge.model.http import RawField, Request
from tests.wire.raw_h2 import setting

BEGIN = frames.PREFACE + setting()
OPEN = frames.END_HEADERS


@dataclass(eq=False)
class FakeStream:
    """Takes what comes and says nothing."""

    send_left: int = 0
    receive_left: int = STREAM_WINDOW_BYTES
    is_request_ended: bool = False
    is_answered: bool = False
    body: bytes = b""
    given_back: int = 0
    is_dropped: bool = False
    failed: list[str] = field(default_factory=list)

    def take(self, body: bytes, *, is_end: bool) -> None:
        self.body += body
        self.is_request_ended = is_end

    def give_back(self, count: int) -> None:
        self.given_back += count

    def fail(self, error: MalformedRequest) -> None:
        self.failed.append(error.rule)

    def drop(self) -> None:
        self.is_dropped = True

    def hold_back(self, *, is_held_back: bool) -> None:
        """It has nobody to hold."""

    def check_deadline(self, now_s: float) -> None:
        """It has none."""

    def cut_late(self, rule: str) -> None: ...


class Played:
    """A session with its shell, which opens every stream and remembers nothing."""

    def __init__(self, *, takes_tunnels: bool = False, remembers: bool = False) -> None:
        self.now_s = 0.0
        self.remembers = remembers
        self.blocks = KnownBlocks()
        self.heads: list[tuple[int, list[RawField], Request | None, bool]] = []
        self.opened: dict[int, FakeStream] = {}
        self.goaways: list[int] = []
        self.session = Session(self, self.blocks, lambda: self.now_s, takes_tunnels=takes_tunnels)
        self.session.out.clear()

    def on_known(self, stream_id: int, request: Request) -> FakeStream:
        self.heads.append((stream_id, [], request, True))
        self.opened[stream_id] = stream = FakeStream(is_request_ended=True)
        return stream

    def on_head(self, stream_id: int, fields: list[RawField], *, is_end: bool) -> Request | None:
        self.heads.append((stream_id, fields, None, is_end))
        self.opened[stream_id] = stream = FakeStream(is_request_ended=is_end)
        self.session.open(stream_id, stream)
        return REQUEST if self.remembers and is_end else None

    def on_goaway(self, code: int) -> None:
        self.goaways.append(code)

    def feed(self, data: bytes) -> Code:
        return self.session.feed(data)

    @property
    def said(self) -> bytes:
        said = b"".join(self.session.out)
        self.session.out.clear()
        return said


REQUEST = Request("GET", "/orders/7", b"", False, "localhost", "localhost", (), None, None, False, "2")


def begun() -> Played:
    played = Played()
    assert played.feed(BEGIN) == GO_ON
    assert played.said == frames.SETTINGS_ACK
    return played
