"""The waits of `audit.durability: strict`: a slot on the disk before the upstream is contacted, a leaf on the disk before
the last byte of the answer.

One per worker, in its event loop. Syncs are grouped: while one runs in the executor, all who come wait for the next one,
which covers them together.
"""

from __future__ import annotations

import asyncio

from edge.audit.io_ring import Nudge
from edge.audit.ring import Ring
from edge.errors import NotRecordable
from edge.model.decision import Need

ACK_TIMEOUT_S = 5.0
"""Longer than the notary's replacement takes (≤ 3 s), shorter than a downstream's patience."""


class Durability:
    """Waits on one ring. Owned by the worker's shell; `close` comes before the ring's."""

    def __init__(
        self, ring: Ring, nudge: Nudge, loop: asyncio.AbstractEventLoop, *, ack_timeout_s: float = ACK_TIMEOUT_S
    ) -> None:
        self._ack_timeout_s = ack_timeout_s
        self._ring = ring
        self._nudge = nudge
        self._loop = loop
        self._runner: asyncio.Task[None] | None = None
        self._next: asyncio.Future[None] | None = None  # done when a sync that has not begun yet is over
        self._awaited: dict[int, list[asyncio.Future[None]]] = {}  # by completion
        loop.add_reader(nudge.socket.fileno(), self._on_ack)

    def synced(self, slot: int) -> Need:
        """The slot, taken just now, on the disk. `fetch` raises NotRecordable when the disk refuses."""
        return Need(f"slot {slot} on the disk", self._sync)

    def acked(self, completion: int) -> Need:
        """The leaf of this completion on the disk. `fetch` raises NotRecordable when the notary stays silent."""

        async def wait() -> None:
            await self._await_ack(completion)

        return Need(f"completion {completion} in the log", wait)

    def close(self) -> None:
        """Stop listening; whoever still waits is told that it was not recorded."""
        self._loop.remove_reader(self._nudge.socket.fileno())
        waiting = [future for futures in self._awaited.values() for future in futures]
        if self._next is not None:
            waiting.append(self._next)
        if self._runner is not None:
            self._runner.cancel()
        for future in waiting:
            if not future.done():
                future.set_exception(NotRecordable("not-durable", "the worker stops"))
                future.exception()
        self._awaited.clear()

    async def _sync(self) -> None:
        if self._next is None:
            self._next = self._loop.create_future()
        covered = self._next
        if self._runner is None:
            self._runner = self._loop.create_task(self._run())
        await asyncio.shield(covered)

    async def _run(self) -> None:
        """One sync after the other as long as somebody waits for one that has not begun."""
        while self._next is not None:
            covered, self._next = self._next, None
            try:
                await self._loop.run_in_executor(None, self._ring.mapping.sync)
            except OSError as exc:
                covered.set_exception(NotRecordable("not-durable", str(exc)))
                covered.exception()  # all who waited may be gone already; that is no error of the loop's
            else:
                covered.set_result(None)
        self._runner = None

    async def _await_ack(self, completion: int) -> None:
        if self._ring.is_acked(completion):
            return
        future: asyncio.Future[None] = self._loop.create_future()
        self._awaited.setdefault(completion, []).append(future)
        self._ring.await_ack(waiting=True)
        self._nudge()  # it may sleep since before we began to wait
        if self._ring.is_acked(completion):  # acknowledged between the two looks
            self._on_ack()
        try:
            await asyncio.wait_for(future, self._ack_timeout_s)
        except TimeoutError as exc:
            raise NotRecordable("not-durable", f"no ack in {self._ack_timeout_s} s") from exc

    def _on_ack(self) -> None:
        self._nudge.clear()
        for completion in [completion for completion in self._awaited if self._ring.is_acked(completion)]:
            for future in self._awaited.pop(completion):
                if not future.done():
                    future.set_result(None)
        if not self._awaited:
            self._ring.await_ack(waiting=False)
