"""What the parts of an HTTP/2 connection ask of one another.

bytes → Session → Shell.on_head → OpenStream → Handler (an exchange) → OpenStream → Wire.push → Session.out → bytes
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from edge.errors import MalformedRequest, RuledError
from edge.front.frames import Code
from edge.model.http import RawField, Request
from edge.model.identity import Peer

if TYPE_CHECKING:
    from edge.front.front import Front
    from edge.front.http2_session import Session


class OpenStream(Protocol):
    """What the session knows of a stream that is not closed."""

    send_left: int
    """Bytes of the answer that the client allows."""
    receive_left: int
    is_request_ended: bool

    @property
    def is_answered(self) -> bool:
        """All of the answer is out."""

    def take(self, body: bytes, *, is_end: bool) -> None:
        """A piece of the body; may be empty at its end."""

    def give_back(self, count: int) -> None:
        """Of the windows, for what carried nothing."""

    def fail(self, error: MalformedRequest) -> None:
        """It turned out malformed after its head (RFC 9113 §8.1.1)."""

    def drop(self) -> None:
        """It is closed already; nothing can be sent."""

    def hold_back(self, *, is_held_back: bool) -> None:
        """The connection holds too much of all answers together (or no more)."""

    def check_deadline(self, now_s: float) -> None:
        """Cut what is past its deadline."""

    def cut_late(self, rule: str) -> None:
        """The client had its time, or holds what others need."""


class Shell(Protocol):
    """Who has the connection."""

    def on_head(self, stream_id: int, fields: list[RawField], *, is_end: bool) -> Request | None:
        """A new stream. What its head was parsed to is given back if it may be remembered."""

    def on_known(self, stream_id: int, request: Request) -> OpenStream:
        """A new stream, whose very head was parsed before: a whole request without a body."""

    def on_goaway(self, code: int) -> None: ...


class Handler(Protocol):
    """Who gets what the client says on a stream: an exchange, or what a tunnel is made of."""

    @property
    def is_body_complete(self) -> bool: ...

    def on_body(self, body: bytes) -> None: ...

    def on_body_end(self) -> None: ...

    def on_gone(self, error: RuledError | None = None) -> None: ...

    def pause_answer(self, *, is_paused: bool) -> None: ...

    def check_deadline(self, now_s: float) -> None: ...


class AnsweringStream(OpenStream, Protocol):
    """What the connection knows of a stream."""

    stream_id: int
    ending: Code
    """What it is reset with behind its answer; NO_ERROR: only if its request is not complete (RFC 9113 §8.1)."""
    is_over: bool
    """Nothing is sent on it any more."""

    @property
    def body_left(self) -> int | None:
        """Of what the head announced; None: nothing was."""

    def begin(self) -> None:
        """Start the exchange; what came of the body with the head goes out with it."""

    def deliver(self) -> None:
        """What came of the body goes on."""

    def emit(self, most_bytes: int) -> bool:
        """Put into frames what the windows allow, at most so much; whether all that there is went out."""

    def weigh(self) -> None:
        """After `emit`: let the upstream wait while too much is held, and go on when all of it is out."""


class Wire(Protocol):
    """The connection, as its streams see it."""

    front: Front
    peer: Peer
    session: Session
    held_bytes: int
    bytes_out: int

    def push(self, stream: AnsweringStream) -> None:
        """The stream has something to send."""

    def send_whole(self, stream: AnsweringStream, block: bytes, body: bytes | memoryview) -> bool:
        """Head and body of an answer, to its end, for a request that has ended. False: not all of it could go out at once,
        and nothing was sent."""

    def received(self, stream: AnsweringStream) -> None:
        """The stream has something to deliver, when all of what was read is looked at."""

    def answered(self, stream: AnsweringStream) -> None:
        """The answer is out, to its last byte."""

    def let_go(self, stream: AnsweringStream) -> None:
        """Nothing of the stream goes out any more."""

    def gone(self) -> None:
        """An answered stream is closed, and there may be something to send."""

    def spend(self, code: Code) -> None:
        """What the session said to a reset."""
