from __future__ import annotations

import json

import cedarpy
import pytest

from edge.authz import facts, schema
from edge.model.identity import ANONYMOUS, Principal
from tests.edge.authz.house import ISSUED_NS, NOW_NS, SERVICES, matched, peer, request, user

NAMES = {spiffe_id: name for name, spiffe_id in SERVICES.items()}
ALL = frozenset(
    ("conn", "conn.mtls", "conn.peer", "conn.ip", "token", "token.age", "token.acr", "path", "params", "now")
)
ORDERS_ID = SERVICES["orders"]
OPERATOR_ID = "spiffe://mesh.internal/op/alice"


def mtls(spiffe_id: str) -> Principal:
    return Principal(method="mtls", issuer="", subject=spiffe_id)


def context(*mentions: str, principal: Principal | None = None, **peer_facts: str) -> object:
    caller = principal or user()
    return facts.context(frozenset(mentions), request(), caller, peer(**peer_facts), NOW_NS)


def uid_of(principal: Principal) -> facts.Uid | None:
    entity = facts.principal_entity(principal, principal.scopes, NAMES)
    return entity["uid"] if entity else None


@pytest.mark.parametrize(
    ("principal", "entity_type", "name"),
    [
        (user(), "Edge::User", "https://idp.example.com/#alice"),
        (ANONYMOUS, "Edge::Anonymous", "anonymous"),
        (mtls(ORDERS_ID), "Edge::Service", "orders"),
        (mtls(OPERATOR_ID), "Edge::Operator", OPERATOR_ID),
    ],
)
def test_each_principal_is_an_entity_of_its_type(principal: Principal, entity_type: str, name: str) -> None:
    assert uid_of(principal) == {"type": entity_type, "id": name}


@pytest.mark.parametrize(
    "spiffe_id",
    [
        "spiffe://mesh.internal/svc/rogue",
        "spiffe://mesh.internal/gw/a/b",
        "spiffe://mesh.internal/op/a/b",
        "spiffe://other.internal/svc/orders",
        ORDERS_ID + "/",
        "",
        "alice",
    ],
)
def test_a_certificate_of_nobody_we_know_is_no_principal(spiffe_id: str) -> None:
    assert uid_of(mtls(spiffe_id)) is None


def test_an_issuer_with_a_fragment_is_refused_because_two_principals_could_share_a_uid() -> None:
    ambiguous = Principal(method="jwt", issuer="https://a#b", subject="c")
    assert ambiguous.uid == Principal(method="jwt", issuer="https://a", subject="b#c").uid
    with pytest.raises(ValueError, match="fragment"):
        facts.principal_entity(ambiguous, frozenset(), NAMES)


def test_a_user_without_tenant_has_no_such_attribute() -> None:
    without = facts.principal_entity(user(), frozenset(), NAMES)
    with_tenant = facts.principal_entity(user(tenant="acme"), frozenset(), NAMES)
    assert without is not None
    assert "tenant" not in without["attrs"]
    assert with_tenant is not None
    assert with_tenant["attrs"]["tenant"] == "acme"


def test_only_users_have_scopes() -> None:
    assert [facts.is_user(each) for each in (user(), ANONYMOUS, mtls(ORDERS_ID))] == [True, False, False]


@pytest.mark.parametrize(
    ("mentions", "expected"),
    [
        ((), {}),
        (("conn",), {"conn": {}}),
        (("conn", "conn.mtls"), {"conn": {"mtls": False}}),
        (("conn", "conn.peer"), {"conn": {}}),
        (("token",), {"token": {}}),
        (("token", "token.age"), {"token": {"age": 60}}),
        (("token", "token.acr"), {"token": {}}),
        (("path",), {"path": "/orders/7"}),
        (("now",), {"now": {"__extn": {"fn": "datetime", "arg": "2023-11-14T22:14:20Z"}}}),
    ],
)
def test_the_context_holds_what_is_mentioned_and_true(mentions: tuple[str, ...], expected: object) -> None:
    assert context(*mentions) == expected


def test_a_proven_peer_is_mtls() -> None:
    found = context("conn", "conn.mtls", "conn.peer", spiffe_id=ORDERS_ID)
    assert found == {"conn": {"mtls": True, "peer": ORDERS_ID}}


def test_a_principal_without_a_token_has_no_token_in_the_context() -> None:
    assert context("token", "token.age", principal=ANONYMOUS) == {}


def test_the_age_of_a_token_from_a_clock_ahead_of_ours_is_zero() -> None:
    found = facts.context(frozenset(("token", "token.age")), request(), user(), peer(), ISSUED_NS - 5 * 10**9)
    assert found == {"token": {"age": 0}}


def test_everything_we_say_conforms_to_the_schema() -> None:
    caller = user("orders:read", tenant="acme", acr="2")
    principal = facts.principal_entity(caller, caller.scopes, NAMES)
    assert principal is not None
    said = [
        principal,
        facts.route_entity(matched()),
        facts.params_entity({"id": "7"}),
        *facts.shared_entities(SERVICES),
    ]
    entities = cedarpy.Entities.from_json_str(json.dumps(said), schema.handle())
    query = {
        "principal": principal["uid"],
        "action": facts.action_uid("GET"),
        "resource": facts.route_entity(matched())["uid"],
        "context": facts.context(ALL, request(), caller, peer(spiffe_id=ORDERS_ID), NOW_NS),
    }
    allow = cedarpy.PolicySet.from_str("permit (principal, action, resource);")
    assert cedarpy.is_authorized(query, allow, entities, schema.handle()).allowed


def varying(*mentions: str, **peer_facts: str) -> tuple[object, ...]:
    return tuple(facts.varying(frozenset(mentions), request(), matched(), user(), peer(**peer_facts), NOW_NS))


@pytest.mark.parametrize("mentions", [(), ("conn",), ("token",), ("token", "token.acr")])
def test_what_a_principal_brings_along_does_not_vary(mentions: tuple[str, ...]) -> None:
    assert varying(*mentions) == ()


def test_what_varies_is_told_in_a_fixed_order() -> None:
    assert varying(*ALL, ip="192.0.2.9", spiffe_id=ORDERS_ID) == (
        ORDERS_ID,
        "192.0.2.9",
        60,
        "/orders/7",
        (("id", "7"),),
        NOW_NS // 10**9,
    )
