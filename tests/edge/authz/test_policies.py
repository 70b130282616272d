from __future__ import annotations

from contextlib import suppress

import cedarpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.authz import policies, schema
from edge.authz.policies import PolicySource, compile
from edge.errors import ConfigError, Fault
from tests.edge.authz.house import ROUTES, SCHEMA, SERVICES, bundle, forbid_when, permit_when

ANY = "permit (principal, action, resource)"


def faults(*texts: str) -> list[Fault]:
    with pytest.raises(ConfigError) as caught:
        bundle(*texts)
    return list(caught.value.faults)


def the_fault(text: str) -> tuple[str, int]:
    (fault,) = faults(text)
    assert (fault.file, fault.column) == ("policy0.cedar", 1)
    return fault.rule, fault.line


def test_policies_of_all_files_come_sorted_by_id() -> None:
    built = bundle(permit_when("true", "b") + forbid_when("false", "c"), permit_when("true", "a"))
    found = [(each.id, each.effect, each.file, each.line) for each in built.policies]
    assert found == [
        ("a", "permit", "policy1.cedar", 1),
        ("b", "permit", "policy0.cedar", 1),
        ("c", "forbid", "policy0.cedar", 2),
    ]


def test_no_policy_at_all_is_valid() -> None:
    assert bundle().policies == ()


def test_trap_a_forbid_over_a_missing_attribute_is_refused_at_load() -> None:
    text = permit_when("true") + forbid_when("context.token.age > 300")
    assert the_fault(text) == ("invalid-policy", 2)


def test_trap_a_forbid_over_an_attribute_that_was_tested_is_accepted() -> None:
    text = '@id("f") forbid (principal, action, resource) unless { context has token && context.token.age <= 300 };'
    assert bundle(text).policies[0].effect == "forbid"


@pytest.mark.parametrize(
    "condition",
    [
        "principal.tenant == resource",
        'principal.tenant == "acme"',
        "context.token.acr == context.path",
        'context.conn.peer == "x"',
        'context.params.getTag("id") == "7"',
        "context.path == 1",
        "context.nope",
        'context.scopes.contains("x")',
        'resource.spiffe_id == "x"',
        'principal is Edge::Usr || action == Edge::Action::"GET"',
        'action == Edge::Action::"PURGE"',
        "ip(context.path).isLoopback()",
        'context.conn.ip.isInRange(ip("300.0.0.1"))',
        "context.now > 1",
        "[].contains(context.path)",
    ],
)
def test_trap_strict_validation_refuses_what_could_fail_at_run_time(condition: str) -> None:
    assert the_fault(forbid_when(condition)) == ("invalid-policy", 1)


def test_one_mistake_is_one_diagnostic_though_the_validator_reports_it_per_action() -> None:
    (fault,) = faults(forbid_when("context.token.age > 300"))
    assert str(fault).startswith(
        'policy0.cedar:1:1: invalid-policy: @id("f"): unable to guarantee safety of access to optional attribute `token`'
    )


@pytest.mark.parametrize(
    "text",
    [
        '@id("p") permit (principal, action == Edge::Action::"PURGE", resource);',
        '@id("p") permit (principal, action == Edge::Action::"read", resource);',
        '@id("p") permit (principal, action, resource == Edge::Service::"orders");',
        '@id("p") permit (principal is Edge::Route, action, resource);',
        '@id("p") permit (principal is Edge::User, action, resource is Edge::Service);',
    ],
)
def test_a_head_that_can_never_apply_is_refused(text: str) -> None:
    assert the_fault(text) == ("invalid-policy", 1)


def test_trap_parse_errors_carry_the_line_of_their_policy() -> None:
    assert the_fault(permit_when("true") + "\n\n// here\npermit (principal, action, resorce);") == ("syntax", 5)


@pytest.mark.parametrize(
    "text",
    ["garbage", "permit", f"{ANY}", f"{ANY} when (true);", ";", f'@id("a") {ANY};;', f'@id("a") @id("b") {ANY};'],
)
def test_bad_syntax_is_refused(text: str) -> None:
    assert the_fault(text)[0] == "syntax"


def test_trap_thousand_nested_parentheses_are_one_diagnostic_and_no_crash() -> None:
    assert the_fault(permit_when("(" * 1000 + "true" + ")" * 1000)) == ("too-deep", 1)


def test_trap_a_chain_that_would_crash_the_parser_is_one_diagnostic() -> None:
    assert the_fault(permit_when(" && ".join(["true"] * 5000))) == ("too-long", 1)


def test_a_chain_deeper_than_cedars_nodes_is_refused() -> None:
    assert the_fault(permit_when(" && ".join(["true"] * 150))) == ("too-deep", 1)


def test_trap_ids_are_positional_in_cedar_so_each_policy_must_name_itself() -> None:
    assert list(cedarpy.policies_to_pst(f'@id("mine") {ANY};').static_policies) == ["policy0"]
    assert the_fault(f"{ANY};") == ("policy-id", 1)


@pytest.mark.parametrize("bad", ["", "Upper", "-a", "a b", "a/b", "é", "a" * 65, "a\\n", "a`b"])
def test_an_id_outside_the_alphabet_is_refused(bad: str) -> None:
    assert the_fault(f'@id("{bad}") {ANY};')[0] == "policy-id"


def test_trap_two_policies_of_one_id_are_refused_across_files() -> None:
    (fault,) = faults(permit_when("true", "a"), "\n" + forbid_when("true", "a"))
    assert (fault.file, fault.line, fault.rule) == ("policy1.cedar", 2, "duplicate-id")
    assert fault.message == '@id("a") is taken by policy0.cedar:1'


