"""Raw head → one canonical request, or a refusal."""

from __future__ import annotations

import pytest

from edge.errors import MalformedRequest, Refusal, UriTooLong
from edge.parse.request import MAX_QUERY_PARAMETERS, MAX_TARGET_BYTES, build

HOST = (b"host", b"LocalHost:8443")


def refused(method: str, target: bytes, *fields: tuple[bytes, bytes]) -> str:
    with pytest.raises(Refusal) as caught:
        build(method, target, "1.1", fields or (HOST,))
    return caught.value.rule


def test_a_plain_request_becomes_canonical() -> None:
    request, _ = build("GET", b"/orders/%37?x=1", "1.1", (HOST, (b"accept", b"*/*")))
    assert (request.method, request.path, request.raw_query, request.host, request.authority) == (
        "GET",
        "/orders/7",
        b"x=1",
        "localhost",
        "localhost:8443",
    )
    assert not request.has_body
    assert request.field(b"accept") == b"*/*"
    assert request.field(b"absent") is None


@pytest.mark.parametrize("method", ["", "TRACE", "CONNECT", "get", "PROPFIND", "GETX"])
def test_methods_that_no_route_may_name_are_refused_A13(method: str) -> None:
    assert refused(method, b"/") == "method"


def test_a_missing_host_is_refused() -> None:
    assert refused("GET", b"/", (b"accept", b"*/*")) == "host-missing"


def test_a_long_target_is_414() -> None:
    with pytest.raises(UriTooLong):
        build("GET", b"/" + b"a" * MAX_TARGET_BYTES, "1.1", (HOST,))


@pytest.mark.parametrize("mark", [b"&", b";", b"&;"])
def test_more_parameters_than_an_upstream_should_have_to_count_are_414_C4(mark: bytes) -> None:
    within = mark.join([b"a"] * ((MAX_QUERY_PARAMETERS - 1) // len(mark) + 1))
    assert build("GET", b"/?" + within, "1.1", (HOST,))[0].raw_query == within
    with pytest.raises(UriTooLong) as caught:
        build("GET", b"/?" + within + b"&a" * len(mark), "1.1", (HOST,))
    assert caught.value.rule == "query-parameters"


@pytest.mark.parametrize("framing", [(b"content-length", b"3"), (b"transfer-encoding", b"chunked")])
def test_an_upgrade_with_a_body_is_refused_C3(framing: tuple[bytes, bytes]) -> None:
    assert refused("POST", b"/", HOST, (b"upgrade", b"websocket"), framing) == "upgrade-with-body"


@pytest.mark.parametrize(
    "target", [b"http://localhost/", b"*", b"orders", b"@evil", b"/a#b", b"//a", b"/a/../b", b"/%2e%2e/a"]
)
def test_targets_that_are_not_one_canonical_path_are_refused_A1_A4_A10(target: bytes) -> None:
    with pytest.raises(MalformedRequest):
        build("GET", target, "1.1", (HOST,))


def test_an_encoded_slash_is_kept_for_the_route_to_decide() -> None:
    assert build("GET", b"/a%2fb", "1.1", (HOST,))[0].path == "/a%2Fb"


def test_bodies_are_told_by_framing() -> None:
    assert build("POST", b"/", "1.1", (HOST, (b"content-length", b"3")))[0].has_body
    assert build("POST", b"/", "1.1", (HOST, (b"transfer-encoding", b"chunked")))[0].has_body
    assert not build("POST", b"/", "1.1", (HOST, (b"content-length", b"0")))[0].has_body
