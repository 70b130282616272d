"""The words of a registration: the form of the body, what a heartbeat is, and who may take a lease over."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.registry.admission import MAX_BODY_BYTES, REFUSALS, Refused, Wish, WishedRoute, is_heartbeat, may_change, read
from tests.edge.registry.conftest import ENTRY


def test_an_address_is_all_that_is_required() -> None:
    assert read(b'{"address":":9101"}') == Wish(":9101", 30, 1, None, False, ())


def test_the_whole_body_is_read() -> None:
    body = (
        b'{"address":"10.1.2.3:9101","ttl_s":5,"weight":7,"health_path":"/up","draining":true,'
        b'"routes":[{"path":"/orders/**","methods":["GET"],"hosts":["localhost"]},{"path":"/x"}]}'
    )
    routes = (WishedRoute("/orders/**", ("GET",), ("localhost",)), WishedRoute("/x"))
    assert read(body) == Wish("10.1.2.3:9101", 5, 7, "/up", True, routes)


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{}", b"[]", b"null", b"\xff", b'{"address":1}', b'{"address":":1","ttl_s":0}', b'{"address":":1","ttl_s":61}',
        b'{"address":":1","ttl_s":"5"}', b'{"address":":1","weight":0}', b'{"address":":1","health_path":"up"}',
        b'{"address":":1","health_path":"/a b"}', b'{"address":":1","health_path":"/a\\n"}',
        b'{"address":":1","service":"billing"}', b'{"address":":1"}x',
        b'{"address":":1","routes":[{"path":"/x","methods":[]}]}', b'{"address":":1","routes":[{"methods":["GET"]}]}',
        b'{"address":":1","routes":[{"path":"/x","public":true}]}', b'{"address":"' + b"x" * 301 + b'"}',
        b'{"address":":1"' + b" " * MAX_BODY_BYTES + b"}",
    ],
)  # fmt: skip
def test_another_form_is_refused(body: bytes) -> None:
    refused = read(body)
    assert isinstance(refused, Refused)
    assert refused.rule == "body"


@given(st.binary(max_size=200))
def test_any_body_is_a_wish_or_refused(body: bytes) -> None:
    assert isinstance(read(body), Wish | Refused)


def test_every_refusal_is_an_error_and_says_why() -> None:
    assert all(400 <= status < 600 and sentence for status, sentence in REFUSALS.values())


def test_every_refusal_is_in_the_document_of_the_contract() -> None:
    text = (Path(__file__).parents[3] / "docs" / "registration.md").read_text()
    assert [rule for rule, (status, _) in REFUSALS.items() if f"| {status} | `{rule}` |" not in text] == []


def test_a_heartbeat_says_the_same_but_for_time_and_draining() -> None:
    later = msgspec.structs.replace(
        ENTRY,
        sequence=ENTRY.sequence + 9,
        expires_ms=ENTRY.expires_ms + 9,
        gateway="spiffe://x/gw/other",
        draining=True,
    )
    assert is_heartbeat(ENTRY, later)


@pytest.mark.parametrize(
    ("field", "value"),
    [("host", "10.6.6.6"), ("port", 1), ("weight", 2), ("health_path", "/up"), ("holder", ()), ("routes", ())],
)
def test_anything_else_is_a_change(field: str, value: object) -> None:
    assert not is_heartbeat(ENTRY, msgspec.structs.replace(ENTRY, **{field: value}))


def test_P49_a_lease_passes_to_its_holder_or_at_its_address_and_to_nobody_else() -> None:
    other = (("cd" * 32, "2"),)
    assert may_change(ENTRY, msgspec.structs.replace(ENTRY, host="10.6.6.6"))
    assert may_change(ENTRY, msgspec.structs.replace(ENTRY, holder=other))
    assert not may_change(ENTRY, msgspec.structs.replace(ENTRY, holder=other, host="10.6.6.6"))
    assert not may_change(ENTRY, msgspec.structs.replace(ENTRY, holder=other, port=9102))
