"""Callers that ask without end, and remember each answer by the id it carries."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from tests.wire.h2_client import Fields
from tests.wire.rig import Listening
from tests.wire.speaker import LOST, Http1Speaker, Speaker


@dataclass(frozen=True)
class Call:
    """One answered request."""

    began_s: float
    ended_s: float
    decision: str
    status: int
    body: bytes


class Load:
    """Each caller has a connection of its own, or one for each request, and pauses between two requests."""

    def __init__(
        self,
        gateway: Listening,
        callers: int = 4,
        *,
        pause_s: float = 0,
        every_s: float = 0,
        speaks: Callable[[Listening], Speaker] = Http1Speaker,
        fields: Fields = (),
        keeps: bool = True,
    ) -> None:
        """`keeps`: one connection for all requests. `pause_s`: after an answer. `every_s`: from the beginning of a request to
        that of the next."""
        self.calls: list[Call] = []
        self.failures: list[str] = []
        self._gateway = gateway
        self._pause_s = pause_s
        self._every_s = every_s
        self._speaks = speaks
        self._fields = fields
        self._keeps = keeps
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._call, daemon=True) for _ in range(callers)]
        for thread in self._threads:
            thread.start()

    def _call(self) -> None:
        speaker = self._speaks(self._gateway)
        next_s = time.monotonic()
        while not self._stop.wait(max(self._pause_s, next_s - time.monotonic())):
            began_s = time.monotonic()
            next_s = max(next_s + self._every_s, began_s)
            try:
                answer = speaker.ask(fields=self._fields)
            except LOST as exc:
                self.failures.append(repr(exc))
                continue
            decision = answer.fields["x-request-id"]
            self.calls.append(Call(began_s, time.monotonic(), decision, answer.status, answer.body))
            if not self._keeps:
                speaker.close()
        speaker.close()

    def count(self, status: int) -> int:
        return sum(call.status == status for call in list(self.calls))

    def end(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(10)
