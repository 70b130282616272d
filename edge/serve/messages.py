"""Frames between the supervisor and a worker, over a socketpair that only these two hold.

    4 bytes big-endian length of what follows | 1 byte kind | payload

Downwards a payload may be pickled (`Sources`, written by the process the worker was forked from). Upwards it is JSON of a
closed set of fields and nothing else: a worker is the process that faces the network, and must not be able to run code in
the supervisor.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from enum import IntEnum

import msgspec

from edge.errors import EdgeError

MAX_DOWN_BYTES = 256 << 20
"""Configuration with all policies; far above any real one."""
MAX_UP_BYTES = 1 << 20
_HEAD_BYTES = 4


class Kind(IntEnum):
    """What a frame says. Down: supervisor to worker; up: worker to supervisor."""

    PREPARE = 1  # down: pickled Sources; build a Gateway beside the one that serves
    COMMIT = 2  # down: swap to the prepared Gateway
    ABORT = 3  # down: forget the prepared Gateway
    DRAIN = 4  # down: finish what is in flight, then exit
    RETIRE = 5  # down: another serves in your place; take no new connection, let clients leave, then exit
    SERVING = 16  # up: the listeners accept
    PREPARED = 17  # up
    COMMITTED = 18  # up
    FAILED = 19  # up: could not start or could not prepare


class Note(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Payload of every upward frame."""

    bundle_hash: str = ""
    detail: str = ""
    """One line for the operator; set with FAILED."""
    exit_code: int = 0
    """With FAILED before SERVING: what `edge serve` should exit with."""


class FrameError(EdgeError):
    """The other end broke the framing; it is not to be trusted any more and gets replaced."""


def encode(kind: Kind, payload: bytes = b"") -> bytes:
    """One frame."""
    return (len(payload) + 1).to_bytes(_HEAD_BYTES, "big") + bytes((kind,)) + payload


def encode_note(kind: Kind, note: Note) -> bytes:
    """One upward frame."""
    return encode(kind, msgspec.json.encode(note))


def decode_note(payload: bytes) -> Note:
    """Raises: FrameError when the payload is not exactly a Note."""
    try:
        return msgspec.json.decode(payload, type=Note)
    except msgspec.MsgspecError as exc:
        raise FrameError(f"a worker sent something that is not a note: {exc}") from exc


class Decoder:
    """Bytes in, frames out; keeps what is incomplete."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._buffer = bytearray()

    def feed(self, received: bytes) -> Iterator[tuple[Kind, bytes]]:
        """Yield every frame that `received` completes. Raises: FrameError for an impossible length or an unknown kind."""
        self._buffer += received
        while len(self._buffer) >= _HEAD_BYTES:
            length = int.from_bytes(self._buffer[:_HEAD_BYTES], "big")
            if not 1 <= length <= self._max_bytes:
                raise FrameError(f"frame of {length} bytes, allowed are 1 to {self._max_bytes}")
            end = _HEAD_BYTES + length
            if len(self._buffer) < end:
                return
            raw_kind, payload = self._buffer[_HEAD_BYTES], bytes(self._buffer[_HEAD_BYTES + 1 : end])
            del self._buffer[:end]
            try:
                kind = Kind(raw_kind)
            except ValueError as exc:
                raise FrameError(f"frame of unknown kind {raw_kind}") from exc
            yield kind, payload


class Channel:
    """The supervisor's end: never blocks; what the socket does not take now waits in `_unsent`."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.sock = sock
        self._decoder = Decoder(MAX_UP_BYTES)
        self._unsent = bytearray()

    def fileno(self) -> int:
        return self.sock.fileno()

    def send(self, kind: Kind, payload: bytes = b"") -> None:
        """Queue a frame and send what can be sent."""
        self._unsent += encode(kind, payload)
        self.flush()

    def flush(self) -> None:
        """Send what can be sent. A closed other end is noticed by `receive` and by its exit, not here."""
        try:
            while self._unsent:
                del self._unsent[: self.sock.send(self._unsent)]
        except BlockingIOError:
            pass
        except OSError:
            self._unsent.clear()

    @property
    def is_flushed(self) -> bool:
        return not self._unsent

    def receive(self) -> list[tuple[Kind, Note]] | None:
        """What arrived; None when the other end is gone. Raises: FrameError."""
        try:
            received = self.sock.recv(1 << 16)
        except BlockingIOError:
            return []
        except OSError:
            return None
        if not received:
            return None
        return [(kind, decode_note(payload)) for kind, payload in self._decoder.feed(received)]

    def close(self) -> None:
        self.sock.close()
