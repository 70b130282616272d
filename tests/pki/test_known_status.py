"""What a process knows of revocation: it grows, it never shrinks, and what is not known refuses."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from pki.errors import StatusRejected
from pki.io_authority import Authority
from pki.known_status import KnownStatus
from pki.revocation import FRESH_S, Entry, Heartbeat, RevocationSet

ENTRY = Entry("ab" * 32, "4d", 2_000_000_000, 1_900_000_000, "keyCompromise")
NAMED = frozenset({(bytes.fromhex("ab" * 32), 0x4D)})
LATER = timedelta(seconds=FRESH_S + 1)


class Speaker:
    """The authority's word, and a process that hears it."""

    def __init__(self, authority: Authority, now: datetime) -> None:
        self._signer = authority.status_signer()
        self._anchors = [root.public_bytes(Encoding.DER) for root in authority.roots]
        self.now = now
        self.known = KnownStatus()

    def sealed(self, number: int, *entries: Entry) -> RevocationSet:
        return RevocationSet.seal(
            self._signer, trust_domain="mesh.internal", number=number, entries=entries, now=self.now
        )

    def hear_set(self, number: int, *entries: Entry) -> bool:
        raw = self.sealed(number, *entries).raw
        return self.hear_raw(raw)

    def hear_raw(self, raw: bytes) -> bool:
        return self.known.take_set(raw, anchors=self._anchors, trust_domain="mesh.internal", now=self.now)

    def hear_heartbeat(self, of: RevocationSet, at: datetime) -> None:
        raw = Heartbeat.seal(self._signer, of, at).raw
        self.known.take_heartbeat(raw, anchors=self._anchors, trust_domain="mesh.internal", now=self.now)


@pytest.fixture
def it(authority: Authority, now: datetime) -> Speaker:
    return Speaker(authority, now)


def test_who_has_heard_nothing_has_an_authority_that_revokes_nothing(it: Speaker) -> None:
    assert (it.known.number, it.known.listed, it.known.revoked(it.now)) == (0, frozenset(), frozenset())


def test_a_set_alone_holds_for_as_long_as_no_heartbeat_was_ever_heard(it: Speaker) -> None:
    assert it.hear_set(7, ENTRY)
    assert (it.known.number, it.known.revoked(it.now + timedelta(days=30))) == (7, NAMED)


def test_the_same_document_again_is_no_news_and_no_rollback(it: Speaker) -> None:
    raw = it.sealed(7, ENTRY).raw
    assert [it.hear_raw(raw), it.hear_raw(raw)] == [True, False]


@pytest.mark.parametrize("number", [6, 7])
def test_P28_nothing_that_is_known_is_taken_back(it: Speaker, number: int) -> None:
    it.hear_set(7, ENTRY)
    with pytest.raises(StatusRejected, match="rollback"):
        it.hear_set(number)
    assert it.known.revoked(it.now) == NAMED


def test_P26_P27_without_a_heartbeat_of_ten_seconds_nobody_knows(it: Speaker) -> None:
    newest = it.sealed(7, ENTRY)
    it.hear_raw(newest.raw)
    it.hear_heartbeat(newest, it.now)
    assert it.known.revoked(it.now + timedelta(seconds=FRESH_S)) == NAMED
    assert it.known.revoked(it.now + LATER) is None
    assert it.known.listed == NAMED  # what is open to them is still cut


def test_a_set_that_is_withheld_is_not_known(it: Speaker) -> None:
    newest = it.sealed(8, ENTRY)
    it.hear_heartbeat(newest, it.now)
    assert it.known.revoked(it.now) is None
    it.hear_set(7)
    assert it.known.revoked(it.now) is None
    it.hear_raw(newest.raw)
    assert it.known.revoked(it.now) == NAMED


def test_a_set_that_came_after_the_heartbeat_is_known(it: Speaker) -> None:
    before = it.sealed(7)
    it.hear_raw(before.raw)
    it.hear_heartbeat(before, it.now)
    it.hear_set(8, ENTRY)
    assert it.known.revoked(it.now) == NAMED


@pytest.mark.parametrize(("number", "earlier_s"), [(7, 1), (6, 0)])
def test_P28_an_older_heartbeat_is_refused(it: Speaker, number: int, earlier_s: int) -> None:
    it.hear_heartbeat(it.sealed(7), it.now)
    with pytest.raises(StatusRejected, match="rollback"):
        it.hear_heartbeat(it.sealed(number), it.now - timedelta(seconds=earlier_s))


def test_something_that_cannot_be_believed_is_not_nothing(it: Speaker) -> None:
    it.known.doubt_set()
    assert it.known.revoked(it.now) is None
    it.hear_set(7, ENTRY)
    assert it.known.revoked(it.now) == NAMED
    it.known.doubt_set()  # a bad file takes nothing away from what was verified
    assert it.known.revoked(it.now) == NAMED
    it.known.doubt_heartbeat()
    assert it.known.revoked(it.now) is None
    it.hear_heartbeat(it.sealed(7, ENTRY), it.now)
    assert it.known.number == 7


def test_whoever_reads_is_asked_to_look_before_not_knowing_refuses(it: Speaker) -> None:
    """A process that stood still for a while has not read what was said meanwhile."""
    newest = it.sealed(1)
    it.hear_raw(newest.raw)
    it.hear_heartbeat(newest, it.now)
    looks: list[datetime] = []
    later = it.now + LATER

    def look() -> None:
        looks.append(later)
        assert it.known.revoked(later) is None  # asked while looking, it says what it knows and asks nobody
        it.now = later
        it.hear_heartbeat(newest, later)

    it.known.look_again = look
    assert (it.known.revoked(it.now), looks) == (frozenset(), [])
    assert (it.known.revoked(later), looks) == (frozenset(), [later])
    it.known.look_again = lambda: looks.append(later)
    assert it.known.revoked(later + LATER) is None
    assert looks == [later, later]
