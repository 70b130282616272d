"""The ASGI middleware: the application sees a caller, or nothing at all."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from edge.verify import AsgiVerifier, BadSettings, Caller
from tests.edge.verify.mesh import ALICE, BILLING, GATEWAY, ORDERS, Fields, mesh_of_today
from tests.pki.conftest import Forged

Outcome = tuple[list[Any], list[Any]]
"""(events that were sent, scopes that the application saw)."""


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    path = tmp_path / "bundle.pem"
    path.write_bytes(mesh_of_today().bundle_pem)
    return path


def scope(assertion: bytes | None, *, shown: tuple[Forged, ...] | None = (), **changes: Any) -> dict[str, Any]:
    """Of GET /orders/7; `shown` None: the server has no TLS extension."""
    fields: Fields = ALICE if assertion is None else (*ALICE, (b"edge-assertion", assertion))
    found: dict[str, Any] = {
        "type": "http", "method": "GET", "path": "/orders/7", "raw_path": b"/orders/7", "query_string": b"",
        "headers": fields,
    }  # fmt: skip
    if shown is not None:
        found["extensions"] = {"tls": {"client_cert_chain": [each.pem.decode() for each in shown]}}
    return found | changes


def ask(asgi_scope: dict[str, Any], bundle: Path, **settings: Any) -> Outcome:
    sent: list[Any] = []
    seen: list[Any] = []

    async def app(inner: Any, receive: Any, send: Any) -> None:
        seen.append(inner)

    async def receive() -> Any:
        raise AssertionError("nothing is read before it is judged")

    async def send(event: Any) -> None:
        sent.append(event)

    asyncio.run(AsgiVerifier(app, service=ORDERS, bundle=bundle, **settings)(asgi_scope, receive, send))
    return sent, seen


def test_the_application_is_told_the_caller(bundle: Path) -> None:
    gateway = mesh_of_today().gateway
    for shown, settings in (((gateway,), {}), (None, {"peer": "server"}), ((gateway,), {"peer": "server"})):
        sent, seen = ask(scope(mesh_of_today().assertion(), shown=shown), bundle, **settings)
        assert sent == []
        assert seen[0]["edge.caller"] == Caller(
            GATEWAY, "https://idp.example.com/", "alice", frozenset(("a", "b")), None
        )


def refused(outcome: Outcome, status: int, rule: str, caplog: pytest.LogCaptureFixture) -> None:
    sent, seen = outcome
    assert seen == []
    assert sent[0]["status"] == status
    body = json.loads(sent[1]["body"])
    assert body["status"] == status
    assert rule not in sent[1]["body"].decode()
    assert [record.getMessage().split(":")[1].strip() for record in caplog.records] == [rule]
    challenge = dict(sent[0]["headers"]).get(b"www-authenticate")
    assert challenge == (b"Edge-Assertion" if status == 401 else None)


def test_without_an_assertion_the_application_sees_nothing(bundle: Path, caplog: pytest.LogCaptureFixture) -> None:
    refused(ask(scope(None, shown=(mesh_of_today().gateway,)), bundle), 401, "assertion-missing", caplog)


@pytest.mark.parametrize("shown", [(), None])
def test_a_connection_nobody_vouches_for_is_refused(
    bundle: Path, caplog: pytest.LogCaptureFixture, shown: tuple[Forged, ...] | None
) -> None:
    refused(ask(scope(mesh_of_today().assertion(), shown=shown), bundle), 403, "peer-unknown", caplog)


def test_a_server_that_shows_that_nobody_proved_himself_does_not_require_it(
    bundle: Path, caplog: pytest.LogCaptureFixture
) -> None:
    outcome = ask(scope(mesh_of_today().assertion(), shown=()), bundle, peer="server")
    refused(outcome, 403, "peer-unknown", caplog)


@pytest.mark.parametrize("peer", ["shown", "server"])
def test_a_service_with_a_stolen_assertion_is_no_gateway_P09(
    bundle: Path, caplog: pytest.LogCaptureFixture, peer: str
) -> None:
    service = mesh_of_today().leaf(BILLING, "svc")
    outcome = ask(scope(mesh_of_today().assertion(), shown=(service,)), bundle, peer=peer)
    refused(outcome, 403, "peer-rejected", caplog)


def test_what_is_no_pem_is_nobody(bundle: Path, caplog: pytest.LogCaptureFixture) -> None:
    tls = {"tls": {"client_cert_chain": ["garbage"]}}
    outcome = ask(scope(mesh_of_today().assertion(), extensions=tls), bundle)
    refused(outcome, 403, "peer-rejected", caplog)


def test_a_websocket_is_judged_before_it_is_accepted(bundle: Path) -> None:
    good = scope(mesh_of_today().assertion(), shown=None, type="websocket")
    del good["method"]
    assert ask(good, bundle, peer="server")[1][0]["edge.caller"].subject == "alice"
    sent, seen = ask(scope(None, shown=None, type="websocket"), bundle, peer="server")
    assert (sent, seen) == ([{"type": "websocket.close", "code": 1008, "reason": ""}], [])


def test_a_websocket_s_bound_assertion_is_a_get(bundle: Path) -> None:
    request = {"method": "GET", "authority": "a", "target": "/orders/7"}
    assertion = mesh_of_today().assertion(jti="D1", request=request)
    fields = [*ALICE, (b"host", b"a"), (b"x-request-id", b"D1"), (b"edge-assertion", assertion)]
    asked = scope(None, shown=None, type="websocket", headers=fields)
    del asked["method"]
    assert ask(asked, bundle, peer="server", mode="request")[1]
    del asked["raw_path"]
    assert ask(asked, bundle, peer="server", mode="request")[1]
    assert not ask(asked | {"path": "/orders/8"}, bundle, peer="server", mode="request")[1]


def test_lifespan_passes_and_what_is_unknown_does_not(bundle: Path) -> None:
    assert ask({"type": "lifespan"}, bundle)[1] == [{"type": "lifespan"}]
    with pytest.raises(NotImplementedError):
        ask({"type": "webtransport"}, bundle)


@pytest.mark.parametrize("settings", [{"peer": "none"}, {"mode": "none"}, {"gateways": ("edge",)}])
def test_bad_settings_are_told_at_start(bundle: Path, settings: dict[str, Any]) -> None:
    with pytest.raises(BadSettings):
        ask({"type": "lifespan"}, bundle, **settings)
