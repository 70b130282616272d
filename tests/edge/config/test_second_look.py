"""What is valid and deserves a second look; and what does not, because it may be meant or may still be of use."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

from edge.config import second_look
from edge.config.parse import parse
from edge.config.second_look import findings
from edge.errors import Fault
from tests.edge.config.house import CEDAR, EDGE, LIMITS, ROUTES, SERVICES, sources

OPEN = EDGE.replace("listeners:\n", 'listeners:\n  services: {bind: "127.0.0.1:9443"}\n')
"""Services may register."""
ALL = "  all: {may_serve: [/**]}\n"


def route(name: str, path: str, more: str = "", *, service: str = "orders", methods: str = "GET, POST") -> str:
    upstream = f'{{service: {service}, endpoints: ["127.0.0.1:9102"]}}'
    return f'  - {{name: {name}, match: {{path: "{path}", methods: [{methods}]{more}}}, upstream: {upstream}, auth: [jwt]}}\n'


def found(
    edge: str = EDGE, services: str = SERVICES, routes: str = ROUTES, limits: str = LIMITS, cedar: str = CEDAR
) -> list[Fault]:
    tables = {"services.yaml": services, "routes.yaml": routes, "limits.yaml": limits, "orders.cedar": cedar}
    given = sources(edge, policies=tables)
    return list(findings(parse(given), given))


def rules(*arguments: str, **tables: str) -> list[str]:
    return [each.rule for each in found(*arguments, **tables)]


@pytest.mark.parametrize("edge", [EDGE, OPEN])
def test_what_is_in_use_is_no_finding(edge: str) -> None:
    assert found(edge) == []


# -- services.yaml -----------------------------------------------------------------------------------


def test_a_service_that_nobody_leads_to_and_that_cannot_register_has_a_grant_of_no_use() -> None:
    more = SERVICES + "  billing: {may_serve: [/billing]}\n"
    (fault,) = found(services=more)
    assert str(fault) == (
        "policies/services.yaml:3:3: unused-grant: services.billing: no route leads to it, and nobody can register at this "
        "gateway; add a route in routes.yaml or listeners.services in edge.yaml, or remove it"
    )
    assert found(OPEN, more) == []
    assert found(EDGE + "store: valkeys://store.internal:6379\n", more) == []  # at another gateway of this store


def test_a_service_whose_every_route_would_belong_to_another_is_shadowed() -> None:
    services, routes = SERVICES + ALL, ROUTES.replace("{service: orders", "{service: all")
    cedar = CEDAR.replace('"orders"', '"all"')
    (fault,) = [each for each in found(OPEN, services, routes, cedar=cedar) if each.rule == "shadowed-grant"]
    assert (fault.file, fault.line) == ("policies/services.yaml", 2)
    assert 'route "orders" (policies/routes.yaml:2) of service all' in fault.message


@pytest.mark.parametrize(
    "owner",
    [
        route("all", "/orders/7/**", service="all"),  # the rest is left
        route("all", "/orders/**", ", headers: {x-v: '1'}", service="all"),  # where the field is missing
        route("all", "/orders/**", ", hosts: [localhost]", service="all"),  # the other hosts
    ],
)
def test_a_service_for_which_something_is_left_is_not_shadowed(owner: str) -> None:
    cedar = CEDAR.replace('"orders"', '"all"')
    assert "shadowed-grant" not in rules(OPEN, SERVICES + ALL, "routes:\n" + owner, cedar=cedar)


@pytest.mark.parametrize(
    ("network", "edge", "rule"),
    [
        ("0.0.0.0/0", OPEN, "wide-addresses"),
        ("::/0", OPEN, "wide-addresses"),
        ("64.0.0.0/3", OPEN, "wide-addresses"),
        ("127.0.0.0/8", OPEN, "dead-addresses"),
        ("127.0.0.0/8", OPEN + "registration: {loopback: true}\n", None),
        ("::1/128", OPEN, "dead-addresses"),
        ("169.254.0.0/16", OPEN + "registration: {loopback: true}\n", "dead-addresses"),
        ("169.254.169.254/32", OPEN, "dead-addresses"),
        ("100.100.100.200/32", OPEN, "dead-addresses"),
        ("224.0.0.0/4", OPEN, "dead-addresses"),
        ("fe80::/10", OPEN, "dead-addresses"),
        ("64:ff9b::/96", OPEN, None),  # both ends mean special addresses, and what lies between does not
        ("100.100.100.0/24", OPEN, None),
        ("10.0.0.0/8", OPEN, None),
        ("fc00::/7", OPEN, None),
        ("192.0.2.7/32", OPEN, None),
    ],
)
def test_networks_that_nobody_has_or_in_which_nobody_is_taken(network: str, edge: str, rule: str | None) -> None:
    services = SERVICES.replace("methods:", f'addresses: ["10.1.0.0/16", "{network}"], methods:')
    given = found(edge, services)
    assert [each.rule for each in given] == ([rule] if rule is not None else [])
    assert all(each.message.startswith(f"services.orders.addresses[1]: {network} ") for each in given)


# -- routes.yaml -------------------------------------------------------------------------------------


def test_a_route_without_endpoints_where_nobody_can_register_serves_nobody() -> None:
    routes = ROUTES.replace(', endpoints: ["127.0.0.1:9101"]', "")
    assert rules(routes=routes) == ["nobody-serves"]
    assert rules(OPEN, routes=routes) == []


def test_a_route_that_no_policy_permits_anything_on_is_denied() -> None:
    assert rules(cedar=CEDAR.replace("permit", "forbid")) == ["denied-route"]
    assert rules(cedar=CEDAR.replace('in Edge::Action::"read"', '== Edge::Action::"POST"')) == []


@pytest.mark.parametrize(
    ("principal", "is_denied"),
    [
        ("principal is Edge::User", True),
        ('principal == Edge::User::"https://idp.example.com/#alice"', True),
        ("principal is Edge::Anonymous", False),
        ('principal == Edge::Anonymous::"anonymous"', False),
        ("principal", False),
    ],
)
def test_a_public_route_needs_a_permit_that_strangers_fit(principal: str, is_denied: bool) -> None:
    cedar = f'@id("p")\npermit ({principal}, action, resource in Edge::Service::"orders");\n'
    routes = ROUTES.replace("auth: [jwt]", "public: {reason: a test}")
    assert rules(routes=routes, cedar=cedar) == (["denied-route"] if is_denied else [])


@pytest.mark.parametrize(
    "before",
    [
        route("a", "/orders") + route("b", "/orders/") + route("c", "/orders/*/**"),  # together all of it
        route("a", "/orders/**", ", hosts: [localhost, api.example.com, '::1']"),  # the same, of each host
        route("a", "/orders/**", ", hosts: [localhost, api.example.com]")
        + route("b", "/orders/**", ", hosts: ['::1']", methods="POST")
        + route("c", "/orders/**", ", hosts: ['::1'], headers: {x-v: '1'}", methods="GET")
        + route("d", "/orders")
        + route("e", "/orders/")
        + route("f", "/orders/*/**", methods="PATCH"),  # 405 is an answer too
    ],
)
def test_a_route_whose_every_request_is_another_s_is_never_reached(before: str) -> None:
    services = SERVICES.replace("[GET, POST]", "[GET, POST, PATCH]")
    given = [each for each in found(services=services, routes=ROUTES + before) if each.rule == "unreached-route"]
    assert [each.message.partition(":")[0] for each in given][:1] == ['route "orders"']


@pytest.mark.parametrize(
    "before",
    [
        route("a", "/orders") + route("c", "/orders/*/**"),  # /orders/ is left
        route("a", "/orders/**", ", hosts: [localhost]"),
        route("a", "/orders/**", ", hosts: [localhost, api.example.com, '::1']", methods="GET"),  # POST is left
        route("a", "/orders/**", ", headers: {x-v: '1'}"),
        route("a", "/orders/*"),
    ],
)
def test_a_route_with_a_request_of_its_own_is_reached(before: str) -> None:
    assert rules(routes=ROUTES + before) == []


def test_routes_of_two_services_for_the_same_requests_overlap() -> None:
    cedar = CEDAR + '@id("all")\npermit (principal, action, resource in Edge::Service::"all");\n'
    (fault,) = found(services=SERVICES + ALL, routes=ROUTES + route("rest", "/**", service="all"), cedar=cedar)
    assert (fault.rule, fault.line) == ("overlap", 2)


# -- limits.yaml and policies ------------------------------------------------------------------------


def test_a_limit_that_no_route_fits_is_never_reached() -> None:
    services = SERVICES + "  billing: {may_serve: [/billing]}\n"
    of_billing = "limits:\n  - {name: a, match: {service: billing}, rate: 1/second}\n"
    given = [each for each in found(services=services, limits=of_billing) if each.rule != "unused-grant"]
    assert [(each.file, each.line, each.rule) for each in given] == [("policies/limits.yaml", 2, "unreached-limit")]
    assert rules(OPEN, services, limits=of_billing) == []  # it may declare some
    both = of_billing.replace("service: billing", "service: billing, route: orders")
    assert rules(OPEN, services, limits=both) == ["unreached-limit"]
    assert rules(OPEN, services, limits="limits:\n  - {name: a, rate: 1/second}\n") == []


def test_a_policy_about_no_request_is_never_reached() -> None:
    delete = '@id("d")\nforbid (principal, action == Edge::Action::"DELETE", resource);\n'
    (fault,) = found(cedar=CEDAR + delete)
    assert (fault.rule, fault.file, fault.line) == ("unreached-policy", "policies/orders.cedar", 4)
    assert rules(OPEN, cedar=CEDAR + delete) == ["unreached-policy"]  # nor may the service declare such a route
    assert rules(OPEN, SERVICES.replace("[GET, POST]", "[GET, POST, DELETE]"), cedar=CEDAR + delete) == []


def test_a_policy_about_a_service_that_may_declare_routes_is_none() -> None:
    services = SERVICES + "  billing: {may_serve: [/billing]}\n"
    more = CEDAR + '@id("b")\npermit (principal, action, resource in Edge::Service::"billing");\n'
    assert rules(OPEN, services, cedar=more) == []
    assert rules(EDGE, services, cedar=more) == ["unused-grant", "unreached-policy"]


def test_every_rule_stands_in_the_table_and_in_the_documents() -> None:
    source, told = inspect.getsource(second_look), second_look.__doc__ or ""
    written = (Path(__file__).parents[3] / "docs" / "edge-yaml.md").read_text()
    rules = set(re.findall(r'"([a-z]+-[a-z]+|overlap)", (?:f"|message)', source))
    assert rules == set(re.findall(r"^\| `([a-z-]+)`", told, re.M))
    assert [rule for rule in (*rules, "passphrase-beside-key") if f"| `{rule}` |" not in written] == []
