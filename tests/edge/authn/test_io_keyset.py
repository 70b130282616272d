from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from joserfc.jwk import ECKey

from edge.authn import io_keyset, keys
from edge.authn.io_keyset import COOLDOWN_S, MAX_STALE_S, REFRESH_S, RETRY_S, KeySets
from edge.authn.issuer import IssuerSettings
from edge.errors import NotReady
from edge.model.decision import Need
from examples.issuer.minting import key_set_document, signing_key
from tests.edge.authn.simulator import KEY, Answer, IssuerOnLoopback, issuer, issuer_on_loopback

pytestmark = pytest.mark.asyncio

S = 1_000_000_000
NOW = 1_795_000_000 * S
OTHER: ECKey = signing_key()


def _publish(server: IssuerOnLoopback, *published: ECKey) -> IssuerSettings:
    """The settings of an issuer that publishes these keys at its `jwks` URL."""
    server.answers["/keys"] = Answer(key_set_document(*published))
    return issuer(server.url, jwks=f"{server.url}/keys", ca_pem=server.ca_pem)


def _metadata(server: IssuerOnLoopback, **changes: Any) -> Answer:
    members = {
        "issuer": server.url,
        "jwks_uri": f"{server.url}/keys",
        "token_endpoint": f"{server.url}/token",
        "response_types_supported": ["code"],
    }
    return Answer(json.dumps(members | changes).encode())


def _kids(sets: KeySets, name: str) -> set[str | None] | None:
    found = sets.get(name)
    return None if found is None else {key.kid for key in found.keys}


async def test_keys_of_a_file_are_there_at_once_and_never_fetched() -> None:
    sets = KeySets((issuer(jwks_document=key_set_document(KEY)),))
    name = "https://idp.example.com/"
    await sets.refresh(name, NOW)
    assert ({KEY.kid}, None, (), ()) == (
        *(_kids(sets, name), sets.need(name, NOW)),
        *(await sets.prefetch(NOW), await sets.refresh_due(NOW + REFRESH_S * S)),
    )


async def test_an_issuer_that_is_not_configured_has_neither_keys_nor_a_fetch() -> None:
    assert (KeySets(()).get("x"), KeySets(()).need("x", NOW)) == (None, None)


async def test_a_missing_set_is_fetched_by_its_need() -> None:
    async with issuer_on_loopback() as server:
        sets = KeySets((_publish(server, KEY),))
        assert sets.get(server.url) is None
        need = sets.need(server.url, NOW)
        assert isinstance(need, Need)
        await need.fetch()
        assert {KEY.kid} == _kids(sets, server.url)


@pytest.mark.parametrize("place", ["/.well-known/oauth-authorization-server", "/.well-known/openid-configuration"])
async def test_keys_are_discovered_at_either_place(place: str) -> None:
    async with issuer_on_loopback() as server:
        _publish(server, KEY)
        server.answers[place] = _metadata(server)
        sets = KeySets((issuer(server.url, ca_pem=server.ca_pem),))
        assert await sets.prefetch(NOW) == ()
        assert {KEY.kid} == _kids(sets, server.url)


async def test_e4_discovery_that_points_elsewhere_gives_no_keys() -> None:
    async with issuer_on_loopback() as server, issuer_on_loopback() as other:
        _publish(other, KEY)
        server.answers["/.well-known/oauth-authorization-server"] = _metadata(server, jwks_uri=f"{other.url}/keys")
        sets = KeySets((issuer(server.url, ca_pem=server.ca_pem),))
        with pytest.raises(NotReady, match="another origin"):
            await sets.refresh(server.url, NOW)
        assert (sets.get(server.url), other.seen) == (None, [])


async def test_an_issuer_without_metadata_gives_no_keys() -> None:
    async with issuer_on_loopback() as server:
        sets = KeySets((issuer(server.url, ca_pem=server.ca_pem),))
        with pytest.raises(NotReady, match="status 404"):
            await sets.refresh(server.url, NOW)


async def test_d7_all_who_wait_share_one_fetch() -> None:
    async with issuer_on_loopback() as server:
        sets = KeySets((_publish(server, KEY),))
        await asyncio.gather(*(sets.refresh(server.url, NOW) for _ in range(100)))
        assert server.seen == ["/keys"]


async def test_d7_needs_of_one_instant_are_met_by_one_fetch_even_one_after_the_other() -> None:
    async with issuer_on_loopback() as server:
        sets = KeySets((_publish(server, KEY),))
        needs = [sets.need(server.url, NOW) for _ in range(20)]
        for need in needs:
            assert need is not None
            await need.fetch()
        assert server.seen == ["/keys"]


async def test_whoever_stops_waiting_does_not_stop_the_fetch_for_others() -> None:
    async with issuer_on_loopback() as server:
        server.gate = asyncio.Event()
        sets = KeySets((_publish(server, KEY),))
        impatient, patient = (asyncio.create_task(sets.refresh(server.url, NOW)) for _ in range(2))
        await asyncio.sleep(0)
        impatient.cancel()
        server.gate.set()
        await patient
        assert (True, {KEY.kid}, ["/keys"]) == (impatient.cancelled(), _kids(sets, server.url), server.seen)


async def test_d7_unknown_kids_cause_a_fetch_at_most_every_cooldown() -> None:
    async with issuer_on_loopback() as server:
        sets = KeySets((_publish(server, KEY),))
        await sets.refresh(server.url, NOW)
        asked = [sets.need(server.url, NOW + ns) for ns in (0, 1, COOLDOWN_S * S - 1)]
        later = sets.need(server.url, NOW + COOLDOWN_S * S)
        assert (asked, isinstance(later, Need)) == ([None, None, None], True)


