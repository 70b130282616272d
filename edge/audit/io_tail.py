"""Follow a log while it grows."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from pki.tlog.io_reader import LogReader

_LOOK_S = 0.25


def latest(directory: Path, count: int) -> list[tuple[int, bytes]]:
    """The last `count` (≥ 1) entries, oldest first, also those not yet under a checkpoint.

    Raises:
        LogError: there is no readable log.
    """
    return LogReader(directory).latest(count)


def follow(directory: Path, first: int) -> Iterator[tuple[int, bytes]]:
    """Entries from index `first` on, as each comes under a checkpoint (within a second); never ends.

    Raises:
        LogError: the log is gone or damaged.
    """
    reader = LogReader(directory)
    while True:
        for index, entry in reader.published_since(first):
            first = index + 1
            yield index, entry
        time.sleep(_LOOK_S)
