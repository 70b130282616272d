"""A process that the supervisor keeps running and hears by bytes in a pipe. It has no state: it may be killed at any time."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

from edge.serve.children import Backoff, Exit, Nursery
from edge.serve.reactor import READ, Reactor
from edge.serve.report import Report

_IGNORED = (signal.SIGTERM, signal.SIGINT)


class Kept:
    """At most one such process at a time; whoever ends has a successor."""

    def __init__(
        self,
        reactor: Reactor,
        nursery: Nursery,
        report: Report,
        name: str,
        body: Callable[[int], Callable[[], int]],
        on_bytes: Callable[[], None],
    ) -> None:
        """`body`: called before each start with the pipe's end to write into, which does not block; gives what the process
        does. `on_bytes`: something was written."""
        self._reactor = reactor
        self._nursery = nursery
        self._report = report
        self._name = name
        self._body = body
        self._on_bytes = on_bytes
        self._backoff = Backoff()
        self._pid: int | None = None
        self._is_renewed = self._is_stopping = False
        self._pipe, self._write_end = os.pipe()
        os.set_blocking(self._pipe, False)
        os.set_blocking(self._write_end, False)
        reactor.watch(self._pipe, READ, self._heard)

    def start(self) -> None:
        """Start it, unless it runs."""
        if self._is_stopping or self._pid is not None:
            return
        body = self._body(self._write_end)
        self._pid = self._nursery.start(
            f"edge-{self._name}", body, self._ended, keep=(self._write_end,), ignore=_IGNORED
        )

    def renew(self) -> None:
        """Have what `body` gives now take its place."""
        if self._pid is None:
            self.start()
        else:
            self._is_renewed = True
            self._nursery.kill(self._pid)

    def _ended(self, ended: Exit, lived_s: float) -> None:
        self._pid = None
        if self._is_stopping:
            return
        wait_s = self._backoff.next_wait_s(lived_s)
        if not self._is_renewed:
            self._report.warning(f"{self._name} ended; starting another", cause=str(ended), wait_s=wait_s)
        self._is_renewed = False
        self._reactor.after(wait_s, self.start)

    def _heard(self, _events: int) -> None:
        try:
            os.read(self._pipe, 4096)
        except BlockingIOError:
            return
        if not self._is_stopping:
            self._on_bytes()

    def stop(self) -> None:
        """Kill it; `is_stopped` tells when."""
        self._is_stopping = True
        if self._pid is not None:
            self._nursery.kill(self._pid)
        self._reactor.forget(self._pipe)
        os.close(self._pipe)
        os.close(self._write_end)

    @property
    def is_stopped(self) -> bool:
        return self._pid is None