async def test_a_clock_that_was_set_back_does_not_forbid_fetching() -> None:
    async with issuer_on_loopback() as server:
        sets = KeySets((_publish(server, KEY),))
        await sets.refresh(server.url, NOW)
        assert isinstance(sets.need(server.url, NOW - 1), Need)


async def test_a_rotated_key_replaces_and_withdraws() -> None:
    async with issuer_on_loopback() as server:
        sets = KeySets((_publish(server, KEY),))
        await sets.refresh(server.url, NOW)
        before = sets.get(server.url)
        _publish(server, OTHER)
        await sets.refresh(server.url, NOW + S)
        assert before is not None
        assert ({OTHER.kid}, [0]) == (_kids(sets, server.url), [key.valid_until_ns for key in before.keys])


async def test_without_keys_a_failed_attempt_is_not_repeated_at_once() -> None:
    async with issuer_on_loopback() as server:
        sets = KeySets((issuer(server.url, jwks=f"{server.url}/none", ca_pem=server.ca_pem),))
        assert [failure.rule for failure in await sets.prefetch(NOW)] == ["key-set-unavailable"]
        with pytest.raises(NotReady):
            sets.need(server.url, NOW + RETRY_S * S - 1)
        assert isinstance(sets.need(server.url, NOW + RETRY_S * S), Need)


@pytest.mark.parametrize("body", [b"", b"<html>", b'{"keys": []}', key_set_document(KEY, KEY)])
async def test_a_document_that_cannot_be_used_changes_nothing(body: bytes) -> None:
    async with issuer_on_loopback() as server:
        sets = KeySets((_publish(server, KEY),))
        await sets.refresh(server.url, NOW)
        before = sets.get(server.url)
        server.answers["/keys"] = Answer(body)
        with pytest.raises(NotReady):
            await sets.refresh(server.url, NOW + S)
        assert sets.get(server.url) is before


async def test_while_the_issuer_fails_an_unknown_key_is_not_said_to_be_unknown() -> None:
    async with issuer_on_loopback() as server:
        sets = KeySets((_publish(server, KEY),))
        await sets.refresh(server.url, NOW)
        server.answers.clear()
        assert [f.rule for f in await sets.refresh_due(NOW + REFRESH_S * S)] == ["key-set-unavailable"]
        with pytest.raises(NotReady):
            sets.need(server.url, NOW + REFRESH_S * S + 1)


async def test_keys_are_renewed_when_due_and_retried_after_a_failure() -> None:
    async with issuer_on_loopback() as server:
        sets = KeySets((_publish(server, KEY),))
        await sets.prefetch(NOW)
        await sets.refresh_due(NOW + REFRESH_S * S - 1)
        assert len(server.seen) == 1
        await sets.refresh_due(NOW + REFRESH_S * S)
        assert len(server.seen) == 2
        server.answers.clear()
        for later_s in (0, COOLDOWN_S - 1, COOLDOWN_S):
            await sets.refresh_due(NOW + (2 * REFRESH_S + later_s) * S)
        assert len(server.seen) == 4


async def test_keys_go_stale_and_come_back() -> None:
    async with issuer_on_loopback() as server:
        sets = KeySets((_publish(server, KEY),))
        await sets.refresh(server.url, NOW)
        found = sets.get(server.url)
        assert found is not None
        assert found.keys[0].valid_until_ns == NOW + MAX_STALE_S * S
        later = NOW + MAX_STALE_S * S
        assert isinstance(sets.need(server.url, later), Need)
        await sets.refresh_due(later)
        assert later + MAX_STALE_S * S == found.keys[0].valid_until_ns


async def test_a_reload_keeps_the_keys_of_unchanged_issuers_only() -> None:
    async with issuer_on_loopback() as server:
        settings = _publish(server, KEY)
        before = KeySets((settings,))
        await before.refresh(server.url, NOW)
        changed = issuer(server.url, jwks=settings.jwks, ca_pem=settings.ca_pem, algorithms=("ES256", "RS256"))
        same = issuer(server.url, jwks=settings.jwks, ca_pem=settings.ca_pem, audience=("https://new.example",))
        assert [None, {KEY.kid}, None] == [
            *(_kids(KeySets((kept,), previous=before), server.url) for kept in (changed, same)),
            _kids(KeySets((issuer(),), previous=before), server.url),
        ]


async def test_too_slow_in_all_is_not_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(io_keyset, "TIMEOUT_S", 0.05)
    async with issuer_on_loopback() as server:
        server.gate = asyncio.Event()
        sets = KeySets((_publish(server, KEY),))
        with pytest.raises(NotReady, match="too slow"):
            await sets.refresh(server.url, NOW)
        server.gate.set()


async def test_closing_ends_the_fetch_under_way() -> None:
    async with issuer_on_loopback() as server:
        server.gate = asyncio.Event()
        sets = KeySets((_publish(server, KEY),))
        waiting = asyncio.create_task(sets.refresh(server.url, NOW))
        await asyncio.sleep(0)
        await sets.close()
        with pytest.raises(NotReady, match="closing"):
            await waiting
        server.gate.set()
    await sets.close()


async def test_an_unusable_file_is_refused_at_construction() -> None:
    with pytest.raises(keys.KeySetUnusable):
        KeySets((issuer(jwks_document=b"{}"),))
