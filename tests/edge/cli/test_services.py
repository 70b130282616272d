"""`edge services` as people read it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import typer

from edge.cli.services import command, lines

INSTANCE: dict[str, Any] = {
    "service": "orders", "instance": "one", "address": "10.1.2.3:9101", "state": "live", "reason": None,
    "source": "registered", "since": "2026-11-21T09:40:00.000+00:00", "expires_in_s": 29.6, "weight": 1,
    "gateway": "spiffe://mesh.internal/gw/edge",
    "health": {"state": "ejected", "in_flight": 2, "ejected_since": "09:41", "ejected_until": "09:42"},
    "routes": [
        {"path": "/orders/**", "methods": ["GET"], "hosts": ["localhost"], "live": True, "reason": None},
        {"path": "/x", "methods": ["GET"], "hosts": ["localhost"], "live": False, "reason": "owned-by-route: x"},
    ],
}  # fmt: skip
ENDPOINT = {
    "service": "orders",
    "instance": "h:1",
    "address": "h:1",
    "state": "live",
    "source": "routes.yaml",
    "health": None,
}
REFUSED = {
    "rule": "not-yours", "service.name": "orders", "service.node.name": "two", "source.ip": "10.6.6.6",
    "tls.client.spiffe_id": "spiffe://mesh.internal/svc/billing",
}  # fmt: skip


def test_each_service_its_instances_their_routes_and_who_was_refused() -> None:
    facts = {"services": ["billing", "orders"], "instances": [INSTANCE, ENDPOINT], "refused": [REFUSED]}
    assert list(lines(facts)) == [
        "billing: nobody",
        "orders:",
        "  one 10.1.2.3:9101 [live] ejected until 09:42, 2 under way, since 2026-11-21T09:40:00.000+00:00, ends in 30 s, "
        "weight 1, through spiffe://mesh.internal/gw/edge",
        "    GET localhost /orders/** [live]",
        "    GET localhost /x [not live: owned-by-route: x]",
        "  h:1 [live] not asked yet, routes.yaml",
        "refused by the worker that answered, newest last (all are in the access log):",
        "  orders/two by spiffe://mesh.internal/svc/billing from 10.6.6.6: not-yours",
    ]


def test_an_instance_that_gets_nothing_says_why() -> None:
    refused = INSTANCE | {"state": "refused", "reason": "address-loopback", "routes": []}
    assert "[refused: address-loopback]" in list(lines({"services": [], "instances": [refused], "refused": []}))[1]


def test_without_a_gateway_it_exits_4(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "edge.yaml").write_text("trust_domain: mesh.internal\n")
    with pytest.raises(typer.Exit) as caught:
        command(tmp_path / "edge.yaml")
    assert caught.value.exit_code == 4
    assert "no gateway" in capsys.readouterr().err
