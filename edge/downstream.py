"""What an exchange and its shell share: the `Downstream` a shell offers, and the long-lived objects behind every request."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Protocol

from edge.accept.shed import Shed
from edge.audit.recorder import Recorder
from edge.forward.io_pool import Pool
from edge.limit.io_store import LeaseStore
from edge.model.http import RawField
from edge.observe import Observer
from edge.registry.roster import Roster
from pki.io_issuance import IssuanceRecord
from pki.known_status import KnownStatus


class Downstream(Protocol):
    """What the exchange asks of its shell. Every call is one-way; nothing is returned, nothing raises."""

    def send_head(self, status: int, fields: list[RawField], content_length: int | None, *, has_body: bool) -> None: ...

    def send_body(self, body: bytes) -> None: ...

    def send_end(self) -> None:
        """The answer is complete; the shell may go on to the next request."""

    def flush(self) -> None: ...

    def send_continue(self) -> None:
        """The client waits for a go-ahead before it sends the body (RFC 9110 §10.1.1)."""

    def pause_body(self, *, is_paused: bool) -> None: ...

    def cut(self) -> None:
        """The answer cannot be completed: end the connection so that the client notices."""

    def must_close(self) -> None:
        """Whatever comes after this answer cannot be trusted to be a request."""


@dataclass(frozen=True, slots=True, eq=False)
class Shared:
    """What outlives a reload. Built in assemble, closed in reverse order. Owner: the worker; one loop, no locks."""

    loop: asyncio.AbstractEventLoop
    recorder: Recorder
    pool: Pool
    roster: Roster
    """Registered instances, for the pool to join with those of the files. Filled by who reads the shared registry."""
    status: KnownStatus
    """What is revoked, as the authority says it. Filled by `serve/revocations.py`."""
    issuances: IssuanceRecord
    """What our CA handed out."""
    store: LeaseStore
    shed: Shed
    observer: Observer
    tasks: set[asyncio.Task[None]]
    """Every task that walks a Need; nobody else may drop them."""
    report: Callable[[BaseException], None]
    """Tells the operator about an exception that nobody expected: type and place, never a value."""

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Begin what has to be awaited; it is cancelled when the worker closes."""
        task = self.loop.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task
