"""A log that is written, and what a crash makes of its files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from pki.tlog import merkle, note, wal
from pki.tlog.io_log import LogWriter, head_copy_of
from pki.tlog.io_reader import LogReader
from pki.tlog.tail import Tail
from pki.tlog.tiles import length_prefixed

ORIGIN = "home.example/edge"
SIGNER = note.Signer(ORIGIN, b"\x01" * 32)


def entries(first: int, count: int) -> list[bytes]:
    return [f"entry {number}".encode() for number in range(first, first + count)]


class Log:
    """A log in a temporary directory, opened as often as a test likes; closed writers are closed for good."""

    def __init__(self, root: Path) -> None:
        self.directory = root / "log"
        self.head_copy = head_copy_of(self.directory)
        self.writers: list[LogWriter] = []

    def open(self) -> LogWriter:
        self.close()
        self.writers.append(LogWriter.open(self.directory, origin=ORIGIN, signer=SIGNER, head_copy=self.head_copy))
        return self.writers[-1]

    def close(self) -> None:
        for writer in self.writers:
            writer.close()

    def filled(self, count: int, *, batch: int = 64) -> LogWriter:
        writer = self.open()
        for first in range(0, count, batch):
            writer.append(entries(first, min(batch, count - first)))
        writer.publish()
        return writer


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    found = Log(tmp_path)
    yield found
    found.close()


def live_file(log: Log) -> int:
    segments = LogReader(log.directory).segments()
    return next(place for place, segment in enumerate(segments) if segment is not None)


def live_end(log: Log) -> int:
    segment = LogReader(log.directory).segments()[live_file(log)]
    assert segment is not None
    return segment.end


def drop_last_frame(log: Log) -> None:
    segments = [
        (segment.size, place, segment) for place, segment in enumerate(LogReader(log.directory).segments()) if segment
    ]
    _, place, segment = max(segments)
    os.truncate(log.directory / wal.NAMES[place], segment.end - 1)


def tail(size: int) -> Tail:
    tail, found = Tail(), entries(0, size)
    pieces = length_prefixed(found)
    tail.extend(merkle.leaf_hashes(found), pieces, b"".join(pieces))
    return tail
