"""What one request leaves behind: its slot or its refusal in the access log, and its place in the counters.

An exchange opens one at its start and closes it exactly once. Which of the two the log gets is decided by whether a slot was
taken: an admitted request completes it, a refused one is recorded by itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from edge.downstream import Shared
from edge.errors import EdgeError
from edge.model.decision import Admission, Need
from edge.model.http import Request
from edge.model.identity import Peer
from edge.model.record import UpstreamFacts
from edge.pipeline import Walk


class Account:
    """The record of one request. Times: `wall_ns` since the epoch, `mono_ns` never goes back."""

    bytes_in = 0
    bytes_out = 0
    upstream: UpstreamFacts | None = None
    """Who answered, or was asked last."""
    _slot: int | None = None

    def __init__(self, shared: Shared, peer: Peer, bundle_hash: str) -> None:
        self._shared = shared
        self.peer = peer
        """Who asks: as the connection says, or the proxy that is trusted."""
        self._bundle_hash = bundle_hash
        self.decision_id = shared.recorder.next_id()
        self.wall_ns = time.time_ns()
        self.mono_ns = time.monotonic_ns()

    @property
    def is_admitted(self) -> bool:
        """A slot is open."""
        return self._slot is not None

    def admit(self, request: Request, admission: Admission) -> Need | None:
        """Take a slot; gives what to await before the upstream is contacted (`strict`).

        Raises:
            NotRecordable: then 503.
        """
        recorder = self._shared.recorder
        slot = recorder.admit(self.decision_id, request, self.peer, admission, self._bundle_hash, self.wall_ns)
        self._slot = slot
        return recorder.synced(slot)

    def close(
        self,
        request: Request | None,
        walk: Walk | None,
        status: int,
        reason: str | None,
        error: BaseException | None,
        *,
        close_code: int | None = None,
    ) -> Need | None:
        """Write the outcome; gives what to await before the last byte of the answer (`strict`).

        `reason` is None when the upstream's answer was passed on, whatever its status. `close_code` is a WebSocket's.
        """
        duration_ns = time.monotonic_ns() - self.mono_ns
        shared, slot = self._shared, self._slot
        match = walk.match if walk is not None else None
        shared.observer.request(
            match.route if match is not None else None,
            request.method if request is not None else "",
            status,
            reason,
            duration_ns,
            self.bytes_in,
            self.bytes_out,
        )
        rule = getattr(error, "rule", None) if error is not None else None
        if slot is not None:
            self._slot = None
            completion = shared.recorder.complete(
                slot,
                status=status,
                reason=reason,
                rule=rule,
                bytes_in=self.bytes_in,
                bytes_out=self.bytes_out,
                duration_ns=duration_ns,
                upstream=self.upstream,
                close_code=close_code,
            )
            return shared.recorder.acked(completion)
        denial = getattr(error, "denial", None)
        return shared.recorder.acked(
            shared.recorder.refuse(
                self.decision_id,
                request,
                self.peer,
                principal=walk.principal if walk is not None else None,
                match=match,
                status=status,
                reason=reason or "internal",
                rule=rule or reason or "internal",
                bundle_hash=self._bundle_hash,
                started_ns=self.wall_ns,
                duration_ns=duration_ns,
                policies=denial.policies if denial is not None else (),
                bytes_in=self.bytes_in,
                bytes_out=self.bytes_out,
            )
        )


async def when_recorded(
    to_disk: Need, then: Callable[[], None], flush: Callable[[], None], cut: Callable[[], None]
) -> None:
    """`strict`: the leaf is on disk before the last byte leaves. What cannot be recorded is not finished."""
    try:
        await to_disk.fetch()
    except EdgeError:
        cut()
        return
    then()
    flush()
