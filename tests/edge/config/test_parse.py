"""edge.yaml and limits.yaml, and what lies between the files."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge.accept.deadlines import Deadlines
from edge.config.parse import parse
from edge.limit.rules import LimitSettings
from tests.edge.config.house import CEDAR, EDGE, faults, sources

KEY_SET = (
    b'{"keys": [{"kty": "EC", "crv": "P-256", "kid": "k1", "alg": "ES256", "use": "sig",'
    b' "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU", "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}]}'
)


def edge(old: str = "", new: str = "", more: str = "") -> str:
    assert old in EDGE
    return EDGE.replace(old, new, 1) + more


def test_defaults_are_those_of_the_design() -> None:
    config = parse(sources())
    assert (config.trust_domain, config.state, config.source) == (
        "mesh.internal",
        Path("/edge/state"),
        Path("/edge/edge.yaml"),
    )
    assert (config.workers, config.store, config.problem_base) == (1, None, "https://edge.invalid/problems/")
    assert (config.audit.origin, config.audit.durability, config.audit.paths) == (
        "mesh.internal/log",
        "standard",
        "hashed",
    )
    assert config.dns_suffixes == (".internal", "mesh.internal")
    assert (config.unissued, config.warnings) == (("gateway", "public"), ())
    assert config.bundle_hash == sources().bundle_hash


def test_listeners_keep_their_order_and_hosts_their_one_spelling() -> None:
    config = parse(sources(edge("listeners:\n", 'listeners:\n  enrol: {bind: "[::1]:0"}\n')))
    assert config.listeners.order == ("enrol", "public", "admin")
    assert config.listeners.public.hosts == ("localhost", "api.example.com", "[::1]")
    assert config.listeners.enrol is not None
    assert (config.listeners.public.bind, config.listeners.enrol.bind) == (("127.0.0.1", 8443), ("::1", 0))
    assert config.listeners.services is None
    assert (config.opened, config.warnings) == (("enrol", "public", "admin"), ())


def test_http2_is_offered_unless_it_is_off() -> None:
    public = parse(sources()).listeners.public
    assert (public.http2, public.alpn) == ("front", ("h2", "http/1.1"))
    public = parse(sources(edge('bind: "127.0.0.1:8443"', 'http2: off, bind: "127.0.0.1:8443"'))).listeners.public
    assert (public.http2, public.alpn) == ("off", ("http/1.1",))


def test_listener_may_be_named_localhost() -> None:
    config = parse(sources(edge('"127.0.0.1:9901"', '"localhost:0"')))
    assert config.listeners.admin is not None
    assert config.listeners.admin.bind == ("localhost", 0)


def test_grants_are_found_by_service() -> None:
    config = parse(sources())
    assert config.grant("orders") is config.grants[0]
    assert config.grant("other") is None


def test_everything_of_edge_yaml_reaches_its_settings() -> None:
    more = """\
