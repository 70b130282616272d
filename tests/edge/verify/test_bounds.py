"""Whatever a gateway may write is understood, and nothing that was changed on the way."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from edge.verify import RULES
from edge.verify.form import percent_encoded, scopes_field
from tests.edge.verify.judged import judged
from tests.edge.verify.mesh import (
    mesh,
    presented,
)


def test_the_rules_are_told_with_two_statuses() -> None:
    assert {status for status, _ in RULES.values()} == {401, 403}


@settings(max_examples=60, deadline=None)
@given(st.text(), st.text(), st.frozensets(st.text(), max_size=4))
def test_whatever_a_subject_is_called_it_round_trips(subject: str, issuer: str, scopes: frozenset[str]) -> None:
    sub_id = {"format": "iss_sub", "iss": issuer, "sub": subject}
    identity = (
        (b"x-auth-subject", percent_encoded(subject)),
        (b"x-auth-issuer", percent_encoded(issuer)),
        (b"x-auth-scopes", scopes_field(scopes)),
    )
    request = presented(mesh().assertion(sub_id=sub_id, scopes=sorted(scopes)), identity=identity)
    caller = mesh().verifier().check(request, mesh().now_ns, None)
    assert (caller.subject, caller.issuer, caller.scopes) == (subject, issuer, scopes)


@settings(max_examples=100, deadline=None)
@given(st.integers(min_value=0), st.integers(0, 255))
def test_one_changed_byte_is_refused(at: int, byte: int) -> None:
    assertion = bytearray(mesh().assertion())
    at %= len(assertion)
    if assertion[at] != byte:
        assertion[at] = byte
        assert judged(presented(bytes(assertion))).startswith("assertion-")


def test_more_gateways_than_are_remembered_are_believed_too() -> None:
    verifier = mesh().verifier()
    names = [f"spiffe://mesh.internal/gw/edge-{number}" for number in range(70)]
    leaves = {name: mesh().leaf(name, "gw") for name in names}
    for _ in range(2):
        for name, leaf in leaves.items():
            assertion = mesh().assertion(mesh().header(leaf), leaf.key, iss=name)
            assert verifier.check_peer([leaf.der], mesh().now_ns) == name
            assert verifier.check(presented(assertion), mesh().now_ns, name).gateway == name
