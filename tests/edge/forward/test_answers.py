"""What is remembered of answers: no more than their bytes say, and never what could be read in another way."""

from __future__ import annotations

import pytest

from edge.forward.answers import MAX_HEAD_BYTES, MAX_HEADS, recall, remember
from tests.edge.forward.test_http1 import OK
from tests.edge.forward.transcript import Case, Listener

LENGTH = (b"content-length", b"5")


def test_a_head_is_known_behind_which_a_whole_answer_came() -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nETag: 1\r\n\r\n"
    remember(head + b"hello", 200, [LENGTH, (b"etag", b"1")])
    known = recall(head + b"HELLO")
    assert known is not None
    assert (known.status, tuple(known.fields), known.content_length, known.end) == (
        200, (LENGTH, (b"etag", b"1")), 5, len(head),
    )  # fmt: skip


@pytest.mark.parametrize("rest", [b"", b"hell", b"hello!", b"helloHTTP/1.1 200 OK\r\n\r\n"])
def test_of_a_known_head_only_the_one_answer_that_it_announces_is_known(rest: bytes) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-Case: whole\r\n\r\n"
    remember(head + b"hello", 200, [LENGTH, (b"x-case", b"whole")])
    assert recall(head + rest) is None


@pytest.mark.parametrize(
    "changed", [b"HTTP/1.1 200 OK\r\ncontent-Length: 5\r\n\r\n", b"HTTP/1.1 200 OK\nContent-Length: 5\n\n"]
)
def test_another_byte_is_another_head(changed: bytes) -> None:
    remember(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", 200, [LENGTH])
    assert recall(changed + b"hello") is None


@pytest.mark.parametrize(
    ("name", "fields", "body"),
    [
        ("no length", [(b"x-a", b"1")], b"hello"),
        ("another length", [(b"content-length", b"4")], b"hello"),
        ("a length said in another way", [(b"content-length", b"05")], b"hello"),
        ("two lengths", [LENGTH, LENGTH], b"hello"),
        ("no body", [(b"content-length", b"0")], b""),
        ("a cookie", [LENGTH, (b"set-cookie", b"session=secret")], b"hello"),
    ],
)
def test_not_remembered(name: str, fields: list[tuple[bytes, bytes]], body: bytes) -> None:
    data = b"HTTP/1.1 200 OK\r\nX-Case: %b\r\n\r\n%b" % (name.encode(), body)
    remember(data, 200, fields)
    assert recall(data) is None


def test_what_is_remembered_is_bounded() -> None:
    long = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-A: %b\r\n\r\nhello" % bytes(MAX_HEAD_BYTES)
    remember(long, 200, [LENGTH])
    assert recall(long) is None
    heads = [b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-A: %d\r\n\r\nhello" % at for at in range(2 * MAX_HEADS)]
    for head in heads:
        remember(head, 200, [LENGTH])
    assert 0 < sum(recall(head) is not None for head in heads) <= MAX_HEADS


# -- on a connection ----------------------------------------------------------------------------------


def again(raw: bytes, *, is_head: bool = False) -> Case:
    """A second exchange on a connection, with `raw` as the answer, after an answer with the head of KNOWN."""
    case = Case().receive(KNOWN)
    case.heard = Listener()
    case.start(is_head=is_head)
    return case.receive(raw)


KNOWN = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-Known: yes\r\n\r\nhello"


def test_an_answer_behind_a_head_met_before_is_heard_like_any_other() -> None:
    case = again(KNOWN[:-5] + b"HELLO")
    assert case.heard.events == [("head", 200, 5, True), ("body", b"HELLO"), ("end",)]
    assert case.heard.fields == [(b"content-length", b"5"), (b"x-known", b"yes")]
    assert (case.heard.end_is_flushed, case.idle, case.connection.status) == (True, [case.connection] * 2, 200)
    case.heard = Listener()
    case.start()
    case.receive(OK)  # the parser stands where it has to
    assert (case.kinds, case.heard.body, len(case.idle)) == (["head", "body", "end"], b"hello", 3)


def test_a_part_of_an_answer_behind_a_head_met_before_is_waited_for() -> None:
    case = again(KNOWN[:-2])
    assert (case.kinds, case.heard.body, len(case.idle)) == (["head", "body"], b"hel", 1)
    case.receive(b"lo")
    assert (case.kinds[-1], case.heard.body, len(case.idle)) == ("end", b"hello", 2)


def test_surplus_behind_a_head_met_before_ends_the_connection() -> None:
    case = again(KNOWN + b"HTTP/1.1 200 OK\r\n")
    assert (case.heard.body, case.heard.end_is_flushed, len(case.idle), case.wire.aborted) == (b"hello", True, 1, True)


def test_a_body_behind_a_head_met_before_is_none_of_head_s() -> None:
    case = again(KNOWN, is_head=True)
    assert (case.heard.body, len(case.idle), case.wire.aborted) == (b"", 1, True)


def test_bytes_that_nobody_asked_for_are_no_answer_though_they_were_met_before() -> None:
    case = again(KNOWN).receive(KNOWN)
    assert (case.kinds, case.wire.aborted) == (["head", "body", "end"], True)


def test_an_answer_met_before_that_comes_before_the_request_is_sent_ends_the_connection() -> None:
    case = Case().receive(KNOWN)
    case.start(is_complete=False)
    case.receive(KNOWN)
    assert (case.kinds[-1], len(case.idle), case.wire.aborted) == ("end", 1, True)


def test_an_interim_answer_before_a_head_met_before_is_passed_over() -> None:
    case = again(b"HTTP/1.1 103 Early Hints\r\n\r\n" + KNOWN)
    assert case.heard.events == [("head", 200, 5, True), ("body", b"hello"), ("end",)]


def test_heads_that_never_come_twice_are_heard_like_any_other() -> None:
    case = Case()
    for at in range(160):
        case.receive(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nX-Only: %d\r\n\r\n!" % at)
        assert case.heard.fields[1:] == [(b"x-only", b"%d" % at)]
        case.heard.events.clear()
        case.start()
    for _ in range(160):
        case.receive(KNOWN)
        assert case.kinds == ["head", "body", "end"]
        case.heard.events.clear()
        case.start()
