"""What an operator may ask of a running gateway over `control.sock`, or by a signal.

status           how things stand
reload           read the files again                                      SIGHUP
ca               ask the authority (`pki.desk`), which this supervisor only passes on
reload-workers   read the files again, then replace the worker processes   SIGUSR2
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import msgspec

from edge.serve.ca_link import CaLink
from edge.serve.control_socket import Answer, Command, Reply
from edge.serve.report import Report
from edge.serve.rolling import Rolling
from edge.serve.status import Status
from pki import desk


class Reloads(Protocol):
    """What a command asks of the reloads (`reload.Reload`)."""

    def request(self, reply: Reply) -> None: ...


class Commands:
    """The commands of one supervisor."""

    def __init__(
        self,
        reloads: Reloads,
        rolling: Rolling,
        ca: CaLink | None,
        report: Report,
        status: Callable[[], Status],
    ) -> None:
        self._reloads = reloads
        self._rolling = rolling
        self._ca = ca
        self._report = report
        self._status = status

    def handle(self, command: Command, reply: Reply) -> None:
        """Answer once, now or later."""
        match command.command:
            case "ca":
                self._ask_ca(bytes(command.ca), reply)
            case "status":
                reply(Answer(ok=True, status=self._status()))
            case "reload":
                self._reloads.request(reply)
            case "reload-workers":
                self.restart_workers(reply)
            case _:
                reply(Answer(ok=False, faults=(f"control: unknown command {command.command[:40]!r}",)))

    def _ask_ca(self, request: bytes, reply: Reply) -> None:
        if self._ca is None or not self._ca.is_open:
            because = "this gateway hosts none" if self._ca is None else self._ca.closed_because
            reply(Answer(ok=False, faults=(f"ca: not open here: {because}",)))
        else:
            self._ca.ask(request, lambda said: reply(Answer(ok=True, ca=msgspec.Raw(desk.encode(said)))))

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
