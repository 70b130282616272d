"""RFC 9112 section by section, as bytes on a real socket: what is served and what the upstream reads of it, and what is not.

A case of `SERVED` says what comes back, in order, whether the connection lives, and which requests the upstream read. The
messages of `spoiled` are refused, each cut where it likes; whatever lies behind them is never heard.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import pytest

from tests.e2e.whole_gateway import events_in_log, eventually
from tests.wire.rig import GET, HEAD, Rig
from tests.wire.spoiled import SPOILED_HTTP1

POST = b"POST /orders/x HTTP/1.1\r\n" + HEAD
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
ANY = b"GET /orders/7 HTTP/1.1\r\n"
ASKED = b"GET /orders/7"
POSTED = b"POST /orders/x"


@dataclass(frozen=True)
class Served:
    """What comes of some bytes."""

    raw: bytes
    asked: Sequence[bytes] = (ASKED,)
    """Method and target of what the upstream read."""
    statuses: Sequence[int] = (200,)
    is_kept: bool = True
    heads: Sequence[int] = ()
    """Which of the answers are to HEAD."""


def with_field(line: bytes) -> bytes:
    return GET[:-2] + line + b"\r\n\r\n"


SERVED: dict[str, Served] = {
    "2.2 an empty line before a request": Served(b"\r\n" + GET),
    "2.2 an empty line between two": Served(GET + b"\r\n" + GET, (ASKED, ASKED), (200, 200)),
    "2.3 HTTP/1.0": Served(GET.replace(b"1.1", b"1.0"), is_kept=False),
    "2.3 HTTP/1.0, and one behind it": Served(GET.replace(b"1.1", b"1.0") + GET, is_kept=False),
    "2.3 HTTP/1.0 that would stay": Served(
        with_field(b"Connection: keep-alive").replace(b"/1.1", b"/1.0") + GET, is_kept=False
    ),
    "3.2 host last": Served(ANY + b"A: b\r\n" + HEAD + b"\r\n"),
    "3.2 host in another case": Served(ANY + b"hOST: LOCALHOST\r\n\r\n"),
    "3.2 host with a port": Served(ANY + b"Host: localhost:8443\r\n\r\n"),
    "3.2 host with white space around": Served(ANY + b"Host: \t localhost \t\r\n\r\n"),
    "5 no space": Served(with_field(b"A:b")),
    "5 no value": Served(with_field(b"A:")),
    "5 only white space": Served(with_field(b"A: \t ")),
    "5 a tab in a value": Served(with_field(b"A: b\tc")),
    "5 a colon in a value": Served(with_field(b"A: b: c")),
    "5 bytes above ASCII in a value": Served(with_field(b"A: \xc3\xa9\xff")),
    "5.1 the same field twice": Served(with_field(b"Accept: a\r\nAccept: b")),
    "6.1 chunked in another case": Served(POST + b"Transfer-Encoding: CHUNKED\r\n\r\n0\r\n\r\n", (POSTED,)),
    "6.2 a length of nothing": Served(POST + b"Content-Length: 0\r\n\r\n" + GET, (POSTED, ASKED), (200, 200)),
    "6.2 a length with zeros before it": Served(POST + b"Content-Length: 0005\r\n\r\nhello", (POSTED,)),
    "6.2 no length, no body": Served(POST + b"\r\n" + GET, (POSTED, ASKED), (200, 200)),
    "6.3 the body of a GET": Served(with_field(b"Content-Length: 5") + b"hello" + GET, (ASKED, ASKED), (200, 200)),
    "6.3 the body of a DELETE, chunked": Served(
        CHUNKED.replace(b"POST", b"DELETE") + b"5\r\nhello\r\n0\r\n\r\n" + GET, (b"DELETE /orders/x", ASKED), (200, 200)
    ),
    "7.1 sizes in either case": Served(CHUNKED + b"A\r\n0123456789\r\na\r\n0123456789\r\n0\r\n\r\n", (POSTED,)),
    "7.1 zeros before a size": Served(CHUNKED + b"0005\r\nhello\r\n0000\r\n\r\n", (POSTED,)),
    "7.1.1 extensions": Served(CHUNKED + b'5;a;b=c;d="e f"\r\nhello\r\n0;g=h\r\n\r\n', (POSTED,)),
    "7.1.2 trailers": Served(CHUNKED + b"0\r\nA: b\r\nHost: evil\r\n\r\n" + GET, (POSTED, ASKED), (200, 200)),
    "7.4 TE": Served(with_field(b"TE: trailers, deflate;q=0.5\r\nConnection: TE")),
    "9.3 pipelined": Served(
        GET + GET.replace(b"GET", b"HEAD") + POST + b"Content-Length: 2\r\n\r\nhi" + CHUNKED + b"0\r\n\r\n" + GET,
        (ASKED, b"HEAD /orders/7", POSTED, POSTED, ASKED),
        (200, 200, 200, 200, 200),
        heads=(1,),
    ),
    "9.6 close, and one behind it": Served(with_field(b"Connection: close") + GET, is_kept=False),
    "9.6 close in another case": Served(with_field(b"Connection: Close") + GET, is_kept=False),
    "9.6 close in a list": Served(with_field(b"Connection: x-a, close") + GET, is_kept=False),
    "9.6 close and keep-alive": Served(with_field(b"Connection: keep-alive, close") + GET, is_kept=False),
    "9110 7.8 upgrades that nobody knows": Served(
        with_field(b"Upgrade: foo/2, h2c\r\nConnection: upgrade"), is_kept=True
    ),
    "9110 9.3.2 refused, by its head": Served(
        b"HEAD /nowhere HTTP/1.1\r\n" + HEAD + b"\r\n" + GET, statuses=(404, 200), heads=(0,)
    ),
    "9110 10.1.1 a body that did not wait": Served(
        POST + b"Expect: 100-continue\r\nContent-Length: 2\r\n\r\nhi" + GET, (POSTED, ASKED), (200, 200)
    ),
    "9110 10.1.1 no body to wait with": Served(with_field(b"Expect: 100-continue")),
    "9110 10.1.1 in another case": Served(POST + b"Expect: 100-Continue\r\nContent-Length: 2\r\n\r\nhi", (POSTED,)),
    "a refusal by its route, and one behind it": Served(
        b"GET /nowhere HTTP/1.1\r\n" + HEAD + b"\r\n" + GET, statuses=(404, 200)
    ),
}


@pytest.mark.parametrize("case", SERVED)
def test_what_is_allowed_is_served_in_order(rig: Rig, case: str) -> None:
    served = SERVED[case]
    with rig.client() as client:
        client.send(served.raw)
        statuses: list[int] = []
        for at in range(len(served.statuses)):
            while (answer := client.answer(is_head=at in served.heads)).status == 100:
                pass
            statuses.append(answer.status)
        assert statuses == list(served.statuses)
        assert (answer.fields.get("connection") != "close") is served.is_kept
        if served.is_kept:
            assert client.send(GET).answer().status == 200
        else:
            assert client.is_closed()
    read = [b" ".join(raw.split(b" ")[:2]) for raw in rig.upstream.requests]
    assert read == [*served.asked, *[ASKED] * served.is_kept]


def counted(rig: Rig) -> int:
    """Refusals of malformed requests in the log: one by one, and of what is a flood already the sums."""
    leaves = rig.leaves() + events_in_log(rig.gateway.directory, "log.summary")
    return sum(int(str(leaf.get("count", 1))) for leaf in leaves if leaf.get("event.reason") == "malformed-request")


def test_no_message_that_is_none_is_heard_and_nothing_behind_it_C1(rig: Rig) -> None:
    before = counted(rig)
    for number, raw in enumerate(SPOILED_HTTP1):
        with rig.client() as client:
            cut = 7 * number % len(raw)
            answer = client.send(raw[:cut]).send(raw[cut:] + GET).answer()
            assert (answer.status, answer.reason) == (400, "malformed-request"), raw
            assert answer.fields["connection"] == "close"
            assert client.is_closed(), raw
    assert rig.upstream.requests == []
    eventually(lambda: counted(rig) == before + len(SPOILED_HTTP1), 10)


@pytest.mark.parametrize("lines", [b"\r\n", b"\r\n\r\n"])
def test_one_empty_line_is_ignored_and_a_second_refused_however_they_come_2_2(rig: Rig, lines: bytes) -> None:
    for cut in range(1, len(lines) + 1):
        with rig.client() as client:
            assert client.send(GET).answer().status == 200
            client.send(lines[:cut])
            time.sleep(0.02)  # so that it is a read of its own
            answer = client.send(lines[cut:] + GET).answer()
            assert answer.status == (200 if lines == b"\r\n" else 400), cut
            assert client.is_closed(0.05) is (answer.status == 400)


@pytest.mark.parametrize(
    "host",
    [
        b"", b" ", b"localhost:", b"localhost:0", b"localhost:65536", b"localhost:-1", b"localhost:+1", b"localhost:8 0",
        b"localhost:x", b"user@localhost", b"user:password@localhost", b"@localhost", b"localhost@evil",
        b"localhost/", b"local host", b"localhost\t8443", b"localhost,localhost", b"localhost;x", b"http://localhost",
        b"//localhost", b"localhost%00", b".localhost", b"localhost..", b"-localhost", b"[localhost]", b"[::1",
        b"::1", b"[::1]x", b"[::ffff:127.0.0.1%25lo]", b"127.0.0.1.", b"127.1", b"0177.0.0.1", b"1.2.3.256",
        b"l\xc3\xb6calhost", b"x" * 300, b"a" * 64 + b".example",
    ],
)  # fmt: skip
def test_a_host_that_is_none_is_refused_A11(rig: Rig, host: bytes) -> None:
    with rig.client() as client:
        answer = client.send(ANY + b"Host: " + host + b"\r\n\r\n" + GET).answer()
        assert (answer.status, answer.reason) == (400, "malformed-request")
        assert client.is_closed()
    assert rig.upstream.seen == b""


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"GET /" + b"a" * 8191 + b" HTTP/1.1\r\n" + HEAD + b"\r\n", 404),
        (b"GET /" + b"a" * 8192 + b" HTTP/1.1\r\n" + HEAD + b"\r\n", 414),
        (b"GET /?" + b"a" * 100_000 + b" HTTP/1.1\r\n" + HEAD + b"\r\n", 414),
        (b"GET" + b" " * 9000, 414),
        (b"A" * 9000, 414),
        (GET[:-2] + b"A: " + b"b" * 32_000 + b"\r\n\r\n", 200),
        (GET[:-2] + b"A: " + b"b" * 40_000 + b"\r\n\r\n", 431),
        (GET[:-2] + b"A: " + b"b" * 200_000, 431),
        (GET[:-2] + b"b" * 40_000 + b": a\r\n\r\n", 431),
        (GET[:-2] + b"b" * 65 + b": a\r\n\r\n", 400),
        (GET[:-2] + b"A: b\r\n" * 127 + b"\r\n", 200),
        (GET[:-2] + b"A: b\r\n" * 128 + b"\r\n", 431),
        (GET[:-2] + b"A: b\r\n" * 9000, 431),
        (POST + b"Content-Length: 999999999999999\r\n\r\n", 413),
        (POST + b"Content-Length: " + b"0" * 15 + b"5\r\n\r\nhello", 400),
        (CHUNKED + b"5;" + b"a" * 40_000 + b"\r\nhello\r\n0\r\n\r\n", 400),
        (CHUNKED + b"0" * 40_000 + b"\r\n\r\n", 400),
        (CHUNKED + b"0\r\n" + b"A: b\r\n" * 9000 + b"\r\n", 400),
    ],
)
def test_what_is_long_has_its_bound_C4(rig: Rig, raw: bytes, status: int) -> None:
    with rig.client() as client:
        answer = client.send_while_reading(raw).answer()
        assert answer.status == status
        if status != 200:
            assert rig.upstream.requests == []
