"""Two gateways with one store, a member of the mesh, and what somebody who can write to the store puts there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from valkey import Valkey

from edge.registry.entry import read, seal
from edge.registry.io_store import CHANGES, ENTRIES
from tests.e2e.member import Member
from tests.e2e.mesh import Mesh, two_gateways
from tests.e2e.whole_gateway import Gateway, events_in_log

SOON_S = 10.0
"""For a machine that is busy; how soon it is on one that is not, the campaign says."""
NAMES = ("orders", "orders.2", "billing")


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    with two_gateways(tmp_path_factory.mktemp("registration"), NAMES) as mesh:
        yield mesh


@pytest.fixture(scope="module")
def homes(mesh: Mesh) -> dict[str, Path]:
    """Directories of the gateways and of the identities."""
    return {**mesh.homes, **mesh.identities}


@pytest.fixture(scope="module")
def gateways(mesh: Mesh) -> list[Gateway]:
    return list(mesh.gateways)


@pytest.fixture
def store(mesh: Mesh) -> Iterator[Valkey]:
    with Valkey(unix_socket_path=str(mesh.store)) as client:
        yield client


@pytest.fixture
def member(homes: dict[str, Path], gateways: list[Gateway], request: pytest.FixtureRequest) -> Iterator[Member]:
    """One that is not registered yet, by the name of its test."""
    found = Member(homes["orders"], re.sub(r"[^a-z0-9]+", "-", request.node.name.lower())[-50:].strip("-"))
    yield found
    found.leave(gateways[0])
    found.close()


def forgeries(homes: dict[str, Path], rule: str) -> int:
    """How often the gateways have said so."""
    events = [event for home in ("a", "b") for event in events_in_log(homes[home], "registry.forged")]
    found = [event for event in events if event["event.reason"] == rule]
    return sum(int(str(each["count"])) if "count" in each else 1 for each in found)


def written(store: Valkey, member: Member) -> bytes:
    """What stands of it in the store; empty when nothing does."""
    found: object = store.hget(ENTRIES, f"orders/{member.name}")
    return found if isinstance(found, bytes) else b""


def write(store: Valkey, field: str, raw: bytes) -> None:
    """As a gateway would."""
    store.hset(ENTRIES, field, raw)  # type: ignore[arg-type]
    store.xadd(CHANGES, {"e": raw})


def resealed(raw: bytes, identity: Path, **changes: object) -> bytes:
    """The entry with changes, signed by whose key lies there."""
    sealed = read(raw)
    assert sealed is not None
    key = load_pem_private_key((identity / "key.pem").read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    leaf = x509.load_pem_x509_certificate((identity / "chain.pem").read_bytes()).public_bytes(Encoding.DER)
    return seal(msgspec.structs.replace(sealed.unverified, **changes), key, leaf, "mesh.internal")
