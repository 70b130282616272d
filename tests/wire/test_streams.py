"""Phases of an exchange on real sockets: early answers, half-told bodies, slow readers, aborts, retries that must not be."""

from __future__ import annotations

import select
import socket
import threading
import time

import pytest

from tests.e2e.whole_gateway import eventually
from tests.wire.rig import GET, HEAD, OK, Client, Rig, client_context, cut_behind, refused

POST = b"POST /orders/x HTTP/1.1\r\n" + HEAD
BIG = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % (1 << 20) + bytes(1 << 20)


def test_an_early_answer_ends_an_upload_and_the_client_can_read_it(rig: Rig) -> None:
    refused(rig, POST.replace(b"/orders/", b"/nowhere/") + b"Content-Length: 9\r\n\r\nhi", 404, "no-route")
    with rig.client() as client:
        client.send(POST.replace(b"/orders/", b"/nowhere/") + b"Content-Length: 4000000\r\n\r\n" + bytes(4_000_000))
        answer = client.answer()
        assert (answer.status, answer.fields["connection"]) == (404, "close")
        assert client.is_closed()
    assert rig.upstream.seen == b""


def test_an_upstream_that_answers_before_the_body_is_in_is_not_used_again(rig: Rig) -> None:
    rig.upstream.answers_early = b"HTTP/1.1 413 Content Too Large\r\ncontent-length: 2\r\n\r\nno"
    with rig.client() as client:
        client.send(POST + b"Content-Length: 100\r\n\r\nhalf")
        answer = client.answer()
        assert (answer.status, answer.body, answer.fields["connection"]) == (413, b"no", "close")
        assert client.is_closed()
    before = rig.upstream.connections
    with rig.client() as client:
        assert client.send(GET).answer().status == 200
    assert rig.upstream.connections == before + 1


def test_a_small_body_that_was_refused_leaves_the_connection_usable(rig: Rig) -> None:
    with rig.client() as client:
        assert (
            client.send(POST.replace(b"/orders/", b"/nowhere/") + b"Content-Length: 2\r\n\r\nhi").answer().status == 404
        )
        assert client.send(GET).answer().status == 200


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
def test_a_body_that_does_not_wait_for_100_continue_is_taken(rig: Rig, version: bytes) -> None:
    with rig.client() as client:
        head = POST.replace(b"HTTP/1.1", b"HTTP/" + version) + b"Content-Length: 2\r\nExpect: 100-continue\r\n\r\n"
        assert client.send(head + b"hi").answer().status == 200  # no 100 before it
    assert rig.upstream.seen.endswith(b"\r\n\r\nhi")


def test_http10_is_never_sent_an_interim_answer(rig: Rig) -> None:
    with rig.client() as client:
        client.send(POST.replace(b"HTTP/1.1", b"HTTP/1.0") + b"Content-Length: 2\r\nExpect: 100-continue\r\n\r\n")
        time.sleep(0.1)
        assert client.send(b"hi").answer().status == 200


def test_interim_answers_of_the_upstream_are_read_over(rig: Rig) -> None:
    rig.upstream.answers = [b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n" + OK]
    with rig.client() as client:
        answer = client.send(GET).answer()
        assert (answer.status, answer.body, "link" in answer.fields) == (200, b"ok", False)
        assert client.send(GET).answer().status == 200


@pytest.mark.parametrize("ends_with_alert", [True, False])
def test_a_client_that_leaves_in_its_body_completes_nothing(rig: Rig, ends_with_alert: bool) -> None:
    client = rig.client().send(POST + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
    eventually(lambda: b"hello" in rig.upstream.seen, 15)
    began = len(rig.leaves())
    if ends_with_alert:
        client.tls.unwrap()
    client.close()
    eventually(lambda: len(rig.leaves()) > began, 15)
    assert b"0\r\n\r\n" not in rig.upstream.seen
    leaf = rig.leaf_where({"event.reason": "client-gone", "http.request.body.bytes": 5})
    assert leaf["http.response.status_code"] == 499


def test_a_client_that_leaves_while_it_is_answered_is_recorded_so(rig: Rig) -> None:
    rig.upstream.answers = [b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf"]
    client = rig.client().send(GET)
    while b"half" not in client.tls.recv(4096):
        pass
    client.close()
    rig.leaf_where({"event.reason": "client-gone", "http.response.body.bytes": 4})


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"CUT", "upstream-unreachable"),
        (b"HTTP/1.1 200 OK\r\nX-ACUT", "upstream-protocol"),
        (b"HTTP/1.1 103 Early Hints\r\n\r\nCUT", "upstream-protocol"),
    ],
)
@pytest.mark.parametrize("method", [b"POST", b"PATCH"])
def test_what_is_not_idempotent_is_sent_once(rig: Rig, method: bytes, answer: bytes, reason: str) -> None:
    with rig.client() as client:
        assert client.send(GET).answer().status == 200  # a connection that waits
        rig.upstream.clear()
        rig.upstream.answers = [answer]
        found = client.send(method + POST[4:] + b"Content-Length: 0\r\n\r\n").answer()
        assert (found.status, found.reason) == (502, reason)
    assert rig.upstream.seen.count(method + b" /orders/x ") == 1


