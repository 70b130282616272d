"""One request from its canonical form to its leaf in the log: the walk that every shell shares.

A shell (HTTP/1.1, ASGI for HTTP/2) parses, makes an `Exchange`, feeds it the body and writes what comes back through
`Downstream`. The exchange walks the line, awaits what a step `Need`s, forwards, and closes the record. Laws:

- The slot in the ring is taken before the upstream is contacted, and completed exactly once, whatever happens.
- `_failed` is the one place where an unexpected exception ends; it becomes `internal` and fails closed.
- A request is sent again only as `forward/retry.py` allows it.
- `strict`: the slot is on disk before the upstream is contacted, the leaf before the last byte of the answer.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from functools import partial

from edge.account import Account, when_recorded
from edge.downstream import Downstream, Shared, tell
from edge.errors import EdgeError, PayloadTooLarge, QuotaExceeded, UpstreamError, UpstreamTimeout
from edge.forward.asgi import LocalCall, asgi_scope
from edge.forward.endpoint import Endpoint
from edge.forward.http1 import UpstreamConnection
from edge.forward.io_pool import Pinned
from edge.forward.retry import may_be_sent_again
from edge.limit.fields import exhausted_fields, ratelimit_fields
from edge.model.decision import Admission, Need
from edge.model.http import RawField, Request
from edge.model.identity import Peer
from edge.pipeline import Gateway, Walk, decide
from edge.respond.fields import outgoing
from edge.respond.problem import render, row_of
from edge.upgrade import Upgrade

_MAX_NEEDS = 12
"""Needs of one request: key set, lease and dials together; more would be a loop."""

BODY_BUFFER_BYTES = 65_536
"""What is held of a body while there is no upstream yet; then the shell stops reading."""

_random_bytes = random.Random().randbytes  # noqa: S311 - trace ids need to be unique, not secret


class Exchange:
    """One request and its answer. The shell calls `start`, `on_body`, `on_body_end`, `on_gone` and `check_deadline`."""

    # Defaults of the class, not assignments in __init__: most requests never touch most of them.
    request: Request | None = None
    upgrade: Upgrade | None = None
    """Set before `start` when a WebSocket is asked for; an answer in place of it closes the connection."""
    is_head_method = False  # of what is refused before it was a request: even then HEAD gets no body (RFC 9110 §9.3.2)
    _walk: Walk | None = None
    _admission: Admission | None = None
    _connection: UpstreamConnection | LocalCall | None = None
    _dialled: Pinned | None = None
    _task: asyncio.Task[None] | None = None
    _body: tuple[bytes, ...] = ()
    """Of the request, while there is no upstream to take it."""
    _body_ended = False
    _body_paused = False
    _answer_paused = False
    _wants_continue = False
    _status = 0  # of the answer, once its head is out
    _needs = _retries = 0
    _deadline_s = 0.0
    _is_over = False
    _is_held = False  # the answer is complete but for bytes that wait for the leaf (`strict`)

    def __init__(self, gateway: Gateway, shared: Shared, downstream: Downstream, peer: Peer) -> None:
        self._gateway = gateway
        self._shared = shared
        self.downstream = downstream
        self.peer = peer
        self._account = Account(shared, peer, gateway.bundle_hash)

    @property
    def decision_id(self) -> str:
        """What the log, the upstream and the client know this request by."""
        return self._account.decision_id

    # -- from the shell -------------------------------------------------------------------------

    def start(self, request: Request, *, wants_continue: bool = False) -> None:
        """Walk the line with a parsed request; what is there of its body may have come before (then `request` was set)."""
        self.request = request
        self._walk = Walk(request, self.peer)
        if not request.has_body:
            self._body_ended = True
        self._wants_continue = wants_continue
        self._advance()

    def on_body(self, body: bytes) -> None:
        """A piece of the request's content, unframed."""
        if self._is_over:
            return
        account = self._account
        account.bytes_in += len(body)
        match = self._walk.match if self._walk is not None else None
        if match is not None and account.bytes_in > match.route.max_body_bytes:
            self.refuse(PayloadTooLarge("body-above-route-limit"))
            return
        if self._connection is None:
            self._body = (*self._body, body)
            if not self._body_paused and account.bytes_in > BODY_BUFFER_BYTES:
                self._body_paused = True
                self.downstream.pause_body(is_paused=True)
        else:
            self._connection.send(self._framed(body), is_complete=False)

    def on_body_end(self) -> None:
        self._body_ended = True
        if self._connection is not None and not self._is_over:
            self._connection.send(b"0\r\n\r\n" if self._is_chunked else b"", is_complete=True)
            self._arm()

    def on_gone(self, error: EdgeError | None = None) -> None:
        """The downstream left, or was cut because of `error`; the upstream is told by the end of its connection."""
        if self._is_over:
            return
        if self._walk is not None:
            self._account.close(self.request, self._walk, 499, "client-gone", error)
        self._end()

    def check_deadline(self, now_s: float) -> None:
        """Called by the shell's sweep: has the upstream been silent for longer than the route allows?"""
        if self._deadline_s and now_s > self._deadline_s and not self._is_over:
            self._deadline_s = 0.0
            give_up = self._connection.fail if self._connection is not None else self.refuse
            give_up(UpstreamTimeout("answer-timeout"))

    def pause_answer(self, *, is_paused: bool) -> None:
        """The downstream cannot take more of the answer at the moment (or can again)."""
        self._answer_paused = is_paused  # also before there is an upstream: it will not be read then
        if self._connection is not None and not self._is_over:
            if is_paused:
                self._deadline_s = 0.0  # the client is slow, not the upstream
                self._connection.pause_reading()
            else:
                self._arm()
                self._connection.resume_reading()

    @property
    def is_body_complete(self) -> bool:
        return self._body_ended

    # -- the line -------------------------------------------------------------------------------

    def _advance(self) -> None:
        assert self._walk is not None
        account = self._account
        try:
            if self.upgrade is not None:
                self.upgrade.route(self._gateway, self._walk)
            if self.peer.behind is not None:
                self.peer = self._walk.peer = self._account.peer = self.peer.behind(self._walk.request.fields)
            if self._needs:  # it waited: what is decided now is decided at this moment
                step = decide(self._gateway, self._walk, time.time_ns(), time.monotonic_ns())
            else:
                step = decide(self._gateway, self._walk, account.wall_ns, account.mono_ns)
            if isinstance(step, Need):
                self._await(step, self._advance)
                return
            self._admission = step
            if account.bytes_in > step.permit.match.route.max_body_bytes:
                raise PayloadTooLarge("body-above-route-limit")
            to_disk = account.admit(self._walk.request, step)
            if to_disk is not None:
                self._await(to_disk, self._connect)
                return
        except Exception as exc:
            self._failed(exc)
            return
        self._connect()

    def _await(self, need: Need, then: Callable[[], None]) -> None:
        self._needs += 1
        if self._needs > _MAX_NEEDS:
            raise RuntimeError(f"request needs {need.what} again and again")
        self._task = self._shared.spawn(self._fetch(need, then))

    async def _fetch(self, need: Need, then: Callable[[], None]) -> None:
        try:
            await need.fetch()
        except Exception as exc:
            self._task = None
            self._failed(exc)
            return
        self._task = None
        if not self._is_over:
            then()

    # -- forward --------------------------------------------------------------------------------

    def _connect(self) -> None:
        assert self._admission is not None
        try:
            pinned, self._dialled = self._dialled, None
            if pinned is None:
                pool, found = self._shared.pool, self._admission.permit.match
                if found.route.upstream.is_local:
                    self._call(self._admission)
                    return
                addresses = pool.addresses(found)
                pinned = pool.acquire(addresses[0])
                if pinned is None:
                    self._await(Need("dial", partial(self._dial, addresses)), self._connect)
                    return
            self._send(pinned)
        except Exception as exc:
            self._failed(exc)

    async def _dial(self, addresses: tuple[Endpoint, ...]) -> None:
        assert self._admission is not None
        self._dialled = await self._shared.pool.dial(self._admission.permit.match.route.upstream, addresses)

    def _send(self, pinned: Pinned) -> None:
        assert self._admission is not None
        request = self.request
        assert request is not None
        self._account.upstream = pinned.facts
        self._connection = connection = pinned.connection
        trace_hex = _random_bytes(24).hex().encode("ascii")
        head = self._shared.head(self._admission, request, self.peer, self._account.decision_id, trace_hex)
        assertions = self._gateway.trust.assertions
        if assertions is not None:
            head = assertions.vouch(head, self._admission, request, self.decision_id, time.time_ns())
        if self.upgrade is not None:
            head = self.upgrade.ask(pinned, head, self._switched)
        is_complete = self._body_ended
        body = b"".join(map(self._framed, self._body)) if self._body else b""
        self._body = ()
        if is_complete:
            self._arm()
            if request.chunked:
                body += b"0\r\n\r\n"
        connection.start(self, head + body, is_head_method=request.method == "HEAD", is_complete=is_complete)
        if self._answer_paused:
            self.pause_answer(is_paused=True)
        if self._wants_continue or self._body_paused:
            self._let_body_come()

    def _call(self, admission: Admission) -> None:
        """The upstream is the application in this process."""
        request, application = self.request, self._gateway.application
        assert request is not None
        assert application is not None
        call = LocalCall(application, self, asgi_scope(admission, request, self.peer, self.decision_id))
        self._connection = call
        self._arm()
        body, self._body = b"".join(self._body), ()
        call.send(body, is_complete=self._body_ended)
        self._task = self._shared.spawn(self._fetch(Need("local", call.run), lambda: None))  # its end came as any's
        self._let_body_come()

    def _let_body_come(self) -> None:
        if self._wants_continue and not self._body_ended:
            self._wants_continue = False
            self.downstream.send_continue()
        if self._body_paused:
            self._body_paused = False
            self.downstream.pause_body(is_paused=False)

    @property
    def _is_chunked(self) -> bool:
        return self.request is not None and self.request.chunked and not isinstance(self._connection, LocalCall)

    def _framed(self, body: bytes) -> bytes:
        return b"%x\r\n%b\r\n" % (len(body), body) if self._is_chunked and body else body

    def _arm(self) -> None:
        """From now on it is the upstream's turn."""
        assert self._admission is not None
        self._deadline_s = self._shared.loop.time() + self._admission.permit.match.route.upstream.timeout_s

    # -- from the upstream (Receiver) -------------------------------------------------------------

    def on_upstream_head(
        self, status: int, fields: Sequence[RawField], content_length: int | None, *, has_body: bool
    ) -> None:
        assert self._admission is not None
        self._status = status
        answer = outgoing(fields, self._admission.permit.match.route)
        answer += self._gateway.security_fields
        answer.append((b"x-request-id", self._account.decision_id.encode("ascii")))
        if self._admission.quotas:
            answer += ratelimit_fields(self._admission.quotas)
        if not self._body_ended:
            self.downstream.must_close()
        self.downstream.send_head(status, answer, content_length, has_body=has_body)

    def on_upstream_body(self, body: bytes) -> None:
        self._account.bytes_out += len(body)
        self.downstream.send_body(body)

    def on_upstream_end(self) -> None:
        self._deadline_s = 0.0
        to_disk = self._account.close(self.request, self._walk, self._status, None, None)
        self._is_over = True
        self._connection = None
        if to_disk is None:
            self.downstream.send_end()
        else:
            self._is_held = True
            self._finish_when(to_disk, self.downstream.send_end)

    def on_upstream_flush(self) -> None:
        if not self._is_over:
            if self._body_ended and not self._answer_paused:
                self._arm()
        elif self._is_held:
            return  # the last bytes wait in the shell's buffer for the leaf
        self.downstream.flush()

    def _finish_when(self, to_disk: Need, then: Callable[[], None]) -> None:
        self._task = self._shared.spawn(when_recorded(to_disk, then, self.downstream.flush, self.downstream.cut))

    def _switched(self, fields: Sequence[RawField], rest: bytes) -> None:
        self._is_over = True
        if self.upgrade is not None and self._walk is not None and self._admission is not None:
            self.upgrade.complete(self._shared, self._account, self._walk, self._admission, fields, rest)

    def on_upstream_failed(self, error: UpstreamError) -> None:
        assert self.request is not None
        connection = self._connection
        if self._is_over or connection is None:
            return
        self._connection = None
        if may_be_sent_again(self.request, error, connection, self._retries):
            self._retries += 1
            self._connect()
            return
        self.refuse(error)

    def on_upstream_paused(self, *, is_paused: bool) -> None:
        if not self._body_ended:  # while the client has to send, its own deadline runs; now the upstream has to take
            self._deadline_s = 0.0
            if is_paused:
                self._arm()
        self.downstream.pause_body(is_paused=is_paused)

    # -- endings --------------------------------------------------------------------------------

    def _break_off(self, error: BaseException) -> None:
        self._account.close(self.request, self._walk, self._status, row_of(error).reason, error)
        self._end()
        self.downstream.cut()

    def _failed(self, error: Exception) -> None:
        """A step, or what was awaited for it, did not do."""
        if not isinstance(error, EdgeError):
            self._shared.report(error)
        self.refuse(error)

    def refuse(self, error: BaseException) -> None:
        """Answer with the problem document of an error and close the record."""
        if self._is_over:
            return
        if self._status:  # the head of the answer is out: the only honest signal left is the end of the connection
            self._break_off(error)
            return
        problem = render(error, self.decision_id, self._gateway.problem_base)
        row = problem.row
        self._account.bytes_out = len(problem.body)
        to_disk = self._account.close(self.request, self._walk, row.status, row.reason, error)
        self._end()
        if row.closes or not self._body_ended:
            self.downstream.must_close()
        is_head = self.is_head_method if self.request is None else self.request.method == "HEAD"
        told = exhausted_fields(error.exhausted) if isinstance(error, QuotaExceeded) else ()
        fields = [*problem.fields, *self._gateway.security_fields, *told]
        if to_disk is not None:
            self._finish_when(to_disk, partial(tell, self.downstream, problem, fields, is_head=is_head))
            return
        tell(self.downstream, problem, fields, is_head=is_head)
        self.downstream.flush()

    def _end(self) -> None:
        """Nothing more will be forwarded: drop the upstream and whatever is being awaited."""
        self._is_over = True
        self._deadline_s = 0.0
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.abort()
        dialled, self._dialled = self._dialled, None
        if dialled is not None:
            dialled.connection.abort()
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
        self._body = ()
        if self._body_paused:
            self._body_paused = False
            self.downstream.pause_body(is_paused=False)
