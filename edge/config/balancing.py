"""How a service's instances share its requests: the keys of services.yaml that say so → `BalanceSettings`.

They stand with the service and not with a route, because what is under way at an instance, and how it does, is the same
whichever route leads there.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from edge.config.shape import Expect, Shape, pattern
from edge.forward.balance import DEFAULT, BalanceSettings, Policy
from edge.forward.health import EJECTION, CheckSettings, EjectionSettings

_CHECK = CheckSettings()

Seconds = Annotated[float, Field(gt=0, le=86_400), Expect("a number of seconds > 0", "10")]
Times = Annotated[int, Field(ge=1, le=1000), Expect("how often in a row, 1 to 1000", "3")]
Requests = Annotated[int, Field(ge=1, le=1_000_000), Expect("a number of requests ≥ 1", "100")]


class EjectionShape(Shape):
    """`ejection:` of a service; `false` ejects nobody."""

    failures: Times = EJECTION.failures
    counts_5xx: bool = EJECTION.counts_5xx
    first_s: Seconds = EJECTION.first_s
    longest_s: Seconds = EJECTION.longest_s


class HealthShape(Shape):
    """`health:` of a service: checks by GET over the same mTLS; 2xx is healthy. Absent: only who names a path is checked."""

    path: Annotated[str, pattern(r"/[!-~]{0,199}"), Expect("a path, as it is sent", "/healthz")] = _CHECK.path
    every_s: Annotated[float, Field(ge=0.5, le=86_400), Expect("a number of seconds ≥ 0.5", "10")] = _CHECK.every_s
    timeout_s: Seconds = _CHECK.timeout_s
    healthy_after: Times = _CHECK.healthy_after
    unhealthy_after: Times = _CHECK.unhealthy_after


class InFlightShape(Shape):
    """`max_in_flight:` of a service: requests and WebSockets under way in this gateway; divided among its workers."""

    service: Requests | None = None
    instance: Requests | None = None


def _no_ejection(value: object) -> object:
    if value is None:
        raise ValueError("nothing is neither yes nor no")
    return None if value is False else {} if value is True else value


Balance = Annotated[Literal["round_robin", "least_requests", "power_of_two"], Field()]
SlowStart = Annotated[float, Field(ge=0, le=86_400), Expect("a number of seconds, 0 for none", "10")]
Ejection = Annotated[
    EjectionShape | None, BeforeValidator(_no_ejection), Expect("false, or a table of settings", "false")
]
Weight = Annotated[int, Field(ge=1, le=1000), Expect("a weight of 1 to 1000", "2")]


def settings(
    balance: Balance,
    slow_start_s: float,
    max_in_flight: InFlightShape,
    ejection: EjectionShape | None,
    health: HealthShape | None,
) -> BalanceSettings:
    """What a service's entry says, as the room uses it."""
    return BalanceSettings(
        policy=Policy(balance),
        slow_start_s=slow_start_s,
        max_in_flight=max_in_flight.service,
        max_in_flight_each=max_in_flight.instance,
        ejection=EjectionSettings(**ejection.model_dump()) if ejection is not None else None,
        check=CheckSettings(**health.model_dump()) if health is not None else None,
    )


DEFAULT_SLOW_START_S = DEFAULT.slow_start_s
