"""Who gets a WebSocket through a whole gateway, and what becomes of a handshake that is none."""

from __future__ import annotations

import pytest

from tests.wire.h2_client import Fields, H2Client
from tests.wire.rig import GET
from tests.wire.websocket_over import rig, running
from tests.wire.websocket_rig import (
    KEY,
    TEXT,
    SocketRig,
    StreamEnd,
    accept_of,
    accepting,
    extended_connect,
    frame,
    handshake,
    sent,
)

__all__ = ["rig", "running"]  # fixtures


def test_a_client_gets_a_101_for_its_own_key(rig: SocketRig) -> None:
    _, answer = rig.ask(handshake(Connection="keep-alive, Upgrade"))
    assert answer.status == 101
    assert answer.fields["sec-websocket-accept"] == accept_of(KEY).decode()
    assert (answer.fields["upgrade"], answer.fields["connection"]) == ("websocket", "upgrade")
    assert "sec-websocket-extensions" not in answer.fields
    assert not {"content-length", "transfer-encoding"} & set(answer.fields)
    assert {"strict-transport-security", "date", "x-request-id"} <= set(answer.fields)


def test_the_upstream_sees_a_handshake_of_ours_and_the_fields_of_any_request(rig: SocketRig) -> None:
    raw = handshake(
        Connection="Upgrade, X-Secret",
        X_Secret="1",
        X_Kept="2",
        Sec_WebSocket_Extensions="permessage-deflate; client_max_window_bits",
        X_Auth_Subject="root",
        Authorization="Bearer not-a-token",
        Cookie="a=b",
    )
    rig.open(raw)
    (head,) = rig.sockets.heads
    assert head.startswith(b"GET /orders/socket HTTP/1.1\r\nhost: localhost\r\n")
    assert b"connection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: " in head
    assert KEY not in head
    for absent in (b"extensions", b"x-secret", b"x-auth-subject", b"authorization"):
        assert absent not in head
    for present in (b"x-kept: 2\r\n", b"cookie: a=b\r\n", b"x-request-id: ", b"forwarded: ", b"traceparent: "):
        assert present in head


def test_fields_of_the_upstream_s_101_are_those_of_any_answer(rig: SocketRig) -> None:
    rig.sockets.answer = lambda head: accepting(head).replace(
        b"\r\n\r\n", b"\r\nserver: leak\r\nset-cookie: a=b\r\n\r\n"
    )
    _, answer = rig.ask(handshake())
    assert (answer.status, answer.fields["set-cookie"]) == (101, "a=b")
    assert "server" not in answer.fields


@pytest.mark.parametrize("chosen", [None, b"v2", b"chat"])
def test_the_subprotocol_is_the_upstream_s_choice_of_the_offered(rig: SocketRig, chosen: bytes | None) -> None:
    line = b"\r\nsec-websocket-protocol: %b\r\n\r\n" % chosen if chosen else b"\r\n\r\n"
    rig.sockets.answer = lambda head: accepting(head).replace(b"\r\n\r\n", line)
    _, answer = rig.ask(handshake(Sec_WebSocket_Protocol="v2, chat"))
    assert answer.fields.get("sec-websocket-protocol") == (chosen.decode() if chosen else None)
    assert b"sec-websocket-protocol: v2, chat\r\n" in rig.sockets.heads[0]


