"""Where the access log of a gateway lies, and how its notary keeps it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edge.audit.record import AuditSettings
from pki.tlog.io_log import head_copy_of


@dataclass(frozen=True, slots=True)
class NotarySettings:
    """Where the log lies and how it is kept."""

    directory: Path
    head_copy: Path
    """Second place of the last signed head; not in `directory`."""
    key_file: Path
    origin: str
    is_strict: bool
    checkpoint_every_s: float
    reserve_bytes: int

    @classmethod
    def of(cls, state: Path, settings: AuditSettings) -> NotarySettings:
        """The places under the state directory."""
        directory = state / "log"
        return cls(
            directory,
            head_copy_of(directory),
            directory / "signer.key",
            settings.origin,
            settings.is_strict,
            settings.checkpoint_every_s,
            settings.reserve_bytes,
        )
