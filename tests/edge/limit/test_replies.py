"""Answers of the store by their framing: what is asked for passes in any pieces, what is larger ends before it is read."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.limit import replies
from edge.limit.replies import MAX_BYTES, MAX_VALUES, Reply, TooLarge

SOUND = [
    b"+OK\r\n",
    b"-NOSCRIPT no such script\r\n",
    b":-1\r\n",
    b"$-1\r\n",
    b"*-1\r\n",
    b"_\r\n",
    b"$0\r\n\r\n",
    b"$12\r\n*50000000\r\n!\r\n",  # a string says nothing of lengths
    b"*0\r\n",
    b"*3\r\n:1\r\n:2\r\n:3\r\n",
    b"*2\r\n$1\r\n7\r\n*2\r\n$1\r\na\r\n$2\r\nbc\r\n",
    b"%1\r\n+a\r\n*1\r\n:5\r\n",
    b"|1\r\n+ttl\r\n:9\r\n~2\r\n#t\r\n,1.5\r\n",
    b"=7\r\ntxt:abc\r\n",
    b"*3\r\n:1\r\n$1\r\n:\r\n:-3\r\n",
]


@given(st.lists(st.sampled_from(SOUND), max_size=8), st.lists(st.integers(1, 40), max_size=30))
def test_sound_answers_pass_in_any_pieces(answers: list[bytes], sizes: list[int]) -> None:
    raw, reply = b"".join(answers), Reply()
    for size in sizes:
        reply.take(raw[:size])
        raw = raw[size:]
    reply.take(raw)


@pytest.mark.parametrize("answer", SOUND)
def test_bounds_are_those_of_one_answer(answer: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replies, "MAX_VALUES", 10)
    monkeypatch.setattr(replies, "MAX_BYTES", 60)
    reply = Reply()
    for _ in range(20):
        reply.take(answer * 9)


@pytest.mark.parametrize("answer", SOUND)
def test_byte_by_byte_is_the_same(answer: bytes) -> None:
    reply = Reply()
    for _ in range(3):
        for at in range(len(answer)):
            reply.take(answer[at : at + 1])


@pytest.mark.parametrize(
    "beginning",
    [
        b"*50000000\r\n",
        b"*4294967295\r\n",
        b"*99999999999999999999\r\n",
        b"%9000\r\n",
        b"|9000\r\n",
        b">70000\r\n",
        b"*2\r\n*1\r\n*70000\r\n",
        b"*1\r\n" * (MAX_VALUES + 1),
        b"*16384\r\n" + b"*0\r\n" * 10,
        b"*2\r\n" + b"*2\r\n:1\r\n" * MAX_VALUES,
        b"$?\r\n",
        b"*one\r\n",
        b"*1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n",
        b"\x00",
        b"+" + b"a" * 70_000,
        b"$" + b"1" * 70_000,
        b"$5000000\r\n" + b"a" * (MAX_BYTES + 1),
        b"*2\r\n" + b"$1000000\r\n" + b"a" * 1_000_002 + b"$4000000\r\n" + b"a" * 4_000_000,
    ],
)
def test_what_is_larger_or_no_answer_is_refused(beginning: bytes) -> None:
    with pytest.raises(TooLarge):
        Reply().take(beginning + b"\r\n")
    with pytest.raises(TooLarge):
        _take(beginning + b"\r\n", 4096)


def _take(raw: bytes, size: int) -> None:
    """In pieces."""
    reply = Reply()
    for at in range(0, len(raw), size):
        reply.take(raw[at : at + size])


@given(st.binary(max_size=300), st.integers(1, 50))
def test_any_bytes_pass_or_are_refused(raw: bytes, size: int) -> None:
    with suppress(TooLarge):
        _take(raw, size)