workers: 3
store: ${EDGE_STORE}
audit: {durability: strict, origin: a.example/log, checkpoint_every_s: 2, paths: plain, reserve_bytes: 0}
shed: {max_connections: 10, failed_checks_per_s: 5}
deadlines: {head_s: 2.5, least_bytes_per_s: 1000}
trusted_proxies: [10.0.0.0/8, "2001:db8::1"]
dns_suffixes: [.corp]
problem_base: https://errors.example/
"""
    config = parse(sources(edge(more=more), variables={"EDGE_STORE": "valkeys://u:secret@store.internal:6380/1"}))
    assert config.store is not None
    assert (config.store.addresses, config.store.password, config.store.min_replicas) == (
        (("store.internal", 6380),),
        "secret",
        3,
    )
    assert (config.audit.is_strict, config.audit.origin, config.audit.checkpoint_every_s) == (
        True,
        "a.example/log",
        2.0,
    )
    assert config.trusted_proxies == ("10.0.0.0/8", "2001:db8::1")
    assert config.deadlines == Deadlines(head_s=2.5, least_bytes_per_s=1000)
    assert (config.shed.max_connections, config.shed.failed_checks_per_s, config.shed.failed_checks_burst) == (
        10,
        5,
        40_000,
    )
    assert (config.dns_suffixes, config.problem_base) == ((".corp",), "https://errors.example/")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "edge.yaml:1:1: wrong-type: expected a table"),
        ("[", "edge.yaml:2:1: syntax:"),
        (edge("trust_domain: mesh.internal\n"), "edge.yaml:1:1: missing-key: trust_domain"),
        (edge("mesh.internal", "Mesh.Internal"), "edge.yaml:1:15: wrong-value: trust_domain: expected a trust domain"),
        (edge("mesh.internal", "a/b"), "edge.yaml:1:15: wrong-value: trust_domain: expected a trust domain"),
        (edge('"127.0.0.1:8443"', '"127.0.0.1"'), "edge.yaml:3:18: wrong-value: listeners.public.bind: expected an address"),
        (edge('"127.0.0.1:8443"', '"example.com:80"'), "edge.yaml:3:18: wrong-value: listeners.public.bind"),
        (edge('"127.0.0.1:8443"', '"127.0.0.1:65536"'), "edge.yaml:3:18: wrong-value: listeners.public.bind"),
        (edge('"127.0.0.1:8443"', '"1.2.3:80"'), "edge.yaml:3:18: wrong-value: listeners.public.bind"),
        (edge('"127.0.0.1:8443"', "8443"), "edge.yaml:3:18: wrong-value: listeners.public.bind"),
        (edge('"127.0.0.1:8443"', '"127.0.0.1:1", http2: on'), "edge.yaml:3:40: wrong-value: listeners.public.http2:"),
        (edge("[localhost, API", '["*.x", API'), "edge.yaml:3:44: wrong-value: listeners.public.hosts[0]: expected a host"),
        (edge("[localhost, API", '["x:80", API'), "edge.yaml:3:44: wrong-value: listeners.public.hosts[0]: expected a host"),
        (edge(more="trusted_proxies: 10.0.0.1\n"), "edge.yaml:7:18: wrong-type: trusted_proxies: expected a list"),
        (edge(more="trusted_proxies: [10.0.0.1/8]\n"), "edge.yaml:7:19: wrong-value: trusted_proxies[0]: expected an"),
        (edge(more="trusted_proxies: [10.0.0.0/8, lb.internal]\n"), "edge.yaml:7:31: wrong-value: trusted_proxies[1]:"),
        (edge(more='trusted_proxies: ["::/0"]\n'), "edge.yaml:7:19: wrong-value: trusted_proxies[0]: expected an"),
        (edge("9901", "8443"), "edge.yaml:4:17: duplicate-bind: listeners.admin.bind: 127.0.0.1:8443 is taken"),
        (edge('"127.0.0.1:9901"', '"0.0.0.0:9901"'), "edge.yaml:4:17: exposed: listeners.admin.bind"),
        (edge("admin", "admn"), "edge.yaml:4:3: unknown-key: listeners.admn: no such setting; did you mean admin?"),
        (edge(more="store: redis://10.0.0.1:6379\n"), "edge.yaml:7:8: store: store: a store beyond loopback without TLS"),
        (edge(more="store: ${EDGE_STORE}\n"), "edge.yaml:7:8: missing-variable: store: the environment variable EDGE_STORE"),
        (edge(more="workers: 0\n"), "edge.yaml:7:10: wrong-value: workers: expected a number of processes"),
        (edge(more="workers: '2'\n"), "edge.yaml:7:10: wrong-value: workers: expected a number of processes"),
        (edge(more="audit: {witnesses: [https://w]}\n"), "edge.yaml:7:20: wrong-value: audit.witnesses: expected an empty"),
        (edge(more="audit: {origin: a+b}\n"), "edge.yaml:7:17: wrong-value: audit.origin: expected a log origin"),
        (edge(more="audit: {durability: lax}\n"), "edge.yaml:7:21: wrong-value: audit.durability: expected standard or"),
        (edge(more="problem_base: http://x/\n"), "edge.yaml:7:15: wrong-value: problem_base: expected an https URL"),
        (edge(more="dns_suffixes: ['*.x']\n"), "edge.yaml:7:16: wrong-value: dns_suffixes[0]: expected a lower-case"),
        (edge("ES256", "none"), "edge.yaml:6:71: algorithm: issuers[0].algorithms: not supported: none"),
        (edge("[api]", "[]"), "edge.yaml:6:52: audience: issuers[0].audience"),
        (edge("[api]", "api"), "edge.yaml:6:52: wrong-type: issuers[0].audience: expected a list, got"),
        (edge("https://idp", "http://idp"), "edge.yaml:6:14: url: issuers[0].issuer: plain http is for loopback only"),
        (edge("[ES256]", "[ES256], jwks: keys.json"), "edge.yaml:6:86: missing-file: issuers[0].jwks: cannot read keys.json"),
        (edge("[ES256]", "[ES256], ca: ca.pem"), "edge.yaml:6:84: missing-file: issuers[0].ca: cannot read ca.pem"),
    ],
)  # fmt: skip
def test_broken_edge_yaml_is_one_fault(text: str, expected: str) -> None:
    found = faults(sources(text, unreadable={"keys.json": "no such file", "ca.pem": "no such file"}))
    assert [said[: len(expected)] for said in found] == [expected]


def test_key_set_and_anchors_of_an_issuer_may_be_files() -> None:
    text = edge("[ES256]", "[ES256], jwks: keys.json, max_lifetime_s: 60")
    (issuer,) = parse(sources(text, files={"keys.json": KEY_SET})).issuers
    assert (issuer.jwks, issuer.jwks_document, issuer.max_lifetime_s) == (None, KEY_SET, 60)
    (issuer,) = parse(sources(edge("[ES256]", "[ES256], jwks: https://idp.example.com/keys"))).issuers
    assert (issuer.jwks, issuer.jwks_document) == ("https://idp.example.com/keys", None)


@pytest.mark.parametrize(("name", "setting"), [("keys.json", "jwks"), ("ca.pem", "ca")])
def test_file_of_an_issuer_that_holds_nothing_of_use_is_refused(name: str, setting: str) -> None:
    (found,) = faults(sources(edge("[ES256]", f"[ES256], {setting}: {name}"), files={name: b"{}"}))
    assert found.startswith("edge.yaml:6:8")
    assert f"issuers[0].{setting}: " in found


def test_D6_issuer_stands_once() -> None:
    again = '  - {issuer: "https://idp.example.com/", audience: [other], algorithms: [ES256]}\n'
    (found,) = faults(sources(edge(more=again)))
    assert found.startswith("edge.yaml:7:14: duplicate-name: issuers[1].issuer")


def test_route_with_tokens_of_nobody_is_warned_about() -> None:
    config = parse(sources(EDGE[: EDGE.index("issuers:")]))
    assert config.warnings == ("issuers: none is configured, so every route with auth: [jwt] refuses every request",)


def test_limits_are_taken_with_their_rates() -> None:
    text = """
