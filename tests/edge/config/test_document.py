"""YAML with places: what is read, what is refused, and where."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.config.document import MAX_BYTES, MAX_DEPTH, Value, read, resolve, spell


def value(text: str) -> Value:
    document = read("f.yaml", text.encode())
    assert document.faults == ()
    return document.value


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("no", "no"),
        ("yes", "yes"),
        ("on", "on"),
        ("true", True),
        ("False", False),
        ("tRUE", "tRUE"),
        ("~", None),
        ("null", None),
        ("", None),
        ("12", 12),
        ("-3", -3),
        ("012", 12),
        ("0o17", 15),
        ("0x1F", 31),
        ("1_000", "1_000"),
        ("1:30", "1:30"),
        ("1.10", 1.1),
        ("1e3", 1000.0),
        (".5", 0.5),
        (".inf", ".inf"),
        (".nan", ".nan"),
        ("2026-11-21", "2026-11-21"),
        ("=", "="),
        ("<<", "<<"),
    ],
)
def test_plain_scalars_are_those_of_yaml_1_2(text: str, expected: Value) -> None:
    assert resolve(text) == expected


@pytest.mark.parametrize("text", ["'12'", '"true"', "|-\n  null", ">-\n  0x1F"])
def test_quoted_and_block_scalars_are_texts(text: str) -> None:
    document = value(f"a: {text}\n")
    assert isinstance(document, dict)
    assert isinstance(document["a"], str)


def test_keys_are_texts_as_written() -> None:
    assert value("1: a\ntrue: b\n~: c\n<<: d\n") == {"1": "a", "true": "b", "~": "c", "<<": "d"}


def test_empty_file_is_nothing() -> None:
    assert value("# only a comment\n") is None


_texts = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")), max_size=8)
_json = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | _texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", max_size=3), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=60, deadline=None)
@given(_json)
def test_json_is_read_as_it_was_written(written: object) -> None:
    def frozen(plain: object) -> object:
        if isinstance(plain, list):
            return tuple(map(frozen, plain))
        return {key: frozen(inner) for key, inner in plain.items()} if isinstance(plain, dict) else plain

    assert value(json.dumps({"written": written}, ensure_ascii=False)) == {"written": frozen(written)}


@settings(max_examples=80, deadline=None)
@given(st.text(alphabet="ab:- \n[]{}&*!?|>'\"#%,\t\0", max_size=24) | st.binary(max_size=16))
def test_any_input_gives_a_document_or_faults_with_a_place(text: str | bytes) -> None:
    document = read("f.yaml", text if isinstance(text, bytes) else text.encode())
    assert document.root is not None or document.faults
    assert all(fault.line >= 1 and fault.column >= 1 for fault in document.faults)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: 1\nb: &x 2\n", "f.yaml:2:4: anchor:"),
        ("a: *x\n", "f.yaml:1:4: "),
        ("a: &x {b: 1}\nc: *x\n", "f.yaml:1:4: anchor:"),
        ("&x a: 1\n", "f.yaml:1:1: anchor:"),
        ("a: !!python/object:os.system x\n", "f.yaml:1:4: tag:"),
        ("a: !!str 1\n", "f.yaml:1:4: tag:"),
        ("a: ! x\n", "f.yaml:1:4: tag:"),
        ("a: 1\n---\nb: 2\n", "f.yaml:2:1: syntax: a second document"),
        ("a: [1, 2\n", "f.yaml:2:1: syntax:"),
        ("a: b: c\n", "f.yaml:1:5: syntax:"),
        ("a:\n\t- b\n", "f.yaml:2:1: syntax:"),
        ("a: 1\nb: \x07\n", "f.yaml:2:4: syntax: a character"),
        ("[" * 40 + "]" * 40, f"f.yaml:1:{MAX_DEPTH + 2}: too-deep:"),
    ],
)
def test_what_makes_the_file_doubtful_ends_its_reading(text: str, expected: str) -> None:
    document = read("f.yaml", text.encode())
    assert document.root is None
    assert [str(fault)[: len(expected)] for fault in document.faults] == [expected]


@pytest.mark.parametrize("raw", [b"a: \xff\n", b"\xfe\xff\x00a", b"a: \xc0\xae"])
def test_file_that_is_not_utf8_is_refused(raw: bytes) -> None:
    (fault,) = read("f.yaml", raw).faults
    assert (fault.rule, fault.line) == ("syntax", 1)


def test_byte_order_mark_is_no_part_of_the_first_key() -> None:
    assert read("f.yaml", b"\xef\xbb\xbfa: 1\n").value == {"a": 1}


def test_file_beyond_the_limit_is_not_read() -> None:
    (fault,) = read("f.yaml", b"#" * (MAX_BYTES + 1)).faults
    assert fault.rule == "too-large"


def test_more_values_than_allowed_end_the_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.config.document.MAX_NODES", 5)
    assert [fault.rule for fault in read("f.yaml", b"[1, 2, 3, 4, 5, 6]").faults] == ["too-large"]


def test_anchor_bomb_is_one_fault_and_costs_nothing() -> None:
    bomb = "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [{f'*a{i - 1}, ' * 9}]\n" for i in range(1, 10))
    assert [str(fault)[:20] for fault in read("f.yaml", bomb.encode()).faults] == ["f.yaml:1:5: anchor: "]


def test_duplicate_keys_are_each_reported_and_the_first_counts() -> None:
    document = read("f.yaml", b"a: 1\nb: {c: 1, c: 2}\na: 3\n")
    assert document.value == {"a": 1, "b": {"c": 1}}
    assert [(fault.rule, fault.line, fault.column) for fault in document.faults] == [
        ("duplicate-key", 2, 11),
        ("duplicate-key", 3, 1),
    ]


def test_key_that_is_no_text_and_number_without_end_are_reported() -> None:
    document = read("f.yaml", b"? [a]\n: 1\nb: " + b"9" * 5000 + b"\n")
    assert [(fault.rule, fault.line) for fault in document.faults] == [("key-type", 1), ("number", 3)]


def test_places_are_those_of_values_and_keys() -> None:
    document = read("f.yaml", b"routes:\n  - name: x\n    match: {path: /a}\n")
    assert document.place(("routes", 0, "match", "path")) == (3, 19)
    assert document.key_place(("routes", 0, "match", "path")) == (3, 13)
    assert document.place(("routes", 0, "upstream", "service")) == (2, 5)  # the nearest thing that exists
    assert document.place(("routes", 7)) == (2, 3)
    assert document.key_place(("routes", 0)) == (2, 5)
    assert read("f.yaml", b"a: [").place(("a",)) == (1, 1)


def test_fault_says_where_in_words_too() -> None:
    document = read("f.yaml", b"routes:\n  - {name: 1}\n")
    fault = document.fault(("routes", 0, "name"), "wrong-type", "expected a text, got 1", "put it into quotes")
    assert str(fault) == "f.yaml:2:12: wrong-type: routes[0].name: expected a text, got 1; put it into quotes"
    assert document.fault((), "r", "m", "x").message == "m"
    assert spell(("a", 1, 2, "b")) == "a[1][2].b"
