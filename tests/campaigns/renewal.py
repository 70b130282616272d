"""Services whose certificates live for five minutes, renewed by age alone, under load, until the first ones have ended.

Each renews by EST when the answer that brought its certificate said, or at two thirds of the life of the first one. Nothing
is rotated, nothing is restarted, no request fails, and what is renewed lives no longer than what it replaces.
"""

from __future__ import annotations

import time
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509

from pki import io_output
from pki.io_authority import Authority
from pki.io_keys import Passphrases, make_ec, private_pem
from pki.issue import LEAF_LIFE_MIN, IssueRequest
from tests.campaigns.rotation import refusals
from tests.e2e.est_client import EstClient
from tests.e2e.load import Load
from tests.e2e.upstream import Upstream
from tests.e2e.whole_gateway import EDGE_YAML, Gateway, Variant, make, records, routes, serving
from tests.wire.speaker import SPEAKERS

_CALLERS = 4


@dataclass
class Outcome:
    """What was renewed, when in its life, and what callers met meanwhile."""

    renewals: int = 0
    at: list[float] = field(default_factory=list)
    """Of the first ones, as parts of the life; the next ones are due by what the answer said."""
    due: list[float] = field(default_factory=list)
    """When the second ones are due, as parts of theirs: between two thirds and three quarters, each at its own."""
    requests: int = 0
    per_s: int = 0


def _issue(directory: Path, name: str, life: timedelta) -> None:
    now, ca, key = datetime.now(UTC), directory / "state" / "ca", make_ec("p256")
    with Authority.open(ca, Passphrases(ca, environ={}), now=now) as authority:
        issued = authority.issue(IssueRequest("svc", name, key.public_key(), (f"{name}.internal",), life=life), now)
        root, bundle, pem = authority.root_sha256, authority.bundle_pem(roles=("gw",)), private_pem(key)
        io_output.write(directory / name, issued, key_pem=pem, bundle_pem=bundle, root_sha256=root, replace=True)


def _leaf(identity: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificates((identity / "chain.pem").read_bytes())[0]


def _part(leaf: x509.Certificate, moment: datetime) -> float:
    return (moment - leaf.not_valid_before_utc) / (leaf.not_valid_after_utc - leaf.not_valid_before_utc)


def campaign(directory: Path, services: int, per_s: int = 100) -> Outcome:
    """Until the first certificates have ended: five minutes."""
    names = ["orders", *(f"s{number}" for number in range(2, services + 1))]
    table = "services:\n" + "".join(f'  {name}: {{may_serve: ["/{name}/**"], methods: [GET]}}\n' for name in names)
    edge = EDGE_YAML.replace("listeners:\n", 'listeners:\n  services: {bind: "127.0.0.1:0"}\n')
    make(directory, Variant(edge=f"{edge}workers: 2\n", services=table))
    for name in names:
        _issue(directory, name, LEAF_LIFE_MIN)
    first = {name: _leaf(directory / name) for name in names}
    outcome = Outcome()
    with ExitStack() as stack:
        orders = stack.enter_context(closing(Upstream(directory / "orders")))
        (directory / "policies" / "routes.yaml").write_text(routes("orders", port=orders.port))
        gateway = stack.enter_context(serving(directory))
        clients = [EstClient(gateway, directory / "orders", orders.present)]
        clients += [EstClient(gateway, directory / name) for name in names[1:]]
        speakers = list(SPEAKERS.values())
        every_s = _CALLERS / per_s
        loads = [
            Load(gateway, 1, every_s=every_s, speaks=speakers[at % len(speakers)], keeps=at != 0)
            for at in range(_CALLERS)
        ]
        began_s = time.monotonic()
        _watch(directory, first, outcome)
        for load in loads:
            load.end()
        for client in clients:
            client.end()
        _judge(directory, gateway, clients, loads, outcome, time.monotonic() - began_s)
    for name, leaf in first.items():
        newer = _leaf(directory / name)
        assert newer.serial_number != leaf.serial_number
        assert newer.not_valid_after_utc - newer.not_valid_before_utc == LEAF_LIFE_MIN + timedelta(seconds=60)
    records(directory)
    return outcome


def _watch(directory: Path, first: dict[str, x509.Certificate], outcome: Outcome) -> None:
    """Note when each is renewed, and wait until what it replaced has ended."""
    left, end = dict(first), max(leaf.not_valid_after_utc for leaf in first.values())
    while datetime.now(UTC) < end + timedelta(seconds=3):
        for name, leaf in list(left.items()):
            if _leaf(directory / name).serial_number != leaf.serial_number:
                outcome.at.append(round(_part(leaf, datetime.now(UTC)), 3))
                del left[name]
        time.sleep(0.2)
    assert not left, sorted(left)


def _judge(
    directory: Path, gateway: Gateway, clients: list[EstClient], loads: list[Load], outcome: Outcome, took_s: float
) -> None:
    calls = [call for load in loads for call in load.calls]
    outcome.requests, outcome.per_s = len(calls), round(len(calls) / took_s)
    outcome.renewals = sum(client.renewals for client in clients)
    outcome.due = sorted(
        round(_part(_leaf(client.identity), client.due), 3) for client in clients if client.due is not None
    )
    failures = [failure for load in loads for failure in load.failures]
    failures += [failure for client in clients for failure in client.failures]
    assert not failures, (failures[:20], refusals(directory))
    assert {call.status for call in calls} == {200}
    assert all(2 / 3 - 0.01 <= part <= 3 / 4 + 0.01 for part in outcome.due), outcome.due
    assert len(set(outcome.due)) > 1, outcome.due
    assert gateway.stop() == 0, gateway.lines[-5:]
