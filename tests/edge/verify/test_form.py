"""One spelling in both directions; tests of the verifier hold the refusals against whole assertions."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.verify.form import NotOfTheForm, opened, parsed, percent_encoded, printed, scopes_field, segment

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), JSON, max_size=4))
def test_what_is_printed_is_parsed(document: dict[str, object]) -> None:
    assert parsed(printed(document)) == document


@given(st.binary())
def test_bytes_round_trip_and_nothing_else_opens(raw: bytes) -> None:
    assert opened(segment(raw)) == raw
    try:
        assert segment(opened(raw)) == raw
    except NotOfTheForm:
        pass


@given(st.binary())
def test_any_segment_is_parsed_or_refused(raw: bytes) -> None:
    try:
        assert printed(parsed(segment(raw))) == segment(raw)
    except NotOfTheForm:
        pass


@pytest.mark.parametrize("text", ["", "=", "A", "A===", "AA==", "A+/A", "A A", "AAA\n"])
def test_base64url_has_one_spelling(text: str) -> None:
    if text:
        with pytest.raises(NotOfTheForm):
            opened(text.encode())
    else:
        assert opened(b"") == b""


def test_identity_fields_are_printable_and_can_be_undone() -> None:
    assert percent_encoded("alice") == b"alice"
    assert percent_encoded("ä b%") == b"%C3%A4%20b%25"
    assert scopes_field(frozenset(("b", "a c"))) == b"a%20c b"
