"""The shared store of the windows, and the leases of this process."""

from __future__ import annotations

from edge.limit.store import StoreSettings


class LeaseStore:
    """One per process, shared by the limiters of successive configurations: leases survive a reload."""

    def __init__(self, settings: StoreSettings) -> None:
        self._settings = settings

    @property
    def healthy(self) -> bool:
        raise NotImplementedError

    async def beat(self) -> None:
        """Tell the store that this replica lives, learn how many do. Never raises; for timers, every 2 s."""
        raise NotImplementedError

    async def close(self) -> None:
        raise NotImplementedError
