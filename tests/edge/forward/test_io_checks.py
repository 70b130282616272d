"""Checks of ours: who is asked when, what counts as well, and that they are bounded and are no requests."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any

import pytest

from edge.errors import UpstreamUnreachable
from edge.forward import io_checks
from edge.forward.assertion import Assertions
from edge.forward.balance import BalanceSettings
from edge.forward.health import CheckSettings
from edge.forward.io_checks import HealthChecks
from edge.model.instance import Instance
from edge.verify import Presented
from tests.edge.forward.house import A, B, addresses, to, upstream
from tests.edge.forward.pools import OK, Dialling, answer
from tests.edge.verify.mesh import Mesh, mesh_of_today, private_pem

CHECK = CheckSettings("/up", every_s=100, timeout_s=30, healthy_after=1, unhealthy_after=1)
CHECKED = BalanceSettings(check=CHECK)


class Checking:
    """A pool, its checks, and the loop's other work until nothing more happens by itself."""

    def __init__(self, settings: BalanceSettings, *endpoints: tuple[str, int]) -> None:
        self.where = upstream(*endpoints)
        self.pool = Dialling(settings, self.where)
        self.tasks: list[asyncio.Task[None]] = []
        self.assertions: Assertions | None = None
        loop = asyncio.get_running_loop()
        self.checks = HealthChecks(self.pool, loop, self._spawn, lambda: 0.5, lambda: self.assertions)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        self.tasks.append(asyncio.get_running_loop().create_task(work))

    async def turn(self, *answers: bytes) -> None:
        """One turn; the connections that it made get these answers, in their order."""
        made = len(self.pool.wires)
        self.checks.turn()
        await settled()
        for wire, raw in zip(self.pool.wires[made:], answers, strict=False):
            wire.connection.data_received(raw)
        await settled()

    async def asked(self) -> bytes:
        """What the one instance is asked now; it answers well."""
        self.again()
        self.checks.turn()
        await settled()
        (wire,) = self.pool.wires
        sent, wire.written = wire.written, b""
        wire.connection.data_received(OK)
        await settled()
        return sent

    def again(self) -> None:
        """All are due."""
        for endpoint in self.pool.fleet.endpoints():
            endpoint.check_at_s = 0.0

    def failing(self) -> set[int]:
        return {each.address[1] for each in self.pool.fleet.endpoints() if each.health.is_failing}


async def settled() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


@pytest.mark.asyncio
async def test_each_instance_is_asked_at_its_path_once_in_an_interval() -> None:
    run = Checking(CHECKED, A, B)
    await run.turn(OK, OK)
    assert [wire.written for wire in run.pool.wires] == [
        b"GET /up HTTP/1.1\r\nhost: 127.0.0.1:%d\r\nuser-agent: edge-health\r\naccept: */*\r\n\r\n" % port
        for port in (9101, 9102)
    ]
    await run.turn()
    assert (len(run.tasks), run.failing(), run.pool.idle_connections) == (2, set(), 2)
    assert [each.in_flight for each in run.pool.fleet.endpoints()] == [0, 0]


def signing(mesh: Mesh, spiffe_id: str) -> Assertions:
    leaf = mesh.gateway
    return Assertions(leaf.pem, private_pem(leaf), mesh.bundle_pem, frozenset({spiffe_id}))


@pytest.mark.asyncio
async def test_a_check_is_vouched_for_anew_where_the_service_asks_for_it() -> None:
    run, mesh = Checking(CHECKED, A), mesh_of_today()
    run.assertions = signing(mesh, run.where.spiffe_id)
    verifier = mesh.verifier(run.where.spiffe_id, mode="request")
    callers = set()
    for sent in [await run.asked() for _ in range(2)]:
        line, *fields = sent[:-4].split(b"\r\n")
        assert line == b"GET /up HTTP/1.1"
        asked = Presented("GET", b"/up", b"", [tuple(each.split(b": ", 1)) for each in fields])  # type: ignore[misc]
        callers.add(verifier.check(asked, time.time_ns(), None))
    assert {(each.is_anonymous, str(each.request_id)[:6]) for each in callers} == {(True, "check-")}
    assert len(callers) == 2  # each is another request
    run.assertions = signing(mesh, "spiffe://mesh.internal/svc/somebody-else")
    assert b"edge-assertion" not in await run.asked()


