"""The head the upstream gets: nothing unread, nothing spoofed, the verified identity and nothing of the token."""

from __future__ import annotations

import pytest

from edge.forward.fields import MANAGED, nominated, request_head, upstream_path
from edge.model.decision import Admission, Permit
from edge.model.http import RawField, Request
from edge.model.identity import ANONYMOUS, Peer, Principal
from edge.model.route import PathPattern, Route, RouteMatch, Upstream

ALICE = Principal(method="jwt", issuer="https://idp.example.com/", subject="alice", scopes=frozenset(("b", "a")))
PEER = Peer("192.0.2.1", 5, "192.0.2.1", None, "TLSv1.3", "x")
IDS = ("D1", b"%032x%016x" % (0xAB, 0xCD))


def head(
    *fields: RawField,
    principal: Principal = ALICE,
    peer: Peer = PEER,
    strip_prefix: str = "",
    forward_token: bool = False,
    query: bytes | None = None,
) -> bytes:
    route = Route(
        name="orders",
        pattern=PathPattern("/orders/**", ("orders",)),
        hosts=("localhost",),
        methods=("GET",),
        upstream=Upstream("orders", "spiffe://mesh.internal/svc/orders", strip_prefix=strip_prefix),
        auth=("jwt",),
        forward_token=forward_token,
    )
    request = Request(
        method="GET",
        path="/orders/7",
        raw_query=query or b"",
        has_query=query is not None,
        host="localhost",
        authority="localhost:8443",
        fields=((b"host", b"localhost:8443"), *fields),
        raw_authorization=next((value for name, value in fields if name == b"authorization"), None),
        content_length=None,
        chunked=False,
    )
    # Forging a permit is what no other place may do; here it stands for what the line made.
    permit = Permit(principal=principal, match=RouteMatch(route, {}), policies=("p",))
    return request_head(Admission(permit), request, peer, *IDS)


def values(raw: bytes, name: bytes) -> list[bytes]:
    return [line.partition(b": ")[2] for line in raw.split(b"\r\n")[1:] if line.partition(b": ")[0] == name]


@pytest.mark.parametrize("name", sorted(MANAGED))
def test_managed_fields_of_a_client_never_pass_B1_B5(name: bytes) -> None:
    assert b"evil" not in head((name, b"evil"))


@pytest.mark.parametrize("name", sorted(MANAGED))
def test_managed_fields_of_an_anonymous_client_never_pass_B1(name: bytes) -> None:
    raw = head((name, b"evil"), principal=ANONYMOUS)
    assert b"evil" not in raw
    assert values(raw, b"x-auth-subject") == []


def test_the_verified_subject_passes_and_the_token_does_not() -> None:
    raw = head((b"authorization", b"Bearer secret"), (b"x-auth-subject", b"root"))
    assert values(raw, b"x-auth-subject") == [b"alice"]
    assert values(raw, b"x-auth-issuer") == [b"https://idp.example.com/"]
    assert values(raw, b"x-auth-scopes") == [b"a b"]
    assert b"secret" not in raw


def test_a_route_may_forward_the_token() -> None:
    assert values(head((b"authorization", b"Bearer t"), forward_token=True), b"authorization") == [b"Bearer t"]


@pytest.mark.parametrize(
    "name", [b"te", b"trailer", b"upgrade", b"keep-alive", b"proxy-authorization", b"http2-settings", b"expect"]
)
def test_hop_by_hop_fields_stay_on_their_hop(name: bytes) -> None:
    assert values(head((name, b"x")), name) == []


@pytest.mark.parametrize("connection", [b"x-a", b"X-A", b"close, x-a", b"close,\tX-a "])
def test_fields_nominated_in_connection_are_removed_B4(connection: bytes) -> None:
    raw = head((b"connection", connection), (b"x-a", b"1"), (b"x-b", b"2"))
    assert values(raw, b"x-a") == []
    assert values(raw, b"x-b") == [b"2"]


def test_connection_cannot_remove_what_the_gateway_adds_B4() -> None:
    raw = head((b"connection", b"x-auth-subject, x-forwarded-for, host, forwarded"))
    assert values(raw, b"x-auth-subject") == [b"alice"]
    assert values(raw, b"x-forwarded-for") == [b"192.0.2.1"]
    assert values(raw, b"host") == [b"localhost:8443"]


def test_several_connection_fields_are_read_as_one() -> None:
    assert nominated(((b"connection", b"a"), (b"connection", b"B, c"))) == {b"a", b"b", b"c"}


@pytest.mark.parametrize(
    ("subject", "expected"),
    [
        ("alice", b"alice"),
        ("a\r\nx: y", b"a%0D%0Ax:%20y"),
        ("ä", b"%C3%A4"),
        ("100%", b"100%25"),
        ("a\ud800b", b"a%ED%A0%80b"),
    ],
)
def test_a_subject_cannot_inject_a_field_and_can_be_read_back(subject: str, expected: bytes) -> None:
    raw = head(principal=Principal(method="jwt", issuer="i", subject=subject))
    assert values(raw, b"x-auth-subject") == [expected]


def test_an_ipv6_peer_is_quoted_in_forwarded() -> None:
    raw = head(peer=Peer("2001:db8::1", 5, "2001:db8::/64", None, "TLSv1.3", "x"))
    assert values(raw, b"forwarded") == [b'for="[2001:db8::1]";host="localhost:8443";proto=https']


def test_a_valid_trace_continues_with_our_span() -> None:
    trace = b"00-" + b"1" * 32 + b"-" + b"2" * 16 + b"-01"
    assert values(head((b"traceparent", trace)), b"traceparent") == [b"00-" + b"1" * 32 + b"-00000000000000cd-01"]


@pytest.mark.parametrize(
    "trace", [b"x", b"00-" + b"0" * 32 + b"-" + b"2" * 16 + b"-01", b"ff-" + b"1" * 32 + b"-" + b"2" * 16 + b"-01"]
)
def test_an_invalid_trace_is_replaced(trace: bytes) -> None:
    assert values(head((b"traceparent", trace)), b"traceparent") == [b"00-%032x-00000000000000cd-00" % 0xAB]


def test_query_and_stripped_prefix_make_the_target() -> None:
    assert head(strip_prefix="/orders", query=b"a=1").startswith(b"GET /7?a=1 HTTP/1.1\r\n")
    assert head(query=b"").startswith(b"GET /orders/7? HTTP/1.1\r\n")


@pytest.mark.parametrize(
    ("prefix", "path", "expected"),
    [
        ("/a", "/a", "/"),
        ("/a", "/a/", "/"),
        ("/a", "/a/b", "/b"),
        ("/a", "/ab", "/ab"),
        ("", "/a", "/a"),
        ("/a", "/b", "/b"),
    ],
)
def test_prefixes_are_stripped_by_whole_segments(prefix: str, path: str, expected: str) -> None:
    route = Route(
        name="r",
        pattern=PathPattern("/**", ()),
        hosts=(),
        methods=(),
        upstream=Upstream("s", "", strip_prefix=prefix),
        auth=(),
        public_reason="test",
    )
    assert upstream_path(route, path) == expected
