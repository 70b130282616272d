"""What an exchange and its shell share: the `Downstream` a shell offers, and the long-lived objects behind every request."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Protocol

from edge.accept.shed import Shed
from edge.forward.endpoint import Endpoint
from edge.forward.fields import request_head
from edge.forward.io_pool import Pinned
from edge.model.decision import Admission, Need
from edge.model.http import RawField, Request
from edge.model.identity import Peer, Principal
from edge.model.record import UpstreamFacts
from edge.model.route import RouteMatch, Upstream
from edge.observe import Observer
from edge.respond.problem import Problem


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


def tell(downstream: Downstream, problem: Problem, fields: list[RawField], *, is_head: bool) -> None:
    """A problem document, whole; to HEAD its head."""
    downstream.send_head(problem.row.status, fields, len(problem.body), has_body=not is_head)
    if not is_head:
        downstream.send_body(problem.body)
    downstream.send_end()


class Records(Protocol):
    """What an account asks of the log; `audit.recorder.Recorder` says what each call means.

    A gateway's is the signed access log. A sidecar's (`serve/attach_log`) is none: the gateway before it has recorded the
    request, and what is left to tell is who was turned away and what the service behind it did not answer."""

    @property
    def room(self) -> tuple[int, int]:
        """How many requests can still be recorded beside those under way, and how many in all."""

    def next_id(self) -> str: ...

    def admit(
        self,
        decision_id: str,
        request: Request,
        peer: Peer,
        admission: Admission,
        bundle_hash: str,
        started_ns: int,
    ) -> int: ...

    def synced(self, slot: int) -> Need | None: ...

    def complete(
        self,
        slot: int,
        *,
        status: int,
        reason: str | None,
        bytes_in: int,
        bytes_out: int,
        duration_ns: int,
        upstream: UpstreamFacts | None,
        rule: str | None = None,
        close_code: int | None = None,
    ) -> int: ...

    def refuse(
        self,
        decision_id: str,
        request: Request | None,
        peer: Peer,
        *,
        principal: Principal | None,
        match: RouteMatch | None,
        status: int,
        reason: str,
        rule: str,
        bundle_hash: str,
        started_ns: int,
        duration_ns: int,
        policies: tuple[str, ...] = (),
        bytes_in: int = 0,
        bytes_out: int = 0,
    ) -> int | None: ...

    def acked(self, completion: int | None) -> Need | None: ...


class Upstreams(Protocol):
    """Connections to upstreams, as an exchange asks for them; `forward.io_pool.Pool` says what each call means.

    A gateway's are pinned to an identity. A sidecar's (`forward/io_plain`) lead to the one service on its own machine."""

    def addresses(self, found: RouteMatch) -> tuple[Endpoint, ...]: ...

    def acquire(self, endpoint: Endpoint) -> Pinned | None: ...

    async def dial(self, upstream: Upstream, addresses: tuple[Endpoint, ...]) -> Pinned: ...

    def release(self, pinned: Pinned) -> None: ...

    def prove_again(self, pinned: Pinned) -> None: ...


HeadOf = Callable[[Admission, Request, Peer, str, bytes], bytes]
"""(admission, request, peer, decision id, 48 random hexadecimal digits) → the head that the upstream gets."""


@dataclass(frozen=True, slots=True, eq=False)
class Shared:
    """What outlives a reload, of any process that walks the line; a gateway's worker has more (`assemble.WorkerShared`).
    Built in a composition root, closed in reverse order. Owner: the process; one loop, no locks."""

    loop: asyncio.AbstractEventLoop
    recorder: Records
    pool: Upstreams
    shed: Shed
    observer: Observer
    tasks: set[asyncio.Task[None]]
    """Every task that walks a Need; nobody else may drop them."""
    report: Callable[[BaseException], None]
    """Tells the operator about an exception that nobody expected: type and place, never a value."""
    head: HeadOf = field(default=request_head, kw_only=True)
    """A gateway rebuilds it from what its policy saw; a sidecar passes on what its gateway said (`forward/passed`)."""

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Begin what has to be awaited; it is cancelled when the worker closes."""
        task = self.loop.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task
