"""HTTP/1.1 as bytes on a real socket: what is served, what is refused, and that a refused byte never reaches the upstream."""

from __future__ import annotations

import time

import pytest

from tests.wire.rig import GET, HEAD, OK, Rig, cut_behind, refused

CHUNKED_HELLO = (
    b"POST /orders/b HTTP/1.1\r\n"
    + HEAD
    + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n4\r\n\r\n\r\n\r\n0\r\n\r\n"
)


def test_a_request_is_served_and_recorded(rig: Rig) -> None:
    with rig.client() as client:
        answer = client.send(GET).answer()
        assert (answer.status, answer.body) == (200, b"ok")
        assert "server" not in answer.fields
        assert answer.fields["strict-transport-security"].startswith("max-age=")
        assert "date" in answer.fields
    assert rig.upstream.seen.startswith(b"GET /orders/7 HTTP/1.1\r\nhost: localhost\r\n")
    leaf = rig.record(answer.fields["x-request-id"])
    assert (leaf["event.outcome"], leaf["http.response.status_code"]) == ("success", 200)
    assert leaf["service.target.spiffe_id"] == "spiffe://mesh.internal/svc/orders"


def test_a_request_arrives_byte_by_byte(rig: Rig) -> None:
    with rig.client() as client:
        for at in range(len(GET)):
            client.send(GET[at : at + 1])
        assert client.answer().status == 200


def test_keep_alive_and_pipelining_keep_their_order(rig: Rig) -> None:
    rig.upstream.answers = [OK.replace(b"ok", b"%02d" % number) for number in range(20)]
    with rig.client() as client:
        client.send(GET * 20)
        assert [client.answer().body for _ in range(20)] == [b"%02d" % number for number in range(20)]


def test_pipelined_bodies_of_both_kinds_are_told_apart(rig: Rig) -> None:
    counted = b"POST /orders/a HTTP/1.1\r\n" + HEAD + b"Content-Length: 5\r\n\r\nhello"
    with rig.client() as client:
        client.send(counted + CHUNKED_HELLO + GET + CHUNKED_HELLO + counted)
        answers = [client.answer() for _ in range(5)]
    assert [answer.status for answer in answers] == [200] * 5
    assert rig.upstream.seen.count(b"hello") == 4
    sizes = [rig.record(answer.fields["x-request-id"])["http.request.body.bytes"] for answer in answers]
    assert sizes == [5, 9, 0, 9, 5]


@pytest.mark.parametrize("size", [1, 3, 7])
def test_chunked_bodies_cut_anywhere_end_where_they_end(rig: Rig, size: int) -> None:
    raw = (
        b"POST /orders/b HTTP/1.1\r\n"
        + HEAD
        + b"Transfer-Encoding: chunked\r\n\r\n2\r\n\r\n\r\n0\r\nX-T: 1\r\n\r\n"
        + GET
    )
    with rig.client() as client:
        for at in range(0, len(raw), size):
            client.send(raw[at : at + size])
        assert [client.answer().status, client.answer().status] == [200, 200]
    assert b"X-T" not in rig.upstream.seen  # trailers are dropped (C5)


def test_a_large_body_streams_both_ways_with_back_pressure(rig: Rig) -> None:
    body = bytes(range(256)) * 16384  # 4 MiB
    rig.upstream.answers = [b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body) + body]
    head = b"POST /orders/x HTTP/1.1\r\n" + HEAD + b"Content-Length: %d\r\n\r\n" % len(body)
    with rig.client() as client:
        answer = client.send_while_reading(head + body).answer()
    assert answer.body == body
    assert rig.upstream.seen.endswith(body)
    assert rig.record(answer.fields["x-request-id"])["http.request.body.bytes"] == len(body)


def test_an_answer_in_chunks_and_one_until_close_arrive_whole(rig: Rig) -> None:
    rig.upstream.answers = [
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-T: 1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\nuntil closeCLOSE",
    ]
    with rig.client() as client:
        first = client.send(GET).answer()
        second = client.send(GET).answer()
    assert (first.body, second.body) == (b"hello", b"until close")
    assert "x-t" not in first.fields


