"""The head that a plain service gets: the gateway's own, but for what belongs to the hop."""

from __future__ import annotations

import pytest

from edge.forward.fields import MANAGED
from edge.forward.passed import passed_head
from edge.model.decision import Admission, Permit
from edge.model.http import RawField, Request
from edge.model.identity import Peer, Principal
from edge.model.route import PathPattern, Route, RouteMatch, Upstream

ROUTE = Route("edge-attach", PathPattern("/**", ()), (), ("GET",), Upstream("edge.attached", ""), auth=("mtls",))
GATEWAY = Principal(method="mtls", issuer="", subject="spiffe://mesh.internal/gw/edge")
PEER = Peer("192.0.2.1", 5, "192.0.2.1", None, "TLSv1.3", "x")


def head(*fields: RawField, length: int | None = None, chunked: bool = False, query: bytes | None = None) -> bytes:
    request = Request(
        method="POST",
        path="/orders/7",
        raw_query=query or b"",
        has_query=query is not None,
        host="localhost",
        authority="localhost:8443",
        fields=((b"host", b"localhost:8443"), *fields),
        raw_authorization=None,
        content_length=length,
        chunked=chunked,
    )
    permit = Permit(principal=GATEWAY, match=RouteMatch(ROUTE, {}), policies=("p",))
    return passed_head(Admission(permit), request, PEER, "D1", b"0" * 48)


@pytest.mark.parametrize("name", sorted([*MANAGED, b"authorization", b"traceparent", b"cookie", b"x-anything"]))
def test_what_the_gateway_said_passes_as_it_is(name: bytes) -> None:
    said = head((name, b"its Value")).split(b"\r\n")
    assert said == [b"POST /orders/7 HTTP/1.1", b"host: localhost:8443", name + b": its Value", b"", b""]


@pytest.mark.parametrize(
    "name", [b"connection", b"te", b"upgrade", b"keep-alive", b"sec-websocket-key", b"proxy-connection", b"expect"]
)
def test_what_belongs_to_the_hop_does_not(name: bytes) -> None:
    assert b"said" not in head((name, b"said"))


def test_a_field_that_connection_names_belongs_to_the_hop() -> None:
    assert b"x-hop" not in head((b"x-hop", b"1"), (b"connection", b"X-Hop"))


def test_framing_is_said_anew_once() -> None:
    assert head((b"content-length", b"3"), length=3).endswith(b"host: localhost:8443\r\ncontent-length: 3\r\n\r\n")
    chunked = head((b"transfer-encoding", b"chunked"), chunked=True)
    assert chunked.endswith(b"host: localhost:8443\r\ntransfer-encoding: chunked\r\n\r\n")


def test_the_query_stays_as_it_was_also_when_it_is_empty() -> None:
    assert head(query=b"a=%2F&b").startswith(b"POST /orders/7?a=%2F&b HTTP/1.1\r\n")
    assert head(query=b"").startswith(b"POST /orders/7? HTTP/1.1\r\n")
