"""Which connection a request gets, and that what is under way is counted right however it ends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from edge.errors import (
    Shedding,
    UpstreamIdentityRejected,
    UpstreamProtocolError,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from edge.forward.balance import DEFAULT, BalanceSettings
from edge.forward.io_pool import MAX_AGE_S, MAX_IDLE_PER_KEY, MAX_IDLE_S, Pinned, Pool
from edge.model.route import RouteMatch
from tests.edge.forward.house import QUICK, A, B, instance, to, upstream
from tests.edge.forward.pools import OK, Dialling, Listener, answer

# -- where to ----------------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_turns_are_taken_once_a_request() -> None:
    where = upstream(A, B)
    pool = Dialling(DEFAULT, where)
    assert [pool.addresses(to(where))[0].address for _ in range(4)] == [A, B, A, B]
    assert {each.address for each in pool.addresses(to(where))} == {
        A,
        B,
    }  # the rest is tried when the first is not there


@pytest.mark.asyncio
async def test_a_match_goes_on_with_the_turns_that_its_table_was_made_with() -> None:
    where = upstream(A, B)
    pool = Dialling(DEFAULT, where)
    each, other = (RouteMatch(to(where).route, {}, pool.fleet.turns(where)) for _ in range(2))
    found = [pool.addresses(one)[0].address for one in (each, other, each, other)]
    assert (found, each.turns is other.turns) == ([A, B, A, B], True)


@pytest.mark.asyncio
async def test_who_registers_or_leaves_is_known_at_the_next_request_of_every_match() -> None:
    first, second = upstream(A), upstream(B)
    pool = Dialling(DEFAULT, first, second)
    found = [to(first), to(second)]
    assert [[each.address for each in pool.addresses(one)] for one in found] == [[A], [B]]
    pool.roster.put(instance("one", 1))
    here = ("10.0.0.1", 1)
    assert [{each.address for each in pool.addresses(one)} for one in found] == [{A, here}, {B, here}]
    pool.roster.remove("orders", "one")
    assert [[each.address for each in pool.addresses(one)] for one in found] == [[A], [B]]


@pytest.mark.asyncio
async def test_a_match_of_the_generation_before_knows_who_came_and_left_since() -> None:
    before = to(upstream(A, B))
    pool = Dialling(DEFAULT, before.route.upstream)
    pool.addresses(before)
    pool.configure({}, [upstream(B)])  # a reload that drops the other route
    pool.roster.put(instance("one", 1))
    assert {each.address for each in pool.addresses(before)} == {A, B, ("10.0.0.1", 1)}
    assert all(each in list(pool.fleet.endpoints()) for each in pool.addresses(before))


@pytest.mark.asyncio
async def test_a_service_without_endpoints_is_unreachable() -> None:
    with pytest.raises(UpstreamUnreachable):
        Dialling().addresses(to(upstream()))


@pytest.mark.asyncio
async def test_an_upstream_that_was_never_configured_has_its_endpoints() -> None:
    assert [each.address for each in Dialling().addresses(to(upstream(A)))] == [A]


@pytest.mark.asyncio
async def test_who_cannot_be_reached_is_passed_over_and_an_impostor_is_not() -> None:
    where = upstream(A, B)
    pool = Dialling(DEFAULT, where)

    async def refused(address: tuple[str, int]) -> None:
        if address == A:
            raise UpstreamUnreachable("dial-failed")

    async def forged(address: tuple[str, int]) -> None:
        raise UpstreamIdentityRejected("chain-untrusted")

    pool.reach = refused
    assert (await pool.ask(where)).endpoint is pool.at(B)
    pool.reach = forged
    with pytest.raises(UpstreamIdentityRejected):
        await pool.dial(where, pool.addresses(to(where)))
    assert [pool.at(address).in_flight for address in (A, B)] == [0, 1]


# -- what is under way -------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_an_answer_frees_its_place_and_the_connection_waits() -> None:
    where = upstream(A)
    pool = Dialling(DEFAULT, where)
    first = await pool.ask(where)
    assert (pool.at(A).in_flight, pool.idle_connections) == (1, 0)
    answer(first)
    assert (pool.at(A).in_flight, pool.idle_connections) == (0, 1)
    second = await pool.ask(where)
    assert second is first
    assert (pool.at(A).in_flight, pool.idle_connections, pool.open_connections) == (1, 0, 1)


End = Callable[[Pool, Pinned], None]


def lose(pool: Pool, pinned: Pinned) -> None:
    pinned.connection.connection_lost(None)


def leave(pool: Pool, pinned: Pinned) -> None:
    pinned.connection.abort()


def half(pool: Pool, pinned: Pinned) -> None:
    answer(pinned, OK[:-1])


def release(pool: Pool, pinned: Pinned) -> None:
    pool.release(pinned)


def in_turn(*ends: End) -> End:
    def end(pool: Pool, pinned: Pinned) -> None:
        for each in ends:
            each(pool, pinned)

    return end


ENDINGS: dict[str, End] = {
    "answer": lambda pool, pinned: answer(pinned),
    "answer that closes": lambda pool, pinned: answer(
        pinned, b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
    ),
    "no HTTP": lambda pool, pinned: answer(pinned, b"what?"),
    "surplus": lambda pool, pinned: answer(pinned, OK + OK),
    "lost": lose,
    "lost in the middle": in_turn(half, lose),
    "the client left": leave,
    "too late": lambda pool, pinned: pinned.connection.fail(UpstreamTimeout("answer-timeout")),
    "revoked": lambda pool, pinned: pinned.connection.fail(UpstreamIdentityRejected("revoked")),
    "released, then lost": in_turn(release, leave),
    "released twice": in_turn(release, release),
    "the worker ends": lambda pool, pinned: pool.close(),
}


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.asyncio
async def test_however_it_ends_the_count_returns_to_nothing(ending: str) -> None:
    where = upstream(A)
    pool = Dialling(DEFAULT, where)
    for reuse in (False, True):
        if reuse:
            answer(await pool.ask(where))
        pinned = await pool.ask(where)
        assert pool.at(A).in_flight == 1
        ENDINGS[ending](pool, pinned)
        assert pool.at(A).in_flight == 0


@pytest.mark.asyncio
async def test_an_older_trust_frees_its_place_too() -> None:
    where = upstream(A)
    pool = Dialling(DEFAULT, where)
    busy = await pool.ask(where)
    pool.renew()
    assert pool.at(A).in_flight == 1
    answer(busy)
    assert (pool.at(A).in_flight, pool.open_connections) == (0, 0)


@pytest.mark.asyncio
async def test_what_waits_under_an_older_trust_is_cut_at_once_P43() -> None:
    where = upstream(A)
    pool = Dialling(DEFAULT, where)
    before = await pool.ask(where)
    answer(before)
    pool.renew()
    assert pool.open_connections == 0
    assert await pool.ask(where) is not before


@pytest.mark.parametrize("past", [{"not_after_s": 1.0}, {"born_s": -MAX_AGE_S}, {"idle_since_s": -MAX_IDLE_S}])
@pytest.mark.asyncio
async def test_no_connection_outlives_its_proof_its_age_or_its_rest_P43(past: dict[str, float]) -> None:
    where = upstream(A)
    pool = Dialling(DEFAULT, where)
    before = await pool.ask(where)
    answer(before)
    for name, value in past.items():
        setattr(before, name, value)
    after = await pool.ask(where)
    assert (after is before, pool.open_connections, pool.idle_connections) == (False, 1, 0)


@pytest.mark.asyncio
async def test_more_idle_connections_than_are_kept_are_counted_right() -> None:
    where = upstream(A)
    pool = Dialling(DEFAULT, where)
    busy = [await pool.ask(where) for _ in range(MAX_IDLE_PER_KEY + 3)]
    assert pool.at(A).in_flight == len(busy)
    for pinned in busy:
        answer(pinned)
    assert (pool.at(A).in_flight, pool.idle_connections) == (0, MAX_IDLE_PER_KEY)


@pytest.mark.parametrize("error", [UpstreamUnreachable, UpstreamTimeout, UpstreamIdentityRejected, RuntimeError])
@pytest.mark.asyncio
async def test_a_connection_that_was_never_made_frees_its_place(error: type[Exception]) -> None:
    where = upstream(A)
    pool = Dialling(DEFAULT, where)

    async def fails(address: tuple[str, int]) -> None:
        assert pool.at(A).in_flight == 1  # it counts from the moment it is begun
        raise error("dial-failed")

    pool.reach = fails
    with pytest.raises(error):
        await pool.ask(where)
    assert pool.at(A).in_flight == 0


@pytest.mark.asyncio
async def test_who_leaves_while_it_is_made_frees_his_place() -> None:
    where, never = upstream(A), asyncio.Event()
    pool = Dialling(DEFAULT, where)

    async def hangs(address: tuple[str, int]) -> None:
        await never.wait()

    pool.reach = hangs
    asking = asyncio.create_task(pool.ask(where))
    await asyncio.sleep(0)
    assert pool.at(A).in_flight == 1
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    assert pool.at(A).in_flight == 0


@pytest.mark.asyncio
async def test_a_connection_that_is_no_request_does_not_count() -> None:
    where = upstream(A)
    pool = Dialling(DEFAULT, where)
    pool.addresses(to(where))
    pinned = await pool.connect(where, pool.at(A))
    pinned.connection.start(Listener(), b"", is_head_method=False, is_complete=True)
    assert pool.at(A).in_flight == 0
    answer(pinned)
    assert (pool.at(A).in_flight, pool.idle_connections) == (0, 1)
    assert pool.acquire(pool.at(A), counts=False) is pinned
    pinned.connection.abort()
    assert (pool.at(A).in_flight, pool.idle_connections) == (0, 0)


# -- limits ------------------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_requests_that_begin_in_the_same_moment_keep_the_limit() -> None:
    where, go_on = upstream(A, B), asyncio.Event()
    pool = Dialling(BalanceSettings(max_in_flight_each=2), where)
    most = 0

    async def slow(address: tuple[str, int]) -> None:
        nonlocal most
        most = max(most, *(pool.at(each).in_flight for each in (A, B)))
        await go_on.wait()

    pool.reach = slow
    orders = [pool.addresses(to(where)) for _ in range(9)]  # nobody is under way yet: each sees room
    dials = [asyncio.create_task(pool.dial(where, order)) for order in orders]
    await asyncio.sleep(0)
    go_on.set()
    made = await asyncio.gather(*dials, return_exceptions=True)
    assert sum(isinstance(each, Pinned) for each in made) == 4
    assert {each.rule for each in made if isinstance(each, Shedding)} == {"instance-in-flight"}
    assert (most, [pool.at(address).in_flight for address in (A, B)]) == (2, [2, 2])


@pytest.mark.asyncio
async def test_the_limit_of_a_service_holds_over_its_routes() -> None:
    where, other = upstream(A), upstream(B)
    pool = Dialling(BalanceSettings(max_in_flight=1), where, other)
    busy = await pool.ask(where)
    with pytest.raises(Shedding, match="service-in-flight"):
        await pool.ask(other)
    answer(busy)
    await pool.ask(other)


# -- how they do -------------------------------------------------------------------------------------

FAULTS: dict[str, tuple[End, bool]] = {
    "no HTTP": (ENDINGS["no HTTP"], True),
    "surplus": (ENDINGS["surplus"], True),
    "no answer": (ENDINGS["lost"], True),
    "half an answer": (ENDINGS["lost in the middle"], True),
    "too late": (ENDINGS["too late"], True),
    "an answer": (ENDINGS["answer"], False),
    "an error of the server": (lambda pool, pinned: answer(pinned, OK.replace(b"200", b"503")), False),
    "the client left": (ENDINGS["the client left"], False),
    "revoked": (ENDINGS["revoked"], False),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.asyncio
async def test_whose_fault_it_was(fault: str) -> None:
    where = upstream(A, B)
    pool = Dialling(BalanceSettings(ejection=QUICK), where)
    end, is_fault = FAULTS[fault]
    for _ in range(2 * QUICK.failures):
        pinned = await pool.ask(where)
        if pinned.endpoint is pool.at(A):
            end(pool, pinned)
        else:
            answer(pinned)
    assert pool.at(A).health.is_ejected is is_fault
    if is_fault:
        assert [pool.addresses(to(where))[0].address for _ in range(3)] == [B] * 3


@pytest.mark.asyncio
async def test_an_idle_connection_that_closes_under_a_request_is_nobodys_fault() -> None:
    where = upstream(A, B)
    pool = Dialling(BalanceSettings(ejection=QUICK), where)
    for _ in range(4 * QUICK.failures):
        answer(await pool.ask(where))
        (await pool.ask(where)).connection.connection_lost(None)
    assert not pool.at(A).health.is_ejected


@pytest.mark.asyncio
async def test_a_good_answer_in_between_forgives() -> None:
    where = upstream(A)
    pool = Dialling(BalanceSettings(ejection=QUICK), where, upstream(A, B))
    for _ in range(5):
        (await pool.ask(where)).connection.fail(UpstreamProtocolError("upstream-syntax"))
        answer(await pool.ask(where))
    assert pool.at(A).failures == 0


@pytest.mark.parametrize(("rule", "is_fault"), [("chain-untrusted", True), ("revocation-unknown", False)])
@pytest.mark.asyncio
async def test_an_impostor_is_left_alone_and_what_we_do_not_know_is_not_his_fault(rule: str, is_fault: bool) -> None:
    where = upstream(A, B)
    pool = Dialling(BalanceSettings(ejection=QUICK), where)

    async def forged(address: tuple[str, int]) -> None:
        if address == A:
            raise UpstreamIdentityRejected(rule)

    pool.reach = forged
    for _ in range(QUICK.failures):
        with pytest.raises(UpstreamIdentityRejected):
            await pool.dial(where, (pool.addresses(to(where))[0], *pool.addresses(to(where))))
    assert pool.at(A).health.is_ejected is is_fault


@pytest.mark.asyncio
async def test_an_instance_that_left_loses_its_idle_connections_at_the_next_sweep() -> None:
    where = upstream(A, B)
    pool = Dialling(DEFAULT, where)
    for _ in range(2):
        answer(await pool.ask(where))
    pool.configure({}, [upstream(A)])
    pool.sweep()
    assert ([each.address for each in pool.fleet.endpoints()], pool.open_connections) == ([A], 1)
