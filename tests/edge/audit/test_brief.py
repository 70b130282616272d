from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.audit import brief

RECORD = {
    "@timestamp": "2026-11-21T09:40:00.123456Z",
    "event.action": "request",
    "event.outcome": "success",
    "event.duration": 412034,
    "http.response.status_code": 200,
    "http.request.method": "GET",
    "url.domain": "localhost",
    "url.template": "/orders/**",
    "policy.ids": ["orders-read"],
    "event.id": "18a7",
}


def test_request_is_one_line() -> None:
    assert brief.line(1234, json.dumps(RECORD).encode()) == (
        "    1234  2026-11-21T09:40:00.123456Z  success  200  GET localhost /orders/**  orders-read  0.4 ms  18a7"
    )


def test_refusal_shows_its_reason_and_an_event_its_action() -> None:
    refusal = {"event.action": "request", "event.outcome": "failure", "event.reason": "forbidden", "policy.ids": []}
    assert brief.line(1, json.dumps(refusal).encode()) == "       1  failure  forbidden"
    event = {"event.action": "config.reload", "event.outcome": "success", "source.prefix": "192.0.2.0/24", "count": 3}
    assert brief.line(2, json.dumps(event).encode()) == "       2  success  config.reload 192.0.2.0/24 3"


@pytest.mark.parametrize("raw", [b"", b"not json", b"[1]", b"\xff\xfe", b"{" * 10, b"[" * 100_000])
def test_leaf_that_is_no_record_is_shown_all_the_same(raw: bytes) -> None:
    assert brief.line(3, raw).startswith("       3  ")
    assert json.loads(brief.document(3, raw)) == {"index": 3, "raw": raw.hex()}


def test_document_is_the_record_with_its_index() -> None:
    assert json.loads(brief.document(7, json.dumps(RECORD).encode())) == {"index": 7, "record": RECORD}


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=30), st.binary(max_size=30))
def test_nothing_in_a_leaf_steers_the_terminal(text: str, raw: bytes) -> None:
    for entry in (json.dumps({"event.action": text, "@timestamp": text}).encode(), raw):
        shown = brief.line(0, entry)
        assert shown.isascii()
        assert shown.isprintable()