def test_head_204_and_304_have_no_body_and_the_connection_lives(rig: Rig) -> None:
    rig.upstream.answers = [
        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 304 Not Modified\r\ncontent-length: 9\r\n\r\n",
    ]
    with rig.client() as client:
        head = client.send(GET.replace(b"GET", b"HEAD")).answer(is_head=True)
        assert (head.status, head.fields["content-length"]) == (200, "5")
        empty = client.send(GET).answer()
        assert (empty.status, "content-length" in empty.fields) == (204, False)
        assert client.send(GET).answer().status == 304
        assert client.send(GET).answer().body == b"ok"


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"HEAD /orders/../admin HTTP/1.1\r\n" + HEAD + b"\r\n", 400),
        (b"HEAD /orders/7 HTTP/1.1\r\n" + HEAD + b"X_A: b\r\n\r\n", 400),
        (b"HEAD  /orders/7 HTTP/1.1\r\n" + HEAD + b"\r\n", 400),
        (b"HEAD /orders/7 HTTP/1.1\r\nHost: localhost\n", 400),
        (b"HEAD /" + b"a" * 9000, 414),
    ],
)
def test_a_refused_head_has_no_body_either(rig: Rig, raw: bytes, status: int) -> None:
    """RFC 9110 §9.3.2: what stands behind the empty line would be taken for the next answer."""
    with rig.client() as client:
        answer = client.send(raw).answer(is_head=True)
        assert (answer.status, int(answer.fields["content-length"]) > 0) == (status, True)
        assert client.is_closed()
    assert rig.upstream.seen == b""


def test_a_client_that_waits_for_100_continue_is_told_to_go_on(rig: Rig) -> None:
    with rig.client() as client:
        client.send(b"POST /orders/x HTTP/1.1\r\n" + HEAD + b"Content-Length: 2\r\nExpect: 100-continue\r\n\r\n")
        assert client.answer().status == 100
        assert client.send(b"hi").answer().status == 200
    assert b"expect" not in rig.upstream.seen.lower()


def test_a_refused_body_is_not_asked_for(rig: Rig) -> None:
    with rig.client() as client:
        client.send(b"POST /nowhere HTTP/1.1\r\n" + HEAD + b"Content-Length: 2\r\nExpect: 100-continue\r\n\r\n")
        assert client.answer().status == 404
    assert rig.upstream.seen == b""