@pytest.mark.parametrize(
    ("condition", "rule"),
    [
        ('resource in Edge::Service::"ordrs"', "unknown-service"),
        ('resource in Edge::Service::"Orders"', "unknown-service"),
        ('principal == Edge::Service::"nobody"', "unknown-service"),
        ('resource == Edge::Route::"order"', "unknown-route"),
        ('resource in [Edge::Route::"orders", Edge::Route::"gone"]', "unknown-route"),
        ('principal == Edge::User::"alice"', "unknown-principal"),
        ('principal == Edge::Anonymous::"nobody"', "unknown-principal"),
        ('principal == Edge::Operator::"alice"', "unknown-principal"),
        ('principal == Edge::Operator::"spiffe://mesh.internal/svc/orders"', "unknown-principal"),
        ('context.params == Edge::Params::"request"', "unknown-param"),
        ('context.params.hasTag("idd")', "unknown-param"),
        ('context.params.hasTag("idd") && context.params.getTag("idd") == "7"', "unknown-param"),
    ],
)
def test_trap_the_validator_knows_no_instances_so_names_are_checked_here(condition: str, rule: str) -> None:
    assert the_fault(forbid_when(condition)) == (rule, 1)


def test_trap_instances_in_the_head_are_checked_too() -> None:
    text = '@id("p") permit (principal == Edge::User::"alice", action, resource in Edge::Service::"ordrs");'
    assert [fault.rule for fault in faults(text)] == ["unknown-principal", "unknown-service"]


def test_an_unknown_name_suggests_the_known_one() -> None:
    (fault,) = faults(forbid_when('resource in Edge::Service::"ordrs"'))
    assert (fault.message, fault.remedy) == ('Edge::Service::"ordrs" is not in services.yaml', 'did you mean "orders"?')


@pytest.mark.parametrize(
    "condition",
    [
        'resource in Edge::Service::"users"',
        'resource == Edge::Route::"refunds"',
        'principal == Edge::User::"https://idp.example.com/#alice"',
        'principal == Edge::Operator::"spiffe://mesh.internal/op/alice"',
        'principal == Edge::Anonymous::"anonymous"',
        'context.params.hasTag("id") && context.params.getTag("id") == "7"',
        "context.params.hasTag(context.path)",
        'principal == Edge::Service::"orders" && context.conn.mtls',
    ],
)
def test_names_that_stand_for_something_are_accepted(condition: str) -> None:
    assert len(bundle(forbid_when(condition)).policies) == 1


@pytest.mark.parametrize(
    "slot", ["principal == ?principal, action, resource", "principal, action, resource in ?resource"]
)
def test_a_template_is_refused_because_nothing_would_fill_it(slot: str) -> None:
    assert the_fault(f'@id("t") permit ({slot});') == ("template", 1)


def test_all_faults_of_all_files_are_reported_together() -> None:
    found = faults(f"{ANY};\n" + permit_when("context.nope"), "\x00", forbid_when('resource == Edge::Route::"x"'))
    assert [(fault.file, fault.line, fault.rule) for fault in found] == [
        ("policy0.cedar", 1, "policy-id"),
        ("policy0.cedar", 2, "invalid-policy"),
        ("policy1.cedar", 1, "hidden-character"),
        ("policy2.cedar", 1, "unknown-route"),
    ]


def test_a_wrong_schema_is_reported_with_the_rest() -> None:
    wrong = PolicySource("edge.cedarschema", schema.TEXT.replace("tenant?", "tenant").encode())
    source = PolicySource("a.cedar", b"garbage;")
    with pytest.raises(ConfigError) as caught:
        compile([source], schema=wrong, services=SERVICES, routes=ROUTES)
    assert [fault.rule for fault in caught.value.faults] == ["syntax", "schema-differs"]


def test_more_policies_than_can_be_asked_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policies, "MAX_POLICIES", 2)
    assert [fault.rule for fault in faults("".join(permit_when("true", f"p{n}") for n in range(3)))] == ["too-many"]


def test_a_diagnostic_is_one_line_whatever_the_policy_holds() -> None:
    assert "\n" not in str(faults('@id("a\nb") ' + f"{ANY};")[0])
    assert "\n" not in str(faults("permit (\nprincipal,\n action\n resource);")[0])


@settings(max_examples=60, deadline=None)
@given(st.text(alphabet='@id("a") permit(principal,action,resource)when{true};&.\n', max_size=80))
def test_any_text_gives_a_bundle_or_faults(text: str) -> None:
    source = PolicySource("a.cedar", text.encode())
    with suppress(ConfigError):
        assert len(compile([source], schema=SCHEMA, services=SERVICES, routes=ROUTES).policies) <= 2


def test_more_routes_share_the_policies_of_their_service_and_the_native_sets() -> None:
    first = bundle(
        permit_when("true", "all"), '@id("b") forbid (principal, action, resource in Edge::Service::"orders");'
    )
    service = ROUTES[0].upstream.service
    more = first.with_routes({"orders:/new": service})
    assert more.slices["orders:/new", "GET"].policies == first.slices[ROUTES[0].name, "GET"].policies
    assert more.slices["orders:/new", "GET"] is first.with_routes({"other": service}).slices["other", "GET"]
    assert ("orders:/new", "GET") not in first.slices
    assert more.slices[ROUTES[0].name, "GET"] is first.slices[ROUTES[0].name, "GET"]
