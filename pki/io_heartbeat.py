"""The heartbeat goes on whatever the authority's holder is busy with: a thread of his that says it every two seconds.

An issuance takes a dozen syncs of the disk, a stage of a rotation a hundred. Where others keep the disk busy each may take a
tenth of a second, and gateways that hear nothing for ten seconds believe nobody any more (`revocation`). Laws:

- It says what was published last, and only where a heartbeat was said before: gateways go on waiting for what they heard
  once, so who holds the authority for a moment must not be the first to say it.
- It speaks for a holder who works, not for one who hangs: who has not come round for half a minute is not spoken for.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from types import TracebackType

from pki.errors import PkiError
from pki.io_status import Publisher
from pki.revocation import HEARTBEAT_S

_PATIENCE_S = 30.0


class Heartbeats:
    """From `with` or `start` to its end. Owner: who holds the authority; ended before the authority is closed."""

    def __init__(self, publisher: Publisher, *, every_s: float = HEARTBEAT_S, patience_s: float = _PATIENCE_S) -> None:
        self._publisher = publisher
        self._every_s = every_s
        self._patience_s = patience_s
        self._came_round_s = time.monotonic()
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def come_round(self) -> None:
        """The holder is alive."""
        self._came_round_s = time.monotonic()

    def end(self) -> None:
        self._is_over.set()
        self._thread.join()

    def __enter__(self) -> Heartbeats:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.end()

    def _run(self) -> None:
        say: Callable[[datetime], object] = self._publisher.beat_again
        while not self._is_over.wait(self._every_s):
            if time.monotonic() - self._came_round_s < self._patience_s:
                try:
                    say(datetime.now(UTC))
                except (PkiError, OSError):
                    continue  # the holder meets the same, and says so
