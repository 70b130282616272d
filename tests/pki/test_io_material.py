"""Material for another gateway: what `issue-cert.py --role gateway` writes, what joining takes, and what it refuses."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from pki import io_material, io_output
from pki.errors import AuthorityLocked, IssueRefused, MaterialRejected, UnsafeFile, WouldOverwrite
from pki.io_authority import Authority
from pki.io_identity import Renewal, ensure_gateway_identities, issue_public
from pki.io_keys import make_ec, private_pem
from pki.issue import UPSTREAM_ROLES, IssueRequest, IssuerRole

HOSTS = ("localhost", "127.0.0.1")
Make = Callable[..., Path]


@pytest.fixture
def make(authority: Authority, tmp_path: Path, now: datetime) -> Make:
    def one(name: str = "edge-b", role: IssuerRole = "gw", roles: tuple[IssuerRole, ...] = UPSTREAM_ROLES) -> Path:
        key = make_ec("p256")
        issued = authority.issue(IssueRequest(role, name, key.public_key()), now)
        public = issue_public(authority, HOSTS, now, name=f"{name}-public", requester="test")
        io_output.write(
            tmp_path / name,
            issued,
            key_pem=private_pem(key),
            bundle_pem=authority.bundle_pem(roles=roles),
            root_sha256=authority.root_sha256,
            replace=True,
            more=io_material.public_files(*public),
        )
        return tmp_path / name

    return one


def judged(state: Path, now: datetime, **changes: object) -> Renewal:
    arguments: dict[str, object] = {"trust_domain": "mesh.internal", "hosts": HOSTS, **changes}
    return ensure_gateway_identities(state, now=now, **arguments)  # type: ignore[arg-type]


def test_material_is_whole_and_lands_where_the_gateway_looks(make: Make, tmp_path: Path, now: datetime) -> None:
    material = io_material.read(make(), now)
    assert (str(material.spiffe_id), set(material.hosts)) == ("spiffe://mesh.internal/gw/edge-b", set(HOSTS))
    state = tmp_path / "joined"
    assert not io_material.install(state, material)
    assert judged(state, now) == Renewal((), ())
    assert judged(state, now, hosts=()) == Renewal((), ())
    assert not (state / "ca").exists()
    assert {"chain.pem", "key.pem", "bundle.pem"} <= set(os.listdir(state / "identity" / "public"))


def test_newer_material_of_the_same_gateway_renews_it(make: Make, tmp_path: Path, now: datetime) -> None:
    io_material.install(tmp_path / "joined", io_material.read(make(), now))
    before = (tmp_path / "joined" / "identity" / "gateway" / "chain.pem").read_bytes()
    assert io_material.install(tmp_path / "joined", io_material.read(make(), now))
    assert (tmp_path / "joined" / "identity" / "gateway" / "chain.pem").read_bytes() != before


def test_it_warns_when_due_and_refuses_when_over(make: Make, tmp_path: Path, now: datetime) -> None:
    state = tmp_path / "joined"
    io_material.install(state, io_material.read(make(), now))
    late = judged(state, now + timedelta(hours=17))
    assert (late.renewed, len(late.warnings)) == ((), 2)
    assert "issue-cert.py edge-b --role gateway --if-needed" in late.warnings[0]
    with pytest.raises(AuthorityLocked, match=r"ended at .* --join"):
        judged(state, now + timedelta(hours=25))


@pytest.mark.parametrize(
    ("changes", "error"),
    [({"trust_domain": "other.internal"}, IssueRefused), ({"hosts": ("api.example.com",)}, IssueRefused)],
)
def test_a_joined_gateway_says_what_it_cannot_be(
    make: Make, tmp_path: Path, now: datetime, changes: dict[str, object], error: type[Exception]
) -> None:
    io_material.install(tmp_path / "joined", io_material.read(make(), now))
    with pytest.raises(error):
        judged(tmp_path / "joined", now, **changes)


def test_a_public_certificate_that_is_missing_is_said(make: Make, tmp_path: Path, now: datetime) -> None:
    directory = make()
    for name in os.listdir(directory):
        if name.startswith(io_material.PUBLIC):
            (directory / name).unlink()
    material = io_material.read(directory, now)
    assert (material.hosts, material.public) == ((), {})
    io_material.install(tmp_path / "joined", material)
    with pytest.raises(AuthorityLocked, match="public listener"):
        judged(tmp_path / "joined", now)


def test_a_gateway_with_a_ca_does_not_join(make: Make, state: Path, now: datetime) -> None:
    with pytest.raises(WouldOverwrite, match="CA of its own"):
        io_material.install(state, io_material.read(make(), now))


def test_another_gateways_identity_is_not_replaced(make: Make, tmp_path: Path, now: datetime) -> None:
    io_material.install(tmp_path / "joined", io_material.read(make(), now))
    with pytest.raises(WouldOverwrite, match="another gateway"):
        io_material.install(tmp_path / "joined", io_material.read(make("edge-c"), now))


@pytest.mark.parametrize("name", ["chain.pem", "key.pem", "bundle.pem", "public-key.pem"])
def test_half_of_it_is_refused(make: Make, now: datetime, name: str) -> None:
    directory = make()
    (directory / name).unlink()
    with pytest.raises(MaterialRejected, match=name):
        io_material.read(directory, now)


@pytest.mark.parametrize("name", ["chain.pem", "key.pem", "bundle.pem", "public-chain.pem", "public-key.pem"])
def test_what_cannot_be_read_is_refused(make: Make, now: datetime, name: str) -> None:
    directory = make()
    (directory / name).write_bytes(b"nothing")
    with pytest.raises(MaterialRejected):
        io_material.read(directory, now)


def test_swapped_keys_are_refused(make: Make, now: datetime) -> None:
    directory = make()
    shutil.copyfile(directory / "public-key.pem", directory / "key.pem")
    with pytest.raises(MaterialRejected, match="another certificate"):
        io_material.read(directory, now)


def test_a_key_that_others_can_read_is_refused(make: Make, now: datetime) -> None:
    directory = make()
    (directory / "key.pem").chmod(0o644)
    with pytest.raises(UnsafeFile, match="chmod"):
        io_material.read(directory, now)


def test_over_is_over(make: Make, now: datetime) -> None:
    with pytest.raises(MaterialRejected, match="expired"):
        io_material.read(make(), now + timedelta(hours=25))


def test_a_service_cannot_join(make: Make, now: datetime) -> None:
    with pytest.raises(MaterialRejected, match="not a gateway"):
        io_material.read(make("orders", "svc"), now)


def test_a_bundle_without_role_intermediates_is_refused(make: Make, now: datetime) -> None:
    with pytest.raises(MaterialRejected):
        io_material.read(make(roles=()), now)


def test_a_bundle_that_cannot_tell_services_is_refused(make: Make, now: datetime) -> None:
    with pytest.raises(MaterialRejected, match="issues for services"):
        io_material.read(make(roles=("gw",)), now)
