from __future__ import annotations

import asyncio
import json
import time
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.authn import keys
from edge.authn.jwt import JwtMethod
from edge.authn.method import NOT_PRESENT
from edge.errors import CredentialRejected
from edge.model.decision import Need
from edge.model.http import Request
from edge.model.identity import Principal
from examples.issuer.minting import key_set_document, signing_key
from tests.edge.authn import simulator
from tests.edge.authn.simulator import (
    ISSUER,
    KEY,
    PEER,
    KeySourceInMemory,
    bearer,
    issuer,
    key_set,
    materials,
    request,
)

NOW_NS = time.time_ns()
HOUR_NS = 3600 * 10**9
MINTER = replace(simulator.MINTER, now_s=lambda: NOW_NS / 1e9)
"""Its clock stands still: however long the suite takes to come here, no token is of the future, and none is old."""


def _principal(method: JwtMethod, asked: Request, now_ns: int = NOW_NS) -> Principal:
    answer = method.authenticate(asked, PEER, now_ns)
    assert isinstance(answer, Principal)
    return answer


def _rule(method: JwtMethod, asked: Request, now_ns: int = NOW_NS) -> str:
    with pytest.raises(CredentialRejected) as refused:
        method.authenticate(asked, PEER, now_ns)
    return refused.value.rule


def test_a_good_token_names_the_caller() -> None:
    found = _principal(JwtMethod(materials()), bearer(MINTER.good("alice", ["orders:read"])))
    assert (found.method, found.subject, sorted(found.scopes)) == ("jwt", "alice", ["orders:read"])


@pytest.mark.parametrize("scheme", ["bearer", "BEARER", "bEaReR", "Bearer ", "Bearer    "])
def test_the_scheme_is_taken_in_any_case_and_with_any_number_of_spaces(scheme: str) -> None:
    assert _principal(JwtMethod(materials()), request(f"{scheme} {MINTER.good('alice')}")).subject == "alice"


@pytest.mark.parametrize(
    "value",
    [None, "", "Basic YWxpY2U6cHc=", "DPoP abc", "Bearer\tabc", "BearerX abc", "Bear er", " Bearer x", b"\xff \xff"],
)
def test_another_scheme_is_another_methods(value: str | bytes | None) -> None:
    assert JwtMethod(materials()).authenticate(request(value), PEER, NOW_NS) is NOT_PRESENT


def test_d10_a_token_in_the_query_is_not_looked_for() -> None:
    asked = request(None, raw_query=f"access_token={MINTER.good('alice')}".encode())
    assert JwtMethod(materials()).authenticate(asked, PEER, NOW_NS) is NOT_PRESENT


@pytest.mark.parametrize(
    ("token", "rule"),
    [
        ("", "not-compact-jws"),
        ("garbage", "not-compact-jws"),
        ("a b", "not-compact-jws"),
        (MINTER.good("alice") + " ", "not-compact-jws"),
        (MINTER.unsigned("alice"), "not-compact-jws"),
        (MINTER.forged("alice"), "signature"),
        (MINTER.expired("alice"), "expired"),
        (MINTER.for_another_audience("alice"), "audience"),
        (MINTER.of_another_issuer("alice"), "issuer"),
        (MINTER.good("alice", iss=5), "issuer"),
        (MINTER.good("alice", iss=[ISSUER]), "issuer"),
        (MINTER.good("alice", cnf={"jkt": "x"}), "confirmation-not-provable"),
        (MINTER.sign(b"[]"), "claims-json"),
        (MINTER.sign(b""), "claims-json"),
        (MINTER.sign(b'{"iss": "a", "iss": "b"}'), "claims-json"),
        (MINTER.sign(b'\xef\xbb\xbf{"iss": "a"}'), "claims-json"),
        (MINTER.sign('{"iss": "a"}'.encode("utf-16")), "claims-json"),
    ],
)
def test_a_bad_token_is_refused_for_what_is_bad(token: str, rule: str) -> None:
    assert _rule(JwtMethod(materials()), bearer(token)) == rule


@pytest.mark.parametrize("kind", ["JWT", "id+jwt", "dpop+jwt", "at+jwt ", "application/jwt", "", None, 5, ["at+jwt"]])
def test_a_token_that_is_no_access_token_is_refused(kind: Any) -> None:
    token = MINTER.sign(MINTER.claims("alice", ()), header={"typ": kind})
    assert _rule(JwtMethod(materials()), bearer(token)) == "token-type"


