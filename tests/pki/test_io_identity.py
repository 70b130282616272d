"""The gateway's own certificates, and the directory form they share with every issued one."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from pki import io_output, svid
from pki.bundle import Bundle
from pki.errors import AuthorityLocked, IssueRefused, UnsafeFile, WouldOverwrite
from pki.io_authority import Authority
from pki.io_identity import Renewal, ensure_gateway_identities, gateway_dns
from pki.io_keys import Passphrases, make_ec, private_pem
from pki.issue import IssueRequest, name_space
from pki.spiffe import SpiffeId

HOSTS = ("localhost", "127.0.0.1")
GATEWAY = SpiffeId.of("mesh.internal", "gw", "edge")


def ensure(state: Path, now: datetime, hosts: Sequence[str] = HOSTS, **changes: str) -> Renewal:
    trust_domain = changes.get("trust_domain", "mesh.internal")
    return ensure_gateway_identities(
        state, trust_domain=trust_domain, hosts=hosts, now=now, passphrases=Passphrases(state / "ca")
    )


def chain(directory: Path) -> list[bytes]:
    certificates = x509.load_pem_x509_certificates((directory / "chain.pem").read_bytes())
    return [certificate.public_bytes(Encoding.DER) for certificate in certificates]


def test_both_are_issued_when_missing_and_verify(state: Path, now: datetime) -> None:
    assert ensure(state, now) == Renewal(("gateway", "public"), ())
    gateway = state / "identity" / "gateway"
    bundle = Bundle.parse((gateway / "bundle.pem").read_bytes())
    for usage in ("client", "server"):
        svid.verify(
            chain(gateway),
            anchors=bundle.anchors,
            expected_id=GATEWAY,
            usage=usage,
            now=now,
            role_issuers=bundle.role_issuers,
        )
    for host in HOSTS:
        svid.verify_host(chain(state / "identity" / "public"), anchors=bundle.anchors, host=host, now=now)


def test_the_edge_intermediate_is_not_in_the_gateways_bundle(state: Path, now: datetime) -> None:
    ensure(state, now)
    bundle = Bundle.parse((state / "identity" / "gateway" / "bundle.pem").read_bytes())
    assert set(bundle.role_issuers) == {"svc", "gw", "op"}
    assert chain(state / "identity" / "public")[1] not in bundle.intermediates


def test_nothing_is_unlocked_while_both_are_fresh(state: Path, now: datetime) -> None:
    ensure(state, now)
    (state / "ca").rename(state / "gone")
    assert ensure(state, now + timedelta(hours=15)) == Renewal((), ())
    with pytest.raises(AuthorityLocked):
        ensure(state, now + timedelta(hours=17))


def test_they_are_renewed_at_two_thirds_of_their_life(state: Path, now: datetime) -> None:
    ensure(state, now)
    before = chain(state / "identity" / "gateway")
    assert ensure(state, now + timedelta(hours=17)).renewed == ("gateway", "public")
    assert chain(state / "identity" / "gateway")[0] != before[0]


def test_a_listener_with_its_own_certificate_is_left_alone(state: Path, now: datetime) -> None:
    assert ensure(state, now, hosts=()).renewed == ("gateway",)
    assert not (state / "identity" / "public").exists()


@pytest.mark.parametrize("hosts", [("localhost",), ("localhost", "127.0.0.1", "[::1]"), ("new.example.com",)])
def test_changed_hosts_are_certified_at_once(state: Path, now: datetime, hosts: tuple[str, ...]) -> None:
    ensure(state, now)
    assert ensure(state, now, hosts).renewed == ("public",)
    assert ensure(state, now, hosts).renewed == ()


def test_hosts_outside_the_intermediate_need_the_roots_passphrase(state: Path, now: datetime) -> None:
    (state / "ca" / "root.passphrase").unlink()
    assert ensure(state, now).renewed == ("gateway", "public")
    with pytest.raises(AuthorityLocked, match=r"listeners\.public\.tls"):
        ensure(state, now, ("new.example.com",))


def test_an_ageing_intermediate_is_renewed_and_reaches_the_bundle(state: Path, now: datetime) -> None:
    later = now + timedelta(days=61)
    assert ensure(state, later) == Renewal(("gateway", "public"), ())
    bundle = Bundle.parse((state / "identity" / "gateway" / "bundle.pem").read_bytes())
    assert {role: len(keys) for role, keys in bundle.role_issuers.items()} == {"svc": 2, "gw": 2, "op": 2}


def test_a_renewed_intermediate_also_renews_a_gateway_that_is_still_fresh(state: Path, now: datetime) -> None:
    ensure(state, now + timedelta(days=59, hours=22))
    assert ensure(state, now + timedelta(days=60, hours=2), ("localhost",)).renewed == ("gateway", "public")


def test_an_ageing_intermediate_with_a_locked_root_is_a_warning(state: Path, now: datetime) -> None:
    (state / "ca" / "root.passphrase").unlink()
    warnings = ensure(state, now + timedelta(days=61)).warnings
    assert [warning.split()[1] for warning in warnings] == ["svc", "gw", "op", "edge", "status"]


def test_another_trust_domain_than_the_authoritys_is_refused(state: Path, now: datetime) -> None:
    with pytest.raises(IssueRefused, match="trust-domain"):
        ensure(state, now, trust_domain="other.internal")


@pytest.mark.parametrize("damage", ["chain.pem", "bundle.pem", "key"])
def test_a_damaged_identity_is_replaced(state: Path, now: datetime, damage: str) -> None:
    ensure(state, now)
    gateway = state / "identity" / "gateway"
    if damage == "key":
        (gateway / "key.pem").write_bytes(private_pem(make_ec("p256")))
    else:
        (gateway / damage).unlink()
    assert ensure(state, now).renewed == ("gateway",)


def test_P55_a_key_that_others_could_read_is_not_renewed_silently(state: Path, now: datetime) -> None:
    ensure(state, now)
    (state / "identity" / "gateway" / "key.pem").chmod(0o644)
    with pytest.raises(UnsafeFile):
        ensure(state, now)


def test_the_gateways_dns_name_only_where_it_may_be_certified() -> None:
    assert gateway_dns("edge", name_space([".internal"])) == ("edge.internal",)
    assert gateway_dns("edge", name_space(["corp.example"])) == ()


def test_an_issued_directory_tells_its_facts(authority: Authority, state: Path, now: datetime) -> None:
    issued = authority.issue(IssueRequest("svc", "orders", make_ec("p256").public_key(), ("orders.internal",)), now)
    target = state / "orders"
    arguments = {"key_pem": None, "bundle_pem": issued.bundle_pem, "root_sha256": authority.root_sha256}
    io_output.write(target, issued, replace=False, **arguments)  # type: ignore[arg-type]
    with pytest.raises(WouldOverwrite):
        io_output.write(target, issued, replace=False, **arguments)  # type: ignore[arg-type]
    facts = json.loads((target / "identity.json").read_bytes())
    assert sorted(os.listdir(target)) == ["bundle.pem", "cert.pem", "chain.pem", "identity.json", "issuance.tlog-proof"]
    assert facts["spiffe_id"] == "spiffe://mesh.internal/svc/orders"
    assert facts["renew_after"] == "2026-11-22T03:59:40Z"
    assert (target / "issuance.tlog-proof").read_bytes() == issued.proof
    held = io_output.read(target)
    assert held is not None
    assert held.names == {"spiffe://mesh.internal/svc/orders", "orders.internal"}
    assert (held.is_fresh(now), held.is_fresh(now + timedelta(hours=16))) == (True, False)
