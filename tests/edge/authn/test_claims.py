from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.authn import claims as rules
from edge.errors import CredentialRejected
from edge.model.identity import Principal
from tests.edge.authn.simulator import AUDIENCE, ISSUER, KEY, issuer, key_set

NOW_S = 1_795_000_000
NOW_NS = NOW_S * rules.NS_PER_S + 999_999_999
GOOD: dict[str, Any] = {"iss": ISSUER, "sub": "alice", "aud": AUDIENCE, "exp": NOW_S + 600, "iat": NOW_S}
MISSING = object()


def _verified(claims: dict[str, Any]) -> Principal:
    present = {name: value for name, value in claims.items() if value is not MISSING}
    return rules.verified(present, issuer(), key_set().keys[0], NOW_NS)


def _rule(**changes: Any) -> str:
    with pytest.raises(CredentialRejected) as refused:
        _verified(GOOD | changes)
    return refused.value.rule


def test_the_claims_become_the_principal() -> None:
    found = _verified(
        GOOD
        | {"aud": ["https://x.example", AUDIENCE], "scope": "orders:read orders:write", "roles": ["auditor", "auditor"]}
        | {"tenant": "acme", "client_id": "web", "acr": "urn:mfa", "jti": "7f", "nbf": NOW_S, "email": 5}
    )
    assert ("jwt", ISSUER, "alice", "acme", "web", "urn:mfa", "7f", "ES256", KEY.kid) == (
        *(found.method, found.issuer, found.subject, found.tenant, found.client_id),
        *(found.acr, found.jwt_id, found.jwt_alg, found.jwt_kid),
    )
    assert (sorted(found.scopes), sorted(found.roles)) == (["orders:read", "orders:write"], ["auditor"])
    assert (found.issued_ns, found.expires_ns) == (NOW_S * rules.NS_PER_S, (NOW_S + 600) * rules.NS_PER_S)


def test_what_is_not_claimed_is_empty() -> None:
    found = _verified(GOOD)
    assert (frozenset(), frozenset(), None, None, None, None) == (
        *(found.scopes, found.roles, found.tenant),
        *(found.client_id, found.acr, found.jwt_id),
    )


def test_validity_runs_from_the_later_date_less_leeway_to_exp() -> None:
    found = _verified(GOOD | {"iat": NOW_S - 60, "nbf": NOW_S - 30}).standing
    assert found is not None
    assert (found.not_before_ns // rules.NS_PER_S, found.expires_ns // rules.NS_PER_S) == (NOW_S - 35, NOW_S + 600)


@pytest.mark.parametrize("claim", ["exp", "iat", "sub"])
def test_d8_a_required_claim_that_is_missing_refuses(claim: str) -> None:
    assert _rule(**{claim: MISSING}) == f"claim-{claim}"


@pytest.mark.parametrize("claim", ["exp", "iat", "nbf"])
@pytest.mark.parametrize(
    "value", [str(NOW_S + 60), NOW_S + 0.5, float(NOW_S), True, None, [NOW_S], {"a": 1}, -1, "", "9" * 30]
)
def test_d8_a_date_that_is_not_a_json_integer_refuses(claim: str, value: Any) -> None:
    assert _rule(**{claim: value}) == f"claim-{claim}"


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"exp": NOW_S}, "expired"),
        ({"exp": NOW_S - 1}, "expired"),
        ({"exp": 0}, "expired"),
        ({"exp": NOW_S + 90_001}, "lifetime"),
        ({"exp": 10**400}, "lifetime"),
        ({"iat": NOW_S + 6}, "issued-in-future"),
        ({"iat": 10**400}, "issued-in-future"),
        ({"nbf": NOW_S + 6}, "not-yet-valid"),
        ({"nbf": 10**400}, "not-yet-valid"),
    ],
)
def test_dates_out_of_their_bounds_refuse(changes: dict[str, Any], rule: str) -> None:
    assert _rule(**changes) == rule


