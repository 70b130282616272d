"""TCP and TLS to one upstream address, and what may go wrong, in our words. Who answers there is the caller's to prove."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import TypeVar

from edge.errors import UpstreamIdentityRejected, UpstreamTimeout, UpstreamUnreachable
from edge.forward.endpoint import Address

DIAL_TIMEOUT_S = 5.0
"""TCP and TLS together; a healthy upstream on the same network needs milliseconds."""

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
            return await loop.create_connection(factory, address[0], address[1], ssl=context, server_hostname="")
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