REFUSALS: dict[str, tuple[bytes, int, str, str]] = {
    "a post": (handshake(method="POST"), 400, "malformed-request", "websocket-request"),
    "a head": (handshake(method="HEAD"), 400, "malformed-request", "websocket-request"),
    "http 1.0": (handshake().replace(b"HTTP/1.1", b"HTTP/1.0"), 400, "malformed-request", "websocket-request"),
    "a body": (handshake(Content_Length="2") + b"ab", 400, "malformed-request", "upgrade-with-body"),
    "chunks": (handshake(Transfer_Encoding="chunked") + b"0\r\n\r\n", 400, "malformed-request", "upgrade-with-body"),
    "no connection": (handshake(Connection=None), 400, "malformed-request", "websocket-connection"),
    "another connection": (handshake(Connection="close"), 400, "malformed-request", "websocket-connection"),
    "no key": (handshake(Sec_WebSocket_Key=None), 400, "malformed-request", "websocket-key"),
    "a short key": (handshake(Sec_WebSocket_Key="AAAA"), 400, "malformed-request", "websocket-key"),
    "two keys": (handshake(sec_websocket_key="AAAA"), 400, "malformed-request", "field-repeated"),
    "no version": (handshake(Sec_WebSocket_Version=None), 400, "malformed-request", "websocket-version"),
    "an old version": (handshake(Sec_WebSocket_Version="8"), 426, "websocket-version", "websocket-version"),
    "a version of several": (handshake(Sec_WebSocket_Version="13, 8"), 426, "websocket-version", "websocket-version"),
    "a subprotocol twice": (handshake(Sec_WebSocket_Protocol="a, a"), 400, "malformed-request", "websocket-protocol"),
    "a page of another site": (handshake(Origin="https://evil.example"), 403, "forbidden", "foreign-origin"),
    "a page without origin": (handshake(Origin="null"), 403, "forbidden", "foreign-origin"),
    "a route that says no": (handshake("/small/x"), 403, "forbidden", "websocket-off"),
    "a route without get": (handshake("/slashes/x"), 405, "method-not-allowed", "method-not-allowed"),
    "no route": (handshake("/elsewhere"), 404, "no-route", "no-route"),
    "another host": (handshake(Host="elsewhere"), 421, "misdirected", "host-not-served"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_what_is_no_handshake_is_refused_and_the_connection_closes_C3(rig: SocketRig, case: str) -> None:
    raw, status, reason, rule = REFUSALS[case]
    client, answer = rig.ask(raw + GET)  # frames or requests: what follows a refused handshake is not read
    if not raw.startswith(b"HEAD"):
        assert answer.reason == reason
    assert (answer.status, "close" in answer.fields["connection"]) == (status, True)
    assert client.is_ended()
    assert rig.sockets.heads == []
    leaf = rig.record(answer.fields["x-request-id"])
    assert (leaf["event.reason"], leaf["rule.id"], leaf["http.response.status_code"]) == (reason, rule, status)


OVER_HTTP2: dict[str, tuple[Fields, int, str, str]] = {
    "no version": (extended_connect(handshake(Sec_WebSocket_Version=None)), 400, "malformed-request",
                   "websocket-version"),
    "an old version": (extended_connect(handshake(Sec_WebSocket_Version="8")), 426, "websocket-version",
                       "websocket-version"),
    "a length": (extended_connect(handshake(Content_Length="0")), 400, "malformed-request", "websocket-request"),
    "a subprotocol twice": (extended_connect(handshake(Sec_WebSocket_Protocol="a, a")), 400, "malformed-request",
                            "websocket-protocol"),
    "a page of another site": (extended_connect(handshake(Origin="https://evil.example")), 403, "forbidden",
                               "foreign-origin"),
    "a route that says no": (extended_connect(handshake("/small/x")), 403, "forbidden", "websocket-off"),
    "a route without get": (extended_connect(handshake("/slashes/x")), 405, "method-not-allowed", "method-not-allowed"),
    "another host": (extended_connect(handshake(Host="elsewhere")), 421, "misdirected", "host-not-served"),
    "an upgrade": ([*extended_connect(handshake()), (b"upgrade", b"websocket")], 400, "malformed-request",
                   "connection-field"),
    "a get": ([(b":method", b"GET"), *extended_connect(handshake())[1:]], 400, "malformed-request", "pseudo-field"),
    "two protocols": ([(b":protocol", b"h2c"), *extended_connect(handshake())], 400, "malformed-request",
                      "pseudo-field"),
    "a protocol behind fields": ([*extended_connect(handshake())[:1], *extended_connect(handshake())[2:],
                                  (b":protocol", b"websocket")], 400, "malformed-request", "pseudo-field"),
    "no path": ([field for field in extended_connect(handshake()) if field[0] != b":path"], 400, "malformed-request",
                "pseudo-field"),
    "another scheme": ([(b":scheme", b"http") if field[0] == b":scheme" else field
                        for field in extended_connect(handshake())], 400, "malformed-request", "scheme"),
}  # fmt: skip


@pytest.mark.parametrize("case", OVER_HTTP2)
def test_over_http2_it_is_refused_and_the_connection_lives_C2_C3(rig: SocketRig, case: str) -> None:
    head, status, reason, rule = OVER_HTTP2[case]
    with H2Client(rig.gateway) as client:
        answer = client.answer(client.head(head, is_end=False))
        assert (answer.status, answer.reason) == (status, reason)
        rig.sockets.answer = lambda _: b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
        assert client.ask().status == 200
    assert len(rig.sockets.heads) == 1
    leaf = rig.record(answer.fields["x-request-id"])
    assert (leaf["event.reason"], leaf["rule.id"], leaf.get("http.version", "2")) == (reason, rule, "2")


def test_over_http2_a_stream_that_has_ended_is_no_websocket(rig: SocketRig) -> None:
    with H2Client(rig.gateway) as client:
        answer = client.answer(client.head(extended_connect(handshake()), is_end=True))
    assert (answer.status, answer.reason) == (400, "malformed-request")
    assert rig.sockets.heads == []


def test_over_http2_it_is_offered_and_shares_its_connection(rig: SocketRig) -> None:
    rig.over = "h2"
    pair = rig.open()
    client = pair.client
    assert isinstance(client, StreamEnd)
    assert client.h2.connection.remote_settings.enable_connect_protocol == 1
    other = client.h2.head(extended_connect(handshake("/orders/other")), is_end=False)
    rig.sockets.ends.get(timeout=15).send(frame(TEXT, b"other"))
    pair.upstream.send(frame(TEXT, b"one"))
    assert client.frame().payload == b"one"
    while not client.h2.bodies.get(other):
        client.h2.pump()
    client.end()
    assert pair.upstream.is_ended()


def test_over_http2_the_end_of_the_stream_is_the_end_of_the_connection(rig: SocketRig) -> None:
    rig.over = "h2"
    pair = rig.open()
    client = pair.client
    assert isinstance(client, StreamEnd)
    client.h2.connection.end_stream(client.stream)
    client.h2.flush()
    assert pair.upstream.is_ended()
    leaf = rig.record(pair.decision)
    assert (leaf["event.reason"], leaf["websocket.close_code"]) == ("client-gone", 1006)


def test_a_426_says_which_version_is_spoken(rig: SocketRig) -> None:
    _, answer = rig.ask(handshake(Sec_WebSocket_Version="12"))
    assert (answer.fields["sec-websocket-version"], answer.fields["upgrade"]) == ("13", "websocket")
    assert answer.fields["connection"] == "upgrade, close"


@pytest.mark.parametrize("origin", ["https://localhost", "https://localhost:443", "https://app.example.com",
                                    "http://localhost:3000"])  # fmt: skip
def test_pages_of_the_host_and_of_listed_origins_may_open_one(rig: SocketRig, origin: str) -> None:
    rig.open(handshake(Origin=origin))


@pytest.mark.parametrize("upgrade", ["h2c", "TLS/1.0", "websocket2"])
def test_an_upgrade_to_something_else_is_ignored_C3(rig: SocketRig, upgrade: str) -> None:
    rig.sockets.answer = lambda _: b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
    _, answer = rig.ask(handshake(Upgrade=upgrade))
    assert (answer.status, answer.body) == (200, b"ok")
    assert b"upgrade" not in rig.sockets.heads[0].lower()
    assert b"sec-websocket" not in rig.sockets.heads[0]


UPSTREAMS: dict[str, tuple[bytes, bytes, str]] = {
    "another accept": (b"sec-websocket-accept: ", b"sec-websocket-accept: A", "upstream-websocket-accept"),
    "no accept": (b"sec-websocket-accept: ", b"x: ", "upstream-websocket-accept"),
    "an extension": (b"upgrade: w", b"sec-websocket-extensions: permessage-deflate\r\nupgrade: w",
                     "upstream-websocket-extension"),
    "a subprotocol": (b"upgrade: w", b"sec-websocket-protocol: chat\r\nupgrade: w", "upstream-websocket-protocol"),
    "another protocol": (b"upgrade: websocket", b"upgrade: h2c", "upstream-upgrade"),
    "no upgrade": (b"upgrade: websocket\r\n", b"", "upstream-upgrade"),
    "a 200 in place of it": (b"101", b"200", "upstream-not-switched"),
    "a 204": (b"101", b"204", "upstream-not-switched"),
    "http 1.0": (b"HTTP/1.1 101", b"HTTP/1.0 101", "upstream-upgrade"),
}  # fmt: skip


@pytest.mark.parametrize("case", UPSTREAMS)
def test_an_upstream_that_does_not_switch_by_the_book_is_a_502_and_dropped_C3(rig: SocketRig, case: str) -> None:
    before, after, rule = UPSTREAMS[case]
    rig.sockets.answer = lambda head: accepting(head).replace(before, after)
    client, answer = rig.ask(handshake())
    assert (answer.status, answer.reason) == (502, "upstream-protocol")
    assert client.is_ended()
    assert rig.sockets.ends.get(timeout=15).is_ended()
    assert rig.record(answer.fields["x-request-id"])["rule.id"] == rule


@pytest.mark.parametrize("status", [401, 404, 503])
def test_an_upstream_s_refusal_reaches_the_client_and_both_connections_close(rig: SocketRig, status: int) -> None:
    rig.sockets.answer = lambda _: b"HTTP/1.1 %d No\r\ncontent-length: 2\r\n\r\nno" % status
    client, answer = rig.ask(handshake() + sent(TEXT, b"early"))
    assert (answer.status, answer.body, answer.fields["connection"]) == (status, b"no", "close")
    assert client.is_ended()
    assert rig.sockets.ends.get(timeout=15).is_ended()


def test_a_silent_upstream_is_a_504(rig: SocketRig) -> None:
    rig.sockets.answer = lambda _: b""
    _, answer = rig.ask(handshake("/quick/x"))
    assert (answer.status, answer.reason) == (504, "upstream-timeout")
