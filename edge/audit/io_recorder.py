"""Gives a Recorder what it must not fetch itself: the real clocks, the pseudonym key, the waits of `strict`."""

from __future__ import annotations

import asyncio
import os
import secrets
import stat
import time
from pathlib import Path

from edge.audit.io_durable import Durability
from edge.audit.io_ring import Nudge
from edge.audit.record import AuditSettings
from edge.audit.recorder import Recorder
from edge.audit.ring import Ring
from edge.errors import UnsafeState

KEY_FILE = "pseudonym.key"
KEY_BYTES = 32


def open_recorder(
    ring: Ring,
    settings: AuditSettings,
    pseudonym_key: bytes,
    *,
    nudge: Nudge | None = None,
    loop: asyncio.AbstractEventLoop | None = None,
) -> Recorder:
    """A recorder on the real clocks. A worker under `strict` passes its nudge and loop; nobody else waits for acks."""
    durability = None
    if settings.is_strict and nudge is not None and loop is not None:
        durability = Durability(ring, nudge, loop)
    return Recorder(
        ring,
        settings,
        pseudonym_key=pseudonym_key,
        wall_ns=time.time_ns,
        mono_ns=time.monotonic_ns,
        durability=durability,
    )


def load_pseudonym_key(log_directory: Path) -> bytes:
    """The key of `log/pseudonym.key` (0600), made when missing. The supervisor reads it before it forks.

    Raises: UnsafeState when the file is another's, readable by others, or not a key.
    """
    path = log_directory / KEY_FILE
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        return _read_key(path)
    except OSError as exc:
        raise UnsafeState(f"{path}: the pseudonym key cannot be made ({exc.strerror})") from exc
    with os.fdopen(fd, "wb") as file:
        key = secrets.token_bytes(KEY_BYTES)
        file.write(key)
        file.flush()
        os.fsync(file.fileno())
    return key


def _read_key(path: Path) -> bytes:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as exc:
        raise UnsafeState(f"{path}: the pseudonym key cannot be read ({exc.strerror})") from exc
    with os.fdopen(fd, "rb") as file:
        facts = os.fstat(fd)
        if not stat.S_ISREG(facts.st_mode) or facts.st_uid != os.geteuid() or facts.st_mode & 0o077:
            raise UnsafeState(f"{path}: others can reach this key; want a regular file with mode 0600 of our own")
        key = file.read(KEY_BYTES + 1)
    if len(key) != KEY_BYTES:
        raise UnsafeState(
            f"{path}: not a key of {KEY_BYTES} bytes; remove it, and old pseudonyms no longer match new ones"
        )
    return key
