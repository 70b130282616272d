"""A head that was parsed before is not parsed again, and its body ends where it says: on a real socket, with what follows."""

from __future__ import annotations

import pytest

from tests.wire.judge import judged
from tests.wire.rig import GET, HEAD, OK, Rig
from tests.wire.test_http1 import CHUNKED_HELLO

HIDDEN = b"GET /orders/admin HTTP/1.1\r\nHost: localhost\r\n\r\n"


def post(body: bytes, path: bytes = b"/orders/known", more: bytes = b"") -> bytes:
    return b"POST " + path + b" HTTP/1.1\r\n" + HEAD + more + b"Content-Length: %d\r\n\r\n" % len(body) + body


def bodies(rig: Rig) -> list[bytes]:
    return [request.partition(b"\r\n\r\n")[2] for request in rig.upstream.requests]


def test_one_head_carries_each_of_its_bodies_to_the_last_byte_and_no_further(rig: Rig) -> None:
    said = [b"first", b"again", HIDDEN[:5], b"\r\n\r\n0"]
    rig.upstream.answers = [OK.replace(b"ok", b"%02d" % number) for number in range(7)]
    with rig.client() as client:
        client.send(b"".join(map(post, said[:2])) + GET + CHUNKED_HELLO + b"".join(map(post, said[2:])) + GET)
        assert [client.answer().body for _ in range(7)] == [b"%02d" % number for number in range(7)]
    assert [bodies(rig)[at] for at in (0, 1, 4, 5)] == said


@pytest.mark.parametrize("size", [1, 7, 61])
def test_its_body_may_come_in_pieces(rig: Rig, size: int) -> None:
    with rig.client() as client:
        client.send(post(HIDDEN))
        assert client.answer().status == 200
    raw = post(HIDDEN) + post(HIDDEN) + GET
    with rig.client() as client:
        for at in range(0, len(raw), size):
            client.send(raw[at : at + size])
        answers = [client.answer() for _ in range(3)]
    assert [answer.status for answer in answers] == [200] * 3
    assert bodies(rig) == [HIDDEN, HIDDEN, HIDDEN, b""]
    sizes = [rig.record(answer.fields["x-request-id"])["http.request.body.bytes"] for answer in answers]
    assert sizes == [len(HIDDEN), len(HIDDEN), 0]


def test_half_a_body_is_no_request(rig: Rig) -> None:
    with rig.client() as client:
        client.send(post(HIDDEN))
        assert client.answer().status == 200
    rig.upstream.clear()
    while not rig.upstream.ends.empty():
        rig.upstream.ends.get()
    with rig.client() as client:
        client.send(post(HIDDEN)[:-1])
    rig.upstream.ends.get(timeout=20)
    assert rig.upstream.requests == []


def test_what_its_length_forbids_is_forbidden_each_time(rig: Rig) -> None:
    for _ in range(3):
        with rig.client() as client:
            client.send(post(b"x" * 1001, b"/small/x"))
            judged(rig, client.answer(), 413, "payload-too-large", "content-length-above-route-limit")


def test_who_waits_for_a_word_is_told_each_time(rig: Rig) -> None:
    with rig.client() as client:
        for _ in range(3):
            asked = post(b"later", more=b"Expect: 100-continue\r\n")
            client.send(asked[:-5])
            assert client.answer().status == 100
            client.send(asked[-5:])
            assert client.answer().status == 200
    assert bodies(rig) == [b"later"] * 3
