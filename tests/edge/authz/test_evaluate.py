from __future__ import annotations

from dataclasses import replace

import cedarpy
import pytest

from edge.authz import evaluate
from edge.authz.evaluate import Authorizer
from edge.model.decision import Denial, Permit
from edge.model.identity import ANONYMOUS, Peer, Principal
from edge.model.route import Route, RouteMatch
from tests.edge.authz.house import (
    NOW_NS,
    ORDERS,
    PERMIT_ALL,
    REFUNDS,
    SERVICES,
    USERS,
    authorizer,
    deciding,
    forbid_when,
    matched,
    peer,
    permit_when,
    request,
    user,
)

SHIPPED = (
    '@id("orders-read") permit (principal is Edge::User, action in Edge::Action::"read", '
    'resource in Edge::Service::"orders") when { principal.scopes.contains("read") };'
    '@id("orders-write") permit (principal is Edge::User, action in Edge::Action::"write", '
    'resource in Edge::Service::"orders") when { principal.scopes.contains("write") };'
)
OVERFLOW = "context has token && context.token.age + 9223372036854775807 > 0"
NOTHING = Denial("no-policy-matched")


class Counting:
    """Counts what is asked of Cedar, and asks it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.evaluations = 0
        self._real = cedarpy.is_authorized
        monkeypatch.setattr(cedarpy, "is_authorized", self)

    def __call__(
        self, query: dict[str, object], policies: cedarpy.PolicySet, entities: cedarpy.Entities
    ) -> cedarpy.AuthzResult:
        self.evaluations += 1
        return self._real(query, policies, entities)


def ask(
    step: Authorizer,
    principal: Principal,
    *,
    method: str = "GET",
    path: str = "/orders/7",
    match: RouteMatch | None = None,
    of: Peer | None = None,
    now_ns: int = NOW_NS,
) -> Permit | Denial:
    return step.authorize(request(method, path), match or matched(), principal, of or peer(), now_ns)


def test_a_permit_holds_who_and_where_and_why() -> None:
    alice, match = user("read"), matched()
    permit = ask(authorizer(SHIPPED), alice, match=match)
    assert isinstance(permit, Permit)
    assert (permit.principal, permit.match, permit.policies) == (alice, match, ("orders-read",))


def test_without_policies_everything_is_denied() -> None:
    assert ask(authorizer(), user("read")) == NOTHING


@pytest.mark.parametrize(
    ("principal", "method", "route"),
    [
        (ANONYMOUS, "GET", ORDERS),
        (user("read"), "GET", USERS),
        (user("read", "write"), "OPTIONS", ORDERS),
        (user("read", "write"), "PURGE", ORDERS),
        (user("read", "write"), "get", ORDERS),
        (user("read", "write"), "", ORDERS),
    ],
)
def test_what_no_policy_permits_is_denied(principal: Principal, method: str, route: Route) -> None:
    assert ask(authorizer(SHIPPED), principal, method=method, match=matched(route)) == NOTHING


def test_a_method_outside_the_schema_is_denied_even_if_everything_is_permitted() -> None:
    assert ask(authorizer(PERMIT_ALL), user(), method="TRACE") == NOTHING


def test_a_route_that_the_policies_were_not_compiled_for_is_denied() -> None:
    stranger = replace(ORDERS, name="stranger")
    assert ask(authorizer(PERMIT_ALL), user(), match=matched(stranger)) == NOTHING


def test_a_certificate_of_nobody_we_know_is_denied_even_if_everything_is_permitted() -> None:
    rogue = Principal(method="mtls", issuer="", subject="spiffe://mesh.internal/svc/rogue")
    assert ask(authorizer(PERMIT_ALL), rogue) == NOTHING


def test_a_service_is_known_by_its_certificate() -> None:
    step = authorizer('@id("p") permit (principal == Edge::Service::"users", action, resource);')
    known = Principal(method="mtls", issuer="", subject=SERVICES["users"])
    other = Principal(method="mtls", issuer="", subject=SERVICES["orders"])
    assert [deciding(ask(step, each))[0] for each in (known, other)] == ["permit", "no-policy-matched"]


@pytest.mark.parametrize("service", ["orders", "users"])
def test_a_service_named_in_a_condition_can_be_asked_for_its_identity(service: str) -> None:
    condition = f'context.conn has peer && context.conn.peer == Edge::Service::"{service}".spiffe_id'
    step = authorizer(permit_when(condition))
    answers = [deciding(ask(step, user(), of=peer(spiffe_id=SERVICES[name])))[0] for name in ("orders", "users")]
    assert answers == ["permit" if name == service else "no-policy-matched" for name in ("orders", "users")]


def test_a_forbid_wins_over_every_permit() -> None:
    step = authorizer(PERMIT_ALL, permit_when("true", "q"), forbid_when("context.conn.mtls == false"))
    assert deciding(ask(step, user())) == ("forbidden-by-policy", ("f",))


def test_trap_a_policy_that_errors_denies_though_cedar_would_skip_it_and_allow() -> None:
    step = authorizer(PERMIT_ALL, forbid_when(OVERFLOW))
    assert ask(step, user()) == Denial("policy-error", ("f",))


def test_trap_a_permit_that_errors_denies_though_another_permits() -> None:
    step = authorizer(PERMIT_ALL, permit_when(OVERFLOW, "q"))
    assert ask(step, user()) == Denial("policy-error", ("q",))


def test_an_error_outweighs_a_forbid_in_the_record() -> None:
    step = authorizer(forbid_when("true"), permit_when(OVERFLOW, "q"))
    assert ask(step, user()) == Denial("policy-error", ("q",))


@pytest.mark.parametrize("ip", ["::ffff:192.0.2.1", "fe80::1%eth0", "", "localhost"])
def test_trap_no_decision_is_a_denial(ip: str) -> None:
    step = authorizer(PERMIT_ALL, forbid_when("context.conn.ip.isLoopback()"))
    assert ask(step, user(), of=peer(ip)) == Denial("policy-error")


def test_trap_a_number_that_cedar_does_not_take_is_a_denial() -> None:
    step = authorizer(permit_when("context has token && context.token.age >= 0"))
    assert ask(step, user(), now_ns=2**63 * 10**9 + NOW_NS * 2) == Denial("policy-error")


def test_a_time_outside_the_calendar_is_a_denial() -> None:
    step = authorizer(permit_when('context.now > datetime("2020-01-01")'))
    assert ask(step, user(), now_ns=10**30) == Denial("policy-error")


@pytest.mark.parametrize("subject", ["\ud800", 'a" || true', "a\nb", "a\\", "\x00", "'; permit (principal)", "é"])
def test_a_strange_subject_is_a_strange_name_or_a_denial(subject: str) -> None:
    text = '@id("p") permit (principal == Edge::User::"https://idp.example.com/#alice", action, resource);'
    expected = Denial("policy-error") if subject == "\ud800" else NOTHING
    assert ask(authorizer(text), user(subject=subject)) == expected


def test_an_ambiguous_issuer_is_a_denial() -> None:
    assert ask(authorizer(PERMIT_ALL), Principal(method="jwt", issuer="https://a#b", subject="c")) == Denial(
        "policy-error"
    )


class PanicException(BaseException):
    """What a Rust panic looks like: the real class cannot be imported."""


@pytest.mark.parametrize(
    "failure", [ValueError("x"), TypeError("x"), KeyError("x"), MemoryError(), PanicException("x")]
)
def test_whatever_cedar_raises_is_a_denial(failure: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: object) -> object:
        raise failure

    monkeypatch.setattr(cedarpy, "is_authorized", failing)
    assert ask(authorizer(PERMIT_ALL), user()) == Denial("policy-error")


def test_an_exception_is_not_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: object) -> object:
        raise MemoryError

    step, alice = authorizer(PERMIT_ALL), user()
    with monkeypatch.context() as patched:
        patched.setattr(cedarpy, "is_authorized", failing)
        assert ask(step, alice) == Denial("policy-error")
    assert isinstance(ask(step, alice), Permit)


def test_an_interrupt_is_not_a_decision(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> object:
        raise KeyboardInterrupt

    monkeypatch.setattr(cedarpy, "is_authorized", interrupted)
    with pytest.raises(KeyboardInterrupt):
        ask(authorizer(PERMIT_ALL), user())


@pytest.mark.parametrize(
    ("policies", "missing"),
    [
        (permit_when('principal is Edge::User && principal.scopes.contains("a")'), ("a",)),
        (permit_when('principal is Edge::User && principal.scopes.containsAll(["b", "a"])'), ("a", "b")),
        (permit_when('principal is Edge::User && principal.scopes.containsAny(["b", "a"])'), ("b",)),
        (permit_when('principal is Edge::User && principal.scopes.containsAll(["held", "a"])'), ("a",)),
        (permit_when('principal is Edge::User && principal.scopes.contains("a") && context.conn.mtls'), ()),
        (permit_when('principal is Edge::User && principal.scopes.contains("a") && principal.roles.contains("r")'), ()),
        (permit_when('context.path == "/elsewhere"'), ()),
        (
            permit_when('principal is Edge::User && principal.scopes.contains("a")')
            + '@id("f") forbid (principal is Edge::User, action, resource) unless { principal.scopes.contains("b") };',
            ("a", "b"),
        ),
        (
            permit_when('principal is Edge::User && principal.scopes.contains("a")')
            + forbid_when('principal is Edge::User && principal.scopes.contains("held")'),
            (),
        ),
    ],
)
def test_the_missing_scopes_are_those_that_would_have_turned_the_decision(
    policies: str, missing: tuple[str, ...]
) -> None:
    denial = ask(authorizer(policies), user("held"))
    assert isinstance(denial, Denial)
    assert denial.missing_scopes == missing


def test_for_the_anonymous_no_scope_is_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    step, counting = authorizer(SHIPPED), Counting(monkeypatch)
    assert ask(step, ANONYMOUS) == NOTHING
    assert counting.evaluations == 1


def test_naming_missing_scopes_has_a_price_cap(monkeypatch: pytest.MonkeyPatch) -> None:
    every = "".join(
        permit_when(f'principal is Edge::User && principal.scopes.contains("s{n}") && context.conn.mtls', f"p{n}")
        for n in range(40)
    )
    step, counting = authorizer(every), Counting(monkeypatch)
    assert ask(step, user()) == NOTHING
    assert counting.evaluations == 1 + evaluate.TRIES_MAX


@pytest.mark.parametrize(("method", "scope"), [("GET", "read"), ("POST", "write")])
def test_scope_policies_are_settled_by_principal_route_and_method(
    method: str, scope: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    step, alice, counting = authorizer(SHIPPED), user(scope), Counting(monkeypatch)
    for number in range(5):
        answer = ask(step, alice, method=method, path=f"/orders/{number}", of=peer(f"192.0.2.{number}"), now_ns=number)
        assert isinstance(answer, Permit)
    assert counting.evaluations == 1


def test_each_principal_route_and_method_is_decided_by_itself() -> None:
    step = authorizer(SHIPPED)
    questions = [(user("read"), "GET", ORDERS), (user(), "GET", ORDERS), (user("read"), "POST", ORDERS)]
    questions += [(questions[0][0], "GET", REFUNDS), (questions[0][0], "GET", USERS)]
    answers = [
        isinstance(ask(step, who, method=how, match=matched(where)), Permit) for who, how, where in questions * 2
    ]
    assert answers == [True, False, False, True, False] * 2


@pytest.mark.parametrize(
    ("condition", "yes", "no"),
    [
        ('context.path like "/orders/7*"', {"path": "/orders/7"}, {"path": "/orders/8"}),
        ("context.conn.mtls", {"of": peer(spiffe_id=SERVICES["users"])}, {"of": peer()}),
        ('context.conn.ip.isInRange(ip("10.0.0.0/8"))', {"of": peer("10.1.2.3")}, {"of": peer("11.1.2.3")}),
        ("context has token && context.token.age <= 60", {"now_ns": NOW_NS}, {"now_ns": NOW_NS + 10**9}),
        ('context.now < datetime("2023-11-14T22:14:21Z")', {"now_ns": NOW_NS}, {"now_ns": NOW_NS + 10**9}),
        (
            'context.params.hasTag("id") && context.params.getTag("id") == "7"',
            {"match": matched(id="7")},
            {"match": matched(id="8")},
        ),
    ],
)
def test_what_a_policy_looks_at_is_never_remembered_across(
    condition: str, yes: dict[str, object], no: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    step, alice, counting = authorizer(permit_when(condition)), user(), Counting(monkeypatch)
    asked = [isinstance(ask(step, alice, **facts), Permit) for facts in (yes, no, yes, no)]  # type: ignore[arg-type]
    assert asked == [True, False, True, False]
    assert counting.evaluations == 2


def test_a_long_path_is_decided_but_not_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    step, alice, counting = authorizer(permit_when('context.path like "/*"')), user(), Counting(monkeypatch)
    for _ in range(2):
        assert isinstance(ask(step, alice, path="/" + "a" * evaluate.PATH_MAX), Permit)
    assert counting.evaluations == 2


def test_the_memory_is_bounded_and_keeps_what_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluate, "SETTLED_MAX", 8)
    step, regular, counting = authorizer(permit_when("principal == principal")), user(), Counting(monkeypatch)
    for _ in range(30):
        ask(step, user())
        ask(step, regular)
    assert counting.evaluations == 31


def test_users_that_the_policies_cannot_tell_apart_cost_one_evaluation(monkeypatch: pytest.MonkeyPatch) -> None:
    step, counting = authorizer(SHIPPED), Counting(monkeypatch)
    answers = [ask(step, user("read", subject=f"user-{number}", tenant=str(number))) for number in range(20)]
    assert counting.evaluations == 1
    assert [answer.principal.subject for answer in answers if isinstance(answer, Permit)] == [
        f"user-{number}" for number in range(20)
    ]


@pytest.mark.parametrize(
    ("condition", "yes", "no"),
    [
        ('principal is Edge::User && principal.subject == "alice"', user(), user(subject="bob")),
        ('principal is Edge::User && principal.scopes.contains("read")', user("read"), user("other")),
        ("principal is Edge::User && principal has tenant", user(tenant="acme"), user()),
        (
            'principal is Edge::User && principal has tenant && principal.tenant == "a"',
            user(tenant="a"),
            user(tenant="b"),
        ),
        (
            'principal is Edge::User && principal.roles.contains("admin")',
            replace(user(), roles=frozenset(["admin"])),
            user(),
        ),
        (
            'principal is Edge::User && principal.issuer == "https://other.example/"',
            replace(user(), issuer="https://other.example/"),
            user(),
        ),
        ('principal == Edge::User::"https://idp.example.com/#alice"', user(), user(subject="bob")),
        ('principal in Edge::User::"https://idp.example.com/#alice"', user(), user(subject="bob")),
        (
            'principal is Edge::User && [principal].contains(Edge::User::"https://idp.example.com/#alice")',
            user(),
            user(subject="bob"),
        ),
        ('context has token.acr && context.token.acr == "2"', user(acr="2"), user(acr="1")),
        ("context has token", user(), replace(user(), issued_ns=0)),
        ("principal is Edge::Anonymous", ANONYMOUS, user()),
    ],
)
def test_what_a_policy_looks_at_of_the_principal_is_never_shared(condition: str, yes: Principal, no: Principal) -> None:
    step = authorizer(permit_when(condition))
    asked = [isinstance(ask(step, who), Permit) for who in (yes, no, replace(yes), replace(no), yes, no)]
    assert asked == [True, False] * 3


def test_a_principal_named_in_the_head_of_a_policy_is_told_from_all_others() -> None:
    named = 'principal == Edge::User::"https://idp.example.com/#mallory"'
    step = authorizer(PERMIT_ALL, f'@id("f") forbid ({named}, action, resource);')
    asked = [isinstance(ask(step, user(subject=who)), Permit) for who in ("alice", "mallory", "bob", "mallory")]
    assert asked == [True, False, True, False]


@pytest.mark.parametrize(
    "strange",
    [
        user(subject="\ud800"),
        replace(user(), issuer="https://idp.example.com/#x"),
        replace(user(), roles=frozenset(["\udfff"])),
    ],
)
def test_what_cedar_does_not_take_is_denied_whoever_was_permitted_before(strange: Principal) -> None:
    step = authorizer(PERMIT_ALL)
    alone = ask(authorizer(PERMIT_ALL), strange)
    assert isinstance(alone, Denial)
    assert isinstance(ask(step, user()), Permit)
    assert ask(step, strange) == alone


# Each condition twice: as Cedar text, and as what a reader understands by it.
