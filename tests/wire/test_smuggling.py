"""Attacks C1, B2, B4, A11 as bytes: each is refused before the upstream sees one byte, and the log names the rule."""

from __future__ import annotations

import pytest

from tests.wire.rig import GET, HEAD, OK, Rig, refused

POST = b"POST /orders/7 HTTP/1.1\r\n" + HEAD
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
EVIL = b"GET /orders/evil HTTP/1.1\r\n" + HEAD + b"\r\n"


@pytest.mark.parametrize(
    "field",
    [
        b"Transfer-Encoding:",
        b"Transfer-Encoding: \x0bchunked",
        b'Transfer-Encoding: "chunked"',
        b"Transfer-Encoding: chunked,",
        b"Transfer-Encoding: ,chunked",
        b"Transfer-Encoding: chunked, chunked",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        b"Transfer-Encoding: identity\r\nTransfer-Encoding: chunked",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
        b"Transfer-Encoding: chunked, identity",
        b"Transfer-Encoding: chunked;q=1",
        b"Transfer-Encoding : chunked",
        b"Transfer-Encoding\t: chunked",
        b" Transfer-Encoding: chunked",
        b"X: y\r\n Transfer-Encoding: chunked",
        b"X: y\rTransfer-Encoding: chunked",
        b"X: y\nTransfer-Encoding: chunked",
        b"X: y\r\r\nTransfer-Encoding: chunked",
        b"Transfer_Encoding: chunked",
        b"Transfer.Encoding: chunked",
        b"Transfer-Encoding\x00: chunked",
        b"Content-Length: 0\r\nTransfer-Encoding: chunked",
        b"Transfer-Encoding: chunked\r\nContent-Length: 0",
        b"Content-Length: 5\r\nContent-Length: 6",
        b"Content-Length: 5\r\ncontent-length: 5",
        b"Content-Length: 5,5",
        b"Content-Length:",
        b"Content-Length: -1",
        b"Content-Length: +5",
        b"Content-Length: 0x5",
        b"Content-Length: 5 5",
        b"Content-Length: 1_0",
        b"Content-Length: 5.0",
        b"Content-Length: \xd9\xa5",
        b"Content-Length: 9223372036854775808",
        b"Content-Length: 18446744073709551617",
        b"Content-Length: 99999999999999999999",
        b"Content_Length: 5",
        b"Content-Length\x0b: 5",
        b"Upgrade: h2c\r\nConnection: Upgrade\r\nTransfer-Encoding: chunked",
    ],
)
def test_framing_that_two_servers_may_read_differently_C1(rig: Rig, field: bytes) -> None:
    refused(rig, POST + field + b"\r\n\r\n0\r\n\r\n" + EVIL, 400, "malformed-request")


@pytest.mark.parametrize(
    "body",
    [
        b"0x5\r\nhello\r\n0\r\n\r\n",
        b"5 \r\nhello\r\n0\r\n\r\n",
        b" 5\r\nhello\r\n0\r\n\r\n",
        b"+5\r\nhello\r\n0\r\n\r\n",
        b"-1\r\nhello\r\n0\r\n\r\n",
        b"1_0\r\nhello\r\n0\r\n\r\n",
        b"\r\nhello\r\n0\r\n\r\n",
        b";\r\nhello\r\n0\r\n\r\n",
        b"5\nhello\r\n0\r\n\r\n",
        b"5\rhello\r\n0\r\n\r\n",
        b"5\r\nhelloX\r\n0\r\n\r\n",
        b"5\r\nhello\n0\r\n\r\n",
        b"5\r\nhello\r\n0\r\n\n",
        b"5\r\nhello\r\n0\n\r\n",
        b"5;a\rb\r\nhello\r\n0\r\n\r\n",
        b"5;a\nb\r\nhello\r\n0\r\n\r\n",
        b"5;a\x00b\r\nhello\r\n0\r\n\r\n",
        b"FFFFFFFFFFFFFFFFF\r\nhello\r\n0\r\n\r\n",
        b"10000000000000005\r\nhello\r\n0\r\n\r\n",
        b"5\r\nhello\r\n0\r\nA b: c\r\n\r\n",
        b"5\r\nhello\r\n0\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"5\r\nhello\r\n0\r\nContent-Length: 5\r\n\r\n",
    ],
)
def test_chunks_that_two_servers_may_read_differently_C1(rig: Rig, body: bytes) -> None:
    with rig.client() as warm:  # a waiting connection: nothing of the request may be on it before its body is judged
        assert warm.send(GET).answer().status == 200
    rig.upstream.clear()
    refused(rig, CHUNKED + body + EVIL, 400, "malformed-request", "http1-body-syntax")


