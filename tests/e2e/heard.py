"""What a process says on standard error, as it says it."""

from __future__ import annotations

import re
import threading

from tests.e2e.forked import Process


class Heard:
    """Line by line, read by a thread of its own until the process closes it."""

    def __init__(self, process: Process) -> None:
        self.lines: list[str] = []
        self._process, self._is_over = process, False
        self._heard = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            with self._heard:
                self.lines.append(line.rstrip("\n"))
                self._heard.notify_all()
        with self._heard:
            self._is_over = True
            self._heard.notify_all()

    def line(self, pattern: str, within_s: float) -> str:
        """The first that matches, now or soon; none comes after the end."""

        def found() -> str | None:
            return next((line for line in self.lines if re.search(pattern, line)), None)

        with self._heard:
            self._heard.wait_for(lambda: found() is not None or self._is_over, within_s)
        line = found()
        assert line is not None, f"no line {pattern!r} in {self.lines}"
        return line

    def close(self) -> None:
        """Once the process has ended."""
        self._reader.join(5)
        assert self._process.stderr is not None
        self._process.stderr.close()
