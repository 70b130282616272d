"""The bundle as it is on disk now: authorities are rotated while services run, and nobody restarts for it.

Looked at no more than once a second, and read when the file is another one. What cannot be used changes nothing: the last
good bundle stays, and the log says so once.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from os import PathLike
from pathlib import Path

from edge.verify.rules import BadSettings
from edge.verify.verifier import Settings, Verifier
from pki.bundle import Bundle
from pki.errors import BundleError

LOOK_EVERY_S = 1.0
_MAX_BYTES = 1 << 20

_log = logging.getLogger("edge.verify")


class Watched:
    """Gives the verifier of today. Threads may share it: a reference is swapped, and two that look at once do the same."""

    def __init__(
        self, settings: Settings, bundle: str | PathLike[str], clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Raises: BadSettings, also when the bundle cannot be used."""
        self._settings = settings
        self._path = Path(bundle)
        self._clock = clock
        self._looked_s = clock()
        try:
            self._seen = self._stamp()
            self._verifier = self._read()
        except (OSError, BundleError) as exc:
            raise BadSettings(f"bundle {self._path}: {exc}") from exc

    def verifier(self) -> Verifier:
        """Never raises."""
        now_s = self._clock()
        if now_s - self._looked_s >= LOOK_EVERY_S:
            self._looked_s = now_s
            self._look()
        return self._verifier

    def _look(self) -> None:
        seen: tuple[int, ...] = ()
        try:
            seen = self._stamp()
            if seen != self._seen:
                self._verifier = self._read()
        except (OSError, BundleError, BadSettings) as exc:
            if seen != self._seen:
                _log.error("bundle %s cannot be used, the last good one stays: %s", self._path, exc)
        self._seen = seen

    def _stamp(self) -> tuple[int, ...]:
        status = self._path.stat()
        return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns

    def _read(self) -> Verifier:
        with self._path.open("rb") as file:
            pem = file.read(_MAX_BYTES + 1)
        return Verifier(self._settings, Bundle.parse(pem))
