"""The heartbeat of a holder who is busy: it goes on without him, and not without his life."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from pki.io_authority import Authority
from pki.io_heartbeat import Heartbeats
from pki.io_status import HEARTBEAT, Publisher
from pki.revocation import Heartbeat

Said = Callable[[], Heartbeat]


@pytest.fixture
def publisher(authority: Authority, state: Path) -> Publisher:
    publisher = Publisher(authority, state / "status")
    publisher.publish(datetime.now(UTC))
    return publisher


@pytest.fixture
def said(authority: Authority, state: Path) -> Said:
    anchors = [root.public_bytes(Encoding.DER) for root in authority.roots]

    def read() -> Heartbeat:
        raw = (state / "status" / HEARTBEAT).read_bytes()
        return Heartbeat.parse(raw, anchors=anchors, trust_domain="mesh.internal", now=datetime.now(UTC))

    return read


def within(what: Callable[[], bool], within_s: float = 20) -> bool:
    end_s = time.monotonic() + within_s
    while not what():
        if time.monotonic() > end_s:
            return False
        time.sleep(0.005)
    return True


def test_it_goes_on_while_its_holder_is_busy(publisher: Publisher, said: Said) -> None:
    publisher.beat(datetime.now(UTC))
    first = said().at
    with Heartbeats(publisher, every_s=0.01):
        assert within(lambda: said().at > first)  # the holder does nothing but wait for this


def test_it_tells_of_the_newest_set(publisher: Publisher, authority: Authority, state: Path, said: Said) -> None:
    publisher.beat(datetime.now(UTC))
    with Heartbeats(publisher, every_s=0.01):
        (state / "status" / "revocation.json").unlink()
        again = Publisher(authority, state / "status")
        newest = again.publish(datetime.now(UTC))
        with Heartbeats(again, every_s=0.01):
            assert within(lambda: said().digest == newest.digest)


def test_who_holds_the_authority_for_a_moment_is_not_the_first_to_say_it(publisher: Publisher, state: Path) -> None:
    """Gateways that heard one wait for the next, and nobody would say that."""
    assert publisher.beat_again(datetime.now(UTC)) is None
    assert not (state / "status" / HEARTBEAT).exists()


def test_who_hangs_is_not_spoken_for(publisher: Publisher, said: Said) -> None:
    publisher.beat(datetime.now(UTC))
    before = said().raw
    with Heartbeats(publisher, every_s=0.01, patience_s=0.0) as heartbeats:
        heartbeats.come_round()
        assert not within(lambda: said().raw != before, 0.2)


def test_a_disk_that_refuses_ends_nothing(publisher: Publisher, state: Path, said: Said) -> None:
    publisher.beat(datetime.now(UTC))
    before = said().raw
    with Heartbeats(publisher, every_s=0.01):
        stage = state / "status" / f".{HEARTBEAT}.new"
        assert within(lambda: said().raw != before)
        stage.mkdir()
        assert within(lambda: _refuses(publisher))
        stage.rmdir()
        held = said().raw
        assert within(lambda: said().raw != held)


def _refuses(publisher: Publisher) -> bool:
    try:
        publisher.beat_again(datetime.now(UTC))
    except OSError:
        return True
    return False