def test_what_is_idempotent_is_sent_again_only_before_one_byte_of_an_answer(rig: Rig) -> None:
    with rig.client() as client:
        assert client.send(GET).answer().status == 200
        rig.upstream.answers = [b"CUT"]
        assert client.send(GET).answer().status == 200
        rig.upstream.clear()
        rig.upstream.answers = [b"HTTP/1.1 200 OK\r\nX-ACUT"]
        assert client.send(GET).answer().status == 502
        assert rig.upstream.seen.count(b"GET /orders/7 ") == 1


def test_an_answer_until_close_is_whole_only_with_the_closing_alert(rig: Rig) -> None:
    cut_behind(rig, b"HTTP/1.1 200 OK\r\n\r\npart", b"CUT")
    rig.leaf_where({"rule.id": "upstream-truncated", "http.response.body.bytes": 4})


@pytest.mark.parametrize(("count", "size"), [(600, 60_000), (60, 1 << 20)])
def test_a_reader_that_stopped_begins_nothing_more_C4(rig: Rig, count: int, size: int) -> None:
    rig.upstream.answers = [b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size + bytes(size)] * count
    before = rig.resident_bytes()
    with rig.client() as client:
        client.send(GET * count)
        left = count + 1
        while left != len(rig.upstream.answers):
            left = len(rig.upstream.answers)
            time.sleep(0.3)
        assert left > count / 2  # the kernel's buffers hold some megabytes, the gateway less than one
        assert rig.resident_bytes() - before < 12 << 20
        assert [len(client.answer().body) for _ in range(count)] == [size] * count
        assert client.send(GET).answer().status == 200


def test_a_slow_reader_gets_all_however_long_it_takes(rig: Rig) -> None:
    rig.upstream.answers = [BIG.replace(b"%d" % (1 << 20), b"%d" % (8 << 20)) + bytes(7 << 20)]
    with rig.client() as client:
        client.send(GET.replace(b"/orders/", b"/quick/"))
        time.sleep(0.9)  # the route's upstream has 0.5 s; it is not the one that is slow
        assert len(client.answer().body) == 8 << 20


def test_a_slow_sender_is_not_blamed_on_the_upstream(rig: Rig) -> None:
    with rig.client() as client:
        client.send(POST.replace(b"/orders/", b"/quick/") + b"Content-Length: 6\r\n\r\n")
        for piece in (b"ab", b"cd", b"ef"):
            time.sleep(0.3)
            client.send(piece)
        assert client.answer().status == 200


def test_chunks_of_one_byte_are_not_a_write_each_C4(rig: Rig) -> None:
    body = b"1\r\nx\r\n" * 40_000
    with rig.client() as client:
        began = time.monotonic()
        assert client.send(POST + b"Transfer-Encoding: chunked\r\n\r\n" + body + b"0\r\n\r\n").answer().status == 200
        assert time.monotonic() - began < 10  # each by itself would take minutes
    assert len(rig.upstream.seen) < 60_000


@pytest.mark.parametrize("start", [b"1;", b"1\r\nx\r\n0\r\nX-T: "])
def test_chunk_extensions_and_trailers_end_C4(rig: Rig, start: bytes) -> None:
    with rig.client() as client:
        client.send(POST + b"Transfer-Encoding: chunked\r\n\r\n" + start)
        answer = client.send(b"a" * 40_000).answer()
        assert (answer.status, answer.reason) == (400, "malformed-request")
        assert client.is_closed()
    assert rig.record(answer.fields["x-request-id"])["rule.id"] == "chunk-overhead"
    assert b"0\r\n\r\n" not in rig.upstream.seen


