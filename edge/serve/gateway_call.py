"""One question to a gateway's services or enrol listener, as its clients ask it: who answers is proven before a byte is sent.

A sidecar enrols, renews and registers with this. It speaks through the connection that the gateway uses towards its
upstreams (`forward/http1`): an answer that can be read in two ways is no answer. It is kept for the next question.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edge.errors import UpstreamError, UpstreamIdentityRejected
from edge.forward.http1 import UpstreamConnection
from edge.forward.io_dial import HANDSHAKE, dial
from edge.model.http import RawField
from edge.writes import Writes
from pki import est
from pki.errors import SvidRejected

TIMEOUT_S = 15.0
"""For one question, from the name's resolution to the last byte: as long as the gateway itself waits for the authority."""
_MAX_BYTES = 1 << 20
_NOT_NOW = 503
"""A gateway that hosts no authority says so to who wants a certificate."""
_IDEMPOTENT = frozenset(("GET", "PUT", "DELETE"))


class CallFailed(Exception):
    """There is no answer. The text says why."""


class Impostor(CallFailed):
    """Whoever answers at the address is not the gateway. Nothing was sent."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What was said, whole."""

    status: int
    fields: tuple[RawField, ...]
    body: bytes

    def field(self, name: bytes) -> bytes | None:
        """The first value of the lower-case `name`."""
        return next((value for each, value in self.fields if each == name), None)

    @property
    def text(self) -> str:
        """The body's first line, for people; nobody else has to read it."""
        return est.said(self.body)


class _Reading:
    """An answer that is on its way; the `Receiver` of its connection."""

    def __init__(self) -> None:
        self.done: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._status = 0
        self._fields: tuple[RawField, ...] = ()
        self._body = bytearray()

    def on_upstream_head(
        self, status: int, fields: Sequence[RawField], content_length: int | None, *, has_body: bool
    ) -> None:
        self._status, self._fields = status, tuple(fields)

    def on_upstream_body(self, body: bytes) -> None:
        self._body += body
        if len(self._body) > _MAX_BYTES and not self.done.done():
            self.done.set_exception(CallFailed(f"the answer is larger than {_MAX_BYTES} bytes"))

    def on_upstream_end(self) -> None:
        if not self.done.done():
            self.done.set_result(Answer(self._status, self._fields, bytes(self._body)))

    def on_upstream_flush(self) -> None:
        """Nothing waits for it."""

    def on_upstream_failed(self, error: UpstreamError) -> None:
        if not self.done.done():
            self.done.set_exception(CallFailed(str(error)))

    def on_upstream_paused(self, *, is_paused: bool) -> None:
        """What is asked is small."""


class GatewayCall:
    """Questions to one listener. Owner: one task at a time; the lock makes others wait their turn."""

    def __init__(
        self, address: tuple[str, int], context: ssl.SSLContext, prove: Callable[[ssl.SSLObject], object]
    ) -> None:
        """`prove` raises SvidRejected unless the handshake showed the gateway."""
        host, port = self._address = address
        self._authority = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self._context = context
        self._prove = prove
        self._connection: UpstreamConnection | None = None
        self._turn = asyncio.Lock()

    async def ask(self, method: str, path: str, fields: Sequence[RawField] = (), body: bytes = b"") -> Answer:
        """Raises: CallFailed."""
        lines = [b"%b %b HTTP/1.1\r\nhost: %b\r\n" % (method.encode(), path.encode(), self._authority.encode())]
        lines += [b"%b: %b\r\n" % field for field in fields]
        lines.append(b"content-length: %d\r\n\r\n" % len(body) if body else b"\r\n")
        request = b"".join(lines) + body
        async with self._turn:
            try:
                async with asyncio.timeout(TIMEOUT_S):
                    return await self._ask(request, may_repeat=method in _IDEMPOTENT)
            except TimeoutError as exc:
                self.close()
                raise CallFailed(f"{self._authority}: no answer within {TIMEOUT_S:.0f} s") from exc
            except CallFailed:
                self.close()
                raise

    async def _ask(self, request: bytes, *, may_repeat: bool) -> Answer:
        kept, self._connection = self._connection, None
        if kept is not None and may_repeat and not kept.is_closed:
            try:
                return await _say(kept, request)
            except CallFailed:
                if kept.answer_started:
                    raise  # else it was closed while it waited, and nobody has heard the question
        elif kept is not None:
            kept.abort()
        return await _say(await self._dial(), request)

    async def _dial(self) -> UpstreamConnection:
        loop = asyncio.get_running_loop()
        try:
            transport, connection = await dial(
                self._address,
                self._context,
                lambda: UpstreamConnection(self._keep, self._forget, Writes(loop.call_soon), loop.call_later),
            )
        except UpstreamIdentityRejected as exc:
            kind = CallFailed if exc.rule == HANDSHAKE else Impostor
            raise kind(f"{self._authority}: {exc}") from exc
        except UpstreamError as exc:
            raise CallFailed(f"{self._authority}: {exc}") from exc
        try:
            self._prove(transport.get_extra_info("ssl_object"))
        except SvidRejected as exc:
            connection.abort()
            raise Impostor(f"{self._authority}: {exc}") from exc
        return connection

    def _keep(self, connection: UpstreamConnection) -> None:
        self._connection = connection

    def _forget(self, connection: UpstreamConnection) -> None:
        if self._connection is connection:
            self._connection = None

    def close(self) -> None:
        """The next question dials anew."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.abort()


class GatewayCalls:
    """The same questions to any of several gateways: where one cannot be reached, or has no answer now, the next is asked.
    Owner as there."""

    def __init__(self, calls: Sequence[GatewayCall]) -> None:
        """`calls`: at least one, in the order of preference."""
        self._calls = tuple(calls)
        self._at = 0

    async def ask(self, method: str, path: str, fields: Sequence[RawField] = (), body: bytes = b"") -> Answer:
        """Raises: CallFailed, as the last one said it."""
        order = [*range(self._at, len(self._calls)), *range(self._at)]
        for at in order:
            is_last = at == order[-1]
            try:
                answer: Answer = await self._calls[at].ask(method, path, fields, body)
            except CallFailed:
                if is_last:
                    raise
                self._at = (at + 1) % len(self._calls)  # the others are asked first from now on
                continue
            if answer.status != _NOT_NOW or is_last:
                return answer
        raise AssertionError("the last one answers or raises")

    def close(self) -> None:
        """As there."""
        for call in self._calls:
            call.close()


async def _say(connection: UpstreamConnection, request: bytes) -> Answer:
    reading = _Reading()
    connection.start(reading, request, is_head_method=False, is_complete=True)
    is_whole = False
    try:
        answer = await reading.done
        is_whole = True
        return answer
    finally:
        if not is_whole:
            connection.abort()
