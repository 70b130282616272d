"""The upstream's side of a WebSocket: our own handshake with it, and then its connection as bytes to and fro.

Nothing of the client's handshake passes but the subprotocols it offers. The key is ours, extensions are not offered, and an
answer that takes up what nobody offered is an error (RFC 6455 §4.1). What the bytes say is judged by `parse/frames`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from edge.errors import UpstreamProtocolError
from edge.forward.io_gone import GONE
from edge.model.http import RawField
from edge.model.websocket import accept_of

if TYPE_CHECKING:
    from edge.forward.http1 import UpstreamConnection


class Offer:
    """What we ask an upstream for, and how we know its answer."""

    def __init__(
        self, raw_key: bytes, protocols: Sequence[bytes], when_taken: Callable[[Sequence[RawField], bytes], None]
    ) -> None:
        """`raw_key`: 16 random bytes in base64, never used before. `when_taken` gets the fields of a good 101, and what
        came behind it."""
        self.when_taken = when_taken
        self._accept = accept_of(raw_key)
        self._protocols = protocols
        offered = b"sec-websocket-protocol: %b\r\n" % b", ".join(protocols) if protocols else b""
        self.fields = (
            b"connection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: %b\r\n%b\r\n"
        ) % (raw_key, offered)
        """The end of the request's head, its empty line included."""
        self.protocol: bytes | None = None
        """What the upstream chose; None: no subprotocol."""

    def require(self, fields: Sequence[RawField], protocol: str) -> None:
        """Judge a 101.

        Raises: UpstreamProtocolError; then 502.
        """
        found: dict[bytes, list[bytes]] = {}
        for name, value in fields:
            found.setdefault(name, []).append(value)
        connection = b",".join(found.get(b"connection", ())).lower().split(b",")
        if protocol != "1.1" or b"upgrade" not in [item.strip(b" \t") for item in connection]:
            raise UpstreamProtocolError("upstream-upgrade")
        if [value.lower() for value in found.get(b"upgrade", ())] != [b"websocket"]:
            raise UpstreamProtocolError("upstream-upgrade")
        if found.get(b"sec-websocket-accept") != [self._accept]:
            raise UpstreamProtocolError("upstream-websocket-accept")
        if b"sec-websocket-extensions" in found:
            raise UpstreamProtocolError("upstream-websocket-extension")
        chosen = found.get(b"sec-websocket-protocol", [])
        if len(chosen) > 1 or any(each not in self._protocols for each in chosen):
            raise UpstreamProtocolError("upstream-websocket-protocol")
        self.protocol = chosen[0] if chosen else None


class StreamReceiver(Protocol):
    """Who gets the bytes. `on_upstream_lost` is the last call."""

    def on_upstream_bytes(self, data: bytes) -> None: ...

    def on_upstream_lost(self) -> None: ...

    def on_upstream_paused(self, *, is_paused: bool) -> None:
        """The upstream cannot take more at the moment (or can again)."""


class UpstreamStream(asyncio.Protocol):
    """A pinned connection behind its 101. Takes the transport over; the pool still counts it, and aborts it with the rest."""

    def __init__(self, connection: UpstreamConnection, receiver: StreamReceiver) -> None:
        assert connection.transport is not None
        self.connection = connection
        self._transport = connection.transport
        self._receiver: StreamReceiver | None = receiver
        self._transport.set_protocol(self)

    def write(self, data: bytes) -> None:
        if data and not self._transport.is_closing():
            self._transport.write(data)

    def pause_reading(self, *, is_paused: bool) -> None:
        if self._transport.is_closing():
            return
        if is_paused:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    def close(self) -> None:
        """What was written still goes out; nothing that comes is told any more."""
        self._receiver = None
        self._transport.close()

    def abort(self) -> None:
        """The upstream sees an end without a Close."""
        self._receiver = None
        self.connection.abort()

    # -- asyncio --------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        if self._receiver is not None:
            self._receiver.on_upstream_bytes(data)

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.connection.connection_lost(exc)
        self._transport = GONE
        receiver, self._receiver = self._receiver, None
        if receiver is not None:
            receiver.on_upstream_lost()

    def pause_writing(self) -> None:
        if self._receiver is not None:
            self._receiver.on_upstream_paused(is_paused=True)

    def resume_writing(self) -> None:
        if self._receiver is not None:
            self._receiver.on_upstream_paused(is_paused=False)
