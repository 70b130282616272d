from __future__ import annotations

import cedarpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.authz.scan import MAX_DEPTH, MAX_FILE_BYTES, MAX_OPERATORS, Chunk, ScanError, split, tokens

ANY = "permit (principal, action, resource)"


def rule_of(raw: bytes) -> tuple[str, int]:
    with pytest.raises(ScanError) as caught:
        split(raw)
    return caught.value.rule, caught.value.line


def nested(depth: int) -> bytes:
    return f"{ANY} when {{{'(' * (depth - 1)}true{')' * (depth - 1)}}};".encode()


def chain(operator: str, operators: int) -> bytes:
    return f"{ANY} when {{{operator.join(['true'] * (operators + 1))}}};".encode()


def test_each_policy_is_cut_out_with_the_line_it_starts_on() -> None:
    raw = b'// head\n@id("a")\npermit (principal, action, resource);\n\n\nforbid (principal, action, resource);\n'
    assert split(raw) == (
        Chunk(2, '@id("a")\npermit (principal, action, resource);'),
        Chunk(6, "forbid (principal, action, resource);"),
    )


@pytest.mark.parametrize(
    "raw",
    [
        b'a "x;y" b;',
        b'a "x\\";y" b;',
        b'a "//;" b;',
        b"a // ; not the end\n b;",
        b'a // "\n b;',
        b"a { b; } c;",
    ],
)
def test_a_semicolon_in_string_comment_or_brackets_ends_nothing(raw: bytes) -> None:
    assert split(raw) == (Chunk(1, raw.decode()),)


def test_text_after_the_last_semicolon_is_kept_for_the_parser_to_refuse() -> None:
    assert split(b"a;\nb") == (Chunk(1, "a;"), Chunk(2, "b"))


@pytest.mark.parametrize("raw", [b"", b"\n", b"// only a comment", b" \t\r\n"])
def test_a_file_without_policies_has_none(raw: bytes) -> None:
    assert split(raw) == ()


def test_a_string_over_two_lines_is_counted() -> None:
    assert split(b'"a\nb";\nc;')[1].line == 3


def test_trap_thousand_nested_parentheses_never_reach_the_native_parser() -> None:
    assert rule_of(nested(1000)) == ("too-deep", 1)


@pytest.mark.parametrize(("opening", "closing"), ["()", "[]", "{}"])
def test_nesting_of_every_kind_of_bracket_is_bounded(opening: str, closing: str) -> None:
    assert rule_of((opening * (MAX_DEPTH + 1) + closing * (MAX_DEPTH + 1) + ";").encode()) == ("too-deep", 1)
    assert len(split((opening * MAX_DEPTH + closing * MAX_DEPTH + ";").encode())) == 1


@pytest.mark.parametrize(
    "operator", [" && ", " || ", " + ", "-", "*", "==", "<", ".", " has ", " in ", " is ", " if ", "!"]
)
def test_trap_long_operator_chains_never_reach_the_native_parser(operator: str) -> None:
    assert rule_of(chain(operator, MAX_OPERATORS + 1)) == ("too-long", 1)


def test_operators_are_counted_per_policy() -> None:
    assert len(split(chain(" && ", MAX_OPERATORS - 8) * 3)) == 3


def test_a_set_of_many_names_is_no_chain() -> None:
    names = ", ".join(f'Edge::Service::"s{number}"' for number in range(2000))
    assert len(split(f"permit (principal, action, resource) when {{ principal in [{names}] }};".encode())) == 1


@pytest.mark.parametrize("text", [")", "(;", "(]", "{)", "a; }", "permit (principal"])
def test_unbalanced_brackets_are_refused(text: str) -> None:
    assert rule_of(text.encode())[0] == "syntax"


@pytest.mark.parametrize("text", ['"', '"abc', '"abc\\"', 'a; "b;'])
def test_an_open_string_is_refused(text: str) -> None:
    assert rule_of(text.encode()) == ("syntax", 1)


def test_a_file_too_large_is_refused_before_anything_else() -> None:
    assert rule_of(b"\xff" * (MAX_FILE_BYTES + 1)) == ("too-large", 1)
    assert split(b" " * MAX_FILE_BYTES) == ()


def test_invalid_utf_8_is_refused_with_its_line() -> None:
    assert rule_of(b"a;\n\xc3\x28;") == ("not-utf-8", 2)


@pytest.mark.parametrize("char", ["\u202e", "\u2066", "\u200b", "\ufeff", "\u2028", "\u0085", "\x00", "\x1b", "\x0b"])
def test_characters_that_show_a_reviewer_another_policy_are_refused(char: str) -> None:
    assert rule_of(f"a;\n// {char}\nb;".encode()) == ("hidden-character", 2)


def test_a_bare_carriage_return_is_refused_because_it_ends_a_comment_for_cedar_only() -> None:
    assert rule_of(b"// harmless \r permit (principal, action, resource);") == ("hidden-character", 1)


def test_cedar_indeed_ends_a_comment_at_a_carriage_return() -> None:
    assert len(cedarpy.PolicySet.from_str(f"// harmless \r {ANY};")) == 1


def test_crlf_line_ends_are_counted_once() -> None:
    assert [chunk.line for chunk in split(b"a;\r\nb;\r\n// c\r\nd;")] == [1, 2, 4]


def test_letters_of_other_scripts_may_stand_in_strings() -> None:
    assert len(split('a "grün → 緑";'.encode())) == 1


def test_tokens_leave_out_white_space_and_comments() -> None:
    assert tokens(b'a ::b // c\n"d e"') == [(1, "a"), (1, "::"), (1, "b"), (2, '"d e"')]


@settings(max_examples=150, deadline=None)
@given(st.one_of(st.binary(max_size=60), st.text(alphabet='a1"\\/;(){}[]&|.\n\r ', max_size=60).map(str.encode)))
def test_any_input_gives_chunks_or_our_error(raw: bytes) -> None:
    try:
        chunks = split(raw)
    except ScanError:
        return
    assert [chunk.line for chunk in chunks] == sorted(chunk.line for chunk in chunks)
    assert all(chunk.text in raw.decode().replace("\r\n", "\n") for chunk in chunks)


_FILLERS = st.sampled_from(["", " ", "\n", '// ; "\n', "// permit\n\n", "\t"])
_POLICIES = st.sampled_from(
    [
        f"{ANY};",
        f'@id("a;b") {ANY};',
        f'{ANY} when {{ context.path == "\\";" }};',
        f"{ANY} // ;\n;",
        f'{ANY} unless {{ [1, 2].contains((3)) && {{a: "//"}}.a == "}}" }};',
    ]
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(_FILLERS, _POLICIES), max_size=6), _FILLERS)
def test_the_cut_agrees_with_cedars_grammar(parts: list[tuple[str, str]], tail: str) -> None:
    text = "".join(filler + policy for filler, policy in parts) + tail
    chunks = split(text.encode())
    assert [chunk.text for chunk in chunks] == [policy for _, policy in parts]
    assert len(cedarpy.PolicySet.from_str(text)) == len(chunks)
