"""Which connection a request gets: the endpoint whose turn it is, whether one waits there or must be dialled."""

from __future__ import annotations

import asyncio

import pytest

from edge.errors import UpstreamUnreachable
from edge.forward.balance import RoundRobin
from edge.forward.io_pool import Pool
from edge.model.route import Upstream

A, B = ("127.0.0.1", 9101), ("127.0.0.1", 9102)
ID = "spiffe://mesh.internal/svc/orders"


def test_turns_are_taken_once_a_request() -> None:
    loop = asyncio.new_event_loop()
    pool = Pool(loop, RoundRobin(), lambda where, turn: None)
    upstream = Upstream("orders", ID, endpoints=(A, B))
    assert [pool.addresses(upstream)[0] for _ in range(4)] == [A, B, A, B]
    assert set(pool.addresses(upstream)) == {A, B}  # the rest is tried when the first cannot be reached
    loop.close()


def test_a_service_without_endpoints_is_unreachable() -> None:
    loop = asyncio.new_event_loop()
    with pytest.raises(UpstreamUnreachable):
        Pool(loop, RoundRobin(), lambda where, turn: None).addresses(Upstream("orders", ID))
    loop.close()
