"""What the gateway signs, read by the verifier that services use; and by a library that knows neither."""

from __future__ import annotations

import json
from base64 import b64decode, urlsafe_b64decode
from dataclasses import replace
from typing import Any, Literal

import pytest
from cryptography import x509
from hypothesis import given, settings
from hypothesis import strategies as st
from joserfc import jws
from joserfc.jwk import ECKey

from edge.forward.assertion import Assertions
from edge.forward.fields import request_head
from edge.model.decision import Admission, Permit
from edge.model.http import Request
from edge.model.identity import ANONYMOUS, Peer, Principal
from edge.model.route import PathPattern, Route, RouteMatch, Upstream
from edge.verify import AssertionRefused, Presented
from tests.edge.verify.mesh import BILLING, GATEWAY, ORDERS, mesh, private_pem

ALICE = Principal(method="jwt", issuer="https://idp.example.com/", subject="alice", scopes=frozenset(("b", "a")))
PEER = Peer("192.0.2.1", 5, "192.0.2.1", None, "TLSv1.3", "x")
NOW_NS = mesh().now_ns
S = 10**9
Mode = Literal["subject", "request"] | None


class Roomy(jws.JWSRegistry):
    """The library takes headers of 512 bytes, a chain is longer."""

    max_header_length = 8192


def assertions(**changes: bytes) -> Assertions:
    leaf = mesh().gateway
    made = {
        "chain_pem": leaf.pem + mesh().issuers["gw"].pem,
        "key_pem": private_pem(leaf),
        "bundle_pem": mesh().bundle_pem,
    }
    return Assertions(**(made | changes), asking=frozenset({ORDERS}))


def route(mode: Mode, spiffe_id: str = ORDERS, strip_prefix: str = "") -> Route:
    return Route(
        name="orders",
        pattern=PathPattern("/orders/**", ("orders",)),
        hosts=("localhost",),
        methods=("GET",),
        upstream=Upstream(spiffe_id.rpartition("/")[2], spiffe_id, strip_prefix=strip_prefix, assertion=mode),
        auth=("jwt",),
    )


def request(raw_query: bytes = b"a=1", *, has_query: bool = True) -> Request:
    return Request(
        method="GET", path="/orders/7", raw_query=raw_query, has_query=has_query, host="localhost",
        authority="localhost:8443", fields=((b"host", b"localhost:8443"), (b"edge-assertion", b"evil")),
        raw_authorization=None, content_length=None, chunked=False,
    )  # fmt: skip


def vouched(
    signer: Assertions,
    to: Route,
    principal: Principal = ALICE,
    asked: Request | None = None,
    *,
    later_s: float = 0,
    decision_id: str = "D1",
) -> bytes:
    # Forging a permit is what no other place may do; here it stands for what the line made.
    admission = Admission(Permit(principal=principal, match=RouteMatch(to, {}), policies=("p",)))
    asked = asked or request()
    head = request_head(admission, asked, PEER, decision_id, b"0" * 48)
    return signer.vouch(head, admission, asked, decision_id, NOW_NS + int(later_s * S))


def presented(head: bytes) -> Presented:
    """As an upstream reads it."""
    assert head.endswith(b"\r\n\r\n")
    line, *lines = head[:-4].split(b"\r\n")
    method, target, _ = line.split(b" ")
    path, _, query = target.partition(b"?")
    fields = [tuple(each.split(b": ", 1)) for each in lines]
    return Presented(method.decode(), path, query, fields)  # type: ignore[arg-type]


def assertion(head: bytes) -> bytes:
    (found,) = [value for name, value in presented(head).fields if name == b"edge-assertion"]
    return found


def claims(head: bytes) -> dict[str, Any]:
    payload = assertion(head).split(b".")[1]
    found: dict[str, Any] = json.loads(urlsafe_b64decode(payload + b"=" * (-len(payload) % 4)))
    return found


