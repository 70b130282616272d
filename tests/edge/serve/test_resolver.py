"""Lookups that nobody answers keep few places, and those of their own service."""

from __future__ import annotations

import asyncio
import ipaddress

import pytest

from edge.registry.address import Ip
from edge.serve import resolver
from edge.serve.resolver import PLACES, Resolver

HERE: list[Ip] = [ipaddress.ip_address("192.0.2.7")]


class Names:
    """Servers of names: those of `silent` never answer until they are told to."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.answers = asyncio.Event()

    async def lookup(self, host: str) -> list[Ip]:
        self.asked.append(host)
        if host.startswith("silent"):
            await self.answers.wait()
        if host == "unknown":
            raise OSError("no such name")
        return HERE


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolver, "WITHIN_S", 0.05)


@pytest.mark.asyncio
async def test_a_name_has_its_addresses_or_none() -> None:
    names = Names()
    found = Resolver(names.lookup)
    assert await found.addresses("orders", "here") == HERE
    assert await found.addresses("orders", "unknown") == []
    assert await found.addresses("orders", "here") == HERE


@pytest.mark.asyncio
async def test_a_service_keeps_one_place_however_often_it_asks() -> None:
    names = Names()
    found = Resolver(names.lookup)
    silent = [found.addresses("billing", f"silent-{at}") for at in range(50)]
    assert await asyncio.gather(*silent) == [[]] * 50
    assert names.asked == ["silent-0"]
    assert await found.addresses("orders", "here") == HERE


@pytest.mark.asyncio
async def test_all_services_together_keep_two_until_their_lookups_end() -> None:
    names = Names()
    found = Resolver(names.lookup)
    await asyncio.gather(*(found.addresses(f"service-{at}", f"silent-{at}") for at in range(5)))
    assert len(names.asked) == PLACES
    assert await found.addresses("orders", "here") == []
    names.answers.set()
    assert await found.addresses("orders", "here") == HERE
    assert await found.addresses("service-0", "here") == HERE


@pytest.mark.asyncio
async def test_who_leaves_takes_no_place_with_him() -> None:
    names = Names()
    found = Resolver(names.lookup)
    waiting = [asyncio.ensure_future(found.addresses("orders", f"silent-{at}")) for at in range(3)]
    await asyncio.sleep(0)
    for each in waiting:
        each.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    names.answers.set()
    assert await found.addresses("orders", "here") == HERE


@pytest.mark.asyncio
async def test_the_system_is_asked_by_default() -> None:
    assert ipaddress.ip_address("127.0.0.1") in await Resolver().addresses("orders", "localhost")
