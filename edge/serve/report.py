"""Lines on stderr for the operator. Decisions about requests never go here; they are in the access log.

Two lines are promised word by word in the plain format, because programs wait for them: the `ready …` line, and one line
per fault in `file:line:column: rule: message; remedy`. With `--log-format json` every line is one JSON object.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from enum import Enum
from typing import Any

import structlog

from edge.errors import Fault


class LogFormat(Enum):
    """How stderr is written."""

    PLAIN = "plain"
    JSON = "json"


class Report:
    """One line at a time, each in one write, so that lines of several processes never mix."""

    def __init__(self, process: str, log_format: LogFormat = LogFormat.PLAIN) -> None:
        self.log_format = log_format
        self._process = process
        last: Any = structlog.processors.JSONRenderer() if log_format is LogFormat.JSON else _plain
        self._log = structlog.wrap_logger(
            structlog.WriteLogger(sys.stderr),
            processors=[
                structlog.processors.add_log_level,
                structlog.processors.TimeStamper(fmt="iso", utc=True),
                last,
            ],
            wrapper_class=structlog.BoundLogger,
            process=process,
        )

    def of(self, process: str) -> Report:
        """The same format for a child."""
        return Report(process, self.log_format)

    def info(self, event: str, **facts: object) -> None:
        self._log.info(event, **facts)

    def warning(self, event: str, **facts: object) -> None:
        self._log.warning(event, **facts)

    def error(self, event: str, **facts: object) -> None:
        self._log.error(event, **facts)

    def ready(self, addresses: Mapping[str, str]) -> None:
        """The line that says: requests are decided and recorded from now on."""
        if self.log_format is LogFormat.JSON:
            self._log.info("ready", **addresses)
        else:
            self._write(" ".join(["ready", *(f"{name}={address}" for name, address in addresses.items())]))

    def faults(self, faults: Iterable[Fault | str]) -> None:
        """One line each."""
        for fault in faults:
            if self.log_format is LogFormat.JSON:
                self._log.error("fault", text=str(fault))
            else:
                self._write(str(fault))

    @staticmethod
    def _write(line: str) -> None:
        sys.stderr.write(line + "\n")
        sys.stderr.flush()


def _plain(_logger: object, level: str, event: Mapping[str, Any]) -> str:
    """`edge supervisor warning: worker ended; starting another (pid=7, cause=SIGKILL)`."""
    shown = ", ".join(
        f"{key}={_one_line(value)}"
        for key, value in event.items()
        if key not in ("event", "level", "timestamp", "process")
    )
    head = f"edge {event['process']} {level}: {_one_line(event['event'])}"
    return f"{head} ({shown})" if shown else head


def _one_line(value: object) -> str:
    """No control characters: a name from a file must not be able to write a line of its own."""
    return "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in str(value))
