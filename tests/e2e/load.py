"""Callers that ask without end, and remember each answer by the id it carries."""

from __future__ import annotations

import http.client
import threading
import time
from dataclasses import dataclass

from tests.e2e.whole_gateway import Gateway


@dataclass(frozen=True)
class Call:
    """One answered request."""

    began_s: float
    ended_s: float
    decision: str
    status: int
    body: str


class Load:
    """Each caller has a connection of its own, and pauses between two requests."""

    def __init__(self, gateway: Gateway, callers: int = 4, *, pause_s: float = 0) -> None:
        self.calls: list[Call] = []
        self.failures: list[str] = []
        self._gateway = gateway
        self._pause_s = pause_s
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._call, daemon=True) for _ in range(callers)]
        for thread in self._threads:
            thread.start()

    def _call(self) -> None:
        connection = self._gateway.connect(5)
        while not self._stop.wait(self._pause_s):
            began_s = time.monotonic()
            try:
                connection.request("GET", "/orders/7")
                answer = connection.getresponse()
                body = answer.read().decode()
                decision = answer.headers["x-request-id"]
            except (OSError, http.client.HTTPException) as exc:
                connection.close()
                self.failures.append(repr(exc))
                continue
            self.calls.append(Call(began_s, time.monotonic(), decision, answer.status, body))
        connection.close()

    def count(self, status: int) -> int:
        return sum(call.status == status for call in list(self.calls))

    def end(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(10)
