"""Lines on stderr for the operator. Decisions about requests never go here; they are in the access log.

Two lines are promised word by word in the plain format, because programs wait for them: the `ready …` line, and one line
per fault in `file:line:column: rule: message; remedy`. With `--log-format json` every line is one JSON object.

No secret gets in, by three rules. Facts have names from a closed list and are text or numbers; any other object is shown as
its type. What looks like a key, a token or a password is masked, whoever wrote it. Exceptions that nobody expected, and
what libraries log, are shown by type and place only, since their words may quote a value.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Iterable, Mapping, MutableMapping
from enum import Enum
from pathlib import Path
from typing import Any

import structlog

from edge.errors import Fault

FACTS = frozenset(
    ["bundle_hash", "cause", "count", "directory", "faults", "kind", "log", "logger", "pid", "restarted", "text",
     "wait_s", "where", "work", "writer", "public", "services", "enrol", "admin", "cut", "entries", "file", "number",
     "remedy", "attach", "address", "identity", "service", "instance", "status", "reason", "rule", "request"]
)  # fmt: skip
"""Every name a fact may have."""
_MAX_CHARS = 2000
_SECRETS = (
    (re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(-----END [A-Z ]*PRIVATE KEY-----|$)", re.S), "[key]"),
    (re.compile(r"\beyJ[A-Za-z0-9_-]{8,}(\.[A-Za-z0-9_-]*){1,4}"), "[token]"),
    (re.compile(r"\b(bearer|basic|dpop)\s+[A-Za-z0-9._~+/=-]{8,}", re.I), r"\1 [credential]"),
    (re.compile(r"(://)[^/@\s]+@"), r"\1[credential]@"),
    (re.compile(r"\b(password|passphrase|secret)(\s*[=:]\s*)\S+", re.I), r"\1\2[hidden]"),
)
_PLACES = 6


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
                _without_secrets,
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

    def unexpected(self, error: BaseException) -> None:
        """A bug: its type, and where, innermost place first."""
        places, trace = [], error.__traceback__
        while trace is not None:
            places.append(f"{_short(trace.tb_frame.f_code.co_filename)}:{trace.tb_lineno}")
            trace = trace.tb_next
        self.error("internal error", cause=type(error).__name__, where=" < ".join(places[: -_PLACES - 1 : -1]))

    def adopt_logging(self) -> None:
        """What libraries log comes out here, from this process on."""
        logging.captureWarnings(capture=True)
        logging.root.handlers = [_Libraries(self)]
        logging.root.setLevel(logging.WARNING)

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
                self._write(mask(str(fault)))

    @staticmethod
    def _write(line: str) -> None:
        sys.stderr.write(line + "\n")
        sys.stderr.flush()


class _Libraries(logging.Handler):
    """A library's record as a line of ours, without its words."""

    def __init__(self, report: Report) -> None:
        super().__init__()
        self._report = report

    def emit(self, record: logging.LogRecord) -> None:
        where = f"{_short(record.pathname)}:{record.lineno}"
        cause = record.exc_info[0].__name__ if record.exc_info and record.exc_info[0] else record.levelname.lower()
        self._report.warning("a library complains", logger=record.name, where=where, cause=cause)


def _short(path: str) -> str:
    return "/".join(Path(path).parts[-3:])


def mask(text: str) -> str:
    """The text without what looks like a secret, and not longer than a line should be."""
    for pattern, instead in _SECRETS:
        text = pattern.sub(instead, text)
    return text if len(text) <= _MAX_CHARS else f"{text[:_MAX_CHARS]}…"


def _without_secrets(_logger: object, _level: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    shown: dict[str, Any] = {}
    for key, value in event.items():
        if key not in FACTS and key not in ("event", "process"):
            shown[key] = "[not a listed fact]"
        elif value is None or isinstance(value, bool | int | float):
            shown[key] = value
        else:
            known = isinstance(value, str | Path)
            shown[key] = mask(str(value)) if known else type(value).__name__
    return shown


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
