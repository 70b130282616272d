from __future__ import annotations

from edge.limit.fields import exhausted_fields, ratelimit_fields
from edge.model.decision import Exhausted, QuotaState


def test_no_limit_gives_no_field() -> None:
    assert ratelimit_fields(()) == []


def test_one_limit_is_told_with_its_policy() -> None:
    assert ratelimit_fields([QuotaState("orders-subject", 100, 60, 42, 17)]) == [
        (b"ratelimit-policy", b'"orders-subject";q=100;w=60'),
        (b"ratelimit", b'"orders-subject";r=42;t=17'),
    ]


def test_several_limits_are_one_list_per_field() -> None:
    states = [QuotaState("a", 5, 1, 4, 1), QuotaState("b", 100, 60, 9, 3)]
    assert ratelimit_fields(states) == [
        (b"ratelimit-policy", b'"a";q=5;w=1, "b";q=100;w=60'),
        (b"ratelimit", b'"a";r=4;t=1, "b";r=9;t=3'),
    ]


def test_an_exhausted_limit_has_nothing_left_until_then() -> None:
    assert exhausted_fields(Exhausted("a", 5, 60, 7)) == [
        (b"ratelimit-policy", b'"a";q=5;w=60'),
        (b"ratelimit", b'"a";r=0;t=7'),
    ]


def test_the_window_of_bad_credentials_is_not_told() -> None:
    assert exhausted_fields(Exhausted("failed-credentials", 0, 1, 1)) == []
