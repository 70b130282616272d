"""Services that announce themselves, and only as themselves: two gateways with one store, real certificates, real attacks.

Attacks E3, E4 and P48 to P52 of the list, and whoever can write to the store."""

from __future__ import annotations

import json
import shutil
import ssl
from pathlib import Path

import msgspec
import pytest
from cryptography import x509
from valkey import Valkey

from edge.registry.entry import read
from edge.registry.io_store import CHANGES, ENTRIES
from examples.demo import stranger
from tests.campaigns import churn
from tests.e2e.member import Member, call, instances, place
from tests.e2e.mesh import MINTER, Mesh
from tests.e2e.registering import (
    SOON_S,
    forgeries,
    gateways,
    homes,
    member,
    mesh,
    resealed,
    store,
    write,
    written,
)
from tests.e2e.rogue import Rogue
from tests.e2e.whole_gateway import Gateway, events_in_log, eventually, knock, run

__all__ = ["gateways", "homes", "member", "mesh", "store"]  # fixtures


def refusal(homes: dict[str, Path], rule: str, instance: str) -> dict[str, object]:
    """The event of a refusal in the log of the first gateway."""
    found: list[dict[str, object]] = []

    def is_there() -> bool:
        found[:] = [
            event
            for event in events_in_log(homes["a"], "registry.refused")
            if event["event.reason"] == rule and event.get("service.node.name") == instance
        ]
        return bool(found)

    eventually(is_there, SOON_S)
    assert found[0]["event.outcome"] == "failure"
    return found[0]


def test_it_is_known_to_both_gateways_and_gone_from_both(
    homes: dict[str, Path], gateways: list[Gateway], member: Member
) -> None:
    a, b = gateways
    told = member.register(a)
    assert told.status == 201
    assert told.facts["address"] == f"127.0.0.1:{member.upstream.port}"
    for gateway in gateways:
        eventually(lambda gateway=gateway: gateway.get("/orders/1") == (200, "ok"), SOON_S)  # type: ignore[misc]
        assert f"orders/{member.name}" in instances(gateway)
    for home in ("a", "b"):
        shown = run("services", "--json", "-c", homes[home] / "edge.yaml")
        (row,) = [row for row in json.loads(shown.stdout)["instances"] if row["instance"] == member.name]
        assert (row["state"], row["gateway"]) == ("live", "spiffe://mesh.internal/gw/edge")
        eventually(lambda home=home: "] healthy, 0 under way, since" in shown_of(homes[home], member.name), SOON_S)  # type: ignore[misc]
    assert member.register(b).status == 200  # a heartbeat, through the other one
    assert member.leave(b).facts == {"drain_s": 2.0}
    for gateway in gateways:
        eventually(lambda gateway=gateway: gateway.get("/orders/1")[0] == 502, SOON_S)  # type: ignore[misc]
        assert f"orders/{member.name}" not in instances(gateway)
    assert member.leave(a).rule == "no-lease"


def shown_of(home: Path, instance: str) -> str:
    """Its line in `edge services`."""
    lines = run("services", "-c", home / "edge.yaml").stdout.splitlines()
    return next(line for line in lines if line.strip().startswith(f"{instance} "))


def test_a_declared_route_is_served_on_both_and_its_policy_decides(
    homes: dict[str, Path], gateways: list[Gateway], member: Member
) -> None:
    told = member.register(gateways[0], routes=[{"path": "/new/{id}"}, {"path": "/orders/7"}])
    states = {route["path"]: (route["live"], route["reason"]) for route in told.facts["routes"]}
    assert states == {"/new/{id}": (True, None), "/orders/7": (False, "owned-by-route: orders")}
    tokens = {scope: MINTER.good("alice", [scope]) for scope in ("new:read", "other")}
    for gateway in gateways:
        eventually(lambda gateway=gateway: ask(gateway, "/new/1", tokens["new:read"]) == 200, SOON_S)  # type: ignore[misc]
        assert [ask(gateway, "/new/1"), ask(gateway, "/new/1", tokens["other"])] == [401, 403]
        assert ask(gateway, "/new/1/x", tokens["new:read"]) == 404
    shown = run("routes", "--live", "-c", homes["a"] / "edge.yaml").stdout.splitlines()
    assert shown == [
        "billing: GET localhost /billing/** -> billing [public] routes.yaml",
        "orders:/new/{id}: GET localhost /new/{id} -> orders [jwt] declared",
        "orders: GET localhost /orders/** -> orders [public] routes.yaml",
        "orders:/orders/7: not live: owned-by-route: orders",
    ]
    member.leave(gateways[1])
    for gateway in gateways:
        eventually(lambda gateway=gateway: ask(gateway, "/new/1", tokens["new:read"]) == 404, SOON_S)  # type: ignore[misc]