@pytest.mark.parametrize(
    ("raw", "rule"),
    [
        (b"GET  /orders/7 HTTP/1.1\r\n" + HEAD + b"\r\n", "request-line"),
        (b"GET /orders/7 HTTP/1.2\r\n" + HEAD + b"\r\n", "request-line"),
        (b"GET /orders/7 HTTP/2.0\r\n" + HEAD + b"\r\n", "request-line"),
        (b"GET /orders/7\r\n" + HEAD + b"\r\n", "request-line"),
        (b"get /orders/7 HTTP/1.1\r\n" + HEAD + b"\r\n", "request-line"),
        (b"GET /orders/7 HTTP/1.1\n" + HEAD + b"\r\n", None),
        (b"GET /orders/7 HTTP/1.1\r\nHost: localhost\nX: y\r\n\r\n", None),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "request-line"),
        (b"\x16\x03\x01\r\n\r\n", "request-line"),
        (b"TRACE /orders/7 HTTP/1.1\r\n" + HEAD + b"\r\n", "method"),
        (b"CONNECT localhost:443 HTTP/1.1\r\n" + HEAD + b"\r\n", None),
        (b"GET http://localhost/orders/7 HTTP/1.1\r\n" + HEAD + b"\r\n", "target-form"),
        (b"GET * HTTP/1.1\r\n" + HEAD + b"\r\n", "target-form"),
        (b"GET @evil/orders/7 HTTP/1.1\r\n" + HEAD + b"\r\n", None),
        (b"GET /orders/7#x HTTP/1.1\r\n" + HEAD + b"\r\n", "target-fragment"),
        (b"GET /orders/../admin HTTP/1.1\r\n" + HEAD + b"\r\n", "path-dot-segment"),
        (b"GET /orders/%2e%2e/admin HTTP/1.1\r\n" + HEAD + b"\r\n", "path-dot-segment"),
        (b"GET /orders/..;/admin HTTP/1.1\r\n" + HEAD + b"\r\n", "path-dot-segment"),
        (b"GET //orders/7 HTTP/1.1\r\n" + HEAD + b"\r\n", "path-empty-segment"),
        (b"GET /orders/a%5cb HTTP/1.1\r\n" + HEAD + b"\r\n", "path-backslash"),
        (b"GET /orders/%00 HTTP/1.1\r\n" + HEAD + b"\r\n", "path-control-byte"),
        (b"GET /orders/%c0%ae HTTP/1.1\r\n" + HEAD + b"\r\n", "path-not-utf8"),
        (b"GET /orders/7 HTTP/1.1\r\n\r\n", "host-missing"),
        (b"GET /orders/7 HTTP/1.1\r\n" + HEAD + HEAD + b"\r\n", "field-repeated"),
        (b"GET /orders/7 HTTP/1.1\r\nHost: localhost/evil\r\n\r\n", "host-syntax"),
        (b"GET /orders/7 HTTP/1.1\r\n" + HEAD + b"X_Auth_Subject: root\r\n\r\n", "field-name"),
        (b"GET /orders/7 HTTP/1.1\r\n" + HEAD + b"X.Auth.Subject: root\r\n\r\n", "field-name"),
        (b"GET /orders/7 HTTP/1.1\r\n" + HEAD + b"X-A: b\r\n c\r\n\r\n", "http1-syntax"),
        (b"GET /orders/7 HTTP/1.1\r\n" + HEAD + b"X-A : b\r\n\r\n", "http1-syntax"),
        (b"GET /orders/7 HTTP/1.1\r\n" + HEAD + b"X-A: b\x00c\r\n\r\n", "http1-syntax"),
        (
            b"POST /orders/7 HTTP/1.1\r\n" + HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            None,
        ),
        (b"POST /orders/7 HTTP/1.1\r\n" + HEAD + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello", None),
        (b"POST /orders/7 HTTP/1.1\r\n" + HEAD + b"Content-Length: +5\r\n\r\nhello", None),
        (b"POST /orders/7 HTTP/1.1\r\n" + HEAD + b"Content-Length: 5, 5\r\n\r\nhello", None),
        (b"POST /orders/7 HTTP/1.0\r\n" + HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "transfer-encoding"),
        (
            b"POST /orders/7 HTTP/1.1\r\n" + HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
            "transfer-encoding",
        ),
        (b"POST /orders/7 HTTP/1.1\r\n" + HEAD + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", None),
        (
            b"POST /orders/7 HTTP/1.1\r\n"
            + HEAD
            + b"Upgrade: h2c\r\nConnection: upgrade\r\nContent-Length: 5\r\n\r\nhello",
            None,
        ),
        (b"GET /orders/7 HTTP/1.1\r\n" + HEAD + b"Expect: 200-ok\r\n\r\n", "expect"),
        (b"GET /orders/7 HTTP/1.1\r\n" + HEAD + b"Authorization: a\r\nAuthorization: b\r\n\r\n", "field-repeated"),
    ],
)
def test_what_can_be_read_in_two_ways_is_refused_and_closes_C1(rig: Rig, raw: bytes, rule: str | None) -> None:
    refused(rig, raw, 400, "malformed-request", rule)


def test_an_encoded_slash_passes_only_where_the_route_says_so_A2(rig: Rig) -> None:
    refused(rig, b"GET /orders/a%2fb HTTP/1.1\r\n" + HEAD + b"\r\n", 400, "malformed-request", "path-encoded-slash")
    with rig.client() as client:
        assert client.send(b"GET /slashes/a%2fb HTTP/1.1\r\n" + HEAD + b"\r\n").answer().status == 200
    assert rig.upstream.seen.startswith(b"GET /slashes/a%2Fb HTTP/1.1\r\n")


def test_too_long_and_too_many_are_told_by_their_own_status(rig: Rig) -> None:
    refused(rig, b"GET /orders/" + b"a" * 8200 + b" HTTP/1.1\r\n" + HEAD + b"\r\n", 414, "uri-too-long")
    refused(rig, b"GET /" + b"a" * 9000, 414, "uri-too-long")
    refused(
        rig,
        b"GET /orders/7 HTTP/1.1\r\n" + HEAD + b"X-A: b\r\n" * 128 + b"\r\n",
        431,
        "headers-too-large",
        "field-count",
    )
    refused(rig, b"GET /orders/7 HTTP/1.1\r\n" + HEAD + b"X-A: " + b"b" * 33000 + b"\r\n\r\n", 431, "headers-too-large")


def test_routes_hosts_and_methods_that_are_not_there(rig: Rig) -> None:
    refused(rig, b"GET /orders-admin HTTP/1.1\r\n" + HEAD + b"\r\n", 404, "no-route")
    refused(rig, b"GET /Orders/7 HTTP/1.1\r\n" + HEAD + b"\r\n", 404, "no-route")
    refused(rig, b"POST /slashes/7 HTTP/1.1\r\n" + HEAD + b"Content-Length: 0\r\n\r\n", 405, "method-not-allowed")
    refused(rig, b"GET /orders/7 HTTP/1.1\r\nHost: evil.example\r\n\r\n", 421, "misdirected", "host-not-served")
    refused(
        rig, b"GET /orders/7 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", 421, "misdirected", "host-differs-from-server-name"
    )


def test_an_upgrade_to_h2c_is_ignored_and_nothing_of_it_is_passed_on_C3(rig: Rig) -> None:
    with rig.client() as client:
        client.send(
            GET[:-2] + b"Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMA\r\n\r\n" + GET
        )
        assert [client.answer().status, client.answer().status] == [200, 200]
    assert b"upgrade" not in rig.upstream.seen.lower()
    assert b"http2-settings" not in rig.upstream.seen.lower()


def test_bad_chunks_cut_the_exchange_and_the_upstream_gets_no_end_of_message_C1(rig: Rig) -> None:
    with rig.client() as client:
        client.send(b"POST /orders/7 HTTP/1.1\r\n" + HEAD + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
        end = time.monotonic() + 5
        while b"abc" not in rig.upstream.seen:
            assert time.monotonic() < end
        answer = client.send(b"zz\r\nGET /orders/evil HTTP/1.1\r\n\r\n").answer()
        assert (answer.status, answer.reason) == (400, "malformed-request")
        assert client.is_closed()
    assert b"evil" not in rig.upstream.seen
    assert b"0\r\n\r\n" not in rig.upstream.seen


@pytest.mark.parametrize(
    ("raw", "status", "reason"),
    [
        (
            b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
            502,
            "upstream-protocol",
        ),
        (b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n", 502, "upstream-protocol"),
        (b"RTSP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok", 502, "upstream-protocol"),
        (b"\r\n" + OK, 502, "upstream-protocol"),
        (b"HTTP/1.1 200 OK\r\na: " + b"b" * 70_000 + b"\r\ncontent-length: 0\r\n\r\n", 502, "upstream-protocol"),
        (b"nonsenseCLOSE", 502, "upstream-protocol"),
        (b"CLOSE", 502, "upstream-unreachable"),
        (b"", 504, "upstream-timeout"),
    ],
)
def test_upstreams_that_break_the_rules_are_told_and_not_used_again(
    rig: Rig, raw: bytes, status: int, reason: str
) -> None:
    rig.upstream.answers = [raw]
    with rig.client() as client:
        client.send(b"POST /orders/x HTTP/1.1\r\n" + HEAD + b"Content-Length: 0\r\n\r\n")
        answer = client.answer()
        assert (answer.status, answer.reason) == (status, reason)
        assert answer.fields["proxy-status"].startswith("edge; error=")
        before = rig.upstream.connections
        assert client.send(GET).answer().status == 200
        assert rig.upstream.connections == before + 1
    assert rig.record(answer.fields["x-request-id"])["event.reason"] == reason


def test_a_truncated_answer_cuts_the_client_instead_of_looking_complete(rig: Rig) -> None:
    cut_behind(rig, b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf", b"CLOSE")


def test_surplus_bytes_of_one_answer_never_reach_another_client_C3(rig: Rig) -> None:
    rig.upstream.answers = [OK + b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil"]
    with rig.client() as first, rig.client() as second:
        assert first.send(GET).answer().body == b"ok"
        assert second.send(GET).answer().body == b"ok"


def test_what_tells_about_the_inside_is_removed_from_answers(rig: Rig) -> None:
    rig.upstream.answers = [
        b"HTTP/1.1 200 OK\r\nServer: x\r\nVia: y\r\nX-Powered-By: z\r\nAlt-Svc: h3=evil\r\nConnection: X-Hop\r\nX-Hop: 1\r\n"
        b"X-Kept: 1\r\ncontent-length: 0\r\n\r\n"
    ]
    with rig.client() as client:
        answer = client.send(GET).answer()
    assert not {"server", "via", "x-powered-by", "alt-svc", "x-hop"} & set(answer.fields)
    assert answer.fields["x-kept"] == "1"


def test_an_unknown_server_name_ends_the_handshake_A12(rig: Rig) -> None:
    import ssl

    with pytest.raises((ssl.SSLError, OSError)) as caught:
        rig.client("evil.example")
    assert "UNRECOGNIZED_NAME" in str(caught.value).upper().replace(" ", "_")
    assert rig.upstream.seen == b""


def test_http10_is_answered_and_closed(rig: Rig) -> None:
    with rig.client() as client:
        answer = client.send(b"GET /orders/7 HTTP/1.0\r\nHost: localhost\r\nConnection: keep-alive\r\n\r\n").answer()
        assert (answer.status, answer.fields["connection"]) == (200, "close")
        assert client.is_closed()


def test_a_client_that_leaves_takes_its_upstream_with_it(rig: Rig) -> None:
    rig.upstream.answers = [b""]
    client = rig.client()
    client.send(GET)
    end = time.monotonic() + 5
    while not rig.upstream.seen:
        assert time.monotonic() < end
    client.close()
    with rig.client() as other:
        assert other.send(GET).answer().status == 200
