"""What a leaf may say and how it is spelled."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.audit import record
from edge.audit.record import event, event_end, fields, pseudonym, rejection, seal, stamp, text, texts, timestamp

RUN = "worker-0.00ff"
HEAD = stamp(RUN)
GOOD = b'"event.action":"request","event.id":"1"'


@pytest.mark.parametrize(
    ("value", "encoded"),
    [
        ("plain", '"plain"'),
        ('a"b\\', '"a\\"b\\\\"'),
        ("line\nbreak\r", '"line\\nbreak\\r"'),
        ("\x1b[31m", '"\\u001b[31m"'),
        ("\x7f", '"\\u007f"'),
        ("\u2028 é", '"\\u2028 \\u00e9"'),
        ("😀\ud800", '"\\ud83d\\ude00?"'),
    ],
)
def test_text_from_outside_becomes_one_line_of_printable_ascii(value: str, encoded: str) -> None:
    assert encoded == text(value)


@settings(max_examples=60)
@given(st.text(max_size=80), st.integers(0, 60))
def test_capped_text_is_the_longest_beginning_that_fits_or_shorter(value: str, cap: int) -> None:
    encoded = text(value, cap)
    assert len(encoded) <= cap + 2
    assert value.startswith(json.loads(encoded))
    assert encoded.isascii()
    assert encoded.isprintable()


@pytest.mark.parametrize("value", ["x" * 5000, "é" * 5000, "\x00" * 5000, "😀" * 5000, "\x7f" * 5000])
def test_overlong_text_keeps_most_of_its_cap(value: str) -> None:
    assert 236 <= len(text(value)) <= 258


def test_list_leaves_out_from_the_end_what_does_not_fit() -> None:
    assert texts(["aa", "bb"], 10) == '["aa","bb"]'
    assert texts(["aa", "bb"], 9) == '["aa"]'
    assert texts([]) == "[]"


def test_timestamp_is_utc_with_microseconds() -> None:
    assert timestamp(1_795_253_841_363_643_999) == "2026-11-21T09:37:21.363643Z"


def test_pseudonym_depends_on_key_and_on_where_the_parts_end() -> None:
    assert pseudonym(b"k", "ab", "c") != pseudonym(b"k", "a", "bc")
    assert pseudonym(b"k", "ab") != pseudonym(b"l", "ab")
    assert pseudonym(b"k", "\ud800") == pseudonym(b"k", "\ud800")
    assert len(pseudonym(b"k", "a", size=8)) == 16


def test_field_that_is_not_listed_is_a_bug() -> None:
    with pytest.raises(ValueError, match=r"'user\.email' is not a field"):
        fields({"user.email": "a@b"})


def test_fields_keep_their_kind() -> None:
    encoded = fields({"count": 3, "limit.degraded": True, "message": "a\nb", "policy.ids": ["x", "y"]})
    assert json.loads(f"{{{encoded}}}") == {
        "count": 3,
        "limit.degraded": True,
        "message": "a\nb",
        "policy.ids": ["x", "y"],
    }


def test_event_is_a_whole_record_with_either_end() -> None:
    prefix = event("config.reload", 7, "18a7", 1_795_253_841_363_643_000, {"policy.version": "5d"})
    failed = json.loads(b"{" + prefix + event_end("bad-file"))
    assert (failed["event.sequence"], failed["event.reason"], failed["policy.version"]) == (7, "bad-file", "5d")
    assert json.loads(b"{" + prefix + event_end(None))["event.outcome"] == "success"


def test_event_of_no_known_family_is_a_bug() -> None:
    with pytest.raises(ValueError, match="belongs to no family"):
        event("party.start", 1, "1", 0, {})


def test_event_too_long_for_a_slot_says_that_it_was_cut() -> None:
    values: dict[str, record.Value] = {name: "\x00" * 300 for name in list(record.FIELDS)[30:50]}
    prefix = event("config.reload", 1, "1", 0, values)
    assert len(prefix) < record.MAX_PREFIX
    assert json.loads(b"{" + prefix + b"}")["record.truncated"] is True


def test_sealed_leaf_begins_with_its_writer() -> None:
    assert seal(HEAD, RUN, GOOD, b"}", may_pki=False) == b'{"gateway.writer":"worker-0.00ff",' + GOOD + b"}"


@pytest.mark.parametrize(
    "body",
    [
        b'"event.action":"pki.issued"}',
        b'"event.action":"pki.issued","event.action":"request"}',
        b'"event.action":"\\u0070ki.issued"}',
        b'"event.action":"request","event.action":"pki.issued"}',
        b'"event.action":"request","event\\u002eaction":"pki.issued"}',
        b'"event.action":"request", "event.action" : "pki.issued"}',
    ],
)
def test_pki_record_is_refused_from_all_but_the_ca_however_it_is_spelled(body: bytes) -> None:
    assert seal(HEAD, RUN, body, b"", may_pki=False) is None


def test_pki_record_of_the_ca_is_taken() -> None:
    assert seal(stamp("ca.1"), "ca.1", b'"event.action":"pki.issued"', b"}", may_pki=True) is not None


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"}",
        b'"event.id":"1","event.action":"request"}',  # not at its place
        GOOD,  # not closed
        GOOD + b"}}",
        GOOD + b"}\n{}",
        GOOD + b',"gateway.writer":"ca.1"}',
        GOOD + b',"gateway\\u002ewriter":"ca.1"}',
        GOOD + b',"x":{"y":1}',
        GOOD + b',"x":"',
        GOOD + b',"x":"\n"}',
        GOOD + ',"x":"é"}'.encode(),
        GOOD + b',"event.action":5}',
    ],
)
def test_anything_but_one_flat_ascii_object_with_its_front_in_place_is_refused(body: bytes) -> None:
    assert seal(HEAD, RUN, body, b"", may_pki=False) is None


def test_leaf_in_place_of_a_forbidden_record_is_the_same_each_time() -> None:
    leaf = rejection(HEAD, 12)
    assert leaf == rejection(HEAD, 12)
    assert json.loads(leaf)["event.sequence"] == 12
    assert set(json.loads(leaf)) <= set(record.FIELDS)
