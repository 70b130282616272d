"""A WebSocket that is asked for: what the exchange carries from the request to the 101, where the tunnel begins."""

from __future__ import annotations

import os
from base64 import b64encode
from collections.abc import Callable, Sequence

from edge.account import Account
from edge.authz.upgrade import require_upgrade
from edge.downstream import Shared
from edge.forward.io_pool import Pinned
from edge.forward.websocket import Offer
from edge.limit.fields import ratelimit_fields
from edge.model.decision import Admission
from edge.model.http import RawField
from edge.model.websocket import Handshake
from edge.pipeline import Gateway, Walk
from edge.respond.fields import outgoing
from edge.routing.match import match
from edge.tunnel import Tunnel

Switch = Callable[[list[RawField], Tunnel, bytes], None]
"""How a shell tells its client that the WebSocket is open, with these fields. It then attaches itself to the tunnel, with the
bytes that the upstream sent already, and feeds it everything that the client sends."""


class Upgrade:
    """One handshake, seen from both legs."""

    def __init__(self, handshake: Handshake, switch: Switch) -> None:
        self.handshake = handshake
        self._switch = switch
        self._security_fields: tuple[RawField, ...] = ()
        self._offer: Offer
        self._pinned: Pinned

    def route(self, gateway: Gateway, walk: Walk) -> None:
        """The step `route` of the line, and whether a WebSocket may be opened there; the line goes on behind it.

        Raises: as `match`; Forbidden.
        """
        self._security_fields = gateway.security_fields
        if walk.match is None:
            walk.match = match(gateway.routes, walk.request, walk.peer.sni)
            require_upgrade(walk.request, walk.match.route, self.handshake)

    def ask(self, pinned: Pinned, head: bytes, when_taken: Callable[[Sequence[RawField], bytes], None]) -> bytes:
        """The head of the request with our offer in it. The connection will not be used again, whatever is answered."""
        self._pinned = pinned
        self._offer = pinned.connection.offer = Offer(b64encode(os.urandom(16)), self.handshake.protocols, when_taken)
        return head[:-2] + self._offer.fields

    def complete(
        self,
        shared: Shared,
        account: Account,
        walk: Walk,
        admission: Admission,
        fields: Sequence[RawField],
        rest: bytes,
    ) -> None:
        """The upstream switched, by the book: from here on the tunnel keeps the account."""
        answer = outgoing(fields, admission.permit.match.route)
        answer += self._security_fields
        answer.append((b"x-request-id", account.decision_id.encode("ascii")))
        answer += ratelimit_fields(admission.quotas)
        if self._offer.protocol is not None:
            answer.append((b"sec-websocket-protocol", self._offer.protocol))
        status = 200 if walk.request.protocol == "2" else 101
        self._switch(answer, Tunnel(shared, account, walk, self.handshake, self._pinned, status), rest)
