"""RFC 7541: the examples of its appendix, another library's encoder, and everything that is not an encoding."""

from __future__ import annotations

import hpack
import pytest
from hpack.table import HeaderTable
from hypothesis import given
from hypothesis import strategies as st

from edge.errors import HeadersTooLarge, MalformedRequest
from edge.model.http import RawField
from edge.parse.hpack import EMPTY, MAX_LIST_BYTES, STATIC, TABLE_BYTES, Table, decode

_NAMES = st.sampled_from([b":path", b":method", b"cookie", b"authorization", b"x-a", b"x-b", b"accept", b"x-long-name"])
_VALUES = st.one_of(st.binary(max_size=20), st.sampled_from([b"GET", b"/", b"a" * 300, b"a" * 4100]))
_LISTS = st.lists(st.tuples(_NAMES, _VALUES), max_size=8)


def test_the_static_table_is_that_of_the_rfc() -> None:
    assert STATIC[1:] == tuple(HeaderTable.STATIC_TABLE)


@given(st.lists(st.tuples(_LISTS, st.booleans()), max_size=6))
def test_what_another_library_encodes_comes_back_block_by_block(lists: list[tuple[list[RawField], bool]]) -> None:
    encoder, table = hpack.Encoder(), EMPTY
    for fields, is_huffman in lists:
        found, table = decode(table, encoder.encode(fields, huffman=is_huffman))
        assert found == fields
        assert table.size_bytes == sum(len(name) + len(value) + 32 for name, value in table.entries) <= TABLE_BYTES


def test_the_examples_of_appendix_c4() -> None:
    fields, table = decode(EMPTY, bytes.fromhex("828684418cf1e3c2e5f23a6ba0ab90f4ff"))
    first = [(b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/"), (b":authority", b"www.example.com")]
    assert (fields, table.size_bytes) == (first, 57)
    fields, table = decode(table, bytes.fromhex("828684be5886a8eb10649cbf"))
    assert (fields, table.size_bytes) == ([*first, (b"cache-control", b"no-cache")], 110)
    fields, table = decode(table, bytes.fromhex("828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf"))
    assert table.entries[0] == (b"custom-key", b"custom-value")
    assert (fields[-1], table.size_bytes) == ((b"custom-key", b"custom-value"), 164)


def test_a_block_that_adds_nothing_leaves_the_very_table() -> None:
    _, table = decode(EMPTY, b"\x40\x01a\x01b")
    assert decode(table, b"\xbe\x82")[1] is table
    assert decode(EMPTY, b"\x00\x01a\x01b\x10\x01c\x01d") == ([(b"a", b"b"), (b"c", b"d")], EMPTY)
    assert table.entries == ((b"a", b"b"),)


def test_a_table_never_changes() -> None:
    _, table = decode(EMPTY, b"\x40\x01a\x01b")
    decode(table, b"\x20\x82\x40\x01c\x01d")
    assert (table.entries, table.limit_bytes) == (((b"a", b"b"),), TABLE_BYTES)


def test_a_resize_evicts_and_holds() -> None:
    _, table = decode(EMPTY, b"\x40\x01a\x01b\x40\x01c\x01d")
    fields, smaller = decode(table, b"\x3f\x03\xbe")  # 34 bytes: room for the newer one
    assert (fields, smaller.entries, smaller.limit_bytes) == ([(b"c", b"d")], ((b"c", b"d"),), 34)
    _, empty = decode(smaller, b"\x20\x40\x01e\x01f")
    assert (empty.entries, empty.size_bytes) == ((), 0)


def test_a_field_larger_than_the_table_empties_it() -> None:
    _, table = decode(EMPTY, b"\x40\x01a\x01b")
    fields, table = decode(table, b"\x40\x01x\x7f\xa1\x1f" + b"v" * 4128)
    assert (fields[0][0], table.entries) == (b"x", ())


@pytest.mark.parametrize(
    ("block", "rule"),
    [
        (b"\x80", "hpack-index"),
        (b"\xbe", "hpack-index"),
        (b"\x7e\x01b", "hpack-index"),
        (b"\x82\x20", "hpack-resize-late"),
        (b"\x3f\xe2\x1f", "hpack-resize"),
        (b"\xff", "hpack-integer"),
        (b"\xff\x80\x80\x80\x80\x00", "hpack-integer"),
        (b"\x00", "hpack-string"),
        (b"\x00\x01", "hpack-string"),
        (b"\x00\x01a", "hpack-string"),
        (b"\x00\x01a\x02b", "hpack-string"),
        (b"\x00\x01a\x81\x1c", "hpack-huffman"),
    ],
)
def test_what_is_not_an_encoding_is_refused(block: bytes, rule: str) -> None:
    with pytest.raises(MalformedRequest) as caught:
        decode(EMPTY, block)
    assert caught.value.rule == rule


def test_a_bomb_is_not_unfolded_CVE_2016_6581() -> None:
    _, table = decode(EMPTY, b"\x40\x01x\x7f\xa1\x1e" + b"v" * 4000)
    with pytest.raises(HeadersTooLarge):
        decode(table, b"\xbe" * 1_000_000)
    count = MAX_LIST_BYTES // (4001 + 32)
    assert len(decode(table, b"\xbe" * count)[0]) == count


@given(st.binary(max_size=80), st.binary(max_size=80))
def test_any_bytes_give_fields_or_our_error(first: bytes, second: bytes) -> None:
    table: Table = EMPTY
    for block in (first, second):
        try:
            _, table = decode(table, block)
        except (MalformedRequest, HeadersTooLarge):
            return
        assert table.size_bytes <= table.limit_bytes <= TABLE_BYTES
