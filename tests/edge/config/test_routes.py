"""routes.yaml → routes, and what lies between a route and the rest. Attack ids are those of SECURITY.md."""

from __future__ import annotations

import pytest

from edge.config.parse import parse
from edge.config.policy_files import METHODS
from edge.model.route import FieldCondition
from edge.model.websocket import WebSocketBounds
from tests.edge.config.house import faults, sources

SERVICES = """\
services:
  orders: {may_serve: ["/orders/**", "/"], methods: [GET, POST], hosts: [localhost]}
  open: {may_serve: ["/**"]}
"""


def entry(match: str, upstream: str = "service: open", rest: str = "auth: [jwt]", name: str = "r") -> str:
    return f"{{name: {name}, match: {{{match}}}, upstream: {{{upstream}}}, {rest}}}"


def said(*routes: str) -> list[str]:
    text = "routes:\n" + "".join(f"  - {route}\n" for route in routes)
    found = faults(sources(policies={"services.yaml": SERVICES, "routes.yaml": text}))
    return [each.removeprefix("policies/routes.yaml:") for each in found]


def test_route_is_taken_with_its_defaults() -> None:
    text = 'routes: [{name: r, match: {path: "/**"}, upstream: {service: open}, public: {reason: shop window}}]'
    (route,) = parse(sources(policies={"services.yaml": SERVICES, "routes.yaml": text})).routes
    assert (route.hosts, route.methods, route.auth, route.public_reason) == ((), METHODS, (), "shop window")
    assert (route.upstream.service, route.upstream.spiffe_id) == ("open", "spiffe://mesh.internal/svc/open")
    assert (route.upstream.timeout_s, route.encoded_slash, route.forward_token) == (10.0, False, False)
    assert route.place == ("policies/routes.yaml", 1, 10)


def test_route_is_taken_with_everything_written() -> None:
    text = """
routes:
  - name: v2
    match: {path: "/orders/{id}", hosts: [LOCALHOST], methods: [GET], headers: {X-Version: "2"}, query: {a: b}}
    upstream: {service: open, strip_prefix: /orders, endpoints: ["[::1]:80", "Orders.internal:9101"], timeout_s: 2.5}
    auth: [jwt]
    encoded_slash: true
    forward_token: true
    max_body_bytes: 10
    answer_headers: {x-frame-options: DENY, content-security-policy: "default-src 'self'"}
"""
    (route,) = parse(sources(policies={"services.yaml": SERVICES, "routes.yaml": text})).routes
    assert route.hosts == ("localhost",)
    assert route.headers == (FieldCondition("x-version", "2"),)
    assert route.query == (FieldCondition("a", "b"),)
    assert route.upstream.endpoints == (("::1", 80), ("orders.internal", 9101))
    assert (route.upstream.strip_prefix, route.upstream.timeout_s, route.max_body_bytes) == ("/orders", 2.5, 10)

    assert route.answer_fields == (
        (b"content-security-policy", b"default-src 'self'"),
        (b"x-content-type-options", b"nosniff"),
        (b"x-frame-options", b"DENY"),
    )


def test_the_safe_default_of_an_answer_goes_only_where_it_is_written() -> None:
    text = """
routes: [{name: r, match: {path: "/**"}, upstream: {service: open}, auth: [jwt],
          answer_headers: {x-content-type-options: upstream}}]
"""
    (route,) = parse(sources(policies={"services.yaml": SERVICES, "routes.yaml": text})).routes
    assert route.answer_fields == ()


@pytest.mark.parametrize(
    ("written", "rule"),
    [
        ("set-cookie: a=b", "wrong-value"),
        ("content-length: '1'", "wrong-value"),
        ("strict-transport-security: max-age=0", "wrong-value"),
        ("X-Frame-Options: DENY", "wrong-value"),
        ('x-frame-options: "DENY\\r\\nSet-Cookie: a=b"', "wrong-value"),
        ('x-frame-options: ""', "wrong-value"),
    ],
)
def test_a_route_says_nothing_else_about_its_answers(written: str, rule: str) -> None:
    (fault,) = said(entry('path: "/**"', rest=f"auth: [jwt], answer_headers: {{{written}}}"))
    assert f": {rule}: " in fault


def test_a_route_takes_websockets_unless_it_says_no() -> None:
    for written, expected in (
        ("", WebSocketBounds()),
        (", websocket: true", WebSocketBounds()),
        (", websocket: {}", WebSocketBounds()),
        (", websocket: false", None),
        (
            ", websocket: {max_message_bytes: 1, max_message_frames: 2, max_control_frames_per_s: 3, idle_s: 4}",
            WebSocketBounds(1, 2, 3, 4.0),
        ),
    ):
        text = f"routes: [{entry('path: /x', rest='auth: [jwt]' + written)}]"
        (route,) = parse(sources(policies={"services.yaml": SERVICES, "routes.yaml": text})).routes
        assert route.websocket == expected


