"""The upstream and the log of `lanes`: in this process, in the turns of one loop, without a socket or a clock."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from hashlib import sha256
from typing import Any

from edge.forward.endpoint import Endpoint
from edge.forward.http1 import UpstreamConnection
from edge.forward.io_pool import Pinned, PoolKey
from edge.model.http import Request
from edge.model.record import UpstreamFacts
from edge.writes import Writes
from tests.e2e.upstream import complete_message

OF_ONE_TIME = re.compile(rb"\r\n(?:x-request-id|traceparent|date|sec-websocket-key): [^\r]*")
FACTS = UpstreamFacts("orders", "spiffe://mesh.internal/svc/orders", "1", "127.0.0.1:1")
_ADDRESS = ("127.0.0.1", 1)
_SIZE = 40


def _answer(body: bytes, more: bytes = b"", status: bytes = b"200 OK", length: int = _SIZE) -> bytes:
    return b"HTTP/1.1 %b\r\n%bcontent-length: %d\r\n\r\n%b" % (status, more, length, body)


def word_for(request: bytes) -> bytes:
    """What a good answer says."""
    return sha256(OF_ONE_TIME.sub(b"", request)).hexdigest().encode("ascii")[:_SIZE]


def answer_to(request: bytes) -> bytes:
    """What is said to it, by the last byte of its target; a good answer says what was asked, and is always as long.

    `|` cuts it in two reads; at its end `$` closes the connection by the book, and `!` without the closing alert."""
    method, target = request.split(b" ", 2)[:2]
    said = word_for(request)
    body = b"" if method == b"HEAD" else said
    whole = _answer(body)
    kinds = {
        b"1": whole[:20] + b"|" + whole[20:],
        b"2": whole[:-3] + b"|" + whole[-3:],
        b"3": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
        + (b"28\r\n%b\r\n0\r\n\r\n" % body if body else b""),
        b"4": b"HTTP/1.1 204 No Content\r\n\r\n",
        b"5": b"HTTP/1.1 304 Not Modified\r\ncontent-length: 40\r\n\r\n",
        b"6": b"HTTP/1.1 100 Continue\r\n\r\n" + whole,
        b"7": b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n|" + whole,
        b"8": _answer(body, b"connection: close\r\n") + b"$",
        b"9": _answer(body, b"set-cookie: a=b\r\n"),
        b"a": whole + whole,
        b"b": whole + b"|" + whole,
        b"c": whole[:-5] + b"!",
        b"d": _answer(said, length=_SIZE - 1),
        b"e": _answer(said),
        b"f": b"HTTP/1.0 200 OK\r\ncontent-length: 40\r\n\r\n" + body,
        b"g": whole.replace(b"\r\n", b"\n"),
        b"h": _answer(body, b"x-a: b\r\n c\r\n"),
        b"i": whole + b"\r\n",
        b"j": _answer(said, status=b"204 No Content"),
        b"k": _answer(said, status=b"304 Not Modified"),
        b"l": _answer(b"", length=0),
        b"m": _answer(body, status=b"404 Not Found"),
        b"n": b"HTTP/1.1 200 OK\r\n\r\n" + body + b"$",
        b"o": b"HTTP/1.1 200 OK\r\n\r\n" + body + b"!",
        b"p": b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n" + whole,
        b"q": _answer(body, b"transfer-encoding: chunked\r\n"),
        b"r": b"$",
        b"s": _answer(body, b"connection: keep-alive, close\r\n"),
        b"t": b"\r\n" + whole,
        b"u": _answer(b"") + b"|" + body,
        b"v": whole[:-1] + b"|" + whole[-1:] + b"|" + whole,
        b"w": whole.replace(b"content-length", b"Content-Length"),
        b"x": _answer(body, status=b"500 Broken"),
        b"y": b"",
        b"z": _answer(body, b"content-length: 40\r\n"),
    }
    return kinds.get(target[-1:], whole)


UNASKED = re.compile(rb" /\w+/.[bv][ ?]")
"""Behind the answer to it comes another, which may meet the next request on its way."""
EARLY = ord("A")
"""The upstream does not wait for the body."""
KINDS = b"0123456789abcdefghijklmnopqrstuvwxyzA"


class Far(asyncio.Transport):
    """A connection to the upstream, with the upstream at its end."""

    def __init__(self, loop: asyncio.AbstractEventLoop, seen: list[bytes], words: list[bytes]) -> None:
        super().__init__()
        self._loop, self._seen, self._words = loop, seen, words
        self._buffer = b""
        self._due: list[bytes] = []
        self._is_closing = False
        self._is_read = True
        self._is_answered = False
        """The request under way; before its end."""
        self.connection: UpstreamConnection | None = None

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._is_closing:
            return  # as any transport whose other end is gone
        self._buffer += data
        while (end := complete_message(self._buffer)) is not None:
            request, self._buffer = self._buffer[:end], self._buffer[end:]
            self._seen.append(OF_ONE_TIME.sub(b"", request))
            if not self._is_answered:
                self._answer(request)
            self._is_answered = False
        head, end_of_head, _ = self._buffer.partition(b"\r\n\r\n")
        if end_of_head and not self._is_answered and head.split(b" ", 2)[1][-1] == EARLY:
            self._is_answered = True
            self._answer(head + end_of_head)

    def _answer(self, request: bytes) -> None:
        self._words.append(word_for(request))
        self._due += answer_to(request).split(b"|")
        self._loop.call_soon(self._say)

    def _say(self) -> None:
        connection = self.connection
        if self._is_closing or not self._due or not self._is_read or connection is None:
            return
        piece = self._due.pop(0)
        ending, piece = piece[-1:], piece.rstrip(b"$!")
        if piece:
            connection.data_received(piece)
        self._loop.call_soon(self._say_on, ending)

    def _say_on(self, ending: bytes) -> None:
        """The end, or what is next."""
        connection = self.connection
        if self._is_closing or connection is None:
            return
        if ending == b"$":
            connection.eof_received()
        if ending in (b"$", b"!"):
            self.abort()
        else:
            self._say()

    def pause_reading(self) -> None:
        self._is_read = False

    def resume_reading(self) -> None:
        self._is_read = True
        self._loop.call_soon(self._say)

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return self._is_closing

    def abort(self) -> None:
        if not self._is_closing and self.connection is not None:
            self._is_closing = True
            self._loop.call_soon(self.connection.connection_lost, None)

    def close(self) -> None:
        self.abort()


class Forgetful(UpstreamConnection):
    """Looks no head up: to it all of them are strange."""

    @property
    def _strange_heads(self) -> int:
        return 65

    @_strange_heads.setter
    def _strange_heads(self, count: int) -> None:
        """It is always as many."""


class Service:
    """In place of the pool: dials in no time, and keeps what is idle."""

    def __init__(self, loop: asyncio.AbstractEventLoop, made: Callable[..., UpstreamConnection]) -> None:
        self._loop, self._made = loop, made
        self._writes = Writes(loop.call_soon)
        self._idle: list[Pinned] = []
        self._endpoint = Endpoint("orders", FACTS.spiffe_id, _ADDRESS)
        self.seen: list[bytes] = []
        """The requests that the upstream read, over all connections."""
        self.words: list[bytes] = []
        """The words for those that it answered."""

    def renew(self) -> None:
        """As at the beginning."""
        self._idle.clear()
        self.seen, self.words = [], []

    def addresses(self, upstream: object) -> tuple[Endpoint, ...]:
        return (self._endpoint,)

    def acquire(self, endpoint: Endpoint) -> Pinned:
        while self._idle:
            pinned = self._idle.pop()
            if not pinned.connection.is_closed:
                return pinned
        far = Far(self._loop, self.seen, self.words)
        connection = far.connection = self._made(self._keep, lambda gone: None, self._writes, self._call_soon)
        connection.connection_made(far)
        connection.pinned = Pinned(PoolKey(FACTS.spiffe_id, _ADDRESS, 1), connection, FACTS, (), 0.0)
        return connection.pinned

    def _call_soon(self, _: float, callback: Callable[[], None]) -> asyncio.Handle:
        """A moment is one turn of the loop here, so that both ways are told in the same."""
        return self._loop.call_soon(callback)

    def _keep(self, connection: UpstreamConnection) -> None:
        if connection.pinned is not None:
            self._idle.append(connection.pinned)

    def release(self, pinned: Pinned) -> None:
        """Nothing is counted."""

    def prove_again(self, pinned: Pinned) -> None:
        """Nothing was proven."""


class Log:
    """In place of the recorder: what it is told, in order."""

    room = (1000, 1000)

    def __init__(self) -> None:
        self._taken: list[tuple[object, ...]] = []
        self.told: list[tuple[object, ...]] = []

    def renew(self) -> None:
        self._taken, self.told = [], []

    def next_id(self) -> str:
        return "00000000-0000-0000-0000-000000000000"

    def admit(self, decision_id: str, request: Request, peer: Any, admission: Any, *_: object) -> int:
        who = (admission.permit.principal, admission.permit.match.route.name, peer.ip)
        self._taken.append((*who, request.method, request.path, request.raw_query, request.fields))
        return len(self._taken) - 1

    def complete(self, slot: int, **outcome: Any) -> int:
        said = tuple(outcome.get(name) for name in ("status", "reason", "rule", "bytes_in", "bytes_out"))
        self.told.append((*self._taken[slot], *said))
        return 0

    def refuse(self, decision_id: str, request: Request | None, *_: object, **outcome: Any) -> int:
        asked = (request.method, request.path, request.fields) if request is not None else ()
        self.told.append((*asked, *(outcome.get(name) for name in ("status", "reason", "rule", "bytes_in"))))
        return 0

    def synced(self, slot: int) -> None:
        """Nobody waits for a disk."""

    def acked(self, completion: int | None) -> None:
        """Nobody waits for a disk."""
