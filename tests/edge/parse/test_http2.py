"""What HTTP/2 may say that HTTP/1.1 says in exactly one way, and nothing else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.errors import EdgeError, HeadersTooLarge, MalformedRequest
from edge.model.http import RawField
from edge.parse.http2 import MAX_HEAD_BYTES, translate
from edge.parse.request import build

METHOD, SCHEME, AUTHORITY, PATH = (
    (b":method", b"GET"),
    (b":scheme", b"https"),
    (b":authority", b"a.example"),
    (b":path", b"/x?y"),
)
WHOLE: list[RawField] = [METHOD, SCHEME, AUTHORITY, PATH]


def test_a_head_becomes_what_http1_would_say() -> None:
    head = [*WHOLE, (b"accept", b"*/*"), (b"te", b"trailers")]
    fields = ((b"host", b"a.example"), (b"accept", b"*/*"), (b"te", b"trailers"))
    assert translate(head) == ("GET", b"/x?y", fields)


def test_a_host_that_is_the_authority_or_stands_for_it_is_taken_once() -> None:
    assert translate([*WHOLE, (b"host", b"a.example")])[2] == ((b"host", b"a.example"),)
    assert translate([METHOD, SCHEME, PATH, (b"host", b"a.example")])[2] == ((b"host", b"a.example"),)


def test_crumbs_are_joined_behind_the_other_fields() -> None:
    fields = translate([*WHOLE, (b"cookie", b"a=1"), (b"x-a", b"1"), (b"cookie", b"b=2")])[2]
    assert fields[1:] == ((b"x-a", b"1"), (b"cookie", b"a=1; b=2"))


@pytest.mark.parametrize(
    ("head", "rule"),
    [
        ([], "host-missing"),
        ([SCHEME, AUTHORITY, PATH], "pseudo-field"),
        ([METHOD, SCHEME, AUTHORITY], "pseudo-field"),
        ([METHOD, AUTHORITY, PATH], "scheme"),
        ([METHOD, (b":scheme", b"HTTPS"), AUTHORITY, PATH], "scheme"),
        ([METHOD, SCHEME, PATH], "host-missing"),
        ([*WHOLE, AUTHORITY], "pseudo-field"),
        ([*WHOLE, (b":protocol", b"websocket")], "pseudo-field"),
        ([METHOD, SCHEME, AUTHORITY, (b"x", b"1"), PATH], "pseudo-field"),
        ([METHOD, SCHEME, (b"cookie", b"1"), AUTHORITY, PATH], "pseudo-field"),
        ([METHOD, SCHEME, (b"host", b"a.example"), AUTHORITY, PATH], "pseudo-field"),
        ([*WHOLE, (b"host", b"A.example")], "host-disagrees"),
        ([*WHOLE, (b"host", b"a.example"), (b"host", b"a.example")], "field-repeated"),
        ([*WHOLE, (b"te", b"trailers ")], "connection-field"),
        ([*WHOLE, (b"transfer-encoding", b"")], "connection-field"),
        ([*WHOLE, (b"upgrade", b"websocket")], "connection-field"),
        ([*WHOLE, (b"x", b"\t1")], "field-value"),
        ([METHOD, SCHEME, AUTHORITY, (b":path", b"/\x80")], "target-not-ascii"),
    ],
)
def test_what_has_no_single_reading_is_refused(head: list[RawField], rule: str) -> None:
    with pytest.raises(MalformedRequest) as caught:
        translate(head)
    assert caught.value.rule == rule


def test_a_large_head_is_refused_before_it_is_looked_at() -> None:
    with pytest.raises(HeadersTooLarge):
        translate([(b"X", b"a" * MAX_HEAD_BYTES)])


_BYTES = st.one_of(
    st.binary(max_size=6),
    st.sampled_from([b"https", b"GET", b"/", b"a.example", b"host", b"te", b"x", b"cookie", b":path"]),
)


@given(st.lists(st.tuples(st.one_of(st.sampled_from([name for name, _ in WHOLE]), _BYTES), _BYTES), max_size=8))
def test_any_head_gives_a_request_or_our_error_and_never_a_line_break(head: list[RawField]) -> None:
    try:
        method, raw_target, fields = translate(head)
        request, _ = build(method, raw_target, "2", fields)
    except EdgeError:
        return
    said = request.path.encode() + request.raw_query + b"".join(name + value for name, value in request.fields)
    assert not {0, 10, 13} & set(said)
