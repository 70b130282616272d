"""The code of RFC 7541, Appendix B: what was encoded comes back, and what is not an encoding is refused."""

from __future__ import annotations

import pytest
from hpack.huffman import HuffmanEncoder
from hpack.huffman_constants import REQUEST_CODES, REQUEST_CODES_LENGTH
from hypothesis import given
from hypothesis import strategies as st

from edge.errors import MalformedRequest
from edge.parse.huffman import decode

_ENCODER = HuffmanEncoder(REQUEST_CODES, REQUEST_CODES_LENGTH)


@given(st.binary(max_size=60))
def test_what_another_library_encodes_comes_back(text: bytes) -> None:
    assert decode(_ENCODER.encode(text)) == text


@pytest.mark.parametrize("symbol", range(256))
def test_every_symbol_comes_back(symbol: int) -> None:
    assert decode(_ENCODER.encode(bytes((symbol,)))) == bytes((symbol,))


def test_the_examples_of_the_rfc() -> None:
    assert decode(bytes.fromhex("f1e3c2e5f23a6ba0ab90f4ff")) == b"www.example.com"
    assert decode(bytes.fromhex("a8eb10649cbf")) == b"no-cache"


@pytest.mark.parametrize(
    "raw",
    [
        b"\x1c",  # the padding is of zeros
        b"\x1f\xff",  # a whole byte of it
        b"\xff\xff\xff\xff",  # the code of the end itself
        b"\xff\xff\xff\xfc",
        b"\xfe",
    ],
)
def test_what_is_not_an_encoding_is_refused(raw: bytes) -> None:
    with pytest.raises(MalformedRequest) as caught:
        decode(raw)
    assert caught.value.rule == "hpack-huffman"


@given(st.binary(max_size=40))
def test_any_bytes_give_a_string_or_our_error(raw: bytes) -> None:
    try:
        text = decode(raw)
    except MalformedRequest:
        return
    assert _ENCODER.encode(text) == raw
    assert decode(raw) == text


def test_more_strings_than_are_remembered_are_still_decoded() -> None:
    for at in range(2100):
        text = b"%d" % at
        assert decode(_ENCODER.encode(text)) == text
    long = b"a" * 4000
    assert decode(_ENCODER.encode(long)) == long
