"""Where a message ends is found once, however its bytes are cut, and what is no content is bounded."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.errors import MalformedRequest
from edge.front.message import MAX_BARREN_BYTES, Message

HEAD = b"POST /a HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
NEXT = b"GET /next HTTP/1.1\r\n\r\n"


def begun(head: bytes = HEAD, length: int | None = None) -> Message:
    message = Message()
    message.feed_head(head)
    message.expect_body(length)
    return message


def read(message: Message, raw: bytes, cuts: list[int]) -> tuple[bytes, bytes]:
    """All content, and all that was left over."""
    edges = [0, *sorted(cut for cut in cuts if cut < len(raw)), len(raw)]
    content = left = b""
    for start, end in pairwise(edges):
        if message.is_complete:
            left += raw[start:end]
            continue
        body, rest = message.feed_body(raw[start:end])
        content += body
        left += rest
    return content, left


@settings(max_examples=60, deadline=None)
@given(
    chunks=st.lists(
        st.binary(min_size=1, max_size=12) | st.sampled_from([b"\r\n\r\n", b"0\r\n\r\n", b"\r\n0\r\n"]), max_size=5
    ),
    trailer=st.sampled_from([b"", b"X-A: b\r\n"]),
    cuts=st.lists(st.integers(1, 120), max_size=12),
)
def test_a_chunked_body_ends_where_it_ends_C1(chunks: list[bytes], trailer: bytes, cuts: list[int]) -> None:
    raw = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n" + trailer + b"\r\n" + NEXT
    message = begun()
    assert read(message, raw, cuts) == (b"".join(chunks), NEXT)
    assert message.is_complete
    message.feed_head(b"GET /b HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert (message.target, message.fields) == (b"/b", [(b"host", b"localhost")])


@settings(max_examples=30, deadline=None)
@given(body=st.binary(min_size=1, max_size=60), cuts=st.lists(st.integers(1, 80), max_size=8))
def test_a_counted_body_ends_where_it_ends_C1(body: bytes, cuts: list[int]) -> None:
    head = b"POST /a HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body)
    assert read(begun(head, len(body)), body + NEXT, cuts) == (body, NEXT)


def test_the_content_of_one_read_comes_in_one_piece_C4() -> None:
    assert begun().feed_body(b"1\r\nx\r\n" * 1000) == (b"x" * 1000, b"")


@pytest.mark.parametrize("start", [b"1;", b"1\r\nx\r\n0\r\nX-T: ", b"0\r\n"])
@pytest.mark.parametrize("size", [100, 5000, 50_000])
def test_extensions_and_trailers_end_C4(start: bytes, size: int) -> None:
    raw = start + b"a" * (MAX_BARREN_BYTES + 2 * size)
    with pytest.raises(MalformedRequest) as refused:
        read(begun(), raw, list(range(size, len(raw), size)))
    assert refused.value.rule == "chunk-overhead"


@pytest.mark.parametrize("raw", [b"zz\r\n", b"5\r\nhelloX\r\n", b"5\n", b"0\r\nA b: c\r\n\r\n"])
def test_bad_chunks_are_told(raw: bytes) -> None:
    with pytest.raises(MalformedRequest) as refused:
        begun().feed_body(raw)
    assert refused.value.rule == "http1-body-syntax"


def test_a_head_that_llhttp_refuses_is_told() -> None:
    with pytest.raises(MalformedRequest) as refused:
        Message().feed_head(b"GET / HTTP/1.1\r\nX : y\r\n\r\n")
    assert refused.value.rule == "http1-syntax"
