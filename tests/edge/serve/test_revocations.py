"""A worker's eye on what the authority publishes: real files of a real authority, and a real ring for what is recorded."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from edge.audit.drain import RingReader
from edge.audit.record import AuditSettings
from edge.audit.recorder import Recorder
from edge.audit.ring import Ring
from edge.serve.report import Report
from edge.serve.revocations import Anchors, Revocations
from pki.io_authority import Authority
from pki.io_files import write_private
from pki.io_keys import Passphrases
from pki.io_status import SET, write_heartbeat
from pki.known_status import KnownStatus
from pki.revocation import Entry, Heartbeat, RevocationSet
from tests.pki.founding import SECRETS, found_authority

ENTRY = Entry("ab" * 32, "4d", 2_000_000_000, 1_900_000_000, "keyCompromise")


@dataclass
class Parts:
    """The authority's side, and a worker's."""

    authority: Authority
    status: Path
    known: KnownStatus
    revocations: Revocations
    ring: RingReader
    began: datetime

    def sealed(self, number: int, *entries: Entry) -> RevocationSet:
        signer, now = self.authority.status_signer(), datetime.now(UTC)
        return RevocationSet.seal(signer, trust_domain="mesh.internal", number=number, entries=entries, now=now)

    def publish(self, number: int, *entries: Entry, at_s: float = 0) -> RevocationSet:
        newest = self.sealed(number, *entries)
        write_private(self.status / SET, newest.raw, replace=True)
        self.beat(newest, at_s=at_s)
        return newest

    def beat(self, newest: RevocationSet, *, at_s: float = 0) -> None:
        """`at_s`: after the test began."""
        said = self.began + timedelta(seconds=at_s)
        write_heartbeat(self.status, Heartbeat.seal(self.authority.status_signer(), newest, said).raw)

    def recorded(self) -> list[tuple[object, object]]:
        leaves = [json.loads(leaf) for leaf in self.ring.read(100)]
        return [(leaf["event.action"], leaf.get("event.reason")) for leaf in leaves]


@pytest.fixture
def parts(tmp_path: Path) -> Iterator[Parts]:
    ca, status = tmp_path / "ca", tmp_path / "status"
    now = datetime.now(UTC)
    found_authority(ca, now, unattended=())
    status.mkdir(mode=0o700)
    ring = Ring.create(tmp_path / "w.ring", "worker-0", slots=64)
    reader = RingReader.attach(tmp_path / "w.ring", "worker-0")
    reader.beat(1)
    settings = AuditSettings("mesh.internal/log")
    recorder = Recorder(ring, settings, pseudonym_key=bytes(32), wall_ns=lambda: 10**18, mono_ns=lambda: 1)
    with Authority.open(ca, Passphrases(ca, given=SECRETS), now=now) as authority:
        known = KnownStatus()
        anchors = Anchors([root.public_bytes(Encoding.DER) for root in authority.roots], "mesh.internal")
        revocations = Revocations(known, status, anchors, recorder, Report("test"), cut=len)
        yield Parts(authority, status, known, revocations, reader, datetime.now(UTC))
    reader.close()
    ring.close()


def test_a_worker_that_stood_still_refuses_nobody_while_a_fresh_word_lies_there(parts: Parts) -> None:
    """Its timers are late, and who connected meanwhile is answered before them."""
    newest = parts.publish(1)
    parts.revocations.look()
    parts.beat(newest, at_s=8)  # nobody has told the worker, and it has not looked
    assert parts.known.revoked(parts.began + timedelta(seconds=12)) == frozenset()
    assert ("identity.revocation", "revocation-unknown") not in parts.recorded()


def test_a_revocation_that_lies_there_unread_counts_when_it_is_read_late(parts: Parts) -> None:
    parts.publish(1)
    parts.revocations.look()
    parts.publish(2, ENTRY, at_s=8)
    assert parts.known.revoked(parts.began + timedelta(seconds=12)) == frozenset({(bytes.fromhex(ENTRY.issuer), 0x4D)})


def test_without_a_fresh_word_nobody_knows_and_it_is_recorded_once(parts: Parts) -> None:
    newest = parts.publish(1, at_s=-30)
    for _ in range(3):
        parts.revocations.look()
        assert parts.known.revoked(datetime.now(UTC)) is None
    parts.beat(newest, at_s=8)
    parts.revocations.look()
    assert parts.revocations.is_known
    assert parts.recorded().count(("identity.revocation", "revocation-unknown")) == 1


def test_a_set_that_changed_without_looking_so_is_read_again(parts: Parts) -> None:
    """Two writes within one tick of the kernel's clock have one time; without knowledge nothing counts as seen."""
    parts.publish(1)
    parts.revocations.look()
    newest = parts.sealed(2, ENTRY)
    path = parts.status / SET
    write_private(path, b" " * len(newest.raw), replace=True)
    parts.beat(newest)
    parts.revocations.look()
    assert not parts.revocations.is_known
    looks = os.stat(path)
    with path.open("r+b") as file:
        file.write(newest.raw)
    os.utime(path, ns=(looks.st_atime_ns, looks.st_mtime_ns))
    parts.revocations.look()
    assert (parts.revocations.is_known, parts.known.number) == (True, 2)