def test_origins_are_taken_as_browsers_send_them() -> None:
    listed = 'origins: ["https://app.example.com", "http://localhost:3000", "https://[::1]:8443"]'
    text = f"routes: [{entry('path: /x', rest='auth: [jwt], ' + listed)}]"
    (route,) = parse(sources(policies={"services.yaml": SERVICES, "routes.yaml": text})).routes
    assert route.origins == ("https://app.example.com", "http://localhost:3000", "https://[::1]:8443")


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("websocket: null", "wrong-value: routes[0].websocket: expected false, or a table of bounds, got null"),
        ("websocket: 'no'", "wrong-value: routes[0].websocket: expected false, or a table of bounds"),
        ("websocket: 1", "wrong-value: routes[0].websocket: expected false, or a table of bounds, got 1"),
        ("websocket: {max_bytes: 1}", "unknown-key: routes[0].websocket.max_bytes"),
        ("websocket: {idle_s: 0}", "wrong-value: routes[0].websocket.idle_s: expected a number of seconds > 0, got 0"),
        ("websocket: {max_message_bytes: 0}", "wrong-value: routes[0].websocket.max_message_bytes"),
        ("websocket: {max_message_frames: 0}", "wrong-value: routes[0].websocket.max_message_frames"),
        ("websocket: {max_control_frames_per_s: 0.5}", "wrong-"),
        ("origins: ['*']", "wrong-value: routes[0].origins[0]: expected an origin"),
        ("origins: ['null']", "wrong-value: routes[0].origins[0]"),
        ("origins: [app.example.com]", "wrong-value: routes[0].origins[0]"),
        ("origins: ['https://*.example.com']", "wrong-value: routes[0].origins[0]"),
        ("origins: ['https://app.example.com/']", "wrong-value: routes[0].origins[0]"),
        ("origins: ['https://app.example.com:']", "wrong-value: routes[0].origins[0]"),
        ("origins: ['https://App.example.com']", "(browsers send it as https://app.example.com)"),
        ("origins: ['https://app.example.com:443']", "(browsers send it as https://app.example.com)"),
        ("origins: ['wss://app.example.com']", "wrong-value: routes[0].origins[0]"),
        (
            "websocket: false, origins: ['https://a.example']",
            "websocket: routes[0].origins: origins are for WebSockets",
        ),
    ],
)
def test_what_is_wrong_about_websockets_is_said_where_it_stands(written: str, expected: str) -> None:
    (fault,) = said(entry("path: /x", rest=f"auth: [jwt], {written}"))
    assert expected in fault


def test_origins_without_get_are_a_mistake() -> None:
    (fault,) = said(entry("path: /x, methods: [POST]", rest="auth: [jwt], origins: ['https://a.example']"))
    assert "origins are for WebSockets" in fault


X, ORDERS = 'path: "/x"', 'path: "/orders/**", methods: [GET], hosts: [localhost]'


@pytest.mark.parametrize(
    ("route", "expected"),
    [
        (
            f"{{name: r, match: {{{X}}}, upstream: {{service: open}}}}",
            "2:5: auth: routes[0]: neither auth nor public is",
        ),
        (entry(X, rest="auth: []"), "2:69: wrong-value: routes[0].auth"),
        (entry(X, rest="auth: [jwt], public: {reason: x}"), "2:5: auth: routes[0]: both auth and public are there"),
        (entry(X, rest='public: {reason: ""}'), "2:80: wrong-value: routes[0].public.reason"),
        (
            entry(X, rest="auth: [basic]"),
            '2:70: unknown-auth: routes[0].auth[0]: no such method of authentication "basic"',
        ),
        (entry(X, rest="auth: [jwt, jwt]"), "2:75: duplicate-name: routes[0].auth[1]"),
        (entry(X, rest="auth: [jwt], job: {}"), "2:76: unknown-key: routes[0].job"),
        (
            entry(X, "service: opn"),
            "2:56: unknown-service: routes[0].upstream.service: the service opn is not in services.yaml",
        ),
        (entry(X + ", hosts: [other]"), "2:43: unknown-host: routes[0].match.hosts[0]"),
        (entry('path: "/x", headers: {"x y": "1"}'), "2:52: wrong-value: routes[0].match.headers.x y"),
        (entry('path: "/x", headers: {x: "a\\tb"}'), "2:48: wrong-value: routes[0].match.headers.x"),
    ],
)
def test_broken_route_is_one_fault(route: str, expected: str) -> None:
    assert [each[: len(expected)] for each in said(route)] == [expected]


def test_unknown_service_gets_the_line_to_add_or_the_name_that_was_meant() -> None:
    assert said(entry(X, "service: opn"))[0].endswith("; did you mean open?")
    assert said(entry(X, "service: zzz"))[0].endswith('; add it there: zzz: {may_serve: ["/x"]}')


