"""The front's side of a connection that chose HTTP/2: budgets, deadlines and drain around Hypercorn's server.

`Http1` sees the ALPN when the handshake is done and gives the transport to `HypercornHttp2` before a byte was read, so that
no byte of HTTP/1.1 ever meets another parser, and none of HTTP/2 meets llhttp. What a single request may take is
`dataplane`'s to say.
"""

from __future__ import annotations

import asyncio

from edge.accept.hypercorn_tls import App, Server, hypercorn_config
from edge.forward.fields import forget_peer
from edge.front.front import Connection, Front
from edge.front.taking import Taking
from edge.front.wire import reset

_CONFIG = hypercorn_config()


class HypercornHttp2(Connection):
    """One connection. It is not the transport's protocol itself: Hypercorn's stream reader is."""

    def __init__(self, front: Front, transport: asyncio.Transport, app: App) -> None:
        self._front = front
        self._transport = transport
        self.peer = front.peer_of(transport)
        self._has_said_goodbye = False
        self._close_by_s = 0.0
        self._taking = Taking()
        self._acknowledge_by_s = front.shared.loop.time() + front.deadlines.head_s
        front.connections.add(self)
        self._server = Server(app, front.shared.loop, transport, self.peer, _CONFIG)
        self._task = front.shared.loop.create_task(self._server.run())
        self._task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        front = self._front
        front.shared.shed.close(self.peer.prefix)
        forget_peer(self.peer)
        front.forget(self)
        if not task.cancelled() and (error := task.exception()) is not None:
            front.shared.report(error)

    def close_if_idle(self) -> None:
        """Drain: the client is told; the connection closes behind the last answer."""
        self._has_said_goodbye = True
        self._server.leave()

    def cut(self) -> None:
        reset(self._transport)

    def check_deadline(self, now_s: float) -> None:
        front, server = self._front, self._server
        deadlines = front.deadlines
        if front.is_draining and not self._has_said_goodbye and server.is_idle:
            self._has_said_goodbye = True  # not in the midst of an answer: some clients cannot read on behind it
            server.goodbye()
        if self._close_by_s or server.is_closing:
            self._close_by_s = self._close_by_s or now_s + deadlines.linger_s
            if now_s > self._close_by_s:
                self.cut()
        elif now_s > self._acknowledge_by_s and not server.is_acknowledged:
            server.give_up()
        elif server.is_idle and now_s > server.since_s + (deadlines.idle_s if server.has_served else deadlines.head_s):
            self.close_if_idle()
        elif self._taking.is_behind(self._transport, deadlines, now_s):
            self.cut()
