"""A worker's end of the authority: bounded waiting, and an answer for everybody who waits."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable

import pytest

from edge.errors import NotReady, Shedding
from edge.serve.ca_client import CaClient
from pki import desk

ENROL = desk.Enrol("orders", "edge-enrol-x", b"request")


def run(scenario: Callable[[CaClient, socket.socket], Awaitable[None]], seen: list[int] | None = None) -> None:
    async def main() -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        theirs.setblocking(False)
        client = CaClient(ours, (seen if seen is not None else []).append)
        try:
            await asyncio.wait_for(scenario(client, theirs), 20)
        finally:
            client.close()
            theirs.close()

    asyncio.run(main())


async def asked(authority: socket.socket) -> dict[str, object]:
    raw = await asyncio.get_running_loop().sock_recv(authority, 1 << 18)
    request: dict[str, object] = json.loads(raw)
    return request


def reply(authority: socket.socket, number: object, message: desk.Reply) -> None:
    authority.send(json.dumps({"id": number, "reply": json.loads(desk.encode(message))}).encode())


def test_replies_find_who_asked_whatever_their_order() -> None:
    async def scenario(client: CaClient, authority: socket.socket) -> None:
        tasks = [asyncio.ensure_future(client.ask(ENROL)) for _ in range(2)]
        numbers = [(await asked(authority))["id"] for _ in tasks]
        for number in reversed(numbers):
            reply(authority, number, desk.Failed("IssueRefused", "token", str(number)))
        assert [await task for task in tasks] == [desk.Failed("IssueRefused", "token", str(n)) for n in numbers]

    run(scenario)


def test_heartbeats_are_passed_on_and_noise_is_not() -> None:
    seen: list[int] = []

    async def scenario(client: CaClient, authority: socket.socket) -> None:
        for raw in (b"{", b'{"id":99,"reply":{"type":"Done"}}', b'{"number":7}'):
            authority.send(raw)
        task = asyncio.ensure_future(client.ask(ENROL))
        reply(authority, (await asked(authority))["id"], desk.Done())
        assert await task == desk.Done()

    run(scenario, seen)
    assert seen == [7]


def test_few_are_under_way_few_wait_and_the_next_is_sent_away() -> None:
    async def scenario(client: CaClient, authority: socket.socket) -> None:
        tasks = [asyncio.ensure_future(client.ask(ENROL)) for _ in range(64)]
        first = [await asked(authority) for _ in range(4)]
        with pytest.raises(BlockingIOError):
            authority.recv(1 << 18)
        with pytest.raises(Shedding):
            await client.ask(ENROL)
        for request in first:
            reply(authority, request["id"], desk.Done())
        for _ in range(60):
            reply(authority, (await asked(authority))["id"], desk.Done())
        assert set(map(type, await asyncio.gather(*tasks))) == {desk.Done}

    run(scenario)


def test_who_waits_for_a_process_that_is_gone_is_told() -> None:
    async def scenario(client: CaClient, authority: socket.socket) -> None:
        authority.close()
        with pytest.raises(NotReady):
            await client.ask(ENROL)

    run(scenario)
