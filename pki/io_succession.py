"""The words of old roots for new ones, kept beside the authority: `state/ca/successions.json`, the newest last.

They are made when a root is rotated in, with the old root's key at hand, and stay for whoever did not hear of it then.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from pki.io_files import read_private, write_private
from pki.succession import MAX_SUCCESSIONS

_FILE = "successions.json"
_LIST = list[msgspec.Raw]


def kept(directory: Path) -> tuple[bytes, ...]:
    """Raises: UnsafeFile."""
    try:
        return tuple(bytes(each) for each in msgspec.json.decode(read_private(directory / _FILE), type=_LIST))
    except FileNotFoundError:
        return ()


def keep(directory: Path, succession: bytes) -> None:
    """Add one; of more than a bundle can hold the oldest goes.

    Raises: UnsafeFile.
    """
    words = [*kept(directory), succession][-MAX_SUCCESSIONS:]
    write_private(directory / _FILE, msgspec.json.encode([msgspec.Raw(each) for each in words]) + b"\n", replace=True)
