"""Who answers is proven before he is sent a byte, and what happens meanwhile counts: over real handshakes."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from contextlib import closing, suppress
from datetime import timedelta
from pathlib import Path
from random import Random

import pytest

from edge.accept.tls import anonymous_context, upstream_context
from edge.errors import UpstreamIdentityRejected, UpstreamUnreachable
from edge.forward.fleet import Fleet
from edge.forward.io_pool import Pool
from edge.forward.io_proof import UpstreamTrust
from edge.registry.roster import Roster
from pki.errors import SvidRejected
from pki.spiffe import SpiffeId
from pki.svid import VerifiedSvid
from tests.e2e.outside import NOW, ROOT, Leaf
from tests.e2e.rogue import Rogue
from tests.edge.forward.house import ID, to, upstream
from tests.edge.forward.test_io_insist import context_of


class Leaving(Rogue):
    """It shakes hands, and leaves as soon as somebody comes without a certificate."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self.greeted = threading.Event()
        self.first: ssl.SSLSocket | None = None
        super().__init__(0, context)

    def _serve(self, connection: socket.socket) -> None:
        assert self.context is not None
        with self.context.wrap_socket(connection, server_side=True) as tls:
            if self.first is None:
                self.first = tls
                self.greeted.wait(10)
                return
            self.first.shutdown(socket.SHUT_WR)
            with suppress(OSError):
                assert self.first.recv(1) == b""  # its end is known over there


@pytest.mark.asyncio
async def test_who_leaves_while_it_is_proven_is_no_connection(tmp_path: Path) -> None:
    proven = VerifiedSvid(SpiffeId.parse(ID), 1, NOW + timedelta(hours=1), b"", b"", ())
    loop = asyncio.get_running_loop()
    trusted = anonymous_context(ROOT.pem)
    with closing(Leaving(context_of(tmp_path, ssl.CERT_NONE))) as service:
        where = upstream(("127.0.0.1", service.port))
        pool = Pool(loop, Fleet(Roster(), Random(1).random), lambda where, turn: None)
        pool.trust(UpstreamTrust(1, b"", trusted, trusted, lambda handshake, spiffe_id: proven))
        pool.configure({}, [where])
        with pytest.raises(UpstreamUnreachable) as refused:
            await pool.dial(where, pool.addresses(to(where)))
        service.greeted.set()
    assert (refused.value.rule, pool.open_connections) == ("upstream-closed", 0)
    assert service.received == b""


@pytest.mark.asyncio
async def test_what_is_revoked_while_an_address_is_asked_gets_no_request_P24_P41(tmp_path: Path) -> None:
    proven = VerifiedSvid(SpiffeId.parse(ID), 1, NOW + timedelta(hours=1), b"", b"", ())
    trusted, seen = anonymous_context(ROOT.pem), list[ssl.SSLObject]()

    def revoked_after_the_first_look(handshake: ssl.SSLObject, spiffe_id: str) -> VerifiedSvid:
        if seen and handshake is seen[0]:  # the second is the one that shows no certificate
            raise SvidRejected("revoked")
        seen.append(handshake)
        return proven

    with closing(Rogue(0, context_of(tmp_path, ssl.CERT_REQUIRED))) as service:
        where = upstream(("127.0.0.1", service.port))
        pool = Pool(asyncio.get_running_loop(), Fleet(Roster(), Random(1).random), lambda where, turn: None)
        shown = upstream_context(*ROOT.sign(Leaf()), ROOT.pem)
        pool.trust(UpstreamTrust(1, b"", shown, trusted, revoked_after_the_first_look))
        pool.configure({}, [where])
        with pytest.raises(UpstreamIdentityRejected) as refused:
            await pool.dial(where, pool.addresses(to(where)))
    assert (refused.value.rule, pool.open_connections, service.received) == ("revoked", 0, b"")
