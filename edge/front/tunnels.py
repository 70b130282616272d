"""What a front does with all its WebSockets that are open, whichever shell they came through."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection

from edge.pipeline import Gateway
from edge.tunnel import Ending, Tunnel
from pki.svid import Revoked

_TURN = 32
"""WebSockets that are reconsidered before somebody else has a turn: each may cost a signature."""


def sweep(tunnels: Collection[Tunnel], now_s: float) -> None:
    """End what has lasted long enough."""
    if tunnels:
        wall_ns = time.time_ns()
        for tunnel in list(tunnels):
            tunnel.check(now_s, wall_ns)


def drain(tunnels: Collection[Tunnel]) -> None:
    """Tell every client to go (1001)."""
    for tunnel in list(tunnels):
        tunnel.cut(Ending.DRAINING)


def end_revoked(tunnels: Collection[Tunnel], revoked: Revoked) -> None:
    """End those whose upstream is revoked."""
    for tunnel in list(tunnels):
        tunnel.revoke(revoked)


async def reconsider(tunnels: Collection[Tunnel], gateway: Gateway) -> None:
    """Another generation serves: what it would not let begin ends."""
    for count, tunnel in enumerate(list(tunnels)):
        if count % _TURN == _TURN - 1:
            await asyncio.sleep(0)
        await tunnel.reconsider(gateway)
