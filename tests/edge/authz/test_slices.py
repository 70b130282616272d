from __future__ import annotations

import pytest

from edge.authz.schema import GROUP_OF
from edge.authz.slices import EVERYWHERE, WHOLE, Policy
from tests.edge.authz.house import bundle, permit_when

READ = frozenset(("GET", "HEAD"))
WRITE = frozenset(("POST", "PUT", "PATCH", "DELETE"))
EVERY_MENTION = {
    "conn", "conn.mtls", "conn.peer", "conn.ip", "token", "token.age", "token.acr", "path", "params", "now",
}  # fmt: skip


def only(text: str) -> Policy:
    (policy,) = bundle(text).policies
    return policy


def chosen(texts: str, route: str, method: str) -> set[str]:
    return {policy.id for policy in bundle(texts).slices[route, method].policies}


@pytest.mark.parametrize(
    ("condition", "mentions"),
    [
        ("true", set()),
        ('principal has tenant && ["a"].contains("b")', set()),
        ("context.conn.mtls", {"conn", "conn.mtls"}),
        ('context.conn has peer && context.conn.peer == "x"', {"conn", "conn.peer"}),
        ('context has conn.peer && context.conn.peer like "*"', {"conn", "conn.peer"}),
        ("context.conn.ip.isLoopback()", {"conn", "conn.ip"}),
        ("context has token", {"token"}),
        ("context has token && context.token.age < 5", {"token", "token.age"}),
        ("context has token.acr", {"token", "token.acr"}),
        ('context["path"] == "/"', {"path"}),
        ('{a: context.path}.a == "/"', {"path"}),
        ('[context.path].contains("/")', {"path"}),
        ('if context.conn.mtls then context.path == "/" else false', {"conn", "conn.mtls", "path"}),
        ('context.params.hasTag("id")', {"params"}),
        ('context has params && context.now < datetime("2030-01-01")', {"params", "now"}),
        ("context.conn == context.conn", {"conn", "conn.mtls", "conn.peer", "conn.ip"}),
        ("context has token && [context.token].contains(context.token)", {"token", "token.age", "token.acr"}),
        ("context == context", EVERY_MENTION),
        ("(if context.conn.mtls then context else context) == context", EVERY_MENTION),
    ],
)
def test_every_way_to_look_at_the_context_is_noticed(condition: str, mentions: set[str]) -> None:
    assert only(permit_when(condition)).mentions == mentions


def test_unless_is_read_like_when() -> None:
    assert only('@id("p") permit (principal, action, resource) unless { context.path == "/" };').mentions == {"path"}


@pytest.mark.parametrize(
    ("action", "methods"),
    [
        ("action", frozenset(GROUP_OF)),
        ('action in Edge::Action::"read"', READ),
        ('action in [Edge::Action::"write", Edge::Action::"GET"]', WRITE | {"GET"}),
        ('action == Edge::Action::"OPTIONS"', {"OPTIONS"}),
    ],
)
def test_the_methods_come_from_the_head(action: str, methods: frozenset[str]) -> None:
    assert only(f'@id("p") permit (principal, {action}, resource);').methods == methods


@pytest.mark.parametrize(
    ("resource", "reach"),
    [
        ("resource", EVERYWHERE),
        ("resource is Edge::Route", EVERYWHERE),
        ('resource in Edge::Service::"orders"', ("Service", "orders")),
        ('resource is Edge::Route in Edge::Service::"orders"', ("Service", "orders")),
        ('resource == Edge::Route::"refunds"', ("Route", "refunds")),
        ('resource in Edge::Route::"refunds"', ("Route", "refunds")),
    ],
)
def test_the_reach_comes_from_the_head(resource: str, reach: tuple[str, str]) -> None:
    assert only(f'@id("p") permit (principal, action, {resource});').reach == reach


def test_a_name_in_a_condition_does_not_narrow_the_reach() -> None:
    assert only(permit_when('resource == Edge::Route::"refunds"')).reach == EVERYWHERE


