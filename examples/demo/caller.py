"""Asks the gateway over TLS, and keeps count: the log must hold exactly one leaf for each request made here."""

from __future__ import annotations

import http.client
import json
import ssl
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

HOST = "localhost"
PATIENCE_S = 10.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back."""

    status: int
    fields: Mapping[str, str]
    """By lower-case name."""
    body: bytes

    @property
    def decision_id(self) -> str:
        return self.fields["x-request-id"]

    @property
    def reason(self) -> str | None:
        """Of a problem document (RFC 9457), the last segment of its type."""
        if self.fields.get("content-type") != "application/problem+json":
            return None
        return str(json.loads(self.body)["type"]).rpartition("/")[2]

    @property
    def seen(self) -> Mapping[str, Any]:
        """What the service says it saw."""
        found: Mapping[str, Any] = json.loads(self.body)
        return found


class Journal:
    """Every request the demo made: decision id → status. Written to by several threads, under `_lock`."""

    def __init__(self, *, verbose: bool) -> None:
        self.answers: dict[str, int] = {}
        self.lost = 0
        """Requests that got no answer, because whoever had them was killed."""
        self._lock = threading.Lock()
        self._is_verbose = verbose

    def note(self, method: str, path: str, answer: Answer) -> None:
        with self._lock:
            self.answers[answer.decision_id] = answer.status
        if self._is_verbose:
            print(f"     {method} {path} → {answer.status} {answer.reason or ''} [{answer.decision_id}]", flush=True)

    def note_lost(self) -> None:
        with self._lock:
            self.lost += 1


class Connection:
    """One keep-alive connection to the public listener. It never connects again by itself: a dropped one is noticed."""

    def __init__(self, port: int, context: ssl.SSLContext, journal: Journal) -> None:
        self._journal = journal
        self._http = http.client.HTTPSConnection(HOST, port, timeout=PATIENCE_S, context=context)
        self._http.connect()
        self._http.auto_open = 0

    def __enter__(self) -> Connection:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def ask(self, method: str, path: str, token: str | None = None, *, body: bytes = b"", **fields: str) -> Answer:
        """One request and its answer. `fields` by name with `_` for `-`."""
        headers = {name.replace("_", "-"): value for name, value in fields.items()}
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        self._http.request(method, path, body or None, headers)
        response = self._http.getresponse()
        found = {name.lower(): value for name, value in response.getheaders()}
        answer = Answer(response.status, found, response.read())
        self._journal.note(method, path, answer)
        return answer


class Caller:
    """Somebody outside, who knows the gateway's root certificate."""

    def __init__(self, port: int, anchors: Path, journal: Journal) -> None:
        self.port = port
        self.journal = journal
        self._context = ssl.create_default_context(cafile=anchors)

    def connect(self) -> Connection:
        return Connection(self.port, self._context, self.journal)

    def ask(self, method: str, path: str, token: str | None = None, *, body: bytes = b"", **fields: str) -> Answer:
        """One request over a connection of its own."""
        with self.connect() as connection:
            return connection.ask(method, path, token, body=body, **fields)


class Steady:
    """One caller who asks the same thing again and again over one connection, until told to stop. One that `reconnects` takes
    the loss of it, and of the request it had sent."""

    PAUSE_S = 0.01

    def __init__(self, caller: Caller, path: str, token: str, *, reconnects: bool = False) -> None:
        self.statuses: list[int] = []
        self.failure: str | None = None
        self._caller = caller
        self._reconnects = reconnects
        self._connection = caller.connect()
        self._path, self._token = path, token
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Steady:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                self._ask()
                time.sleep(self.PAUSE_S)
        except (OSError, http.client.HTTPException) as exc:
            self.failure = f"{type(exc).__name__}: {exc}"
        finally:
            self._connection.close()

    def _ask(self) -> None:
        try:
            self.statuses.append(self._connection.ask("GET", self._path, self._token).status)
        except (OSError, http.client.HTTPException):
            if not self._reconnects:
                raise
            self._caller.journal.note_lost()
            self._connection.close()
            self._connection = self._caller.connect()
