"""Admit a permitted request, or say that a limit is used up. Synchronous; what must be fetched comes back as a `Need`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from edge.limit.rules import LimitSettings
from edge.model.decision import Admission, Exhausted, Need, Permit
from edge.model.identity import Peer

if TYPE_CHECKING:
    from edge.limit.io_store import LeaseStore


class Limiter:
    def __init__(self, settings: Sequence[LimitSettings], store: LeaseStore) -> None:
        self._settings = tuple(settings)
        self._store = store

    def admit(self, permit: Permit, peer: Peer, now_ns: int) -> Admission | Exhausted | Need:
        """Take one unit of every limit of the route, or none.

        `now_ns` is monotonic (`time.monotonic_ns()`), never the wall clock: a clock that is set back would let a lease
        outlive its window. After a `Need` was fetched the same permit must be passed again.
        """
        raise NotImplementedError
