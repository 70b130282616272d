"""What a sidecar finds on disk: the certificate that lasts longest, of its own name, with a key that nobody else can read."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from edge.errors import UnsafeState
from edge.forward.io_plain import parse_target
from edge.serve import attach_identity
from edge.serve.attach_settings import AttachSettings
from pki import io_output
from pki.errors import UnsafeFile
from pki.io_authority import Authority
from pki.io_keys import make_ec, private_pem
from pki.issue import UPSTREAM_ROLES, IssueRequest, IssuerRole
from tests.pki.conftest import NOW, authority, founded, passphrases, state

__all__ = ["authority", "founded", "passphrases", "state"]  # fixtures


def settings(tmp_path: Path, service: str = "orders") -> AttachSettings:
    return AttachSettings(
        service=service,
        target=parse_target("http://127.0.0.1:1"),
        listen=("127.0.0.1", 0),
        state=tmp_path / "sidecar",
        identity=tmp_path / "given",
        gateways=(),
        assertion=None,
        services=(),
        enrol=None,
        token_file=None,
        root_sha256=None,
        registering=None,
        drain_s=1,
    )


def put(
    authority: Authority,
    target: Path,
    *,
    life: timedelta = timedelta(hours=24),
    roles: tuple[IssuerRole, ...] = UPSTREAM_ROLES,
) -> None:
    key = make_ec("p256")
    issued = authority.issue(IssueRequest("svc", "orders", key.public_key(), ("orders.internal",), life=life), NOW)
    target.parent.mkdir(mode=0o700, exist_ok=True)
    bundle, root = authority.bundle_pem(roles=roles), authority.root_sha256
    io_output.write(target, issued, key_pem=private_pem(key), bundle_pem=bundle, root_sha256=root, replace=True)


def test_nothing_is_found_where_nothing_is(tmp_path: Path) -> None:
    assert attach_identity.find(settings(tmp_path), NOW) is None


def test_the_certificate_that_lasts_longest_is_taken(authority: Authority, tmp_path: Path) -> None:
    for place, hours in (("given", 3), ("sidecar/identity", 24)):
        put(authority, tmp_path / place, life=timedelta(hours=hours))
    found = attach_identity.find(settings(tmp_path), NOW)
    assert found is not None
    assert found.not_after == NOW + timedelta(hours=24)
    put(authority, tmp_path / "given", life=timedelta(hours=48))
    newer = attach_identity.find(settings(tmp_path), NOW)
    assert newer is not None
    assert newer.not_after == NOW + timedelta(hours=48)
    assert NOW + timedelta(hours=32) - timedelta(minutes=2) < newer.renew_after < NOW + timedelta(hours=36)


def test_an_ended_one_and_another_s_are_none(authority: Authority, tmp_path: Path) -> None:
    put(authority, tmp_path / "given")
    assert attach_identity.find(settings(tmp_path), NOW + timedelta(hours=25)) is None
    assert attach_identity.find(settings(tmp_path, "billing"), NOW) is None


def test_a_key_that_others_can_read_is_refused(authority: Authority, tmp_path: Path) -> None:
    put(authority, tmp_path / "given")
    (tmp_path / "given" / "key.pem").chmod(0o644)
    with pytest.raises(UnsafeFile, match="chmod 600"):
        attach_identity.find(settings(tmp_path), NOW)


def test_without_the_intermediate_of_gateways_nobody_is_let_in(authority: Authority, tmp_path: Path) -> None:
    put(authority, tmp_path / "given", roles=())
    found = attach_identity.find(settings(tmp_path), NOW)
    assert found is not None
    with pytest.raises(UnsafeState, match="names no intermediate for gateways"):
        attach_identity.require_gateway_role(found)


def test_what_is_written_is_found_again(authority: Authority, tmp_path: Path) -> None:
    put(authority, tmp_path / "given")
    told = settings(tmp_path)
    found = attach_identity.find(told, NOW)
    assert found is not None
    attach_identity.write(told.state, found)
    (tmp_path / "given" / "chain.pem").unlink()
    again = attach_identity.find(told, datetime(2026, 11, 21, 13, tzinfo=UTC))
    assert again is not None
    assert (again.chain, again.key.reveal()) == (found.chain, found.key.reveal())
