"""services.yaml → grants."""

from __future__ import annotations

import pytest

from edge.config.parse import parse
from edge.config.policy_files import METHODS
from tests.edge.config.house import faults, sources


def test_grant_has_its_identity_and_the_defaults_of_the_listener() -> None:
    (grant,) = parse(sources(policies={"services.yaml": 'services: {orders: {may_serve: ["/orders/**"]}}'})).grants
    assert grant.spiffe_id == "spiffe://mesh.internal/svc/orders"
    assert grant.hosts == ("localhost", "api.example.com", "[::1]")
    assert (grant.methods, grant.dns) == (METHODS, ("orders.internal",))


def test_grant_narrows_hosts_methods_and_names() -> None:
    text = 'services: {orders: {may_serve: ["/orders/**", "/o/*"], hosts: [API.example.com], methods: [GET, POST], dns: []}}'
    routes = {"routes.yaml": "routes: []"}
    (grant,) = parse(sources(policies={"services.yaml": text, **routes})).grants
    assert [each.text for each in grant.may_serve] == ["/orders/**", "/o/*"]
    assert (grant.hosts, grant.methods, grant.dns) == (("api.example.com",), ("GET", "POST"), ())


@pytest.mark.parametrize("mode", ["subject", "request", None])
def test_a_service_asks_for_assertions_and_its_routes_know(mode: str | None) -> None:
    more = f", assertion: {mode}" if mode else ""
    text = f'services: {{orders: {{may_serve: ["/orders/**"], methods: [GET, POST]{more}}}}}'
    config = parse(sources(policies={"services.yaml": text}))
    assert config.grants[0].assertion == mode
    assert config.routes[0].upstream.assertion == mode


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ("Orders: {may_serve: [/a]}", "2:3: wrong-value: services.Orders: expected a service name"),
        ("a_b: {may_serve: [/a]}", "2:3: wrong-value: services.a_b: expected a service name"),
        ("../a: {may_serve: [/a]}", "2:3: wrong-value: services.../a: expected a service name"),
        ("x: {}", "2:6: missing-key: services.x.may_serve"),
        ("edge: {may_serve: [/a]}", "2:3: wrong-value: services.edge: the DNS name edge.internal is the gateway's own"),
        (
            "x: {may_serve: [/a], dns: [x.internal, edge.internal]}",
            "2:42: wrong-value: services.x.dns[1]: the DNS name edge.internal is the gateway's own",
        ),
        ("x: null", "2:6: wrong-type: services.x"),
        ("x: {may_serve: []}", "2:18: wrong-value: services.x.may_serve: expected a list of patterns"),
        ("x: {may_serve: [orders/**]}", "2:19: wrong-value: services.x.may_serve[0]: expected a path pattern"),
        ('x: {may_serve: ["/a//b"]}', "2:19: wrong-value: services.x.may_serve[0]: expected a path pattern"),
        ('x: {may_serve: ["/a/../b"]}', "2:19: wrong-value: services.x.may_serve[0]: expected a path pattern"),
        ('x: {may_serve: ["/a%2e"]}', "2:19: wrong-value: services.x.may_serve[0]: expected a path pattern"),
        ('x: {may_serve: ["/a?b"]}', "2:19: wrong-value: services.x.may_serve[0]: expected a path pattern"),
        ('x: {may_serve: ["/a b"]}', "2:19: wrong-value: services.x.may_serve[0]: expected a path pattern"),
        (
            "x: {may_serve: [/a], hosts: [other.example]}",
            "2:32: unknown-host: services.x.hosts[0]: the public listener",
        ),
        ('x: {may_serve: [/a], hosts: ["*.example.com"]}', "2:32: wrong-value: services.x.hosts[0]: expected a host"),
        ('x: {may_serve: [/a], hosts: ["localhost:80"]}', "2:32: wrong-value: services.x.hosts[0]: expected a host"),
        ("x: {may_serve: [/a], hosts: []}", "2:31: wrong-value: services.x.hosts: expected a list of hosts"),
        ("x: {may_serve: [/a], methods: [get]}", "2:34: wrong-value: services.x.methods[0]: expected an HTTP method"),
        ("x: {may_serve: [/a], methods: [TRACE]}", "2:34: wrong-value: services.x.methods[0]: expected an HTTP method"),
        (
            'x: {may_serve: [/a], dns: ["*.internal"]}',
            "2:30: wrong-value: services.x.dns[0]: expected a lower-case DNS name",
        ),
        (
            "x: {may_serve: [/a], assertion: yes}",
            "2:35: wrong-value: services.x.assertion: expected subject or request",
        ),
        (
            "x: {may_serve: [/a], assertion: false}",
            "2:35: wrong-value: services.x.assertion: expected subject or request",
        ),
        (
            "x: {may_serve: [/a], mayServe: [/b]}",
            "2:24: unknown-key: services.x.mayServe: no such setting; did you mean",
        ),
    ],
)
def test_broken_grant_is_one_fault(entry: str, expected: str) -> None:
    tables = {"services.yaml": f"services:\n  {entry}\n", "routes.yaml": "routes: []", "orders.cedar": ""}
    prefix = f"policies/services.yaml:{expected}"
    assert [said[: len(prefix)] for said in faults(sources(policies=tables))] == [prefix]


def test_route_of_a_service_with_a_fault_is_not_blamed() -> None:
    (said,) = faults(sources(policies={"services.yaml": "services:\n  orders: {may_serve: 7}\n"}))
    assert said.startswith("policies/services.yaml:2:23: wrong-value:")