LOCAL = "hosts: [localhost]"


@pytest.mark.parametrize(
    ("match", "expected"),
    [
        (
            f'path: "/orders-admin/**", methods: [GET], {LOCAL}',
            "path: /orders-admin/** is not inside the grant of orders",
        ),
        (f'path: "/**", methods: [GET], {LOCAL}', "path: /** is not inside"),
        (f'path: "/*/7", methods: [GET], {LOCAL}', "path: /*/7 is not inside"),
        (f'path: "/Orders", methods: [GET], {LOCAL}', "path: /Orders is not inside"),
        (
            f'path: "/orders", methods: [GET, PUT], {LOCAL}',
            "methods: PUT not in the grant of orders; write methods: [GET]",
        ),
        (
            f'path: "/orders", {LOCAL}',
            "methods: HEAD, PUT, PATCH, DELETE, OPTIONS not in the grant of orders; write methods",
        ),
        (
            'path: "/orders", methods: [GET], hosts: [localhost, "::1"]',
            "hosts: [::1] not in the grant of orders; write hosts",
        ),
        ('path: "/orders", methods: [GET]', "hosts: api.example.com, [::1] not in the grant"),
    ],
)
def test_E3_P48_route_outside_its_grant_is_one_fault(match: str, expected: str) -> None:
    (found,) = said(entry(match, "service: orders"))
    _, rule, message = found.split(": ", 2)
    assert (rule, message[: len(expected) + 16]) == ("outside-grant", f"routes[0].match.{expected}")


@pytest.mark.parametrize(("path", "rewritten"), [("/orders/admin/**", "/admin/**"), ("/orders/{id}", "/*")])
def test_A6_rewrite_that_leaves_the_grant_is_one_fault(path: str, rewritten: str) -> None:
    (found,) = said(entry(f'path: "{path}", methods: [GET], {LOCAL}', "service: orders, strip_prefix: /orders"))
    assert f"outside-grant: routes[0].upstream.strip_prefix: the rewritten path {rewritten} is not inside" in found


def test_A6_rewrite_that_stays_inside_the_grant_is_taken() -> None:
    route = entry(f'path: "/orders", methods: [GET], {LOCAL}', "service: orders, strip_prefix: /orders")
    assert parse(sources(policies={"services.yaml": SERVICES, "routes.yaml": f"routes: [{route}]"})).routes


@pytest.mark.parametrize(
    ("prefix", "rule"),
    [
        ("/order", "rewrite"),
        ("/orders/7", "rewrite"),
        ("orders", "wrong-value"),
        ("/orders/", "wrong-value"),
        ("/{id}", "wrong-value"),
        ("/a/../b", "wrong-value"),
    ],
)
def test_prefix_that_is_not_leading_segments_is_refused(prefix: str, rule: str) -> None:
    (found,) = said(entry(ORDERS, f'service: open, strip_prefix: "{prefix}"'))
    assert found.split(": ")[1] == rule


@pytest.mark.parametrize(
    "endpoint",
    ["127.0.0.1", "127.0.0.1:0", "h:65536", "::1:80", "http://h:80", "u@h:80", ":80", "127.1:80", "h:080"],
)
def test_endpoint_of_another_syntax_is_refused(endpoint: str) -> None:
    (found,) = said(entry(X, f'service: open, endpoints: ["{endpoint}"]'))
    assert "wrong-value: routes[0].upstream.endpoints[0]: expected an upstream's HOST:PORT" in found


def test_names_are_unique() -> None:
    (found,) = said(entry(X), entry('path: "/y"'))
    assert found.startswith('3:12: duplicate-name: routes[1].name: "r" is the name of another route (line 2);')


def test_overlap_is_one_fault_that_names_both_places() -> None:
    (found,) = said(entry('path: "/x/{id}"', name="a"), entry('path: "/x/*", methods: [GET]', name="b"))
    assert found.startswith(
        '3:29: overlap: routes[1].match.path: route "b" and route "a" (policies/routes.yaml:2:29) match the same requests'
    )


def test_each_route_of_many_that_overlap_is_blamed_once() -> None:
    found = said(*(entry(X, name=f"r{at}") for at in range(4)))
    assert [each.split(": ")[1] for each in found] == ["overlap"] * 3


def test_route_with_a_fault_overlaps_nothing() -> None:
    (found,) = said(entry(X, name="a"), entry(X, rest="auth: [jwt], nme: 1", name="b"))
    assert "unknown-key" in found


def test_routes_without_readable_names_do_not_stop_the_others() -> None:
    rules = [each.split(": ")[1] for each in said("7", entry(X, name="5"), '{name: "a b"}')]
    assert sorted(rules) == ["missing-key", "missing-key", "wrong-type", "wrong-value", "wrong-value"]
