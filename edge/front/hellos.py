"""Connections that were accepted and whose ClientHello is not there yet: what they cost while they say nothing.

The TLS of the loops takes a quarter of a mebibyte of room and a timer for each connection before a byte of it was read, and
works on all that became readable in one turn of the loop. So of a crowd a connection gets it when its first flight is there
and it is its turn (`accept.turns`); until then it is a descriptor, which the kernel watches for all of them together. What
came is looked at and stays in the kernel: OpenSSL reads every byte of it (attacks C4, CVE-2026-26999).
"""

from __future__ import annotations

import asyncio
import select
import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from itertools import takewhile

from edge.accept.client_hello import MAX_FLIGHT_BYTES, is_awaited

LOOKED_AT_ONCE = 64
"""In one turn of the loop; others are served in between."""
_SWEEP_S = 0.25
_COMES = select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLET
"""Told once for each piece that comes: what is there of a hello stays there, and must not be told again and again."""
_LOOK = socket.MSG_PEEK | socket.MSG_DONTWAIT
_HAS_LEFT = select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR


@dataclass(slots=True, eq=False)
class Knock:
    """One such connection."""

    connection: socket.socket
    prefix: str
    address: tuple[str, int]
    until_s: float
    """On the loop's clock: when its handshake has to be done."""


class Hellos:
    """The connections of one gate that have no TLS yet. Used from its loop only: no lock."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        heard: Callable[[Knock], None],
        go_on: Callable[[], None],
        gone: Callable[[Knock], None],
    ) -> None:
        """`heard`: there is a hello, or what is none, to be taken when it is its turn; `go_on`: turns may be
        taken. `gone`: it left before, or was late, and is to be closed."""
        self._loop = loop
        self._heard, self._go_on, self._gone = heard, go_on, gone
        self._knocks: dict[int, Knock] = {}
        """By descriptor, in the order in which they came."""
        self._poll = select.epoll()
        self._room = bytearray(MAX_FLIGHT_BYTES)
        self._is_closing = False

    def add(self, knock: Knock, *, is_waited_for: bool) -> None:
        """It was just accepted; where there is much to do, its hello has come meanwhile. `is_waited_for`: else it is heard
        before it has said anything, which saves a turn of the loop."""
        descriptor = knock.connection.fileno()
        self._knocks[descriptor] = knock
        if not is_waited_for or self._is_awaited(knock.connection) is False:
            self._heard(knock)
        else:
            self._poll.register(descriptor, _COMES)

    def close(self) -> None:
        """Nobody is added any more. Who waits goes on waiting."""
        self._is_closing = True

    async def listen(self) -> None:
        """Until it is closed and nobody waits; if it is cancelled, whoever waits is gone."""
        self._loop.add_reader(self._poll.fileno(), self._look_around)
        try:
            while self._knocks or not self._is_closing:
                await asyncio.sleep(_SWEEP_S)
                self._sweep(self._loop.time())
        finally:
            self._sweep(float("inf"))
            self._loop.remove_reader(self._poll.fileno())
            self._poll.close()

    def take(self, knock: Knock) -> bool:
        """It is its turn: whether it is still there. Its connection is the caller's then."""
        return self._knocks.pop(knock.connection.fileno(), None) is not None

    def _look_around(self) -> None:
        for descriptor, event in self._poll.poll(0, LOOKED_AT_ONCE):
            knock = self._knocks[descriptor]
            awaited = self._is_awaited(knock.connection)
            if awaited is False:
                self._poll.unregister(descriptor)
                self._heard(knock)
            elif awaited is None or event & _HAS_LEFT:
                self._drop(knock)
        self._go_on()

    def _is_awaited(self, connection: socket.socket) -> bool | None:
        """Whether more has to come before it is worth a handshake; None: nothing will."""
        try:
            size = connection.recv_into(self._room, 0, _LOOK)
        except BlockingIOError:
            return True
        except OSError:
            return None
        return is_awaited(self._room, size) if size else None

    def _drop(self, knock: Knock) -> None:
        del self._knocks[knock.connection.fileno()]
        self._gone(knock)

    def _sweep(self, now_s: float) -> None:
        for knock in list(takewhile(lambda each: each.until_s <= now_s, self._knocks.values())):
            with suppress(OSError):  # what is left unread would make its end a reset
                knock.connection.recv_into(self._room, 0, socket.MSG_DONTWAIT)
            self._drop(knock)
