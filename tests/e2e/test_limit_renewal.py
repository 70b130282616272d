"""Leases of a window that ends are renewed before anybody waits for them, and only those that were used."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from tempfile import TemporaryDirectory

import pytest

from edge.limit.io_store import LeaseStore
from edge.limit.lease import Lease
from edge.limit.limiter import Limiter
from edge.limit.rules import LimitSettings
from edge.limit.store import StoreSettings
from edge.model.decision import Admission
from tests.e2e.limit_server import Server, ask, run

LIMIT = LimitSettings("r", 100_000, 1)


@pytest.fixture
def own_server() -> Iterator[Server]:
    with TemporaryDirectory(prefix="v") as directory:
        with Server(directory) as server:
            yield server


async def after_window(lease: Lease) -> None:
    """Until a little after the window of the lease has ended in the store."""
    await asyncio.sleep(max(0.0, lease.reset_ns / 1e9 - time.monotonic()) + 0.2)


def only_lease(store: LeaseStore) -> Lease:
    (lease,) = store.leases.young.values()
    return lease


async def renewed(lease: Lease, died_ns: int) -> None:
    """Until the lease has units of a later window than the one that ended at `died_ns`; by itself, nobody asks."""
    end = time.monotonic() + 20
    while lease.dies_ns <= died_ns and time.monotonic() < end:
        await after_window(lease)
    assert lease.dies_ns > died_ns


def test_a_lease_that_was_used_is_ready_in_the_next_window(own_server: Server) -> None:
    async def scenario(store: LeaseStore) -> None:
        limiter = Limiter([LIMIT], store)
        for _ in range(20):
            assert isinstance(await ask(limiter), Admission)
        lease = only_lease(store)
        await renewed(lease, lease.dies_ns)
        assert lease.is_ready(lease.dies_ns - 1, is_store_down=False)

    run(StoreSettings(own_server.socket_path), scenario)


def test_a_lease_that_nobody_uses_is_not_renewed_for_ever(own_server: Server) -> None:
    async def scenario(store: LeaseStore) -> None:
        limiter = Limiter([LIMIT], store)
        for _ in range(20):
            await ask(limiter)
        lease = only_lease(store)
        await renewed(lease, lease.dies_ns)  # and not used since
        renewed_ns = lease.dies_ns
        await after_window(lease)
        assert lease.dies_ns == renewed_ns

    run(StoreSettings(own_server.socket_path), scenario)


def test_renewals_are_counted_by_the_store(own_server: Server) -> None:
    """What is fetched ahead is taken from the quota like anything else: never more than it, in any window."""

    async def scenario(store: LeaseStore) -> None:
        limiter = Limiter([LimitSettings("n", 500, 1)], store)
        for _ in range(2):
            admitted = 0
            lease = next(iter(store.leases.young.values()), None)
            if lease is not None:
                await after_window(lease)
            for _ in range(550):
                admitted += isinstance(await ask(limiter), Admission)
            assert admitted <= 500

    run(StoreSettings(own_server.socket_path), scenario)