@pytest.mark.parametrize("kind", ["at+jwt", "AT+JWT", "application/at+jwt", "Application/At+Jwt"])
def test_both_names_of_the_type_pass_in_any_case(kind: str) -> None:
    token = MINTER.sign(MINTER.claims("alice", ()), header={"typ": kind})
    assert _principal(JwtMethod(materials()), bearer(token)).subject == "alice"


@pytest.mark.parametrize(
    "algorithm", ["none", "None", "nOnE", "NONE", "HS256", "RS256", "ES384", "es256", "ES256K", "EdDSA", "x"]
)
def test_d1_an_algorithm_that_is_not_pinned_is_refused(algorithm: str) -> None:
    token = MINTER.sign(MINTER.claims("alice", ()), header={"alg": algorithm})
    assert _rule(JwtMethod(materials()), bearer(token)) == "algorithm"


def test_d1_the_public_key_is_never_a_secret() -> None:
    settings_with_more = issuer(algorithms=("ES256", "HS256"))  # would be refused at load
    token = MINTER.sign(MINTER.claims("alice", ()), header={"alg": "HS256"})
    assert _rule(JwtMethod(materials(None, settings_with_more)), bearer(token)) == "key-unknown"


def test_d4_an_algorithm_pinned_for_the_issuer_needs_a_key_that_allows_it() -> None:
    method = JwtMethod(materials(None, issuer(algorithms=("ES256", "ES384"))))
    token = MINTER.sign(MINTER.claims("alice", ()), header={"alg": "ES384"})
    assert _rule(method, bearer(token)) == "key-unknown"


@pytest.mark.parametrize(
    "name", ["https://idp.example.com", "https://idp.example.com/x", "HTTPS://idp.example.com/", "idp"]
)
def test_d5_an_issuer_is_equal_or_unknown(name: str) -> None:
    assert _rule(JwtMethod(materials()), bearer(MINTER.good("alice", iss=name))) == "issuer"


def test_d6_a_key_of_one_issuer_does_not_verify_tokens_of_another() -> None:
    other = "https://other.example.com/"
    stranger = signing_key()
    same_name = key_set(key_set_document(stranger).replace(str(stranger.kid).encode(), str(KEY.kid).encode()))
    source = KeySourceInMemory({ISSUER: key_set(), other: same_name})
    method = JwtMethod(materials(source, issuer(), issuer(other)))
    assert _rule(method, bearer(MINTER.good("alice", iss=other))) == "signature"
    assert _principal(method, bearer(MINTER.good("alice"))).issuer == ISSUER


def test_a_token_without_kid_is_verified_by_the_only_key() -> None:
    token = MINTER.sign(MINTER.claims("alice", ()), header={"kid": None})
    assert _principal(JwtMethod(materials()), bearer(token)).subject == "alice"


def test_an_unknown_kid_is_refused_when_nothing_can_be_fetched() -> None:
    token = MINTER.sign(MINTER.claims("alice", ()), header={"kid": "other"})
    assert _rule(JwtMethod(materials()), bearer(token)) == "key-unknown"


def test_d7_an_unknown_kid_asks_for_one_fetch_and_is_then_final() -> None:
    source = KeySourceInMemory(arriving={ISSUER: key_set()})
    method = JwtMethod(materials(source))
    token = MINTER.sign(MINTER.claims("alice", ()), header={"kid": "other"})
    need = method.authenticate(bearer(token), PEER, NOW_NS)
    assert isinstance(need, Need)
    asyncio.run(_fetched(need))
    assert (_rule(method, bearer(token)), source.fetches) == ("key-unknown", 1)


async def _fetched(need: Need) -> None:
    await need.fetch()


def test_a_rotated_key_is_fetched_and_used() -> None:
    fresh = signing_key()
    source = KeySourceInMemory(arriving={ISSUER: key_set(key_set_document(fresh, KEY))})
    method = JwtMethod(materials(source))
    asked = bearer(replace(MINTER, key=fresh).good("alice"))
    need = method.authenticate(asked, PEER, NOW_NS)
    assert isinstance(need, Need)
    asyncio.run(_fetched(need))
    assert _principal(method, asked).jwt_kid == fresh.kid


def test_a_forged_token_never_causes_a_fetch_when_the_key_is_known() -> None:
    source = KeySourceInMemory(arriving={ISSUER: key_set()})
    assert (_rule(JwtMethod(materials(source)), bearer(MINTER.forged("alice"))), source.fetches) == ("signature", 0)