def test_a_service_that_asks_for_nothing_gets_what_it_got_before() -> None:
    head = vouched(assertions(), route(None))
    assert b"edge-assertion" not in head
    assert head.endswith(b"\r\n\r\n")


@pytest.mark.parametrize("mode", ["subject", "request"])
@pytest.mark.parametrize("principal", [ALICE, ANONYMOUS, replace(ALICE, subject="ä b%", scopes=frozenset())])
def test_the_service_s_verifier_believes_it(mode: Mode, principal: Principal) -> None:
    head = vouched(assertions(), route(mode), principal)
    caller = mesh().verifier(mode=mode).check(presented(head), NOW_NS, GATEWAY)
    expected = (None, None) if principal.is_anonymous else (principal.issuer, principal.subject)
    assert (caller.gateway, caller.issuer, caller.subject) == (GATEWAY, *expected)
    assert caller.scopes == principal.scopes
    assert caller.request_id == ("D1" if mode == "request" else None)


@settings(max_examples=40, deadline=None)
@given(st.text(), st.text(), st.frozensets(st.text(), max_size=4))
def test_whoever_it_is_the_fields_and_the_assertion_agree(issuer: str, subject: str, scopes: frozenset[str]) -> None:
    head = vouched(assertions(), route("request"), Principal("jwt", issuer, subject, scopes))
    caller = mesh().verifier(mode="request").check(presented(head), NOW_NS, GATEWAY)
    assert (caller.issuer, caller.subject, caller.scopes) == (issuer, subject, scopes)


def test_another_library_reads_it_too() -> None:
    raw, registry = assertion(vouched(assertions(), route("subject"))).decode(), Roomy(algorithms=["ES256"])
    read = jws.deserialize_compact(raw, ECKey.import_key(mesh().gateway.pem), registry=registry)
    assert x509.load_der_x509_certificate(b64decode(read.headers()["x5c"][0])) == mesh().gateway.certificate
    assert json.loads(read.payload)["aud"] == ORDERS


def test_what_services_have_in_their_bundle_is_not_sent_along() -> None:
    headers = [
        json.loads(urlsafe_b64decode(assertion(vouched(signer, route("subject"))).split(b".")[0] + b"=="))
        for signer in (assertions(), assertions(bundle_pem=mesh().root.pem))
    ]
    assert [len(header["x5c"]) for header in headers] == [1, 2]


def test_one_is_signed_per_principal_and_service_and_used_for_25_s() -> None:
    signer, other = assertions(), replace(ALICE)
    first = assertion(vouched(signer, route("subject")))
    assert assertion(vouched(signer, route("subject"), later_s=24.9, decision_id="D2")) == first
    assert assertion(vouched(signer, route("subject", BILLING))) != first
    assert assertion(vouched(signer, route("subject"), other)) != first
    again = vouched(signer, route("subject"), later_s=25)
    assert claims(again)["iat"] == mesh().now_s + 25
    assert claims(again)["exp"] == mesh().now_s + 55


def test_every_use_of_it_is_in_time_for_the_service() -> None:
    signer, verifier = assertions(), mesh().verifier()
    for later_s in (0, 7, 24.99, 25, 49.99, 50):
        head = vouched(signer, route("subject"), later_s=later_s)
        assert verifier.check(presented(head), NOW_NS + int(later_s * S), GATEWAY).subject == "alice"


@pytest.mark.parametrize(("left_s", "lives_s"), [(3600, 30), (12, 12), (0.5, 1), (-3, 1)])
def test_it_does_not_outlive_the_token_of_the_caller(left_s: float, lives_s: int) -> None:
    principal = replace(ALICE, expires_ns=NOW_NS + int(left_s * S))
    made = claims(vouched(assertions(), route("subject"), principal))
    assert made["exp"] - made["iat"] == lives_s


def test_one_that_ends_with_the_token_is_not_used_beyond() -> None:
    signer, principal = assertions(), replace(ALICE, expires_ns=NOW_NS + 10 * S)
    first = claims(vouched(signer, route("subject"), principal))
    assert first["exp"] == mesh().now_s + 10
    assert claims(vouched(signer, route("subject"), principal, later_s=10))["iat"] == mesh().now_s + 10


