"""TCP and TLS to one upstream address, and what may go wrong, in our words. Who answers there is the caller's to prove.

How much of an answer comes in one read is decided here, too: whatever a client does not take we hold as often as it is copied
on its way (read, decrypted, encrypted, written), and so it is the size of a read that a crowd of clients who take nothing
multiplies.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from edge.errors import UpstreamIdentityRejected, UpstreamTimeout, UpstreamUnreachable
from edge.forward.endpoint import Address

DIAL_TIMEOUT_S = 5.0
"""TCP and TLS together; a healthy upstream on the same network needs milliseconds."""

FIRST_RECEIVE_BYTES = 16_384
"""Of an answer in the kernel (which doubles it), and so of one read of it, on a connection of which nothing else is known.
From its first packet: a sender that was once offered more waits for more (RFC 9293 §3.8.6.2.1)."""
RECEIVE_BYTES = 65_536
"""The same when a client takes a long answer: small pieces cost half as much CPU again, and larger ones twice as much."""
READ_AHEAD_BYTES = 16_384
"""Of an answer that is read and not decrypted yet, because its client does not take what came before."""

_SO_BUF_LOCK = 72
"""Which buffers are as they were set by hand (Linux 5.14; the number of all machines but PA-RISC and SPARC)."""

HANDSHAKE = "tls-handshake"
"""Rule of a handshake that TLS itself ended."""
BROKEN = "dial-broken"
"""Rule of a connection that was there and ended before its handshake did."""

_Kind = TypeVar("_Kind", bound=asyncio.Protocol)


async def dial(
    address: Address, context: ssl.SSLContext, factory: Callable[[], _Kind]
) -> tuple[asyncio.Transport, _Kind]:
    """Connect and shake hands; not one byte of an application is written.

    Raises:
        UpstreamUnreachable, UpstreamTimeout; UpstreamIdentityRejected (`chain-untrusted`, `tls-handshake`)
    """
    loop, place = asyncio.get_running_loop(), f"{address[0]}:{address[1]}"
    try:
        async with asyncio.timeout(DIAL_TIMEOUT_S):
            # Resolved once; what is proven next is about whoever answers at that address (attacks P43).
            raw = await _connected(loop, address)
            transport, protocol = await loop.create_connection(factory, sock=raw, ssl=context, server_hostname="")
    except TimeoutError as exc:
        raise UpstreamTimeout("dial-timeout", place) from exc
    except ssl.SSLCertVerificationError as exc:
        raise UpstreamIdentityRejected("chain-untrusted", exc.verify_message) from exc
    except ssl.SSLError as exc:
        raise UpstreamIdentityRejected(HANDSHAKE, exc.reason or "") from exc
    except (ConnectionResetError, ConnectionAbortedError, BrokenPipeError) as exc:
        raise UpstreamUnreachable(BROKEN, place) from exc
    except (OSError, UnicodeError) as exc:
        raise UpstreamUnreachable("dial-failed", place) from exc
    transport.set_read_buffer_limits(high=READ_AHEAD_BYTES)  # type: ignore[attr-defined]
    return transport, protocol


async def _connected(loop: asyncio.AbstractEventLoop, address: Address) -> socket.socket:
    """To the first that takes it, of what the name stands for. Raises: OSError, UnicodeError"""
    last = OSError(f"{address[0]} stands for nothing")
    for family, kind, number, _, where in await loop.getaddrinfo(*address, type=socket.SOCK_STREAM):
        raw = socket.socket(family, kind, number)
        is_connected = False
        try:
            raw.setblocking(False)
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, FIRST_RECEIVE_BYTES)
            with suppress(
                OSError
            ):  # what is set by hand would also bound the window for good, by its scale (RFC 7323 §2.3)
                raw.setsockopt(socket.SOL_SOCKET, _SO_BUF_LOCK, 0)
            await loop.sock_connect(raw, where)
            raw.setsockopt(
                socket.SOL_SOCKET, socket.SO_RCVBUF, FIRST_RECEIVE_BYTES
            )  # by hand: it does not grow by itself
            is_connected = True
        except OSError as exc:
            last = exc
        finally:
            if not is_connected:
                raw.close()
        if is_connected:
            return raw
    raise last


def widen(transport: asyncio.Transport) -> None:
    """Read more at once from now on."""
    raw = transport.get_extra_info("socket")
    if raw is not None:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BYTES)
        raw.setsockopt(
            socket.IPPROTO_TCP, socket.TCP_WINDOW_CLAMP, 2 * RECEIVE_BYTES
        )  # else the first size stays the most