def test_asked_scopes_are_read_from_the_conditions() -> None:
    condition = (
        'principal is Edge::User && (principal.scopes.contains("a") || principal.scopes.containsAll(["b", "c"]))'
    )
    assert only(permit_when(condition + ' && context.path == "d"')).asked_scopes == {"a", "b", "c"}


def test_a_slice_holds_what_can_apply_and_nothing_else() -> None:
    texts = (
        '@id("all") forbid (principal, action, resource) when { context.conn.mtls };'
        '@id("service") permit (principal, action in Edge::Action::"read", resource in Edge::Service::"orders");'
        '@id("route") permit (principal, action == Edge::Action::"GET", resource == Edge::Route::"refunds");'
        '@id("other") permit (principal, action, resource in Edge::Service::"users");'
    )
    assert chosen(texts, "orders", "GET") == {"all", "service"}
    assert chosen(texts, "refunds", "GET") == {"all", "service", "route"}
    assert chosen(texts, "refunds", "HEAD") == {"all", "service"}
    assert chosen(texts, "orders", "POST") == {"all"}
    assert chosen(texts, "users", "DELETE") == {"all", "other"}


def test_equal_slices_are_one_object() -> None:
    built = bundle(permit_when("true"))
    assert len({id(each) for each in built.slices.values()}) == 1


def test_the_native_set_knows_policies_by_their_own_ids() -> None:
    handle = bundle(permit_when("true", "mine")).slices["orders", "GET"].handle
    assert list(handle.to_pst().static_policies) == ["mine"]


@pytest.mark.parametrize(
    ("condition", "settled"),
    [
        ("context has token", True),
        ('context has token.acr && context.token.acr == "2"', True),
        ("context.conn.mtls", False),
        ("context has token && context.token.age < 3", False),
        ('context.path == "/"', False),
        ("context.now == context.now", False),
        ('context.params.hasTag("id")', False),
        ("context.conn.ip.isLoopback()", False),
    ],
)
def test_a_slice_is_settled_when_nothing_it_mentions_can_change(condition: str, settled: bool) -> None:
    assert bundle(permit_when(condition)).slices["orders", "GET"].is_settled == settled


@pytest.mark.parametrize(
    ("condition", "tells_by"),
    [
        ("true", set()),
        ("principal is Edge::User", set()),
        ('principal is Edge::User && principal.scopes.contains("a")', {"scopes"}),
        ('principal is Edge::User && principal["scopes"].contains("a")', {"scopes"}),
        ('principal is Edge::User && principal has tenant && principal.tenant like "a*"', {"tenant"}),
        ("principal is Edge::User && {s: principal.subject}.s == principal.issuer", {"subject", "issuer"}),
        ('principal is Edge::User && [principal.subject, "a"].contains("a")', {"subject"}),
        ("principal == principal", {WHOLE}),
        ("[principal].contains(principal)", {WHOLE}),
        ("(if true then principal else principal) == principal", {WHOLE}),
        ('principal in Edge::User::"a#b"', {WHOLE}),
        ('principal is Edge::User in Edge::User::"a#b"', {WHOLE}),
        ("context has token", {WHOLE}),
        ('context has token.acr && context.token.acr == "2"', {WHOLE}),
        ("context == context", {WHOLE}),
    ],
)
def test_what_is_looked_at_of_the_principal_is_noticed(condition: str, tells_by: set[str]) -> None:
    assert bundle(permit_when(condition)).slices["orders", "GET"].tells_by == tells_by


@pytest.mark.parametrize(
    ("head", "tells_by"),
    [
        ("principal", set()),
        ("principal is Edge::User", set()),
        ('principal == Edge::User::"a#b"', {WHOLE}),
        ('principal in Edge::User::"a#b"', {WHOLE}),
        ('principal is Edge::User in Edge::User::"a#b"', {WHOLE}),
    ],
)
def test_a_head_that_names_principals_tells_them_apart(head: str, tells_by: set[str]) -> None:
    assert bundle(f'@id("p") permit ({head}, action, resource);').slices["orders", "GET"].tells_by == tells_by