def test_a_bound_one_is_signed_for_each_request() -> None:
    signer = assertions()
    first, second = (vouched(signer, route("request"), decision_id=each) for each in ("D1", "D2"))
    assert (claims(first)["jti"], claims(second)["jti"]) == ("D1", "D2")
    assert claims(first)["request"] == {"method": "GET", "authority": "localhost:8443", "target": "/orders/7?a=1"}
    replayed = replace(presented(first), raw_query=b"a=2")
    with pytest.raises(AssertionRefused) as caught:
        mesh().verifier().check(replayed, NOW_NS, GATEWAY)
    assert caught.value.rule == "request-differs"


@pytest.mark.parametrize(
    ("asked", "prefix"),
    [(request(), "/orders"), (request(b"", has_query=True), ""), (request(b"", has_query=False), "/orders")],
)
def test_the_target_is_the_one_that_the_service_sees(asked: Request, prefix: str) -> None:
    head = vouched(assertions(), route("request", strip_prefix=prefix), asked=asked)
    assert mesh().verifier(mode="request").check(presented(head), NOW_NS, GATEWAY).subject == "alice"


def test_a_client_s_own_assertion_is_dropped_B1() -> None:
    for mode in (None, "subject", "request"):
        assert b"evil" not in vouched(assertions(), route(mode))


# -- health checks -----------------------------------------------------------------------------------

CHECK = b"GET /up?full=1 HTTP/1.1\r\nhost: 127.0.0.1:9101\r\n%b\r\n"


def check(**changes: Any) -> bytes:
    """A health check of ours, as it goes out."""
    asked: dict[str, Any] = {"spiffe_id": ORDERS, "authority": "127.0.0.1:9101", "target": "/up?full=1"}
    return CHECK % assertions().vouch_check(**(asked | changes), check_id="check-1", now_ns=NOW_NS)


@pytest.mark.parametrize("mode", ["subject", "request"])
def test_a_health_check_passes_the_verifier_and_is_nobody_s(mode: Mode) -> None:
    caller = mesh().verifier(mode=mode).check(presented(check()), NOW_NS, GATEWAY)
    assert (caller.is_anonymous, caller.scopes, caller.request_id) == (True, frozenset(), "check-1")


def test_a_service_that_asks_for_nothing_is_checked_without() -> None:
    assert check(spiffe_id=BILLING) == CHECK % b""


@pytest.mark.parametrize("mode", ["subject", "request"])
@pytest.mark.parametrize(
    ("old", "new", "rule"),
    [
        (b"GET /up?", b"GET /orders/7?", "request-differs"),
        (b"?full=1", b"?full=2", "request-differs"),
        (b"GET ", b"DELETE ", "request-differs"),
        (b":9101", b":9102", "request-differs"),
        (b"check-1", b"check-2", "request-differs"),
        (b"\r\n\r\n", b"\r\nx-auth-subject: alice\r\n\r\n", "identity-fields"),
        (b"\r\n\r\n", b"\r\nx-auth-scopes: admin\r\n\r\n", "identity-fields"),
    ],
)
def test_the_assertion_of_a_check_is_good_for_nothing_else_in_either_mode(
    mode: Mode, old: bytes, new: bytes, rule: str
) -> None:
    with pytest.raises(AssertionRefused, match=f"^{rule}"):
        mesh().verifier(mode=mode).check(presented(check().replace(old, new, 1)), NOW_NS, GATEWAY)


def test_the_assertion_of_a_check_is_soon_over_and_for_one_service() -> None:
    for verifier, later_s, rule in ((mesh().verifier(), 36, "expired"), (mesh().verifier(BILLING), 0, "audience")):
        with pytest.raises(AssertionRefused, match=f"^assertion-{rule}"):
            verifier.check(presented(check()), NOW_NS + later_s * S, GATEWAY)