@pytest.mark.parametrize("body", [b"5;a=b\r\nhello\r\n0\r\n\r\n", b'5;a="b;c"\r\nhello\r\n000\r\n\r\n'])
def test_chunk_extensions_are_read_over_and_not_passed_on_C1(rig: Rig, body: bytes) -> None:
    with rig.client() as client:
        assert client.send(CHUNKED + body + GET).answer().status == 200
        assert client.answer().status == 200
    assert b"5\r\nhello\r\n0\r\n\r\n" in rig.upstream.seen
    assert b";a" not in rig.upstream.seen


def test_trailers_never_become_fields_C5(rig: Rig) -> None:
    with rig.client() as client:
        client.send(
            CHUNKED + b"5\r\nhello\r\n0\r\nAuthorization: Bearer x\r\nX-Auth-Subject: root\r\nHost: evil\r\n\r\n" + GET
        )
        assert [client.answer().status, client.answer().status] == [200, 200]
    assert b"root" not in rig.upstream.seen
    assert b"evil" not in rig.upstream.seen
    assert b"Bearer" not in rig.upstream.seen


def test_the_body_of_a_get_is_no_second_request_C1(rig: Rig) -> None:
    with rig.client() as client:
        raw = b"GET /orders/7 HTTP/1.1\r\n" + HEAD + b"Content-Length: %d\r\n\r\n" % len(EVIL) + EVIL
        assert client.send(raw + GET).answer().status == 200
        assert client.answer().status == 200
    assert b"content-length: %d\r\n\r\n" % len(EVIL) + EVIL in rig.upstream.seen  # still a body


@pytest.mark.parametrize(
    "line",
    [
        b"GET /orders/7 HTTP/0.9\r\n",
        b"GET /orders/7 HTTP/1.10\r\n",
        b"GET /orders/7 http/1.1\r\n",
        b"GET\t/orders/7\tHTTP/1.1\r\n",
        b"GET /orders/7 HTTP/1.1 \r\n",
        b"GET /orders/7 x HTTP/1.1\r\n",
        b" GET /orders/7 HTTP/1.1\r\n",
        b"\nGET /orders/7 HTTP/1.1\r\n",
        b"\r\n\r\nGET /orders/7 HTTP/1.1\r\n",
        b"GETT /orders/7 HTTP/1.1\r\n",
        b"M-SEARCH /orders/7 HTTP/1.1\r\n",
        b"SOURCE /orders/7 ICE/1.0\r\n",
        b"DESCRIBE /orders/7 RTSP/1.0\r\n",
        b"OPTIONS * HTTP/1.1\r\n",
        b"GET //localhost/orders/7 HTTP/1.1\r\n",
        b"GET https://localhost/orders/7 HTTP/1.1\r\n",
        b"GET localhost/orders/7 HTTP/1.1\r\n",
        b"GET ?x HTTP/1.1\r\n",
        b"GET /orders/\xff HTTP/1.1\r\n",
        b"GET /orders/\x7f HTTP/1.1\r\n",
        b"GET /orders/%252e%252e/x HTTP/1.1\r\n",
        b"GET /orders/.;x=y/7 HTTP/1.1\r\n",
    ],
)
def test_request_lines_and_targets_of_one_spelling_only_A1_A11(rig: Rig, line: bytes) -> None:
    refused(rig, line + HEAD + b"\r\n", 400, "malformed-request")


@pytest.mark.parametrize(
    "host",
    [
        b"Host:\r\n",
        b"Host: a@localhost\r\n",
        b"Host: localhost.\r\n",
        b"Host: localhost:0\r\n",
        b"Host: localhost:99999\r\n",
        b"Host: localhost:80:80\r\n",
        b"Host: localhost:8a\r\n",
        b"Host: localhost, evil\r\n",
        b"Host: local%68ost\r\n",
        b"Host: localhost#x\r\n",
        b"Host: localhost?x\r\n",
        b"Host: 127.1\r\n",
        b"Host: [::ffff:127.0.0.1\r\n",
        b"Host: localhost\r\nHost: evil\r\n",
        b"Host: localhost\r\n evil\r\n",
        b"X: y\r\n",
    ],
)
def test_hosts_of_one_spelling_only_A11(rig: Rig, host: bytes) -> None:
    refused(rig, b"GET /orders/7 HTTP/1.1\r\n" + host + b"\r\n", 400, "malformed-request")