@pytest.mark.asyncio
async def test_an_instance_is_asked_where_it_said() -> None:
    run = Checking(BalanceSettings())
    run.pool.roster.put(Instance("orders", "one", A, health_path="/own"))
    run.pool.roster.put(Instance("orders", "two", B))
    run.pool.addresses(to(run.where))
    await run.turn(OK)
    assert [wire.written.split(b" ")[1] for wire in run.pool.wires] == [b"/own"]


@pytest.mark.parametrize(
    ("raw", "passes"),
    [
        (OK, True),
        (b"HTTP/1.1 204 No Content\r\n\r\n", True),
        (OK.replace(b"200", b"302"), False),
        (OK.replace(b"200", b"401"), False),
        (OK.replace(b"200", b"503"), False),
        (b"what?", False),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n" + b"x" * 70_000, True),
        (b"HTTP/1.1 500 No\r\ncontent-length: 1000000\r\n\r\n" + b"x" * 70_000, False),
    ],
)
@pytest.mark.asyncio
async def test_only_an_answer_of_success_passes(raw: bytes, passes: bool) -> None:
    run = Checking(CHECKED, A)
    await run.turn(raw)
    assert all(task.done() for task in run.tasks)
    assert run.failing() == (set() if passes else {9101})


@pytest.mark.asyncio
async def test_who_cannot_be_reached_fails_and_comes_back() -> None:
    run = Checking(CHECKED, A, B)

    async def refused(address: tuple[str, int]) -> None:
        if address == A:
            raise UpstreamUnreachable("dial-failed")

    reach, run.pool.reach = run.pool.reach, refused
    await run.turn(OK)
    assert [run.pool.addresses(to(run.where))[0].address for _ in range(3)] == [B] * 3
    run.pool.reach = reach
    run.again()
    run.checks.turn()
    await settled()
    for wire in run.pool.wires:
        wire.connection.data_received(OK)
    await settled()
    assert run.failing() == set()


@pytest.mark.asyncio
async def test_who_does_not_answer_in_time_fails_and_loses_the_connection() -> None:
    run = Checking(replace(CHECKED, check=replace(CHECK, timeout_s=0.01)), A)
    run.checks.turn()
    await asyncio.wait(run.tasks, timeout=20)
    assert (run.failing(), run.pool.open_connections) == ({9101}, 0)


@pytest.mark.asyncio
async def test_an_idle_connection_is_used_and_its_end_says_nothing() -> None:
    run = Checking(CHECKED, A)
    answer(await run.pool.ask(run.where))
    run.checks.turn()
    await settled()
    (wire,) = run.pool.wires
    assert wire.written.startswith(b"GET /up ")
    wire.abort()
    await settled()
    assert len(run.pool.wires) == 2  # asked again on a new one
    run.pool.wires[1].connection.data_received(OK)
    await settled()
    assert run.failing() == set()


@pytest.mark.asyncio
async def test_only_so_many_are_asked_at_once_and_all_have_their_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(io_checks, "MAX_AT_ONCE", 3)
    run = Checking(CHECKED, *addresses(8))
    for expected in (3, 6, 8, 8):
        await run.turn()
        assert len(run.tasks) == expected
        for wire in run.pool.wires[-3:]:
            if not wire.connection.answer_ended:
                wire.connection.data_received(OK)
        await settled()


@pytest.mark.asyncio
async def test_a_full_instance_can_still_be_asked_and_a_check_takes_no_place() -> None:
    run = Checking(replace(CHECKED, max_in_flight_each=1), A)
    busy = await run.pool.ask(run.where)
    await run.turn(OK)
    assert (run.failing(), run.pool.at(A).in_flight) == (set(), 1)
    answer(busy)
    run.again()
    run.checks.turn()
    await settled()
    assert (await run.pool.ask(run.where)).endpoint is run.pool.at(A)
