"""A listener before TLS: whose turn it is not is turned away before a handshake costs anything.

A handshake is the dearest thing a stranger can ask for (a signature), and one that never ends holds memory and a descriptor
until its deadline. So the budgets by address (`accept/shed`) are asked when the kernel hands over the connection, and what is
under way counts as open. A refused connection is closed: there is no TLS yet in which one could say why (attacks C4,
CVE-2026-26999).

The kernel's queue is emptied first, because in it everybody stands behind everybody; then the addresses take turns
to be shaken hands with (`accept/turns`), and of a crowd only who has said hello (`front/hellos`).
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable
from functools import partial

from edge.accept.peer import prefix_of
from edge.accept.tls import REFUSED
from edge.accept.turns import Turns
from edge.front.front import Front
from edge.front.hellos import Hellos, Knock
from edge.front.proof import Doorkeeper

_BACKLOG = 4096
_ACCEPTED_AT_ONCE = 64
_BEGUN_AT_ONCE = 8
"""In one turn of the loop; others are served in between. To be accepted costs ten microseconds, a handshake a quarter of a
millisecond or more."""
_AT_EASE = 16
"""Of one address: so many are shaken hands with whether they have said hello or not. More are a crowd."""
_UNDER_WAY = 256
"""Handshakes of one address, each of which holds some 60 KiB; more of them wait for these."""
_UNSENT_BYTES = 131_072
"""Of an answer in the kernel that the client has no room for yet; what is on its way to it comes on top."""
_LEAST_S = 0.001
"""For the rest of a handshake: no time at all would be an error of the loop."""
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
        self._hellos = Hellos(self._loop, self._heard, self._take_turn, self._gone)
        self._turns: Turns[Knock] = Turns(_UNDER_WAY)
        self._is_turn_due = self._is_closed = False
        listening.setblocking(False)
        # Its connections inherit it. Else the kernel takes megabytes of an answer that its client does not (tcp(7)).
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _UNSENT_BYTES)
        listening.listen(_BACKLOG)
        front.shared.spawn(self._hellos.listen())
        self._watch()

    def _watch(self) -> None:
        if not self._is_closed:
            self._loop.add_reader(self._listening.fileno(), self._accept)

    def close(self) -> None:
        """Who was accepted is still shaken hands with."""
        if not self._is_closed:
            self._is_closed = True
            self._hellos.close()
            self._loop.remove_reader(self._listening.fileno())
            self._listening.close()

    def _accept(self) -> None:
        for _ in range(_ACCEPTED_AT_ONCE):
            if not self._accept_one():
                break
        self._take_turn()

    def _accept_one(self) -> bool:
        """Whether there may be another."""
        front, keeper = self._front, self._keeper
        shed = front.shared.shed
        try:
            connection, address = self._listening.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return False
        except OSError as exc:  # no descriptor or no memory: the queue would stay readable, and this loop would spin
            front.shared.report(exc)
            self._loop.remove_reader(self._listening.fileno())
            self._loop.call_later(_REST_S, self._watch)
            return False
        prefix = prefix_of(str(address[0]))
        is_proxy = front.gateway.proxies.trusts(str(address[0]))
        if (keeper is not None and not keeper.may_knock(prefix)) or not shed.open(prefix, is_proxy=is_proxy):
            connection.close()
        else:
            knock = Knock(connection, prefix, address, self._loop.time() + front.deadlines.handshake_s)
            self._hellos.add(knock, is_waited_for=self._turns.count(prefix) >= _AT_EASE)
        return True

    def _heard(self, knock: Knock) -> None:
        self._turns.put(knock.prefix, knock)

    def _gone(self, knock: Knock) -> None:
        self._front.shared.shed.close(knock.prefix)
        knock.connection.close()

    def _take_turn(self) -> None:
        """Begin a few handshakes, unless that is due anyway."""
        turns = self._turns
        if not turns or self._is_turn_due:
            return
        for _ in range(_BEGUN_AT_ONCE):
            knock = turns.take()
            if self._hellos.take(knock):
                self._front.shared.spawn(self._shake_hands(knock))
            else:
                turns.end(knock.prefix)
            if not turns:
                return
        self._is_turn_due = True
        self._loop.call_soon(self._take_next_turn)

    def _take_next_turn(self) -> None:
        self._is_turn_due = False
        self._take_turn()

    def _hang_up(
        self, connection: socket.socket, tell: Callable[[ssl.SSLError], None] | None, exc: ssl.SSLError
    ) -> None:
        """A handshake failed, and its alert is being written: what comes behind that is read as an end (RFC 8446 §6.2)."""
        if tell is not None:
            tell(exc)
        self._loop.call_soon(_end_reading, connection)

    async def _shake_hands(self, knock: Knock) -> None:
        """Ends when the connection is the front's, which then gives back what it counts for."""
        front, keeper, connection = self._front, self._keeper, knock.connection
        is_done = False
        if keeper is not None:
            keeper.listen(knock.address)
        REFUSED.set(partial(self._hang_up, connection, REFUSED.get()))
        left_s = max(_LEAST_S, knock.until_s - self._loop.time())
        try:
            await self._loop.connect_accepted_socket(
                keeper or front, connection, ssl=self._context, ssl_handshake_timeout=left_s
            )
            is_done = True
        except OSError:
            pass  # what fails was told in its alert, as far as there was one to tell
        finally:
            if not is_done:
                front.shared.shed.close(knock.prefix)
                connection.close()
            self._turns.end(knock.prefix)
            self._take_turn()


def _end_reading(connection: socket.socket) -> None:
    try:
        connection.shutdown(socket.SHUT_RD)
    except OSError:
        pass  # the client has gone by itself