def test_a_flood_of_empty_lines_is_no_work_C4(rig: Rig) -> None:
    with rig.client() as client:
        answer = client.send(b"\r\n" * 200_000).answer()
        assert answer.status == 400


def test_requests_of_a_closed_generation_finish_under_it(rig: Rig) -> None:
    routes = rig.gateway.directory / "policies" / "routes.yaml"
    text = routes.read_text()
    with rig.client() as client:
        client.send(POST + b"Content-Length: 4\r\n\r\nab")
        eventually(lambda: rig.upstream.seen.endswith(b"ab"), 15)
        routes.write_text(text.replace("/orders/**", "/orders/only/**"))
        try:
            with rig.client() as other:
                eventually(lambda: other.send(GET).answer().status == 404, 15)
            assert client.send(b"cd").answer().status == 200
            assert (
                client.send(GET).answer().status == 404
            )  # the next request of the same connection: the new generation
        finally:
            routes.write_text(text)
        eventually(lambda: client.send(GET).answer().status == 200, 15)


def test_many_callers_at_once_get_their_own_answers(rig: Rig) -> None:
    wrong: list[str] = []

    def call(number: int) -> None:
        with rig.client() as client:
            for turn in range(5):
                body = b"%d-%d" % (number, turn)
                answer = client.send(POST + b"Content-Length: %d\r\n\r\n" % len(body) + body).answer()
                if answer.body != body:
                    wrong.append(f"{body!r} got {answer.body!r}")

    rig.upstream.echoes = True
    callers = [threading.Thread(target=call, args=(number,)) for number in range(16)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(10)
    assert not wrong


def test_an_sni_that_is_an_address_or_absent_counts_as_absent_A12(rig: Rig) -> None:
    with Client(rig.gateway, None) as client:
        assert client.send(GET).answer().status == 200
        assert client.send(GET.replace(b"localhost", b"127.0.0.1")).answer().status == 200
        assert client.send(GET.replace(b"localhost", b"elsewhere")).answer().status == 421
    with Client(rig.gateway, "LOCALHOST") as client:
        assert client.send(GET.replace(b"localhost", b"LocalHost:%d" % rig.gateway.public)).answer().status == 200
        assert client.send(GET.replace(b"localhost", b"127.0.0.1")).answer().status == 421


def test_errors_are_told_by_the_book(rig: Rig) -> None:
    with rig.client() as client:
        answer = client.send(b"PATCH /slashes/7 HTTP/1.1\r\n" + HEAD + b"\r\n").answer()
        assert (answer.status, answer.fields["allow"]) == (405, "GET")
        assert answer.fields["content-type"] == "application/problem+json"
        assert answer.fields["cache-control"] == "no-store"
        assert answer.fields["date"].endswith(" GMT")
        head = client.send(b"HEAD /nowhere HTTP/1.1\r\n" + HEAD + b"\r\n").answer(is_head=True)
        assert (head.status, int(head.fields["content-length"]) > 0) == (404, True)
        assert client.send(GET).answer().body == b"ok"  # nothing lay behind the head


def test_nobody_outside_writes_on_stderr(rig: Rig) -> None:
    rig.upstream.answers = [b""]
    with rig.client() as client:
        client.send(GET)
        eventually(lambda: bool(rig.upstream.seen), 15)
        client.tls.unwrap()  # half-closed, with an answer outstanding
    rig.leaf_where({"event.reason": "client-gone"})
    assert not [
        line for line in rig.gateway.lines if "eof_received" in line or "internal" in line or "unexpected" in line
    ]


def test_an_answer_that_breaks_off_is_not_left_to_the_kernel_C4(rig: Rig) -> None:
    """A client that reads nothing learns of the end all the same: nobody keeps what it has not taken."""
    rig.upstream.answers = [b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n" + bytes(60_000) + b"CUT"]
    context = client_context(rig.gateway, "http/1.1")
    with socket.socket() as raw:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        raw.connect(("127.0.0.1", rig.gateway.public))
        with context.wrap_socket(raw, server_hostname="localhost") as tls:
            tls.sendall(GET)
            watch = select.poll()
            watch.register(tls.fileno(), 0)  # errors and hang-ups only
            assert watch.poll(5000)
    leaf = rig.leaf_where({"rule.id": "upstream-truncated"})
    assert leaf["event.reason"] == "upstream-protocol"
