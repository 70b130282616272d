"""Header hygiene: what may enter, what may stand once, what frames the body."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.errors import HeadersTooLarge, MalformedRequest, Refusal
from edge.parse.fields import MAX_FIELDS, SINGLE, inspect, is_valid_name

HOST = (b"host", b"localhost")


def rule_of(*fields: tuple[bytes, bytes], protocol: str = "1.1") -> str:
    with pytest.raises(Refusal) as caught:
        inspect((HOST, *fields), protocol)
    return caught.value.rule


@pytest.mark.parametrize(
    "name",
    [
        b"x_auth_subject",
        b"x.auth.subject",
        b"x-auth subject",
        b"x-auth\xa0subject",
        b"",
        b"a" * 65,
        b"x:y",
        b"X-Upper",
        b"x\x00y",
    ],
)
def test_names_outside_the_alphabet_are_refused_never_cleaned_B2(name: bytes) -> None:
    assert rule_of((name, b"1")) == "field-name"


@pytest.mark.parametrize("value", [b"a\x00b", b"a\rb", b"a\nb", b"a\x1bb", b"a\x7fb", b"a\x08"])
def test_control_bytes_in_values_are_refused(value: bytes) -> None:
    assert rule_of((b"x-any", value)) == "field-value"


def test_tab_and_obs_text_in_values_pass() -> None:
    assert inspect((HOST, (b"x-any", b"a\tb\xff")), "1.1").raw_host == b"localhost"


@pytest.mark.parametrize("name", sorted(SINGLE - {b"host", b"content-length", b"transfer-encoding", b"expect"}))
def test_a_singleton_that_stands_twice_is_refused_A8(name: bytes) -> None:
    assert rule_of((name, b"1"), (name, b"1")) == "field-repeated"


@pytest.mark.parametrize("name", [b"accept", b"if-none-match", b"cache-control", b"forwarded", b"x-anything", b"via"])
def test_a_list_may_come_in_several_lines_A8(name: bytes) -> None:
    inspect((HOST, (name, b"1"), (name, b"2")), "1.1")


def test_two_hosts_are_refused_even_if_equal_A11() -> None:
    assert rule_of(HOST) == "field-repeated"


@pytest.mark.parametrize("value", [b"+1", b"-1", b"1,1", b"0x1", b" 1", b"", b"1 ", b"9" * 16, b"\xb2"])
def test_lengths_that_are_not_plain_digits_are_refused_C1(value: bytes) -> None:
    assert rule_of((b"content-length", value)) == "content-length"


@pytest.mark.parametrize(
    "value", [b"gzip, chunked", b"chunked, chunked", b"identity", b"xchunked", b"", b"chunked;q=1"]
)
def test_transfer_codings_other_than_chunked_are_refused_C1(value: bytes) -> None:
    assert rule_of((b"transfer-encoding", value)) == "transfer-encoding"


@pytest.mark.parametrize("protocol", ["1.0", "2"])
def test_chunked_outside_http11_is_refused_C1(protocol: str) -> None:
    assert rule_of((b"transfer-encoding", b"chunked"), protocol=protocol) == "transfer-encoding"


def test_length_and_chunked_together_are_refused_C1() -> None:
    assert rule_of((b"content-length", b"3"), (b"transfer-encoding", b"chunked")) == "framing-both"


def test_only_100_continue_may_be_expected() -> None:
    assert rule_of((b"expect", b"200-ok")) == "expect"
    assert inspect((HOST, (b"expect", b"100-Continue")), "1.1").expects_continue
    assert not inspect((HOST, (b"expect", b"100-Continue")), "1.0").expects_continue  # RFC 9110 §10.1.1


def test_more_fields_than_allowed_are_431() -> None:
    with pytest.raises(HeadersTooLarge):
        inspect((HOST, *[(b"x-a", b"1")] * MAX_FIELDS), "1.1")


def test_framing_is_read() -> None:
    framing = inspect((HOST, (b"content-length", b"10"), (b"authorization", b"Bearer x"), (b"upgrade", b"h2c")), "1.1")
    assert (framing.content_length, framing.chunked, framing.raw_authorization, framing.has_upgrade) == (
        10,
        False,
        b"Bearer x",
        True,
    )


@given(st.lists(st.tuples(st.binary(max_size=12), st.binary(max_size=12)), max_size=6))
def test_any_fields_give_framing_or_a_refusal(fields: list[tuple[bytes, bytes]]) -> None:
    try:
        inspect(fields, "1.1")
    except Refusal:
        return
    assert all(is_valid_name(name) for name, _ in fields)


def test_a_flood_of_odd_names_is_not_remembered_without_bound() -> None:
    for number in range(3000):
        assert is_valid_name(b"x-%d" % number)
    from edge.parse import fields

    assert len(fields._known_names) <= 1024


def test_malformed_is_the_class_that_closes() -> None:
    with pytest.raises(MalformedRequest):
        inspect((HOST, (b"x_y", b"")), "1.1")
