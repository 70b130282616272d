"""Which facts of a request reach the log, and which never do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edge.audit.flood import SINGLE_PER_S
from edge.audit.record import MAX_PREFIX, MAX_SUFFIX, AuditSettings
from edge.audit.recorder import CACHE_ENTRIES, SUMMARIES_PER_FLUSH
from edge.audit.ring import LEVEL_FULL, LEVEL_LOW
from edge.errors import NotRecordable
from edge.model.decision import Admission, Permit
from edge.model.identity import ANONYMOUS, Peer, Principal
from edge.model.record import UpstreamFacts
from edge.model.route import RouteMatch
from tests.edge.audit.desk import (
    ALICE,
    HASH,
    ROUTE,
    WALL,
    Desk,
    admission,
    complete,
    desk,
    peer,
    request,
)

__all__ = ["desk"]  # fixtures


def test_allowed_request_is_one_leaf_with_these_fields(desk: Desk) -> None:
    slot = desk.recorder.admit("id1", request(), peer(), admission(ALICE, "per-subject", degraded=True), HASH, WALL)
    assert complete(desk, slot) == 0
    (leaf,) = desk.leaves()
    hashes = {
        name: len(str(leaf.pop(name))) for name in ("gateway.writer", "user.hash", "jwt.jti_hash", "url.path_hash")
    }
    assert hashes == {"gateway.writer": 25, "user.hash": 32, "jwt.jti_hash": 16, "url.path_hash": 16}
    assert leaf == {
        "event.action": "request",
        "event.sequence": 1,
        "@timestamp": "2026-11-21T09:37:21.363643Z",
        "event.id": "id1",
        "event.type": ["access", "allowed"],
        "policy.version": HASH,
        "source.ip": "192.0.2.7",
        "source.port": 40112,
        "tls.version": "TLSv1.3",
        "tls.cipher": "C",
        "authentication.method": "jwt",
        "jwt.iss": "https://idp.example.com/",
        "organization.id": "acme",
        "oauth.client_id": "app",
        "jwt.kid": "k1",
        "user.roles": ["staff"],
        "http.version": "1.1",
        "http.request.method": "GET",
        "url.domain": "localhost",
        "route.name": "orders",
        "url.template": "/orders/**",
        "policy.ids": ["orders-read"],
        "limit.names": ["per-subject"],
        "limit.degraded": True,
        "event.outcome": "success",
        "event.duration": 412,
        "http.response.status_code": 200,
        "http.request.body.bytes": 3,
        "http.response.body.bytes": 1024,
        "service.target.name": "orders",
        "service.target.spiffe_id": "spiffe://mesh.internal/svc/orders",
        "service.target.cert_serial": "5f3a",
        "destination.address": "127.0.0.1:9101",
        "upstream.connect_ns": 300000,
    }


def test_no_secret_and_no_raw_subject_or_path_is_in_any_leaf(desk: Desk) -> None:
    complete(desk, desk.admit())
    desk.refuse(asked=request(), principal=ALICE)
    desk.refuse(asked=request("/orders/secret"))
    text = json.dumps(desk.leaves())
    for secret in ("secret", "eyJ", "alice", "token-17", "/orders/7", "session"):
        assert secret not in text


def test_plain_paths_are_there_when_asked_for(tmp_path: Path) -> None:
    desk = Desk(tmp_path, AuditSettings("home.example/log", paths="plain"))
    complete(desk, desk.admit())
    assert desk.leaves()[0]["url.path"] == "/orders/7"
    desk.close()


def test_several_limits_are_named(desk: Desk) -> None:
    complete(desk, desk.recorder.admit("1", request(), peer(), admission(ALICE, "a", "b"), HASH, WALL))
    assert desk.leaves()[0]["limit.names"] == ["a", "b"]


def test_answer_the_gateway_made_is_a_failure_with_reason_and_rule(desk: Desk) -> None:
    slot = desk.admit()
    desk.recorder.complete(
        slot,
        status=502,
        reason="upstream-identity",
        rule="wrong-id",
        bytes_in=0,
        bytes_out=9,
        duration_ns=1,
        upstream=None,
    )
    (leaf,) = desk.leaves()
    assert (leaf["event.outcome"], leaf["event.reason"], leaf["rule.id"]) == (
        "failure",
        "upstream-identity",
        "wrong-id",
    )
    assert "service.target.name" not in leaf


def test_slot_cannot_be_completed_twice(desk: Desk) -> None:
    slot = desk.admit()
    complete(desk, slot)
    with pytest.raises(ValueError, match="not taken"):
        complete(desk, slot)


def test_refusal_is_one_leaf_even_if_the_head_was_not_understood(desk: Desk) -> None:
    assert desk.refuse(reason="malformed-request") == 0
    (leaf,) = desk.leaves()
    assert (leaf["event.type"], leaf["event.outcome"]) == (["access", "denied"], "failure")
    assert (leaf["event.reason"], leaf["rule.id"]) == ("malformed-request", "some-rule")
    assert "http.request.method" not in leaf


def test_refusal_after_a_match_names_route_and_policies(desk: Desk) -> None:
    desk.recorder.refuse(
        "id",
        request(),
        peer(),
        principal=ALICE,
        match=RouteMatch(ROUTE, {}),
        status=403,
        reason="forbidden",
        rule="forbidden-by-policy",
        bundle_hash=HASH,
        started_ns=WALL,
        duration_ns=1,
        policies=("night",),
    )
    (leaf,) = desk.leaves()
    assert (leaf["route.name"], leaf["policy.ids"], leaf["authentication.method"]) == ("orders", ["night"], "jwt")
    assert leaf["tls.client.server_name"] == "localhost"


def test_what_came_from_outside_cannot_break_the_line(desk: Desk) -> None:
    nasty = 'x"},{\n\r\x1b[2J\x7f\u2028\ud800'
    desk.refuse(asked=request(f"/{nasty}", nasty, nasty), principal=Principal("jwt", nasty, nasty, client_id=nasty))
    (leaf,) = desk.leaves()
    assert leaf["url.domain"] == nasty.replace("\ud800", "?")
    assert leaf["jwt.iss"] == leaf["url.domain"]


def test_longest_names_from_outside_still_fit(tmp_path: Path) -> None:
    desk = Desk(tmp_path, AuditSettings("home.example/log", paths="plain"))
    long = "\x00" * 9000
    far = Principal(
        "jwt", long, long, roles=frozenset([long, "b"]), tenant=long, client_id=long, jwt_kid=long, jwt_id=long
    )
    close = Peer(long, 65535, long, long, long, long, long, long)
    facts = UpstreamFacts(long, long, long, long, 10**18)
    names = (long, long)
    permit = Permit(far, RouteMatch(ROUTE, {}), names)
    slot = desk.recorder.admit("i" * 32, request(long, long, long), close, Admission(permit), HASH, WALL)
    desk.recorder.complete(
        slot, status=599, reason=long, rule=long, bytes_in=10**15, bytes_out=10**15, duration_ns=10**18, upstream=facts
    )
    desk.recorder.refuse(
        "id2",
        request(long, long, long),
        close,
        principal=far,
        match=RouteMatch(ROUTE, {}),
        status=403,
        reason=long,
        rule=long,
        bundle_hash=HASH,
        started_ns=WALL,
        duration_ns=1,
        policies=names,
    )
    admitted, refused = desk.leaves()
    assert (admitted["record.truncated"], refused["record.truncated"]) == (True, True)
    assert (admitted["event.id"], admitted["policy.version"], refused["event.id"]) == ("i" * 32, HASH, "id2")
    assert MAX_PREFIX + MAX_SUFFIX + 40 <= 4096
    desk.close()


def test_nothing_is_admitted_that_cannot_be_recorded(desk: Desk) -> None:
    desk.mono += 2 * 10**9
    with pytest.raises(NotRecordable, match="notary-silent"):
        desk.admit()
    assert not desk.recorder.is_recordable()
    desk.reader.beat(desk.mono)
    assert desk.recorder.is_recordable()


def test_refusal_without_a_slot_is_counted_and_the_count_is_recorded_later(desk: Desk) -> None:
    desk.reader.set_level(LEVEL_FULL)
    assert desk.refuse(principal=ALICE, reason="not-recordable") is None
    assert desk.recorder.flush_summaries(WALL + 10**9) == 0
    desk.reader.set_level(0)
    assert desk.recorder.flush_summaries(WALL + 10**9) == 1
    (leaf,) = desk.leaves()
    assert (leaf["event.action"], leaf["event.reason"], leaf["count"]) == ("log.summary", "not-recordable", 1)
    assert (leaf["source.prefix"], leaf["@timestamp"]) == ("192.0.2.7", "2026-11-21T09:37:21.000000Z")


def test_flood_of_strangers_becomes_one_summary_per_reason_and_second(desk: Desk) -> None:
    single = [desk.refuse(reason="credential-missing") for _ in range(SINGLE_PER_S + 30)]
    assert [number is None for number in single] == [False] * SINGLE_PER_S + [True] * 30
    assert desk.refuse(principal=ANONYMOUS) is None
    assert len(desk.leaves()) == SINGLE_PER_S
    assert desk.recorder.flush_summaries(WALL) == 0
    assert desk.recorder.flush_summaries(WALL + 10**9) == 2
    assert {leaf["event.reason"]: leaf["count"] for leaf in desk.leaves()} == {"credential-missing": 30, "no-route": 1}
    assert desk.recorder.flush_summaries(WALL + 10**9) == 0


def test_refusals_of_known_principals_are_never_summed_up(desk: Desk) -> None:
    for _ in range(3 * SINGLE_PER_S):
        assert desk.refuse(principal=ALICE, reason="forbidden") is not None


def test_short_disk_sums_up_strangers_from_the_first(desk: Desk) -> None:
    desk.reader.set_level(LEVEL_LOW)
    assert desk.refuse() is None
    assert desk.refuse(principal=ALICE) is not None
    with pytest.raises(NotRecordable):
        desk.admit(ANONYMOUS)
    desk.admit()


def test_one_flush_writes_a_bounded_number_of_leaves(desk: Desk) -> None:
    desk.reader.set_level(LEVEL_LOW)
    for n in range(SUMMARIES_PER_FLUSH + 3):
        desk.refuse(reason=f"r{n}")
    assert desk.recorder.flush_summaries(WALL + 10**9) == SUMMARIES_PER_FLUSH
    assert desk.recorder.flush_summaries(WALL + 10**9) == 3


def test_ids_are_ordered_and_unique_even_if_the_clock_stands_or_goes_back(desk: Desk) -> None:
    ids = [desk.recorder.next_id() for _ in range(3)]
    desk.wall -= 10**9
    ids += [desk.recorder.next_id() for _ in range(3)]
    assert ids == sorted(set(ids))
    assert {len(one) for one in ids} == {28}
    assert all(one.isalnum() for one in ids)


def test_a_client_that_acts_for_itself_is_named_by_its_pseudonym_only(desk: Desk) -> None:
    desk.refuse(asked=request(), principal=Principal("jwt", "https://idp.example/", "batch", client_id="batch"))
    (leaf,) = desk.leaves()
    assert "oauth.client_id" not in leaf
    assert "batch" not in str(leaf)
    assert "user.hash" in leaf


def test_anonymous_principal_has_no_pseudonym(desk: Desk) -> None:
    complete(desk, desk.admit(ANONYMOUS))
    (leaf,) = desk.leaves()
    assert leaf["authentication.method"] == "anonymous"
    assert "user.hash" not in leaf


def test_client_certificate_is_recorded(desk: Desk) -> None:
    known = peer()
    known.spiffe_id, known.certificate_sha256, known.sni = "spiffe://mesh.internal/op/ann", "ab" * 32, None
    complete(desk, desk.recorder.admit("1", request(), known, admission(), HASH, WALL))
    (leaf,) = desk.leaves()
    assert (leaf["tls.client.spiffe_id"], leaf["tls.client.hash.sha256"]) == (known.spiffe_id, "ab" * 32)


def test_event_is_recorded_with_its_outcome(desk: Desk) -> None:
    desk.recorder.event("config.reload", {"policy.version": HASH})
    desk.recorder.event("config.reload", {"config.file": "edge.yaml"}, failed="bad-file")
    done, failed = desk.leaves()
    assert (done["event.action"], done["event.outcome"], done["event.type"]) == ("config.reload", "success", ["change"])
    assert (failed["event.outcome"], failed["event.reason"]) == ("failure", "bad-file")


def test_worker_cannot_record_an_issuance(desk: Desk) -> None:
    desk.recorder.event("pki.issued", {"pki.serial": "5f"})
    assert desk.leaves()[0]["event.action"] == "log.rejected"


def test_caches_are_bounded_and_their_loss_changes_nothing(desk: Desk) -> None:
    desk.refuse(asked=request("/0"), principal=ALICE)
    (first,) = desk.leaves()
    for n in range(CACHE_ENTRIES + 2):
        desk.refuse(asked=request(f"/{n}"), principal=ALICE)
        desk.reader.acknowledge(1)
    desk.refuse(asked=request("/0"), principal=ALICE)
    (second,) = desk.leaves()
    assert first["url.path_hash"] == second["url.path_hash"]


def test_standard_durability_waits_for_nothing(desk: Desk) -> None:
    slot = desk.admit()
    assert desk.recorder.synced(slot) is None
    assert desk.recorder.acked(complete(desk, slot)) is None