def ask(gateway: Gateway, path: str, token: str = "") -> int:
    """With a token, over a connection of its own; → status."""
    connection = gateway.connect()
    try:
        connection.request("GET", path, headers={"authorization": f"Bearer {token}"} if token else {})
        return connection.getresponse().status
    finally:
        connection.close()


def test_P48_a_valid_certificate_registers_its_own_service_only(
    homes: dict[str, Path], gateways: list[Gateway], member: Member
) -> None:
    told = call(gateways[0], homes["billing"], "PUT", place("orders", member.name), member.wish)
    assert (told.status, told.rule) == (403, "not-yours")
    assert call(gateways[0], homes["orders"], "PUT", place("unknown", member.name), member.wish).rule == "not-yours"
    assert call(gateways[0], homes["billing"], "DELETE", place("orders", member.name)).rule == "not-yours"
    event = refusal(homes, "not-yours", member.name)
    assert event["tls.client.spiffe_id"] == "spiffe://mesh.internal/svc/billing"
    assert member.upstream.connections == 0


@pytest.mark.parametrize(
    "path",
    [
        "/billing/**",
        "/orders-admin/**",
        "/Orders/**",
        "/**",
        "/orders/../billing/**",
        "/orders/%2e%2e/billing",
        "/new%2f**",
    ],
)
def test_P52_E3_a_route_outside_the_grant_refuses_the_whole(
    homes: dict[str, Path], gateways: list[Gateway], member: Member, path: str
) -> None:
    told = member.register(gateways[0], routes=[{"path": path}])
    assert (told.status, told.rule) == (403, "route-outside-grant")
    refusal(homes, "route-outside-grant", member.name)
    assert member.upstream.connections == 0


@pytest.mark.parametrize(
    ("address", "rule"),
    [
        ("169.254.169.254:80", "address-special"),
        ("[::ffff:169.254.169.254]:80", "address-special"),
        ("[64:ff9b::a9fe:a9fe]:80", "address-special"),
        ("[2002:a9fe:a9fe::1]:80", "address-special"),
        ("0.0.0.0:80", "address-special"),
        ("[fe80::1]:80", "address-special"),
        ("127.0.0.2:9101", "address-foreign"),
        ("10.0.0.9:9101", "address-foreign"),
        ("2130706433:80", "address-malformed"),
        ("0177.0.0.1:80", "address-malformed"),
        ("user@127.0.0.1:80", "address-malformed"),
        ("http://127.0.0.1:80", "address-malformed"),
        ("does-not-exist.invalid:80", "address-unresolved"),
    ],
)
def test_E4_P51_only_the_connections_own_address_is_dialled(
    homes: dict[str, Path], gateways: list[Gateway], member: Member, address: str, rule: str
) -> None:
    told = member.register(gateways[0], address=address)
    assert told.rule == rule
    assert told.status == (400 if rule == "address-malformed" else 403)
    refusal(homes, rule, member.name)


def test_a_name_is_resolved_once_and_the_literal_is_kept(gateways: list[Gateway], member: Member) -> None:
    told = member.register(gateways[0], address=f"localhost:{member.upstream.port}")
    assert (told.status, told.facts["address"]) == (201, f"127.0.0.1:{member.upstream.port}")


@pytest.mark.parametrize(
    "body", [b"", b"[]", b'{"address": 5}', b'{"address": ":1", "spiffe_id": "x"}', b'{"address": ":1", "ttl_s": 3600}']
)
def test_a_body_of_another_form_is_refused(gateways: list[Gateway], member: Member, body: bytes) -> None:
    told = call(gateways[0], member.identity, "PUT", place("orders", member.name), body)
    assert (told.status, told.rule) == (400, "body")


def test_the_id_of_an_instance_is_a_label(gateways: list[Gateway], member: Member) -> None:
    assert call(gateways[0], member.identity, "PUT", place("orders", "A_b"), member.wish).rule == "instance-name"


def test_who_answers_there_must_be_the_service_itself(
    homes: dict[str, Path], gateways: list[Gateway], member: Member
) -> None:
    rogue = Member(homes["billing"], "elsewhere", "billing")
    told = member.register(gateways[0], address=f":{rogue.upstream.port}")
    assert (told.status, told.rule) == (403, "identity")
    refusal(homes, "identity", member.name)
    assert rogue.upstream.seen == b""
    rogue.close()
    told = member.register(gateways[0], address=f":{rogue.upstream.port}")
    assert (told.status, told.rule) == (502, "unreachable")
    assert member.register(gateways[0], routes=[{"path": "/new/**"}]).status == 201


