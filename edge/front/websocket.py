"""A WebSocket over HTTP/1.1: the connection behind its 101.

From there on no parser of HTTP sees a byte of it: `WebSocket` takes the transport over from `Http1`. A client that does not
take what is written at the least rate is cut, as with any answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from edge.errors import RuledError
from edge.forward.fields import forget_peer
from edge.forward.io_gone import GONE
from edge.front.front import Connection, Front
from edge.front.wire import answer_head, reset, taken_bytes
from edge.model.http import RawField
from edge.model.identity import Peer
from edge.model.websocket import accept_of
from edge.tunnel import Tunnel


class WebSocket(Connection):
    """One connection of the public listener; the `Wire` of its tunnel."""

    __slots__ = (
        "_close_by_s",
        "_front",
        "_is_ended",
        "_out",
        "_taken_bytes",
        "_transport",
        "_tunnel",
        "_write_deadline_s",
        "peer",
    )

    def __init__(self, front: Front, transport: asyncio.Transport, peer: Peer, tunnel: Tunnel) -> None:
        self._front = front
        self._transport = transport
        self.peer = peer
        self._tunnel = tunnel
        self._out: list[bytes] = []
        self._taken_bytes = 0
        self._write_deadline_s = self._close_by_s = 0.0
        self._is_ended = False
        front.connections.add(self)
        transport.set_protocol(self)

    def begin(self, head: bytes, rest: bytes, pending: bytes) -> None:
        """Say 101; `rest` is what the upstream said behind its own, `pending` what the client did not wait with."""
        self._transport.resume_reading()  # too much of that, and it was paused
        self._transport.write(head)
        self._tunnel.attach(self, rest, self._front.tunnels)
        if pending:
            self._tunnel.on_body(pending)

    # -- asyncio --------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        self._tunnel.on_body(data)

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._is_ended = True
        self._tunnel.on_gone()
        self._transport = GONE
        self._front.shared.shed.close(self.peer.prefix)
        forget_peer(self.peer)
        self._front.forget(self)

    def pause_writing(self) -> None:
        self._write_deadline_s = self._front.shared.loop.time() + self._front.deadlines.write_s
        self._taken_bytes = taken_bytes(self._transport)
        self._tunnel.pause_answer(is_paused=True)

    def resume_writing(self) -> None:
        self._write_deadline_s = 0.0
        self._tunnel.pause_answer(is_paused=False)

    # -- Wire -----------------------------------------------------------------------------------

    def send_body(self, body: bytes) -> None:
        if not self._is_ended:
            self._out.append(body)

    def flush(self) -> None:
        out, self._out = self._out, []
        if out and not self._transport.is_closing():
            self._transport.write(b"".join(out))
        if self._is_ended and not self._close_by_s:
            self._close_by_s = self._front.shared.loop.time() + self._front.deadlines.linger_s
            self._transport.close()

    def send_end(self) -> None:
        self._is_ended = True

    def pause_body(self, *, is_paused: bool) -> None:
        if self._transport.is_closing():
            return
        if is_paused:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    def cut(self) -> None:
        reset(self._transport)

    def cut_late(self, rule: str) -> None:
        self._tunnel.on_gone(RuledError(rule))
        self.cut()

    # -- of the front ---------------------------------------------------------------------------

    def close_if_idle(self) -> None:
        """Nothing: it is never idle. `drain` ends the tunnel."""

    def check_deadline(self, now_s: float) -> None:
        if self._close_by_s:
            if now_s > self._close_by_s:
                self.cut()
        elif self._write_deadline_s and now_s > self._write_deadline_s:
            deadlines = self._front.deadlines
            before, self._taken_bytes = self._taken_bytes, taken_bytes(self._transport)
            self._write_deadline_s = now_s + deadlines.write_s
            if self._taken_bytes - before < deadlines.least_bytes_per_s * deadlines.write_s:
                self.cut_late("deadline")


def take_over(
    front: Front,
    transport: asyncio.Transport,
    peer: Peer,
    raw_key: bytes,
    leave: Callable[[], bytes],
    fields: list[RawField],
    tunnel: Tunnel,
    rest: bytes,
) -> None:
    """Switch protocols; `leave` makes the one before let go, and gives what the client sent behind its request."""
    fields += [
        (b"upgrade", b"websocket"),
        (b"connection", b"upgrade"),
        (b"sec-websocket-accept", accept_of(raw_key)),
    ]
    head = answer_head(101, fields, None, front.date_line(), is_chunked=False, is_closing=False)
    pending = leave()
    WebSocket(front, transport, peer, tunnel).begin(head, rest, pending)
