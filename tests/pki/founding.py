"""An authority as `edge init` makes one, but for what a passphrase costs: nothing."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime
from pathlib import Path

from pki.io_authority import create
from pki.io_keys import Cost

CHEAP = Cost(memory_kib=8, iterations=1, lanes=1)
"""Of a passphrase. At its price (`tests/e2e/test_init.py` pays it) a start or a command would take 0.2 s of CPU more."""
SECRETS: Mapping[str, bytes] = {"root": b"root", "issuing": b"issuing"}


def found_authority(
    ca: Path,
    now: datetime,
    *,
    suffixes: Collection[str] = (".internal", "mesh.internal"),
    hosts: Collection[str] = ("localhost",),
    secrets: Mapping[str, bytes] = SECRETS,
    unattended: Collection[str] = ("issuing",),
) -> None:
    """The authority of mesh.internal. `unattended`: whose passphrases lie beside it."""
    create(
        ca,
        trust_domain="mesh.internal",
        dns_suffixes=suffixes,
        hosts=hosts,
        passphrases=secrets,
        now=now,
        unattended=unattended,
        cost=CHEAP,
    )
