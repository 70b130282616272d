"""The signed tree head (C2SP tlog-checkpoint).

    example.com/log                                  origin: which log
    15                                               tree size
    rKbDipCvhuX1GZ7g5BBe8sA6BbJ7ja/1nk427v383cs=     root hash

    — example.com/log M9e0luh4jTG+UMBq…

No extension lines: the specification discourages them, monitors cannot audit them, so a head that has one is refused.
A `Checkpoint` exists only when its signature was verified, or was made here.
"""

from __future__ import annotations

import re
from base64 import b64encode
from dataclasses import dataclass

from pki.tlog import note
from pki.tlog.errors import NoteMalformed, NoteUnverified
from pki.tlog.merkle import HASH_BYTES

MAX_SIZE = (1 << 63) - 1
_SIZE = re.compile(r"0|[1-9][0-9]{0,18}")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A verified head: `size` leaves of the log `origin` have the root hash `root`; `raw_note` is the signed note."""

    origin: str
    size: int
    root: bytes
    raw_note: bytes


def seal(origin: str, size: int, root: bytes, signer: note.Signer) -> Checkpoint:
    """Sign a head. Who calls has made sure that it extends every head signed before."""
    text = f"{origin}\n{size}\n{b64encode(root).decode()}\n".encode()
    return Checkpoint(origin, size, root, note.sign(text, signer))


def verify(raw: bytes, verifier: note.Verifier) -> Checkpoint:
    """A head signed by `verifier`, of the log that carries the key's name (the name is the origin).

    Raises:
        NoteMalformed: not a checkpoint in its one spelling.
        NoteUnverified: not signed by this key, or of another log.
    """
    text = note.verify(raw, [verifier]).text
    origin, size, root = parse(text)
    if origin != verifier.name:
        raise NoteUnverified(f"checkpoint is of the log {origin!r}, expected {verifier.name!r}")
    return Checkpoint(origin, size, root, raw)


def parse(text: bytes) -> tuple[str, int, bytes]:
    """Origin, tree size and root hash of a note text, **unverified**.

    Raises:
        NoteMalformed: not a checkpoint in its one spelling.
    """
    try:
        lines = text.decode().split("\n")
    except UnicodeDecodeError as exc:
        raise NoteMalformed("checkpoint is not UTF-8") from exc
    if len(lines) != 4 or lines[3] or not lines[0]:
        raise NoteMalformed("a checkpoint has three lines: origin, tree size, root hash")
    origin, size, encoded_root, _ = lines
    root = note.strict_base64(encoded_root)
    if not _SIZE.fullmatch(size) or int(size) > MAX_SIZE or len(root) != HASH_BYTES:
        raise NoteMalformed("tree size or root hash is malformed")
    return origin, int(size), root
