"""What signed claims say. Refusals by claim stand in test_verifier, over whole assertions."""

from __future__ import annotations

from contextlib import suppress

from hypothesis import given
from hypothesis import strategies as st

from edge.verify import AssertionRefused
from edge.verify.claims import read
from tests.edge.verify.mesh import GATEWAY, ORDERS, mesh

VALUES = st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.lists(st.text(max_size=3), max_size=2)
NAMES = st.sampled_from(["iss", "aud", "iat", "nbf", "exp", "sub_id", "scopes", "jti", "request", "more"])


def test_an_assertion_about_alice() -> None:
    asserted = read(mesh().claims())
    assert (asserted.caller.gateway, asserted.audience) == (GATEWAY, ORDERS)
    assert asserted.identity == (b"alice", b"https://idp.example.com/", b"a b")
    assert asserted.not_before_ns == mesh().now_ns - 5 * 10**9
    assert asserted.expires_ns == mesh().now_ns + 35 * 10**9
    assert asserted.request is None


def test_an_assertion_about_nobody_in_particular() -> None:
    asserted = read(mesh().claims(sub_id=None, scopes=None))
    assert asserted.caller.is_anonymous
    assert asserted.identity == (None, None, None)


@given(st.dictionaries(NAMES, VALUES, max_size=3))
def test_any_claims_are_read_or_refused(changes: dict[str, object]) -> None:
    with suppress(AssertionRefused):
        asserted = read({**mesh().claims(), **changes})
        assert asserted.expires_ns - asserted.not_before_ns <= 40 * 10**9
