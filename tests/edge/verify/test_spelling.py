"""An assertion has one spelling, and one that is bound to a request is good for that request alone."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from edge.verify import Presented
from tests.edge.verify.judged import BOUND, HOST, judged
from tests.edge.verify.mesh import (
    ALICE,
    GATEWAY,
    ORDERS,
    mesh,
    presented,
    signed,
    spelled,
)

# -- one spelling ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "spell",
    [
        lambda raw: raw + b" ",
        lambda raw: json.dumps(json.loads(raw)).encode(),
        lambda raw: raw[:-1] + b',"aud":"' + ORDERS.encode() + b'"}',
        lambda raw: b"\xef\xbb\xbf" + raw,
        lambda raw: b"[" + raw + b"]",
        lambda raw: raw[:-1],
        lambda raw: raw[:-1] + b',"a":NaN}',
        lambda raw: raw[:-1] + b',"a":1e999}',
        lambda raw: raw.replace(b"alice", b"\\u0061lice"),
        lambda raw: raw.replace(b"alice", "ä".encode()),
        lambda raw: b'{"a":' + b"[" * 5000 + b"]" * 5000 + b"}",
    ],
)
def test_claims_in_a_second_spelling_are_refused_though_signed(spell: Callable[[bytes], bytes]) -> None:
    raw = signed(spelled(mesh().header()), spell(spelled(mesh().claims())), mesh().gateway.key)
    assert judged(presented(raw)) == "assertion-form"


def test_a_header_in_a_second_spelling_is_refused_though_signed() -> None:
    raw = spelled(mesh().header())
    doubled = raw[:-1] + b',"alg":"ES256"}'
    for header in (raw + b" ", doubled):
        assert judged(presented(signed(header, spelled(mesh().claims()), mesh().gateway.key))) == "assertion-form"


def test_base64_in_a_second_spelling_is_refused() -> None:
    assertion = mesh().assertion()
    last = assertion[-1:]
    alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    other = alphabet[alphabet.index(last) ^ 1 :][:1]  # the same 64 octets for a lenient decoder
    for raw in (assertion[:-1] + other, assertion + b"=", assertion + b"\n", b" " + assertion, assertion + b".a"):
        assert judged(presented(raw)) == "assertion-form"


@pytest.mark.parametrize(
    "raw", [b"", b".", b"..", b"a.b.c", b"a" * 20_000, mesh().assertion() + b"," + mesh().assertion()]
)
def test_what_has_not_three_segments_is_no_assertion(raw: bytes) -> None:
    assert judged(presented(raw)) == "assertion-form"


# -- bound to a request ------------------------------------------------------------------------------


def bound(target: bytes = b"/orders/7?a=1", fields: tuple[tuple[bytes, bytes], ...] = HOST) -> Presented:
    return presented(mesh().assertion(**BOUND), *fields, target=target)


@pytest.mark.parametrize("mode", ["subject", "request"])
def test_a_bound_assertion_is_good_for_its_request(mode: str) -> None:
    caller = mesh().verifier(mode=mode).check(bound(), mesh().now_ns, GATEWAY)
    assert caller.request_id == "D1"


def test_a_service_that_asks_for_bound_assertions_takes_no_other() -> None:
    assert judged(presented(mesh().assertion(), *HOST), mesh().verifier(mode="request")) == "assertion-mode"


@pytest.mark.parametrize(
    "request_",
    [
        bound(b"/orders/8?a=1"),
        bound(b"/orders/7"),
        bound(b"/orders/7?a=2"),
        bound(b"/orders/7?a=1&a=2"),
        bound(b"/orders/%37?a=1"),
        bound(b"/orders/7?a=1?"),
        bound(fields=((b"host", b"evil.example.com"), HOST[1])),
        bound(fields=(HOST[1],)),
        bound(fields=(*HOST, (b"host", b"api.example.com"))),
        bound(fields=(HOST[0],)),
        bound(fields=(HOST[0], (b"x-request-id", b"D2"))),
        Presented("POST", b"/orders/7", b"a=1", bound().fields),
        Presented("get", b"/orders/7", b"a=1", bound().fields),
    ],
)
def test_a_replay_on_another_request_is_refused(request_: Presented) -> None:
    assert judged(request_) == "request-differs"


def test_where_the_server_decodes_the_path_the_asserted_one_is_decoded_too() -> None:
    claims = BOUND | {"request": {"method": "GET", "authority": "api.example.com", "target": "/orders/%C3%A4?a=%20"}}
    fields = bound().fields
    assertion = (b"edge-assertion", mesh().assertion(**claims))
    request = Presented("GET", "/orders/ä".encode(), b"a=%20", [*ALICE, *HOST, assertion], is_decoded=True)
    assert mesh().verifier().check(request, mesh().now_ns, None).subject == "alice"
    assert (
        judged(Presented("GET", b"/orders/7", b"a=1", fields, is_decoded=False), later_s=0, peer="x") == "peer-differs"
    )
    assert judged(Presented("GET", b"/orders/a", b"a=%20", request.fields, is_decoded=True)) == "request-differs"
