"""The offline proof that an entry is in a log (C2SP tlog-proof), one file, by convention `NAME.tlog-proof`.

c2sp.org/tlog-proof@v1
extra YWdl…                     optional, opaque, **not authenticated**
index 73894
gSKyXoYZUgZ6jduWYrkDOARinOMGJveXjgMkBTcdPlQ=      the audit path, leaf's sibling first
…

<signed checkpoint, verbatim>
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass

from pki.tlog import checkpoint, merkle, note
from pki.tlog.errors import NoteMalformed

HEADER = "c2sp.org/tlog-proof@v1"
MAX_LINE_CHARS = 1 << 16
MAX_PROOF_BYTES = 4 << 20
_INDEX = re.compile(r"index (0|[1-9][0-9]{0,18})")
_MAX_HASHES = 63  # the depth of the largest tree a checkpoint can name


@dataclass(frozen=True, slots=True)
class TlogProof:
    """What the file says; `verify` decides whether it is true."""

    index: int
    hashes: tuple[bytes, ...]
    raw_checkpoint: bytes
    extra: bytes | None = None

    def encode(self) -> bytes:
        """The file."""
        lines = [HEADER]
        if self.extra is not None:
            lines.append(f"extra {b64encode(self.extra).decode()}")
        lines.append(f"index {self.index}")
        lines.extend(b64encode(value).decode() for value in self.hashes)
        return "\n".join(lines).encode() + b"\n\n" + self.raw_checkpoint

    def verify(self, entry: bytes, verifier: note.Verifier) -> checkpoint.Checkpoint:
        """→ the head under which `entry` was proven to be in the log.

        Raises:
            NoteMalformed, NoteUnverified: the checkpoint is not the log's.
            ProofInvalid: the entry is not at this index of the tree.
        """
        head = checkpoint.verify(self.raw_checkpoint, verifier)
        merkle.verify_inclusion(self.index, head.size, merkle.leaf_hash(entry), self.hashes, head.root)
        return head


def parse(raw: bytes) -> TlogProof:
    """Read a proof file; nothing in it is verified yet.

    Raises:
        NoteMalformed: not a proof in its one spelling.
    """
    if len(raw) > MAX_PROOF_BYTES:
        raise NoteMalformed("proof is too long")
    head, blank, raw_checkpoint = raw.partition(b"\n\n")
    try:
        lines = head.decode("ascii").split("\n")
        raw_checkpoint.decode()
    except UnicodeDecodeError as exc:
        raise NoteMalformed("proof is not text") from exc
    if not blank or not raw_checkpoint.endswith(b"\n") or lines.pop(0) != HEADER:
        raise NoteMalformed(f"a proof starts with {HEADER} and holds a checkpoint after an empty line")
    if _longest(lines) > MAX_LINE_CHARS or _longest(raw_checkpoint.split(b"\n")) > MAX_LINE_CHARS:
        raise NoteMalformed("a line of the proof is too long")
    extra = None
    if lines and lines[0].startswith("extra "):
        extra = note.strict_base64(lines.pop(0)[6:])
    index = _INDEX.fullmatch(lines.pop(0)) if lines else None
    if index is None or len(lines) > _MAX_HASHES:
        raise NoteMalformed("proof has no index line, or too many hashes")
    hashes = tuple(map(note.strict_base64, lines))
    if any(len(value) != merkle.HASH_BYTES for value in hashes):
        raise NoteMalformed("a hash of the proof is not 32 bytes")
    return TlogProof(int(index[1]), hashes, raw_checkpoint, extra)


def _longest(lines: Sequence[str] | Sequence[bytes]) -> int:
    return max(map(len, lines), default=0)
