"""What of an upstream's answer the downstream may see."""

from __future__ import annotations

import pytest

from edge.model.http import KnownFields, RawField
from edge.model.route import NOSNIFF, PathPattern, Route, Upstream
from edge.respond.fields import outgoing


def route(*said: RawField) -> Route:
    upstream = Upstream("orders", "spiffe://mesh.internal/svc/orders")
    return Route("r", PathPattern("/", ("",)), (), ("GET",), upstream, ("jwt",), answer_fields=said)


def left(*fields: RawField) -> list[RawField]:
    return outgoing(fields, route())


@pytest.mark.parametrize("name", [b"connection", b"transfer-encoding", b"content-length", b"server", b"via", b"alt-svc",
                                  b"x-powered-by", b"strict-transport-security", b"x-accel-redirect"])  # fmt: skip
def test_hop_framing_and_the_inside_stay_here(name: bytes) -> None:
    assert left((name, b"close"), (b"etag", b'"1"')) == [(b"etag", b'"1"')]


@pytest.mark.parametrize(
    "name", [b"edge-assertion", b"x-auth-subject", b"forwarded", b"x-forwarded-for", b"x-request-id"]
)
def test_what_the_gateway_told_the_upstream_is_not_told_to_the_client(name: bytes) -> None:
    assert left((name, b"spiffe://mesh.internal/svc/a")) == []


def test_nominated_fields_belong_to_the_hop_B4() -> None:
    assert left((b"connection", b"X-Hop , close"), (b"x-hop", b"1"), (b"x-kept", b"1")) == [(b"x-kept", b"1")]


def test_what_the_route_says_stands_in_place_of_the_upstream_s() -> None:
    policy = (b"content-security-policy", b"default-src 'self'")
    fields = [(b"content-security-policy", b"script-src *"), (b"x-content-type-options", b"sniff"), (b"etag", b"1")]
    assert outgoing(fields, route(NOSNIFF, policy)) == [(b"etag", b"1"), NOSNIFF, policy]


def test_repeated_fields_keep_their_order() -> None:
    cookies = [(b"set-cookie", b"a=1"), (b"set-cookie", b"b=2")]
    assert left(*cookies) == cookies


def test_an_answer_has_one_date_the_first_that_was_said() -> None:
    dates = [(b"date", b"Sun, 06 Nov 1994 08:49:37 GMT"), (b"date", b"Sun, 06 Nov 1994 08:49:38 GMT")]
    assert left(dates[0], (b"etag", b"1"), *dates) == [dates[0], (b"etag", b"1")]
    assert left((b"connection", b"date"), *dates) == []


def test_what_passes_of_fields_that_are_kept_is_worked_out_for_each_route() -> None:
    known, plain, adding = KnownFields([(b"etag", b"1"), (b"server", b"x")]), route(), route(NOSNIFF)
    for _ in range(2):
        assert outgoing(known, plain) == [(b"etag", b"1")]
        assert outgoing(known, adding) == [(b"etag", b"1"), NOSNIFF]
        outgoing(known, plain).append((b"x-request-id", b"of one request"))  # the caller's to go on with
    other = KnownFields([(b"etag", b"2")])
    assert outgoing(other, plain) == [(b"etag", b"2")]