@pytest.mark.parametrize(
    "field",
    [
        b"X_Auth_Subject: root",
        b"X.Auth.Subject: root",
        b"X-Auth_Subject: root",
        b"X~Auth~Subject: root",
        b"X-Auth-Subject\x00: root",
        b"X Auth Subject: root",
        b"X-Auth-Subject : root",
        b"X-Auth-S\xc3\xbcbject: root",
        b"X'Auth: root",
        b"Forwarded_: for=1",
        b": root",
        b"root",
    ],
)
def test_look_alikes_of_managed_names_B2(rig: Rig, field: bytes) -> None:
    refused(rig, GET[:-2] + field + b"\r\n\r\n", 400, "malformed-request")


@pytest.mark.parametrize(
    "name",
    [b"X-Auth-Subject", b"x-auth-SCOPES", b"X-Auth-Issuer", b"Forwarded", b"X-Forwarded-For", b"X-Real-IP", b"X-Request-Id",
     b"X-Forwarded-Client-Cert", b"X-Original-URL", b"X-HTTP-Method-Override", b"Edge-Assertion"],
)  # fmt: skip
def test_managed_fields_of_a_client_are_dropped_B1_B3_B5(rig: Rig, name: bytes) -> None:
    with rig.client() as client:
        assert client.send(GET[:-2] + name + b": spoofed\r\n\r\n").answer().status == 200
    assert b"spoofed" not in rig.upstream.seen


def test_connection_cannot_nominate_what_the_gateway_adds_B4(rig: Rig) -> None:
    nominated = (
        b"Connection: close, X-Forwarded-For, host, x-request-id, X-Hop, content-length, forwarded\r\nX-Hop: hop\r\n"
    )
    with rig.client() as client:
        raw = POST + nominated + b"Content-Length: 5\r\n\r\nhello"
        assert client.send(raw).answer().status == 200
        assert client.is_closed()
    seen = rig.upstream.seen
    for name in (
        b"host: localhost",
        b"x-forwarded-for: 127.0.0.1",
        b"x-request-id: ",
        b"content-length: 5",
        b"forwarded: for=",
    ):
        assert seen.count(b"\r\n" + name) == 1
    assert b"hop" not in seen


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nxxCLOSE",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-A: b\r\n c\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-A: b\rSet-Cookie: c\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-A: b\x00\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX A: b\r\n\r\nab",
        b"HTTP/1.1 200 OK\nContent-Length: 2\n\nab",
        b"HTTP/1.1 2000 OK\r\nContent-Length: 2\r\n\r\nab",
        b"SSH-2.0-OpenSSH_9\r\nCLOSE",
        *(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks
            for chunks in (
                b"zz\r\nab\r\n",
                b"2\r\nabc\r\n0\r\n\r\n",
                b"-1\r\n",
                b"2\r\nab\r\n0x0\r\n\r\n",
                b"2\nab\n0\n\n",
            )
        ),
    ],
)
def test_answers_that_two_clients_may_read_differently_are_502_C1(rig: Rig, answer: bytes) -> None:
    rig.upstream.answers = [answer]
    with rig.client() as client:
        found = client.send(GET).answer()
        assert (found.status, found.reason) == (502, "upstream-protocol")
        assert client.send(GET).answer().body == b"ok"  # over another connection
    assert rig.record(found.fields["x-request-id"])["event.reason"] == "upstream-protocol"


def test_a_body_where_none_may_be_never_meets_the_next_caller_C3(rig: Rig) -> None:
    evil = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil"
    rig.upstream.answers = [
        b"HTTP/1.1 204 No Content\r\n\r\n" + evil,
        b"HTTP/1.1 304 Not Modified\r\n\r\n" + evil,
        OK + evil,
    ]
    with rig.client() as client:
        assert client.send(GET).answer().status == 204
        assert client.send(GET).answer().status == 304
        assert client.send(GET.replace(b"GET", b"HEAD")).answer(is_head=True).status == 200
        assert client.send(GET).answer().body == b"ok"
