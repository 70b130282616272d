"""What the front does with all WebSockets that are open, whichever shell they came through."""

from __future__ import annotations

import asyncio
import time

from edge.downstream import Shared
from edge.pipeline import Gateway
from edge.tunnel import Ending

_TURN = 32
"""WebSockets that are reconsidered before somebody else has a turn: each may cost a signature."""


def sweep(shared: Shared) -> None:
    """End what has lasted long enough."""
    if shared.tunnels:
        now_s, wall_ns = shared.loop.time(), time.time_ns()
        for tunnel in list(shared.tunnels):
            tunnel.check(now_s, wall_ns)


def drain(shared: Shared) -> None:
    """Tell every client to go (1001)."""
    for tunnel in list(shared.tunnels):
        tunnel.cut(Ending.DRAINING)


async def reconsider(shared: Shared, gateway: Gateway) -> None:
    """Another generation serves: what it would not let begin ends."""
    for count, tunnel in enumerate(list(shared.tunnels)):
        if count % _TURN == _TURN - 1:
            await asyncio.sleep(0)
        await tunnel.reconsider(gateway)
