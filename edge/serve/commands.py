"""What an operator may ask of a running gateway over `control.sock`, or by a signal.

status           how things stand
reload           read the files again                                      SIGHUP
reload-workers   read the files again, then replace the worker processes   SIGUSR2
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import msgspec

from edge.serve.control_socket import Answer, Reply
from edge.serve.report import Report
from edge.serve.rolling import Rolling
from edge.serve.status import Status


class Reloads(Protocol):
    """What a command asks of the reloads (`reload.Reload`)."""

    def request(self, reply: Reply) -> None: ...


class Commands:
    """The commands of one supervisor."""

    def __init__(self, reloads: Reloads, rolling: Rolling, report: Report, status: Callable[[], Status]) -> None:
        self._reloads = reloads
        self._rolling = rolling
        self._report = report
        self._status = status

    def handle(self, command: str, reply: Reply) -> None:
        """Answer once, now or later."""
        match command:
            case "status":
                reply(Answer(ok=True, status=self._status()))
            case "reload":
                self._reloads.request(reply)
            case "reload-workers":
                self.restart_workers(reply)
            case _:
                reply(Answer(ok=False, faults=(f"control: unknown command {command[:40]!r}",)))

    def restart_workers(self, reply: Reply = lambda _: None) -> None:
        """Files first: processes that start with what is wrong would not be the successors anybody asked for."""
        self._reloads.request(lambda answer: self._reloaded(answer, reply))

    def _reloaded(self, answer: Answer, reply: Reply) -> None:
        if answer.ok:
            self._rolling.request(lambda failure: self._restarted(answer, failure, reply))
        else:
            reply(answer)

    def _restarted(self, answer: Answer, failure: str | None, reply: Reply) -> None:
        if failure is None:
            self._report.info("workers restarted", restarted=self._rolling.count)
            reply(msgspec.structs.replace(answer, restarted=self._rolling.count))
        else:
            self._report.error("workers not restarted", cause=failure)
            reply(msgspec.structs.replace(answer, ok=False, faults=(f"workers: {failure}",)))
