"""A sidecar's place among the instances: what it says of itself, how often, what it makes of a no, and how it leaves."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence

import pytest
import trustme

from edge.serve.attach_lease import Lease, own_name
from edge.serve.attach_settings import Registering
from edge.serve.gateway_call import GatewayCall, GatewayCalls
from edge.serve.report import Report
from pki.spiffe import is_name
from tests.edge.serve.test_gateway_call import Listener, playing

WISH = Registering("one", "", 3, "/healthz", ("/orders/**",))


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def said(status: str, document: object) -> bytes:
    body = json.dumps(document).encode()
    return f"HTTP/1.1 {status}\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body


REGISTERED = said("201 Created", {"heartbeat_s": 1.0, "expires_in_s": 30.0, "unknown": True})
REFUSED = said("403 Forbidden", {"rule": "not-yours", "detail": "the certificate is another's"})


def leasing(
    authority: trustme.CA, answers: Sequence[bytes | None], work: Callable[[Lease, Listener], Awaitable[None]]
) -> Listener:
    """`keep` runs beside `work`."""

    async def main(call: GatewayCall, listener: Listener) -> None:
        lease = Lease("orders", 9101, WISH, lambda: GatewayCalls([call]), Report("attach"))
        keeping = asyncio.get_running_loop().create_task(lease.keep())
        try:
            await work(lease, listener)
        finally:
            keeping.cancel()
            await asyncio.gather(keeping, return_exceptions=True)

    return playing(authority, answers, main)


async def asked(listener: Listener, count: int) -> None:
    for _ in range(2000):
        if len(listener.asked) >= count:
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"asked {len(listener.asked)} times, not {count}")


async def left(lease: Lease) -> float:
    """Leave as soon as the answer to the registration was read."""
    for _ in range(2000):
        if drain_s := await lease.leave():
            return drain_s
        await asyncio.sleep(0.01)
    raise AssertionError("never registered")


def test_it_says_what_it_is_and_says_the_same_again_in_time(authority: trustme.CA) -> None:
    async def work(lease: Lease, listener: Listener) -> None:
        await asked(listener, 2)

    listener = leasing(authority, [REGISTERED, said("200 OK", {"heartbeat_s": 30})], work)
    first, second = (each.partition(b"\r\n\r\n") for each in listener.asked)
    assert first[0].startswith(b"PUT /v1/services/orders/instances/one HTTP/1.1\r\n")
    assert json.loads(first[2]) == {
        "address": ":9101",
        "ttl_s": 30,
        "weight": 3,
        "health_path": "/healthz",
        "draining": False,
        "routes": [{"path": "/orders/**"}],
    }
    assert first == second


def test_a_new_certificate_is_told_at_once(authority: trustme.CA) -> None:
    async def work(lease: Lease, listener: Listener) -> None:
        await asked(listener, 1)
        lease.renewed()
        await asked(listener, 2)

    leasing(authority, [said("201 Created", {"heartbeat_s": 15}), said("200 OK", {"heartbeat_s": 15})], work)


def test_a_no_is_told_once_with_its_rule_and_asked_about_again(
    authority: trustme.CA, capsys: pytest.CaptureFixture[str]
) -> None:
    async def work(lease: Lease, listener: Listener) -> None:
        await asked(listener, 1)
        for count in (2, 3):
            lease.renewed()
            await asked(listener, count)
        await left(lease)

    leasing(authority, [REFUSED, REFUSED, REGISTERED, said("200 OK", {"drain_s": 2.0})], work)
    told = capsys.readouterr().err
    assert told.count("not registered; trying again (cause=status 403: not-yours: the certificate is another's)") == 1
    assert "registered (text=/v1/services/orders/instances/one)" in told


def test_leaving_says_how_long_requests_may_still_come(authority: trustme.CA) -> None:
    async def work(lease: Lease, listener: Listener) -> None:
        await asked(listener, 1)
        assert await left(lease) == 2.0

    listener = leasing(authority, [said("201 Created", {"heartbeat_s": 15}), said("200 OK", {"drain_s": 2.0})], work)
    assert listener.asked[-1].startswith(b"DELETE /v1/services/orders/instances/one HTTP/1.1\r\n")


def test_who_was_never_registered_just_leaves(authority: trustme.CA) -> None:
    async def work(lease: Lease, listener: Listener) -> None:
        await asked(listener, 1)
        assert await lease.leave() == 0.0

    assert len(leasing(authority, [REFUSED], work).asked) == 1


@pytest.mark.parametrize("port", [1, 65_535])
def test_its_own_name_is_one_that_can_be_registered(port: int) -> None:
    assert is_name(own_name(port))
    assert own_name(port).endswith(f"-{port}")
