from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.authn import strict_json


def test_usual_json_is_read() -> None:
    assert strict_json.parse(b' {"a": [1, true, null, "\xc3\xa9"], "b": {"a": 1.5}} ') == {
        "a": [1, True, None, "é"],
        "b": {"a": 1.5},
    }


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (b'{"a": 1, "a": 1}', "a member stands twice"),
        (b'{"x": [{"a": 1, "\\u0061": 2}]}', "a member stands twice"),
        (b"\xef\xbb\xbf{}", "Expecting value"),
        ('{"a": 1}'.encode("utf-16"), "utf-8"),
        ('{"a": 1}'.encode("utf-16-le"), "property name"),
        (b'{"a": NaN}', "NaN"),
        (b'{"a": -Infinity}', "Infinity"),
        (b'{"a": "\xc0\xaf"}', "utf-8"),
        (b'{"a": "\xed\xa0\x80"}', "utf-8"),
        (b"{'a': 1}", "property name"),
        (b'{"a": 1}{"a": 2}', "Extra data"),
        (b'{"a": 1,}', ""),
        (b"", "Expecting value"),
        (b"[" * 100_000, "nested too deep"),
        (b'{"a": ' + b"9" * 5000 + b"}", "digit"),
    ],
)
def test_what_has_two_readings_is_refused(raw: bytes, why: str) -> None:
    with pytest.raises(ValueError, match=f"(?i){why}"):
        strict_json.parse(raw)


@settings(max_examples=60)
@given(st.binary(max_size=40))
def test_any_input_gives_a_value_or_value_error(raw: bytes) -> None:
    try:
        value = strict_json.parse(raw)
    except ValueError:
        return
    assert value == json.loads(raw)


@settings(max_examples=30)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.text(st.characters(exclude_categories=["Cs"])),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc"), inner, max_size=3),
        max_leaves=8,
    )
)
def test_printed_values_are_read_back(value: object) -> None:
    assert strict_json.parse(json.dumps(value, ensure_ascii=False).encode()) == value