@pytest.mark.parametrize(
    "changes", [{"exp": NOW_S + 1}, {"exp": NOW_S + 90_000}, {"iat": NOW_S + 5}, {"nbf": NOW_S + 5}, {"iat": 0}]
)
def test_dates_at_their_bounds_pass(changes: dict[str, Any]) -> None:
    assert _verified(GOOD | changes).subject == "alice"


@pytest.mark.parametrize(
    "value",
    [
        MISSING,
        None,
        "",
        ISSUER + " ",
        ISSUER[:-1],
        ISSUER + "x",
        ISSUER.upper(),
        "https://idp.example.com.evil/",
        [ISSUER],
        5,
    ],
)
def test_d5_an_issuer_that_is_not_equal_refuses(value: Any) -> None:
    assert _rule(iss=value) == "issuer"


@pytest.mark.parametrize(
    "value",
    [
        MISSING,
        None,
        "",
        [],
        AUDIENCE + "/",
        AUDIENCE[:-1],
        AUDIENCE.upper(),
        f"{AUDIENCE} https://x.example",
        [AUDIENCE, 5],
        [[AUDIENCE]],
        {AUDIENCE: 1},
        ["https://x.example"],
        [AUDIENCE] * 257,
        True,
    ],
)
def test_d8_an_audience_that_does_not_name_us_refuses(value: Any) -> None:
    assert _rule(aud=value) == "audience"


@pytest.mark.parametrize("value", [None, {}, {"jkt": "abc"}, {"x5t#S256": "abc"}, "abc", []])
def test_d11_a_bound_token_is_not_taken_as_a_bearer_token(value: Any) -> None:
    assert _rule(cnf=value) == "confirmation-not-provable"


@pytest.mark.parametrize("claim", ["sub", "tenant", "client_id", "acr", "jti"])
@pytest.mark.parametrize(
    "value",
    ["", "a\r\nX-Auth-Subject: root", "a\x00", "a\x7f", "a\x85", "\ud800", "x" * 257, 5, None, ["a"], {"a": 1}, True],
)
def test_a_name_that_could_not_stand_in_a_header_refuses(claim: str, value: Any) -> None:
    assert _rule(**{claim: value}) == f"claim-{claim}"


@pytest.mark.parametrize("value", ["alice", "Ælfrēd", "a b", "auth0|5f7c", "a#b", "x" * 256, "用户"])
def test_a9_names_are_kept_as_they_are(value: str) -> None:
    assert _verified(GOOD | {"sub": value}).subject == value


@pytest.mark.parametrize(
    "value", [None, 5, ["orders:read"], "a  b", " a", "a ", " ", 'a"b', "a\\b", "a\tb", "a\nb", "é", "a\x00"]
)
def test_a_scope_that_is_not_a_plain_list_of_words_refuses(value: Any) -> None:
    assert _rule(scope=value) == "claim-scope"


@pytest.mark.parametrize(
    "value", [None, "auditor", 5, [5], ["a", None], [""], ["a\nb"], [["a"]], {"a": 1}, ["a"] * 257]
)
def test_roles_that_are_not_a_list_of_names_refuse(value: Any) -> None:
    assert _rule(roles=value) == "claim-roles"


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=2), inner, max_size=2),
    max_leaves=3,
)


@settings(max_examples=80)
@given(st.dictionaries(st.sampled_from((*GOOD, "nbf", "scope", "roles", "tenant", "cnf", "jti")), _VALUES, max_size=3))
def test_any_claims_give_a_principal_or_credential_rejected(changes: dict[str, Any]) -> None:
    try:
        found = _verified(GOOD | changes)
    except CredentialRejected:
        return
    found.subject.encode()
    standing = found.standing
    assert standing is not None
    assert standing.not_before_ns <= NOW_NS + 6 * rules.NS_PER_S < standing.expires_ns + 6 * rules.NS_PER_S
