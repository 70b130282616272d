"""A listener before TLS: whose turn it is not is turned away before a handshake costs anything.

A handshake is the dearest thing a stranger can ask for (a signature), and one that never ends holds memory and a descriptor
until its deadline. So the budgets by address (`accept/shed`) are asked when the kernel hands over the connection, and what is
under way counts as open. A refused connection is closed: there is no TLS yet in which one could say why (attacks C4,
CVE-2026-26999).
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable
from functools import partial

from edge.accept.peer import prefix_of
from edge.accept.tls import REFUSED
from edge.front.front import Front
from edge.front.proof import Doorkeeper

_BACKLOG = 4096
_AT_ONCE = 8
"""Connections accepted in one turn of the loop; others are served in between. Each costs a tenth of a millisecond or more."""
_UNSENT_BYTES = 131_072
"""Of an answer in the kernel that the client has no room for yet; what is on its way to it comes on top."""
_REST_S = 0.5
"""When there is no descriptor left: those of somebody else's connection come back, and the kernel queues meanwhile."""


class Gate:
    """Accepts on one bound socket, which it owns. `close` leaves what waits in the kernel's queue to whoever shares it."""

    def __init__(
        self, front: Front, listening: socket.socket, context: ssl.SSLContext, keeper: Doorkeeper | None = None
    ) -> None:
        """`keeper` proves who connects; None: nobody is asked."""
        self._front = front
        self._keeper = keeper
        self._listening = listening
        self._context = context
        self._loop = front.shared.loop
        self._is_closed = False
        listening.setblocking(False)
        # Its connections inherit it. Else the kernel takes megabytes of an answer that its client does not (tcp(7)).
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _UNSENT_BYTES)
        listening.listen(_BACKLOG)
        self._watch()

    def _watch(self) -> None:
        if not self._is_closed:
            self._loop.add_reader(self._listening.fileno(), self._accept)

    def close(self) -> None:
        """Handshakes under way go on."""
        if not self._is_closed:
            self._is_closed = True
            self._loop.remove_reader(self._listening.fileno())
            self._listening.close()

    def _accept(self) -> None:
        shared = self._front.shared
        for _ in range(_AT_ONCE):
            try:
                connection, address = self._listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except (
                OSError
            ) as exc:  # no descriptor or no memory: the queue would stay readable, and this loop would spin
                shared.report(exc)
                self._loop.remove_reader(self._listening.fileno())
                self._loop.call_later(_REST_S, self._watch)
                return
            prefix = prefix_of(str(address[0]))
            keeper = self._keeper
            is_proxy = self._front.gateway.proxies.trusts(str(address[0]))
            if (keeper is not None and not keeper.may_knock(prefix)) or not shared.shed.open(prefix, is_proxy=is_proxy):
                connection.close()
                continue
            connection.setblocking(False)
            task = self._loop.create_task(self._shake_hands(connection, prefix, address))
            shared.tasks.add(task)
            task.add_done_callback(shared.tasks.discard)

    def _hang_up(
        self, connection: socket.socket, tell: Callable[[ssl.SSLError], None] | None, exc: ssl.SSLError
    ) -> None:
        """A handshake failed, and its alert is being written: what comes behind that is read as an end (RFC 8446 §6.2)."""
        if tell is not None:
            tell(exc)
        self._loop.call_soon(_end_reading, connection)

    async def _shake_hands(self, connection: socket.socket, prefix: str, address: tuple[str, int]) -> None:
        """Ends when the connection is the front's, which then gives back what it counts for."""
        front, keeper = self._front, self._keeper
        is_done = False
        if keeper is not None:
            keeper.listen(address)
        REFUSED.set(partial(self._hang_up, connection, REFUSED.get()))
        try:
            await self._loop.connect_accepted_socket(
                keeper or front, connection, ssl=self._context, ssl_handshake_timeout=front.deadlines.handshake_s
            )
            is_done = True
        except OSError:
            pass  # what fails was told in its alert, as far as there was one to tell
        finally:
            if not is_done:
                front.shared.shed.close(prefix)
                connection.close()


def _end_reading(connection: socket.socket) -> None:
    try:
        connection.shutdown(socket.SHUT_RD)
    except OSError:
        pass  # the client has gone by itself
