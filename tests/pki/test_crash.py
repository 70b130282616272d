"""Kill -9 at writes, syncs and renames of the authority; at each of them in `scripts/campaign ca-crash`."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.pki import crash, syscalls

pytestmark = pytest.mark.skipif(not syscalls.IS_KNOWN, reason="knows the system calls of Linux on x86-64 only")


def test_P31_P53_kill_9_anywhere_leaves_no_certificate_without_a_record_and_a_clean_next_start(tmp_path: Path) -> None:
    every = 60
    kills = crash.campaign(tmp_path, every, os.getpid() % every)  # another sample each time
    assert set(kills) == {"issue", "enrol", "revoke", "found"}
    assert kills["issue"] > 0


def test_the_changes_that_are_counted_are_those_that_matter(tmp_path: Path) -> None:
    state = tmp_path / "state"
    crash.found(state)
    changes = syscalls.run(lambda: crash.hand_out(state, crash.ISSUE))
    assert {"write", "pwrite64", "fsync", "fdatasync", "rename", "unlink", "mkdir"} <= set(changes)
    crash.check(state)
