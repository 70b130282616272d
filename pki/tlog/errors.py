"""What a transparency log can refuse, all below `pki.errors.LogError`.

LogError
├── NoteMalformed        bytes are not a signed note, key or checkpoint in the one accepted spelling
├── NoteUnverified       a well-formed note without a good signature of a known key
├── ProofInvalid         a proof does not lead from the leaf, or the older tree, to the signed root
├── TileMalformed        a tile, entry bundle or entry has an impossible length
├── LogInconsistent      the log on disk contradicts what was signed: edited, truncated, rolled back or forked
├── LogUnreadable        a file of the log is there and cannot be read
├── LogLocked            another process is writing this log
└── LogUnwritable        an entry or a head could not be written; nothing was acknowledged
"""

from __future__ import annotations

from pki.errors import LogError


class NoteMalformed(LogError):
    """The bytes are not a note, key, checkpoint or proof in the one spelling that is accepted."""


class NoteUnverified(LogError):
    """The note is well formed, and no known key vouches for it (or a known key's signature is wrong)."""


class ProofInvalid(LogError):
    """The hashes do not lead to the root; whatever they were to prove is not proven."""


class TileMalformed(LogError):
    """A tile, an entry bundle or an entry does not have the length its place demands."""


class LogInconsistent(LogError):
    """What is on disk contradicts a signed head. `kind` is one of `edit truncation rollback fork missing`."""

    def __init__(self, kind: str, detail: str) -> None:
        self.kind = kind
        self.detail = detail
        super().__init__(f"{kind}: {detail}")


class LogUnreadable(LogError):
    """A file of the log exists and the system does not let us read it."""


class LogLocked(LogError):
    """Another process holds the log's lock; a log has one writer."""


class LogUnwritable(LogError):
    """The disk refused. After a failed sync the writer stays closed to further use: what the disk holds is unknown."""
