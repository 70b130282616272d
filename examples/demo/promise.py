"""What was promised, whether it held, and how long that took: one line each.

✓ 1.2  no token → 401 credential-missing, with a challenge  (3 ms)
✗ 1.3  …
       status: expected 401, got 200
"""

from __future__ import annotations

import http.client
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager


class Broken(Exception):
    """Something that was promised did not happen."""


def expect(what: str, actual: object, wanted: object) -> None:
    """Raises: Broken when the two differ."""
    if actual != wanted:
        raise Broken(f"{what}: expected {wanted!r}, got {actual!r}")


def require(what: str, holds: bool) -> None:
    """Raises: Broken when it does not hold; `what` says what was required."""
    if not holds:
        raise Broken(f"required, and not so: {what}")


class Promises:
    """Prints each promise as it is kept or broken, and remembers whether one was broken."""

    def __init__(self) -> None:
        self.kept = 0
        self.broken = 0
        self._chapter = 0
        self._line = 0

    def chapter(self, title: str) -> None:
        """The promises that follow belong together."""
        self._chapter += 1
        self._line = 0
        print(f"\n{self._chapter}  {title}", flush=True)

    @contextmanager
    def promise(self, text: str) -> Iterator[list[str]]:
        """One promise. What the block adds to the list is shown behind the text: facts found on the way.

        A promise that breaks does not end the demo: the others are shown too.
        """
        self._line += 1
        facts: list[str] = []
        began = time.monotonic()
        flaw = None
        try:
            yield facts
        except (Broken, OSError, http.client.HTTPException, subprocess.SubprocessError, ValueError) as exc:
            flaw = str(exc) or type(exc).__name__
        took = _duration(time.monotonic() - began)
        shown = "; ".join([text, *facts])
        print(f"{'✓' if flaw is None else '✗'} {self._chapter}.{self._line}  {shown}  ({took})", flush=True)
        if flaw is None:
            self.kept += 1
        else:
            self.broken += 1
            print("".join(f"       {line}\n" for line in flaw.splitlines()), end="", flush=True)


def _duration(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds >= 1 else f"{seconds * 1000:.0f} ms"
