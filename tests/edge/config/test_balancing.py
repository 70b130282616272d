"""How a service's instances share its requests: keys of services.yaml, and weights of endpoints in routes.yaml."""

from __future__ import annotations

import pytest

from edge.config.parse import parse
from edge.forward.balance import DEFAULT, BalanceSettings, Policy
from edge.forward.health import CheckSettings, EjectionSettings
from tests.edge.config.house import faults, sources

ROUTES = """\
routes:
  - name: orders
    match: {path: "/orders/**", methods: [GET, POST]}
    upstream: {service: orders, endpoints: ["127.0.0.1:9101", "[::1]:9102", "orders.internal:80"], WEIGHTS}
    auth: [jwt]
"""


def service(more: str) -> dict[str, str]:
    return {"services.yaml": f"services:\n  orders: {{may_serve: [/orders/**], {more}}}\n"}


def test_a_service_that_says_nothing_has_the_defaults() -> None:
    assert parse(sources()).balancing == {"orders": DEFAULT}


def test_everything_can_be_said() -> None:
    more = (
        "balance: power_of_two, slow_start_s: 30, max_in_flight: {service: 100, instance: 40}, "
        "ejection: {failures: 3, counts_5xx: true, first_s: 1.5, longest_s: 60}, "
        'health: {path: "/up?deep=1", every_s: 5, timeout_s: 0.5, healthy_after: 1, unhealthy_after: 4}'
    )
    assert parse(sources(policies=service(more))).balancing["orders"] == BalanceSettings(
        Policy.POWER_OF_TWO,
        30.0,
        100,
        40,
        EjectionSettings(3, True, 1.5, 60.0),
        CheckSettings("/up?deep=1", 5, 0.5, 1, 4),
    )


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ("balance: least_requests", BalanceSettings(Policy.LEAST_REQUESTS)),
        ("ejection: false", BalanceSettings(ejection=None)),
        ("ejection: true", DEFAULT),
        ("health: {}", BalanceSettings(check=CheckSettings())),
        ("slow_start_s: 0", BalanceSettings(slow_start_s=0)),
        ("max_in_flight: {instance: 1}", BalanceSettings(max_in_flight_each=1)),
    ],
)
def test_each_key_alone(more: str, expected: BalanceSettings) -> None:
    assert parse(sources(policies=service(more))).balancing["orders"] == expected


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (
            "balance: random",
            "wrong-value: services.orders.balance: expected round_robin, least_requests or power_of_two",
        ),
        ("slow_start_s: -1", "wrong-value: services.orders.slow_start_s: expected a number of seconds, 0 for none"),
        ("max_in_flight: 7", "wrong-type: services.orders.max_in_flight: expected a table"),
        ("max_in_flight: {service: 0}", "wrong-value: services.orders.max_in_flight.service: expected a number of"),
        ("max_in_flight: {route: 1}", "unknown-key: services.orders.max_in_flight.route"),
        ("ejection: null", "wrong-value: services.orders.ejection: expected false, or a table"),
        ("ejection: {failures: 0}", "wrong-value: services.orders.ejection.failures: expected how often"),
        ("ejection: {first_s: 0}", "wrong-value: services.orders.ejection.first_s: expected a number of seconds"),
        ("health: {path: healthz}", "wrong-value: services.orders.health.path: expected a path"),
        ('health: {path: "/a b"}', "wrong-value: services.orders.health.path: expected a path"),
        ('health: {path: "/a\\r\\nx: y"}', "wrong-value: services.orders.health.path: expected a path"),
        ("health: {every_s: 0}", "wrong-value: services.orders.health.every_s: expected a number of seconds"),
        ("health: true", "wrong-type: services.orders.health: expected a table"),
    ],
)
def test_what_makes_no_sense_is_one_fault(more: str, expected: str) -> None:
    (said,) = faults(sources(policies=service(more)))
    assert expected in said


def test_weights_stand_in_the_order_of_the_endpoints() -> None:
    text = ROUTES.replace("WEIGHTS", 'weights: {"[::1]:9102": 5, "Orders.internal:80": 2}')
    (route,) = parse(sources(policies={"routes.yaml": text})).routes
    assert route.upstream.weights == (1, 5, 2)


def test_without_weights_all_are_equal() -> None:
    (route,) = parse(sources(policies={"routes.yaml": ROUTES.replace(", WEIGHTS", "")})).routes
    assert route.upstream.weights == ()


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ('{"127.0.0.1:9999": 2}', 'unknown-endpoint: routes[0].upstream.weights.127.0.0.1:9999: 127.0.0.1:9999 is not'),
        ('{"127.0.0.1:9101": 0}', "expected a weight of 1 to 1000, got 0"),
        ('{"127.0.0.1:9101": 1001}', "expected a weight of 1 to 1000, got 1001"),
        ("{somewhere: 1}", "expected an upstream's HOST:PORT"),
    ],
)  # fmt: skip
def test_a_weight_of_nobody_and_no_weight_are_faults(weights: str, expected: str) -> None:
    (said,) = faults(sources(policies={"routes.yaml": ROUTES.replace("WEIGHTS", f"weights: {weights}")}))
    assert expected in said
