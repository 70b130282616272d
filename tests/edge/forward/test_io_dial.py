"""Connections to an upstream: how they are made, and how much of an answer they take in at once."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from edge.accept.tls import anonymous_context
from edge.errors import UpstreamUnreachable
from edge.forward.io_dial import FIRST_RECEIVE_BYTES, RECEIVE_BYTES, dial, widen
from tests.e2e.outside import ROOT
from tests.e2e.rogue import Rogue
from tests.edge.forward.test_io_insist import context_of

OK = b"HTTP/1.1 200 OK\r\n\r\n"


@pytest.fixture
def port(tmp_path: Path) -> Iterator[int]:
    with closing(Rogue(0, context_of(tmp_path, ssl.CERT_NONE), answer=OK)) as rogue:
        yield rogue.port


def kernel_bytes(transport: asyncio.Transport) -> int:
    raw = transport.get_extra_info("socket")
    return int(raw.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)) // 2  # it doubles what it is told (socket(7))


@pytest.mark.asyncio
async def test_little_is_taken_in_at_first_and_more_when_the_client_keeps_up(port: int) -> None:
    transport, _ = await dial(("127.0.0.1", port), anonymous_context(ROOT.pem), asyncio.Protocol)
    assert kernel_bytes(transport) == FIRST_RECEIVE_BYTES
    widen(transport)
    assert kernel_bytes(transport) == RECEIVE_BYTES
    transport.abort()


@pytest.mark.asyncio
async def test_of_a_name_every_address_is_tried(port: int) -> None:
    """Whether this machine has IPv6 or not: nobody listens there."""
    transport, _ = await dial(("localhost", port), anonymous_context(ROOT.pem), asyncio.Protocol)
    assert transport.get_extra_info("peername")[:2] == ("127.0.0.1", port)
    transport.abort()


@pytest.mark.asyncio
@pytest.mark.parametrize("host", ["127.0.0.1", "a-name-that-stands-for-nothing.invalid", "l\x00calhost", "x" * 70])
async def test_what_cannot_be_reached_is_unreachable(host: str) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # and does not listen
        with pytest.raises(UpstreamUnreachable) as caught:
            await dial((host, nobody.getsockname()[1]), anonymous_context(ROOT.pem), asyncio.Protocol)
    assert caught.value.rule == "dial-failed"
