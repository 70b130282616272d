"""C2SP x509-limbo: path validation cases against the verifying profile.

No false accept. A false reject must name a rule of the documented list, for the profile is stricter than the suite: which
rules may do so stands in `STRICTER`, by rule and never by case. Where a case's terms have no counterpart here they are put
to the verifier as what they are: a CRL is a revocation state this verifier does not know, a mail address is no identity.
A case must not take long, whatever its chain is made of.
"""

from __future__ import annotations

import base64
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest

from pki import svid
from pki.errors import SvidRejected
from tests.vectors.place import load

CASES: list[dict[str, Any]] = load("limbo.json", {"testcases": []})["testcases"]
BOUND_S = 2.0

STRICTER = frozenset(
    {
        "authority-profile",  # issuers without key usage, EKU on roots, loose key identifiers
        "constraint-kind",  # name constraints on mail, directory and other names
        "dns-name",  # names outside letters, digits, hyphens
        "extended-key-usage",  # none, or `any`
        "host-name",  # names are compared as they stand
        "key-type",  # other curves, post-quantum keys
        "key-usage",  # none
        "leaf-is-anchor",
        "leaf-is-ca",
        "revocation-unknown",  # the case comes with CRLs
        "spiffe-uri",  # the case names no host, and the leaf no SPIFFE ID
        "subject",  # CN outside the names
        "too-large",
        "trust-domain",
        "untrusted",  # what the path library does not support
        "wildcard",
    }
)


@dataclass(frozen=True)
class Outcome:
    accepted: bool
    rule: str
    took_s: float


def der(pem: str) -> bytes:
    return base64.b64decode("".join(line for line in pem.strip().splitlines() if not line.startswith("-----")))


def run(case: dict[str, Any]) -> Outcome:
    text = case["validation_time"]
    now = datetime.fromisoformat(text) if text else datetime.now(UTC)
    chain = [der(case["peer_certificate"]), *map(der, case["untrusted_intermediates"])]
    anchors = [der(pem) for pem in case["trusted_certs"]]
    depth = case["max_chain_depth"]
    depth = 8 if depth is None else min(depth, 8)
    revoked: svid.Revoked | None = None if case["crls"] else frozenset()
    peer = case["expected_peer_name"]
    is_server = case["validation_kind"] == "SERVER"
    began = time.perf_counter()
    try:
        if is_server and peer and peer["kind"] in {"DNS", "IP"}:
            svid.verify_host(
                chain, anchors=anchors, host=peer["value"], now=now, revoked=revoked, max_intermediates=depth
            )
        else:
            svid.verify(
                chain,
                anchors=anchors,
                expected_id=None,
                trust_domain="example.com",
                usage="server" if is_server else "client",
                now=now,
                revoked=revoked,
                max_intermediates=depth,
            )
    except SvidRejected as rejected:
        return Outcome(False, rejected.rule, time.perf_counter() - began)
    return Outcome(True, "", time.perf_counter() - began)


@pytest.fixture(scope="module")
def outcomes() -> dict[str, tuple[str, Outcome]]:
    assert CASES
    return {case["id"]: (case["expected_result"], run(case)) for case in CASES}


def test_nothing_that_must_fail_is_accepted(outcomes: dict[str, tuple[str, Outcome]]) -> None:
    assert [name for name, (expected, got) in outcomes.items() if expected == "FAILURE" and got.accepted] == []


def test_every_refusal_names_a_documented_rule(outcomes: dict[str, tuple[str, Outcome]]) -> None:
    assert {got.rule for _, got in outcomes.values() if not got.accepted} <= svid.RULES.keys()


def test_good_chains_are_refused_only_where_the_profile_is_stricter_on_purpose(
    outcomes: dict[str, tuple[str, Outcome]],
) -> None:
    refused = {
        name: got.rule for name, (expected, got) in outcomes.items() if expected == "SUCCESS" and not got.accepted
    }
    assert {name: rule for name, rule in refused.items() if rule not in STRICTER} == {}


def test_some_good_chains_are_accepted(outcomes: dict[str, tuple[str, Outcome]]) -> None:
    assert sum(got.accepted for _, got in outcomes.values()) >= 10


def test_no_chain_takes_long(outcomes: dict[str, tuple[str, Outcome]]) -> None:
    assert max(got.took_s for _, got in outcomes.values()) < BOUND_S
