"""The waits of `strict`."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from edge.audit.drain import RingReader
from edge.audit.io_durable import Durability
from edge.audit.io_ring import Nudge
from edge.audit.record import AuditSettings
from edge.audit.recorder import Recorder
from edge.audit.ring import Ring
from edge.errors import NotRecordable

NOW = 10**12


class Desk:
    def __init__(self, directory: Path) -> None:
        ours, self.notary = socket.socketpair()
        self.notary.setblocking(False)
        self.ours = ours
        self.ring = Ring.create(directory / "w.ring", "w", slots=8, nudge=Nudge(ours))
        self.reader = RingReader.attach(directory / "w.ring", "w")
        self.reader.beat(NOW)
        self.durability = Durability(self.ring, Nudge(ours), asyncio.get_running_loop())
        self.recorder = Recorder(
            self.ring,
            AuditSettings("home.example/log", durability="strict"),
            pseudonym_key=bytes(32),
            wall_ns=lambda: NOW,
            mono_ns=lambda: NOW,
            durability=self.durability,
        )

    def acknowledge(self) -> None:
        if self.reader.acknowledge(self.reader.pending()):
            self.notary.send(b"\x01")


@pytest_asyncio.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    desk = Desk(tmp_path)
    yield desk
    desk.durability.close()
    desk.reader.close()
    desk.ring.close()
    desk.notary.close()
    desk.ours.close()


@pytest.mark.asyncio
async def test_taken_slots_are_synced_in_groups(desk: Desk) -> None:
    needs = [desk.recorder.synced(slot) for slot in range(20)]
    await asyncio.wait_for(asyncio.gather(*[need.fetch() for need in needs if need is not None]), 5)
    assert None not in needs


@pytest.mark.asyncio
async def test_refused_sync_means_not_recorded(desk: Desk) -> None:
    need = desk.recorder.synced(0)
    assert need is not None
    desk.ring.mapping.close()
    desk.ring.mapping.fd = 1 << 20
    with pytest.raises(NotRecordable, match="not-durable"):
        await need.fetch()
    desk.ring.mapping.fd = -1


@pytest.mark.asyncio
async def test_durable_leaf_is_waited_for_and_announced(desk: Desk) -> None:
    completion = desk.recorder.event("config.reload", {})
    need = desk.recorder.acked(completion)
    assert need is not None
    waits = [asyncio.ensure_future(need.fetch()) for _ in range(2)]
    await asyncio.sleep(0)
    assert desk.notary.recv(9)  # asked not to sleep over it
    assert not any(wait.done() for wait in waits)
    desk.acknowledge()
    await asyncio.wait_for(asyncio.gather(*waits), 5)
    assert desk.recorder.acked(completion) is None
    await need.fetch()


@pytest.mark.asyncio
async def test_ack_of_another_does_not_end_the_wait(desk: Desk) -> None:
    desk.recorder.event("config.reload", {})
    second = desk.recorder.acked(desk.recorder.event("config.reload", {}))
    assert second is not None
    wait = asyncio.ensure_future(second.fetch())
    await asyncio.sleep(0)
    desk.reader.acknowledge(1)
    desk.notary.send(b"\x01")
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not wait.done()
    desk.acknowledge()
    await asyncio.wait_for(wait, 5)


@pytest.mark.asyncio
async def test_summed_up_refusal_needs_no_wait(desk: Desk) -> None:
    assert desk.recorder.acked(None) is None


@pytest.mark.asyncio
async def test_stopping_worker_tells_those_who_wait(desk: Desk) -> None:
    need = desk.recorder.acked(desk.recorder.event("config.reload", {}))
    assert need is not None
    wait = asyncio.ensure_future(need.fetch())
    await asyncio.sleep(0)
    desk.durability.close()
    with pytest.raises(NotRecordable, match="the worker stops"):
        await wait


@pytest.mark.asyncio
async def test_stopping_worker_tells_those_whose_slot_is_not_synced_yet(desk: Desk) -> None:
    need = desk.recorder.synced(0)
    assert need is not None
    wait = asyncio.ensure_future(need.fetch())
    await asyncio.sleep(0)
    desk.durability.close()
    with pytest.raises(NotRecordable, match="the worker stops"):
        await wait


@pytest.mark.asyncio
async def test_silence_of_the_notary_ends_the_wait(desk: Desk) -> None:
    desk.durability.close()
    desk.durability = Durability(desk.ring, Nudge(desk.ours), asyncio.get_running_loop(), ack_timeout_s=0.01)
    need = desk.durability.acked(desk.recorder.event("config.reload", {}))
    with pytest.raises(NotRecordable, match="no ack in"):
        await need.fetch()
    desk.acknowledge()
    await asyncio.sleep(0.001)
    await need.fetch()
