"""What is decided, and remembered, is what a naive reading of the policies says."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import given, settings
from hypothesis import strategies as st

from edge.authz.schema import GROUP_OF
from edge.model.http import Request
from edge.model.identity import ANONYMOUS, Peer, Principal
from edge.model.route import Route
from tests.edge.authz.house import (
    NOW_NS,
    ROUTES,
    SERVICES,
    authorizer,
    deciding,
    matched,
    peer,
    request,
    user,
)

_CONDITIONS: list[tuple[str, Callable[[Principal, str, Route, Request, Peer], bool]]] = [
    ("true", lambda *_: True),
    ('context.path like "/orders/*"', lambda who, how, where, what, of: what.path.startswith("/orders/")),
    ("context.conn.mtls", lambda who, how, where, what, of: of.spiffe_id is not None),
    (
        'principal is Edge::User && principal.scopes.contains("read")',
        lambda who, how, where, what, of: "read" in who.scopes,
    ),
    ("principal is Edge::User && principal has tenant", lambda who, *_: who.tenant is not None),
    ("principal is Edge::Anonymous", lambda who, *_: who.is_anonymous),
    ('principal is Edge::User && principal.subject == "alice"', lambda who, *_: who.subject == "alice"),
    ('principal == Edge::User::"https://idp.example.com/#bob"', lambda who, *_: who.subject == "bob"),
    ('resource == Edge::Route::"refunds"', lambda who, how, where, what, of: where.name == "refunds"),
]
_ACTIONS = [
    ("action", set(GROUP_OF)),
    ('action in Edge::Action::"read"', {"GET", "HEAD"}),
    ('action == Edge::Action::"POST"', {"POST"}),
]
_RESOURCES = [
    ("resource", {"orders", "refunds", "users"}),
    ('resource in Edge::Service::"orders"', {"orders", "refunds"}),
    ('resource == Edge::Route::"users"', {"users"}),
]
_POLICIES = st.tuples(
    st.sampled_from(["permit", "permit", "forbid"]),
    st.sampled_from(_ACTIONS),
    st.sampled_from(_RESOURCES),
    st.sampled_from(_CONDITIONS),
)
_CALLERS = (
    user("read"),
    user("read", subject="bob"),
    user(tenant="acme"),
    user("read", "write", subject="bob"),
    ANONYMOUS,
)
_QUESTIONS = st.tuples(
    st.sampled_from(_CALLERS),
    st.sampled_from(["GET", "POST", "OPTIONS", "TRACE"]),
    st.sampled_from(ROUTES),
    st.sampled_from(["/orders/7", "/users/7"]),
    st.sampled_from([peer(), peer(spiffe_id=SERVICES["users"])]),
)


@settings(max_examples=50, deadline=None)
@given(st.lists(_POLICIES, max_size=5), st.lists(_QUESTIONS, min_size=1, max_size=12))
def test_decisions_agree_with_a_naive_reading_of_the_policies(policies: list[tuple], questions: list[tuple]) -> None:  # type: ignore[type-arg]
    text = "".join(
        f'@id("p{number}") {effect} (principal, {action[0]}, {resource[0]}) when {{ {condition[0]} }};'
        for number, (effect, action, resource, condition) in enumerate(policies)
    )
    step = authorizer(text)
    for who, how, where, path, of in questions:
        what = request(how, path)
        hits: dict[str, list[str]] = {"permit": [], "forbid": []}
        for number, (effect, (_, methods), (_, names), (_, holds)) in enumerate(policies):
            if how in methods and where.name in names and holds(who, how, where, what, of):
                hits[effect].append(f"p{number}")
        if hits["forbid"]:
            expected = ("forbidden-by-policy", tuple(hits["forbid"]))
        elif hits["permit"]:
            expected = ("permit", tuple(hits["permit"]))
        else:
            expected = ("no-policy-matched", ())
        assert deciding(step.authorize(what, matched(where), who, of, NOW_NS)) == expected
