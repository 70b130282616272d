"""Who connects? What the services and enrol listeners ask between the handshake and the first byte of a request.

The public listener asks nobody and keeps silent about handshakes that fail: strangers scan it all day. Whoever fails at the
doors of the control plane is in the access log, by address and reason. Laws:

- Who a client is, is proven before one byte of a request is read: OpenSSL in the handshake, `authn.mtls` after it.
- What cannot be proven is closed, and recorded as a refusal of no request: 496 when no certificate came, 495 else.
- It counts as a failed credential check of its address, and who has failed too often is not shaken hands with.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from dataclasses import dataclass
from typing import cast

from edge.accept.peer import peer_of, prefix_of
from edge.accept.tls import REFUSED, handshake_refusal, presented_chain
from edge.account import Account
from edge.authn.mtls import ClientTrust
from edge.errors import CredentialMissing, CredentialRejected, Refusal
from edge.front.front import Front
from edge.front.tunnels import end_revoked
from edge.model.identity import ClientCertificate, Peer
from edge.respond.problem import row_of
from pki.svid import Revoked

NO_CERTIFICATE, BAD_CERTIFICATE = 496, 495
"""As other servers log them; no HTTP answer has these numbers, and none was given."""


@dataclass(frozen=True, slots=True)
class Proof:
    """What one listener asks of its clients, as of one generation."""

    context: ssl.SSLContext
    trust: ClientTrust | None
    """None: the listener asks for no certificate."""


class Doorkeeper:
    """One listener's, for one generation of its proof."""

    def __init__(self, front: Front, proof: Proof) -> None:
        self._front = front
        self._trust = proof.trust

    def may_knock(self, prefix: str) -> bool:
        """Asked before the handshake."""
        return self._front.shared.shed.may_check(prefix, time.monotonic_ns())

    def listen(self, address: tuple[str, int]) -> None:
        """Hear why the handshake fails that is about to begin in the context of this task."""
        peer = Peer(address[0], address[1], prefix_of(address[0]), sni=None, tls_version="", tls_cipher="")
        REFUSED.set(lambda error: self.refuse(peer, handshake_refusal(error)))

    def __call__(self) -> asyncio.Protocol:
        return self._front() if self._trust is None else _Proving(self, self._front, self._trust)

    def refuse(self, peer: Peer, error: Refusal) -> None:
        """Record who was not let in, and why."""
        shared = self._front.shared
        shared.shed.failed(peer.prefix, time.monotonic_ns())
        status = NO_CERTIFICATE if isinstance(error, CredentialMissing) else BAD_CERTIFICATE
        account = Account(shared, peer, self._front.gateway.bundle_hash)
        account.close(None, None, status, row_of(error).reason, error)


def revoke(front: Front, revoked: Revoked) -> int:
    """End the front's WebSockets to whoever is revoked, and cut the clients that are; → how many clients that were."""
    end_revoked(front.tunnels, revoked)
    resting = [each for each in front.connections if any(named in revoked for named in each.peer.certificates)]
    for connection in resting:
        error = CredentialRejected("revoked", connection.peer.spiffe_id or "")
        account = Account(front.shared, connection.peer, front.gateway.bundle_hash)
        account.close(None, None, BAD_CERTIFICATE, row_of(error).reason, error)
        connection.cut_late("revoked")
    return len(resting)


class _Proving(asyncio.Protocol):
    """A connection whose handshake is done and whose identity is not yet proven. Nothing is read before it is."""

    def __init__(self, keeper: Doorkeeper, front: Front, trust: ClientTrust) -> None:
        self._keeper = keeper
        self._front = front
        self._trust = trust

    def connection_made(self, base_transport: asyncio.BaseTransport) -> None:
        transport = cast(asyncio.Transport, base_transport)
        self._peer = peer_of(transport)
        handshake: ssl.SSLObject = transport.get_extra_info("ssl_object")
        chain = tuple(presented_chain(handshake))
        try:
            proven = self._trust.prove(chain, time.time_ns())
        except CredentialRejected as exc:
            self._keeper.refuse(self._peer, exc)
            transport.close()  # by the book; who does not answer that is cut
            self._front.shared.loop.call_later(self._front.deadlines.linger_s, transport.abort)
            return
        client = ClientCertificate(str(proven.spiffe_id), proven.leaf_sha256.hex(), chain, proven.certificates)
        handshake.edge_client = client  # type: ignore[attr-defined]
        shell = self._front()
        transport.set_protocol(shell)
        shell.connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Of those alone who were refused: what others count for, their shell gives back."""
        self._front.shared.shed.close(self._peer.prefix)
