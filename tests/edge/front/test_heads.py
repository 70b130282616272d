"""What is remembered of heads, and how much of it."""

from __future__ import annotations

import pytest

from edge.front.heads import MAX_HEAD_BYTES, KnownHeads
from edge.model.http import Request


def request() -> Request:
    return Request("GET", "/", b"", False, "localhost", "localhost", (), None, None, False)


def test_a_head_is_known_by_all_of_its_bytes_and_its_steps_may_keep_what_they_derive() -> None:
    heads, one = KnownHeads(), request()
    heads.put(b"GET / HTTP/1.1\r\n\r\n", one)
    assert (heads.get(b"GET / HTTP/1.1\r\n\r\n"), heads.get(b"GET /x HTTP/1.1\r\n\r\n")) == (one, None)
    assert one.memo == {}


def test_one_too_many_empties_the_table() -> None:
    heads = KnownHeads(at_most=2)
    for at in range(3):
        heads.put(b"%d" % at, request())
    assert list(heads.known) == [b"2"]


@pytest.mark.parametrize(("at_most", "length"), [(0, 1), (2, MAX_HEAD_BYTES + 1)])
def test_what_comes_once_or_is_long_is_not_kept(at_most: int, length: int) -> None:
    heads, one = KnownHeads(at_most), request()
    heads.put(b"x" * length, one)
    assert (heads.known, one.memo) == ({}, None)
