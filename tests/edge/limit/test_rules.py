from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.limit.rules import (
    BadSetting,
    KeyPart,
    LimitSettings,
    Rate,
    counts_by_address,
    is_limit_name,
    key_parts,
    parse_rate,
    store_key,
)
from edge.model.identity import ANONYMOUS, Peer, Principal
from edge.model.route import PathPattern, Route, Upstream, Wildcard

ROUTE = Route(
    "read",
    PathPattern("/**", (Wildcard.REST,)),
    ("h",),
    ("GET",),
    Upstream("orders", "spiffe://t/svc/orders"),
    ("jwt",),
)
PEER = Peer("192.0.2.7", 1, "192.0.2.7", None, "TLSv1.3", "")
ALICE = Principal("jwt", "https://idp/", "alice")


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("100/minute", Rate(100, 60)),
        ("5/second", Rate(5, 1)),
        ("10000000/second", Rate(10_000_000, 1)),
        ("5 per 2 hours", Rate(5, 7200)),
        ("1/day", Rate(1, 86_400)),
    ],
)
def test_a_rate_is_read_as_the_package_limits_does(text: str, rate: Rate) -> None:
    assert rate == parse_rate(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "100",
        "100/",
        "/minute",
        "0/minute",
        "-1/minute",
        "1.5/minute",
        "100/fortnight",
        "100/minute;1/second",
        "100/minute, 1/second",
        "100 / minute\n",
        "100/0 minutes",
        "100/minute ",
        "9999999999999/second",
        "1/999999999 years",
        "٣/minute",
        "1" * 5000 + "/second",
    ],
)
def test_anything_but_one_rate_is_refused_with_a_remedy(text: str) -> None:
    fault = parse_rate(text)
    assert isinstance(fault, BadSetting)
    assert "100/minute" in fault.remedy


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=20))
def test_any_text_gives_a_rate_or_a_fault(text: str) -> None:
    assert isinstance(parse_rate(text), Rate | BadSetting)


@pytest.mark.parametrize("name", ["", "a b", 'a"', "a\\", "ä", "-a", "a" * 65, "a\n"])
def test_a_name_that_a_header_could_not_carry_is_refused(name: str) -> None:
    assert not is_limit_name(name)


def test_plain_names_are_accepted() -> None:
    assert all(map(is_limit_name, ["a", "orders-subject", "v1.orders_2", "a" * 64]))


@pytest.mark.parametrize(
    ("service", "route", "applies"),
    [
        (None, None, True),
        ("orders", None, True),
        ("orders", "read", True),
        (None, "read", True),
        ("billing", None, False),
        (None, "write", False),
        ("orders", "write", False),
        ("billing", "read", False),
    ],
)
def test_a_limit_applies_where_everything_it_names_fits(service: str | None, route: str | None, applies: bool) -> None:
    assert applies == LimitSettings("l", 1, 1, service=service, route=route).applies_to(ROUTE)


def parts(principal: Principal, *key: KeyPart) -> list[list[str]]:
    return key_parts(LimitSettings("l", 1, 1, key=key), principal, ROUTE, PEER)


def test_the_subject_is_counted_under_its_issuer() -> None:
    assert parts(ALICE, "subject") == [["subject", "https://idp/", "alice"]]


def test_all_parts_are_tagged_in_the_order_of_the_file() -> None:
    caller = Principal("jwt", "i", "s", tenant="t", client_id="c")
    expected = [["issuer", "i"], ["tenant", "i", "t"], ["client", "i", "c"], ["ip", "192.0.2.7"]]
    assert [*expected, ["route", "read"], ["service", "orders"]] == parts(
        caller, "issuer", "tenant", "client", "ip", "route", "service"
    )


@pytest.mark.parametrize("part", ["tenant", "client"])
def test_a_caller_without_the_part_is_counted_by_its_subject(part: KeyPart) -> None:
    assert parts(ALICE, part) == [["subject", "https://idp/", "alice"]]


@pytest.mark.parametrize("part", ["subject", "issuer", "tenant", "client"])
def test_an_anonymous_caller_is_counted_by_its_address(part: KeyPart) -> None:
    assert parts(ANONYMOUS, part) == [["ip", "192.0.2.7"]]
    assert counts_by_address(LimitSettings("l", 1, 1, key=(part,)), ANONYMOUS)
    assert not counts_by_address(LimitSettings("l", 1, 1, key=(part,)), ALICE)


def test_a_limit_by_address_depends_on_the_connection_whoever_calls() -> None:
    assert counts_by_address(LimitSettings("l", 1, 1, key=("route", "ip")), ALICE)
    assert not counts_by_address(LimitSettings("l", 1, 1, key=("route",)), ANONYMOUS)


NAMES = st.text(max_size=6)


@settings(max_examples=100, deadline=None)
@given(NAMES, NAMES, NAMES, NAMES)
def test_two_callers_share_a_counter_only_when_issuer_and_subject_are_equal(a: str, b: str, c: str, d: str) -> None:
    limit = LimitSettings("l", 1, 1)
    one = store_key(limit, key_parts(limit, Principal("jwt", a, b), ROUTE, PEER))
    other = store_key(limit, key_parts(limit, Principal("jwt", c, d), ROUTE, PEER))
    assert ((a, b) == (c, d)) == (one == other)


def test_a_tenant_named_like_a_subject_is_another_counter() -> None:
    limit = LimitSettings("l", 1, 1, key=("tenant",))
    tenant = key_parts(limit, Principal("jwt", "i", "x", tenant="alice"), ROUTE, PEER)
    subject = key_parts(limit, Principal("jwt", "i", "alice"), ROUTE, PEER)
    assert store_key(limit, tenant) != store_key(limit, subject)


def test_changing_the_rate_starts_another_counter_and_the_key_holds_no_subject() -> None:
    one = store_key(LimitSettings("l", 1, 1), [["subject", "i", "alice"]])
    assert one != store_key(LimitSettings("l", 2, 1), [["subject", "i", "alice"]])
    assert "alice" not in one
    assert one.startswith("{edge:limit}:l:")
