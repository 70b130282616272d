"""A WebSocket over HTTP/2 (RFC 8441): a CONNECT is walked as the GET that it stands for, then its stream is the wire.

What the client sends before it is told 200 waits in the stream's window. The end of the stream is the end of the connection
that a WebSocket would have had; a reset is its loss.
"""

from __future__ import annotations

from edge.errors import EdgeError, MalformedRequest, RuledError
from edge.exchange import Exchange
from edge.front.http2_stream import Stream, ending_for
from edge.model.http import RawField
from edge.parse.http2 import translate
from edge.parse.request import build
from edge.parse.websocket import as_get, extended_connect
from edge.tunnel import Tunnel
from edge.upgrade import Upgrade


def take_tunnel(stream: Stream, head: list[RawField]) -> None:
    """Answer a CONNECT: with an open WebSocket, or as any request is refused."""
    try:
        method, raw_target, fields = translate(as_get(head))
        request, _ = build(method, raw_target, "2", fields)
        handshake = extended_connect(request)
        if stream.is_request_ended:
            raise MalformedRequest("websocket-request")
    except EdgeError as exc:
        stream.expect_refusal(exc, ending_for(exc), is_head_method=False)
        stream.begin()
        return
    front = stream.front
    exchange = Exchange(front.gateway, front.shared, stream, stream.peer)
    call = _Call(stream, exchange)
    exchange.upgrade = Upgrade(handshake, call.switch)
    stream.pause_body(is_paused=True)
    stream.attach(call)
    exchange.start(request)


class _Call:
    """What the stream of one WebSocket tells: to the exchange that opens it, then to its tunnel."""

    is_body_complete = True
    """Nothing more has to come within a deadline: the tunnel has its own."""

    def __init__(self, stream: Stream, exchange: Exchange) -> None:
        self._stream = stream
        self._exchange = exchange
        self._tunnel: Tunnel | None = None

    def switch(self, fields: list[RawField], tunnel: Tunnel, rest: bytes) -> None:
        """The upstream switched."""
        self._tunnel = tunnel
        self._stream.send_head(200, fields, None, has_body=True)
        tunnel.attach(self._stream, rest, self._stream.front.tunnels)
        self._stream.flush()
        self._stream.pause_body(is_paused=False)

    def on_body(self, body: bytes) -> None:
        if self._tunnel is not None:
            self._tunnel.on_body(body)

    def on_body_end(self) -> None:
        if self._tunnel is not None:
            self._tunnel.on_body_end()
        else:
            self._exchange.refuse(MalformedRequest("websocket-request"))

    def on_gone(self, error: RuledError | None = None) -> None:
        (self._tunnel or self._exchange).on_gone(error)

    def pause_answer(self, *, is_paused: bool) -> None:
        (self._tunnel or self._exchange).pause_answer(is_paused=is_paused)

    def check_deadline(self, now_s: float) -> None:
        """Of the opening; what is open is swept by `front/tunnels`."""
        self._exchange.check_deadline(now_s)