def test_a_second_request_gets_the_same_principal_without_a_signature_check() -> None:
    source = KeySourceInMemory()
    method, asked = JwtMethod(materials(source)), bearer(MINTER.good("alice"))
    first = _principal(method, asked)
    source.sets.clear()  # a check would now find no key
    assert _principal(method, asked) is first
    assert _principal(method, request(f"bEARER   {asked.raw_authorization.decode()[7:]}")) is first  # type: ignore[union-attr]


def test_expired_token_is_rejected_even_if_it_was_verified_before() -> None:
    method, asked = JwtMethod(materials()), bearer(MINTER.good("alice"))
    expires_ns = _principal(method, asked).expires_ns
    assert _principal(method, asked, expires_ns - 1).subject == "alice"
    assert [_rule(method, asked, expires_ns), _rule(method, asked, expires_ns + HOUR_NS)] == ["expired", "expired"]


def test_expired_token_is_rejected_even_if_signature_is_valid() -> None:
    assert _rule(JwtMethod(materials()), bearer(MINTER.good("alice")), NOW_NS + HOUR_NS) == "expired"


def test_a_remembered_token_is_not_valid_before_its_time_when_the_clock_goes_back() -> None:
    method, asked = JwtMethod(materials()), bearer(MINTER.good("alice"))
    _principal(method, asked)
    assert _rule(method, asked, NOW_NS - HOUR_NS) == "issued-in-future"
    assert _principal(method, asked).subject == "alice"


def test_a_remembered_token_dies_with_its_key() -> None:
    source = KeySourceInMemory()
    method, asked = JwtMethod(materials(source)), bearer(MINTER.good("alice"))
    _principal(method, asked)
    source.sets[ISSUER] = keys.renewed(source.sets[ISSUER], key_set(key_set_document(signing_key())))
    assert _rule(method, asked) == "key-unknown"


def test_a_remembered_token_survives_the_withdrawal_of_another_key() -> None:
    other = signing_key()
    source = KeySourceInMemory({ISSUER: key_set(key_set_document(KEY, other))})
    method, asked = JwtMethod(materials(source)), bearer(MINTER.good("alice"))
    first = _principal(method, asked)
    source.sets[ISSUER] = keys.renewed(source.sets[ISSUER], key_set())
    assert _principal(method, asked) is first


def test_a_stale_key_verifies_nothing() -> None:
    document = key_set_document(KEY)
    stale = keys.parse(document, algorithms=("ES256",), valid_until_ns=NOW_NS)
    method = JwtMethod(materials(KeySourceInMemory({ISSUER: stale})))
    assert _rule(method, bearer(MINTER.good("alice"))) == "key-unknown"


def test_a_forged_token_in_a_repeated_head_is_judged_anew_each_time() -> None:
    other, source = signing_key(), KeySourceInMemory()
    method = JwtMethod(materials(source))
    asked = bearer(MINTER.sign(MINTER.claims("alice", []), key=other))
    asked.memo = {}
    assert [_rule(method, asked), _rule(method, asked)] == ["signature", "signature"]
    published = json.dumps({"keys": [{**other.as_dict(private=False), "kid": KEY.kid}]}).encode()
    source.sets[ISSUER] = keys.parse(published, algorithms=["ES256"], valid_until_ns=keys.NEVER_NS)
    assert _principal(method, asked).subject == "alice"  # it was signed by the issuer's next key


def test_bad_tokens_are_not_remembered() -> None:
    source = KeySourceInMemory({})
    method, asked = JwtMethod(materials(source)), bearer(MINTER.good("alice"))
    assert _rule(method, asked) == "key-unknown"
    source.sets[ISSUER] = key_set()
    assert _principal(method, asked).subject == "alice"


@settings(max_examples=80)
@given(
    st.binary(max_size=40)
    | st.binary(max_size=40).map(lambda raw: b"Bearer " + raw)
    | st.binary(max_size=60).map(lambda raw: b"Bearer " + MINTER.sign(raw).encode())
)
def test_any_value_gives_an_answer_or_credential_rejected(raw: bytes) -> None:
    try:
        answer = JwtMethod(materials()).authenticate(request(raw), PEER, NOW_NS)
    except CredentialRejected:
        return
    assert answer is NOT_PRESENT