limits:
  - {name: a, rate: 10000000/second}
  - {name: b, rate: 5/2 hours, match: {service: orders, route: orders}, key: [ip, ip], strategy: moving-window,
     on_store_failure: local}
"""
    assert parse(sources(policies={"limits.yaml": text})).limits == (
        LimitSettings("a", 10_000_000, 1),
        LimitSettings("b", 5, 7200, "orders", "orders", ("ip",), "moving-window", "local"),
    )


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        ("{rate: 1/second}", "2:5: missing-key: limits[0].name"),
        ("{name: a, rate: 5}", "2:21: wrong-value: limits[0].rate: expected AMOUNT/PERIOD, got 5; write 100/minute"),
        ("{name: a, rate: 5/fortnight}", "2:21: wrong-value: limits[0].rate: expected AMOUNT/PERIOD"),
        ("{name: a, rate: 0/second}", "2:21: wrong-value: limits[0].rate: expected AMOUNT/PERIOD"),
        ("{name: a b, rate: 1/second}", "2:12: wrong-value: limits[0].name: expected a name"),
        ("{name: a, rate: 1/second, key: [header]}", "2:37: wrong-value: limits[0].key[0]: expected subject, issuer"),
        ("{name: a, rate: 1/second, strategy: leaky}", "2:41: wrong-value: limits[0].strategy: expected fixed-window"),
        ("{name: a, rate: 1/second, on_store_failure: open}", "2:49: wrong-value: limits[0].on_store_failure: expected"),
        ("{name: a, rate: 1/second, match: {service: x}}", "2:48: unknown-service: limits[0].match.service: there is"),
        ("{name: a, rate: 1/second, match: {route: x}}", "2:46: unknown-route: limits[0].match.route: there is no route x"),
        ("{name: a, rate: 1/second}\n  - {name: a, rate: 2/second}", "3:12: duplicate-name: limits[1].name"),
    ],
)  # fmt: skip
def test_broken_limit_is_one_fault(limit: str, expected: str) -> None:
    found = faults(sources(policies={"limits.yaml": f"limits:\n  - {limit}\n"}))
    assert [said.removeprefix("policies/limits.yaml:")[: len(expected)] for said in found] == [expected]


def test_faults_of_all_files_are_reported_together_in_order() -> None:
    broken = {"limits.yaml": "limits: 7\n", "routes.yaml": "routes: 7\n", "orders.cedar": CEDAR.replace("@id", "@ix")}
    places = [said.split(": ")[0] for said in faults(sources(edge(more="workers: x\n"), policies=broken))]
    assert places == [
        "edge.yaml:7:10",
        "policies/limits.yaml:1:9",
        "policies/orders.cedar:1:1",
        "policies/routes.yaml:1:9",
    ]


def test_policy_that_names_a_route_with_a_fault_is_not_blamed() -> None:
    cedar = CEDAR.replace('resource in Edge::Service::"orders"', 'resource == Edge::Route::"orders"')
    routes = 'routes: [{name: orders, match: {path: "/orders"}, upstream: {service: orders}, auth: [jwt], x: 1}]'
    (found,) = faults(sources(policies={"orders.cedar": cedar, "routes.yaml": routes}))
    assert "unknown-key" in found


def test_policy_that_names_what_does_not_exist_is_blamed() -> None:
    (found,) = faults(sources(policies={"orders.cedar": CEDAR.replace('"orders")', '"ordrs")')}))
    assert found.startswith("policies/orders.cedar:1:1: unknown-service:")


def test_policy_of_a_service_with_a_fault_is_not_blamed() -> None:
    (found,) = faults(sources(policies={"services.yaml": "services:\n  orders: {may_serve: 7}\n"}))
    assert "policies/services.yaml" in found