def test_who_takes_anybody_without_a_certificate_is_not_admitted(
    homes: dict[str, Path], gateways: list[Gateway], member: Member
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(homes["orders"] / "chain.pem", homes["orders"] / "key.pem")
    lax = Rogue(0, context)
    told = member.register(gateways[0], address=f":{lax.port}")
    assert (told.status, told.rule) == (403, "accepts-anyone")
    refusal(homes, "accepts-anyone", member.name)
    assert lax.received.startswith(b"HEAD / ")  # the probe, and nothing of anybody
    assert lax.received.count(b"HTTP/1.1") == 1
    lax.close()


def test_P49_a_living_lease_is_not_taken_over_from_elsewhere(
    homes: dict[str, Path], gateways: list[Gateway], member: Member
) -> None:
    assert member.register(gateways[0]).status == 201
    other = Member(homes["orders.2"], member.name)
    told = other.register(gateways[0])
    assert (told.status, told.rule) == (409, "instance-taken")
    refusal(homes, "instance-taken", member.name)
    assert other.leave(gateways[0]).rule == "instance-taken"
    # At its own address it may pass to another certificate, after who answers there was proven: that is a renewal.
    told = call(gateways[0], other.identity, "PUT", place("orders", member.name), member.wish)
    assert told.status == 200
    assert member.leave(gateways[0]).rule == "instance-taken"
    assert call(gateways[0], other.identity, "DELETE", place("orders", member.name)).status == 200
    eventually(lambda: bool(events_in_log(homes["a"], "registry.taken-over")), SOON_S)
    other.close()


def test_who_drains_gets_nothing_new_on_either_and_may_come_back(
    homes: dict[str, Path], gateways: list[Gateway], member: Member
) -> None:
    other = Member(homes["orders"], f"{member.name}-b")
    assert [each.register(gateways[0]).status for each in (member, other)] == [201, 201]
    everybody = {f"orders/{each.name}" for each in (member, other)}
    eventually(lambda: all(instances(gateway) >= everybody for gateway in gateways), SOON_S)
    assert member.register(gateways[1], draining=True).status == 200
    eventually(lambda: all(instances(gateway, "draining") for gateway in gateways), SOON_S)
    before = len(member.upstream.requests)
    for gateway in gateways:
        assert {gateway.get("/orders/1")[0] for _ in range(6)} == {200}
    assert len(member.upstream.requests) == before
    assert other.leave(gateways[0]).status == 200
    assert member.register(gateways[0], draining=False).status == 200
    for gateway in gateways:
        eventually(lambda gateway=gateway: gateway.get("/orders/1")[0] == 200, SOON_S)  # type: ignore[misc]
    eventually(lambda: len(member.upstream.requests) > before, SOON_S)
    other.close()


def test_a_lease_ends_by_itself_on_both(homes: dict[str, Path], gateways: list[Gateway], member: Member) -> None:
    assert member.register(gateways[0], ttl_s=1).status == 201
    for gateway in gateways:
        eventually(lambda gateway=gateway: f"orders/{member.name}" not in instances(gateway), SOON_S)  # type: ignore[misc]
    eventually(lambda: bool(events_in_log(homes["a"], "registry.expired")), SOON_S)


def test_a_flood_of_changes_is_refused_and_others_are_not(
    homes: dict[str, Path], gateways: list[Gateway], member: Member
) -> None:
    a = gateways[0]
    body = b'{"address": ":1"}'
    head = b"PUT %b HTTP/1.1\r\nhost: edge.internal\r\ncontent-length: %d\r\n\r\n"
    each = [head % (place("billing", f"x{at}").encode(), len(body)) + body for at in range(1000)]
    answers = b""
    with knock(a, homes["billing"]) as connection:
        for request in each:  # faster than the bucket fills again, on any machine that finishes this suite
            connection.sendall(request)
            while answers.count(b'"detail"') < each.index(request) - 8:
                answers += connection.recv(65536)
            if b"HTTP/1.1 429" in answers:
                break
    assert b"HTTP/1.1 429" in answers
    assert b"\r\nretry-after: 1\r\n" in answers.lower()
    assert b'"rule": "too-many"' in answers
    assert member.register(a).status == 201


# -- whoever can write to the store -------------------------------------------------------------------


@pytest.fixture
def known(gateways: list[Gateway], member: Member) -> Member:
    """A member that both gateways list."""
    assert member.register(gateways[0]).status == 201
    for gateway in gateways:
        eventually(lambda gateway=gateway: f"orders/{member.name}" in instances(gateway), SOON_S)  # type: ignore[misc]
    return member


def test_store_what_no_gateway_signed_is_not_believed(
    homes: dict[str, Path], gateways: list[Gateway], store: Valkey, known: Member, tmp_path: Path
) -> None:
    """Form, chain, role, signature and place: each forged once, all at the same time."""
    raw = written(store, known)
    sealed = read(raw)
    assert sealed is not None
    stranger.Authority(stranger.named("edge")).issue(
        tmp_path / "stranger", x509.UniformResourceIdentifier("spiffe://mesh.internal/gw/edge")
    )
    altered = (sealed.payload.replace(b'"weight":1', b'"weight":9'), sealed.signature, sealed.leaf)
    sequence = sealed.unverified.sequence + 1
    forged = {
        "orders/garbage": (b"garbage", "form"),
        "orders/of-nobody": (resealed(raw, tmp_path / "stranger", instance="of-nobody", sequence=sequence), "signer"),
        # A service of the mesh is no gateway, whatever it says it is.
        "orders/of-billing": (resealed(raw, homes["billing"], instance="of-billing", sequence=sequence), "signer"),
        f"orders/{known.name}": (msgspec.msgpack.encode(altered), "signature"),
        "billing/moved": (raw, "moved"),
    }
    before = [instances(gateway) for gateway in gateways]
    for field, (bytes_of_it, _) in forged.items():
        write(store, field, bytes_of_it)
    for _, rule in forged.values():
        eventually(lambda rule=rule: forgeries(homes, rule) > 0, SOON_S)  # type: ignore[misc]
    eventually(lambda: {b"orders/garbage", b"billing/moved"}.isdisjoint(store.hkeys(ENTRIES)), SOON_S)  # type: ignore[arg-type]
    eventually(lambda: written(store, known) == raw, SOON_S)  # put back
    assert [instances(gateway) for gateway in gateways] == before


def test_store_what_left_is_not_brought_back_and_what_is_deleted_is(
    homes: dict[str, Path], gateways: list[Gateway], store: Valkey, known: Member
) -> None:
    raw = written(store, known)
    store.delete(ENTRIES, CHANGES)
    eventually(lambda: written(store, known) == raw, SOON_S)
    assert all(f"orders/{known.name}" in instances(gateway) for gateway in gateways)
    assert forgeries(homes, "missing") > 0
    known.leave(gateways[0])
    for gateway in gateways:
        eventually(lambda gateway=gateway: f"orders/{known.name}" not in instances(gateway), SOON_S)  # type: ignore[misc]
    write(store, f"orders/{known.name}", raw)
    eventually(lambda: forgeries(homes, "replayed") > 0 and written(store, known) != raw, SOON_S)
    assert not any(f"orders/{known.name}" in instances(gateway) for gateway in gateways)


def test_nobody_notices_who_comes_and_goes(mesh: Mesh) -> None:
    """`scripts/campaign churn` holds it against the second that is promised."""
    outcome = churn.churn(mesh, 0, 7, least=3, callers=1)
    assert outcome.failed == []
    assert (outcome.came_and_went >= 3, outcome.requests > 0) == (True, True)


def test_P50_whoever_is_revoked_is_gone_and_stays_gone(
    homes: dict[str, Path], gateways: list[Gateway], store: Valkey
) -> None:
    member = Member(homes["orders.2"], "revoked")
    assert member.register(gateways[0]).status == 201
    raw = written(store, member)
    for gateway in gateways:
        eventually(lambda gateway=gateway: "orders/revoked" in instances(gateway), SOON_S)  # type: ignore[misc]
    leaf = x509.load_pem_x509_certificate((homes["orders.2"] / "chain.pem").read_bytes())
    told = run("ca", "revoke", "orders", "--serial", f"{leaf.serial_number:x}", "-c", homes["a"] / "edge.yaml")
    assert told.returncode == 0, told.stderr
    # The second gateway has no authority: what is revoked is copied to it, as its operator would.
    shutil.copytree(homes["a"] / "state" / "status", homes["b"] / "state" / "status", dirs_exist_ok=True)
    for gateway in gateways:
        eventually(lambda gateway=gateway: "orders/revoked" not in instances(gateway), SOON_S)  # type: ignore[misc]
    write(store, "orders/revoked", raw)
    with pytest.raises(OSError):
        member.register(gateways[0])
    assert "orders/revoked" not in instances(gateways[0])
    member.close()
