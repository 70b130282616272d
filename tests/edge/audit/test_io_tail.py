from __future__ import annotations

from itertools import islice
from pathlib import Path

import pytest

from edge.audit.io_tail import follow, latest
from pki.errors import LogError
from pki.tlog import note
from pki.tlog.io_log import LogWriter, head_copy_of

SIGNER = note.Signer("home.example/edge", b"\x01" * 32)
ENTRIES = [b"%d" % number for number in range(600)]


def test_following_goes_on_with_what_is_published_meanwhile(tmp_path: Path) -> None:
    log = tmp_path / "log"
    writer = LogWriter.open(log, origin=SIGNER.verifier.name, signer=SIGNER, head_copy=head_copy_of(log))
    writer.append(ENTRIES[:300])
    writer.publish()
    entries = follow(log, 290)
    assert list(islice(entries, 9)) == list(enumerate(ENTRIES))[290:299]
    writer.append(ENTRIES[300:])
    assert latest(log, 2) == list(enumerate(ENTRIES))[598:]
    writer.publish()
    assert list(islice(entries, 200)) == list(enumerate(ENTRIES))[299:499]
    writer.close()


def test_nothing_to_follow_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(LogError):
        next(follow(tmp_path, 0))
    with pytest.raises(LogError):
        latest(tmp_path, 1)
