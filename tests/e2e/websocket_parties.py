"""Clients and services that speak WebSocket by other people's code, `websockets` and `wsproto`, on either side of us.

A service sends back what it gets, and obeys three texts: `!close CODE REASON`, `!ping`, `!fragments` (a message in three).
"""

from __future__ import annotations

import asyncio
import queue
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import websockets.exceptions
from websockets.asyncio import client, server
from websockets.typing import Subprotocol
from wsproto import ConnectionType, WSConnection, events
from wsproto.extensions import Extension, PerMessageDeflate
from wsproto.utilities import RemoteProtocolError

from tests.e2e.upstream import service_context

Message = str | bytes
End = tuple[int, str]
PROTOCOLS = ("v2.chat", "v1.chat")
FRAGMENTS = ("zer", "stück", "elt")
_MAX_BYTES = 4 << 20


class Service(Protocol):
    port: int
    ends: queue.Queue[End]
    """What each WebSocket ended with, as the service saw it."""

    def close(self) -> None: ...


class WebsocketsService:
    """By `websockets`; takes compression when it is offered."""

    def __init__(self, identity: Path) -> None:
        self.ends: queue.Queue[End] = queue.Queue()
        self._context = service_context(identity)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._loop = asyncio.new_event_loop()
        self._is_over = asyncio.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._main())

    async def _main(self) -> None:
        async with server.serve(
            self._serve,
            sock=self._listener,
            ssl=self._context,
            select_subprotocol=lambda _, offered: next(
                (Subprotocol(each) for each in PROTOCOLS if each in offered), None
            ),
            max_size=_MAX_BYTES,
        ):
            await self._is_over.wait()

    async def _serve(self, connection: server.ServerConnection) -> None:
        try:
            async for message in connection:
                words = message.split(" ", 2) if isinstance(message, str) else [""]
                if words[0] == "!close":
                    await connection.close(int(words[1]), words[2])
                elif words[0] == "!ping":
                    await (await connection.ping(b"still there?"))
                    await connection.send("answered")
                elif words[0] == "!fragments":
                    await connection.send(iter(FRAGMENTS))
                else:
                    await connection.send(message)
        except websockets.exceptions.ConnectionClosed:
            pass
        self.ends.put((connection.close_code or 0, connection.close_reason or ""))

    def present(self, identity: Path) -> None:
        """Shake hands with this certificate from now on."""
        self._context.load_cert_chain(identity / "chain.pem", identity / "key.pem")

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._is_over.set)
        self._thread.join(10)


class WsprotoService:
    """By `wsproto`; takes compression when it is offered."""

    def __init__(self, identity: Path) -> None:
        self.ends: queue.Queue[End] = queue.Queue()
        self._context = service_context(identity)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        end: End = (1006, "")
        try:
            with self._context.wrap_socket(connection, server_side=True) as tls:
                tls.settimeout(10)
                end = self._talk(tls, WSConnection(ConnectionType.SERVER))
        except OSError:
            connection.close()
        self.ends.put(end)

    def _talk(self, tls: ssl.SSLSocket, protocol: WSConnection) -> End:
        message: Message | None = None
        while data := tls.recv(65536):
            protocol.receive_data(data)
            for event in protocol.events():
                if isinstance(event, events.Request):
                    chosen = next((each for each in PROTOCOLS if each in event.subprotocols), None)
                    deflate: list[Extension] = [PerMessageDeflate()]
                    tls.sendall(protocol.send(events.AcceptConnection(chosen, deflate)))
                elif isinstance(event, events.Ping):
                    tls.sendall(protocol.send(event.response()))
                elif isinstance(event, events.Pong):
                    tls.sendall(protocol.send(events.TextMessage("answered")))
                elif isinstance(event, events.CloseConnection):
                    if protocol.state.name == "REMOTE_CLOSING":
                        tls.sendall(protocol.send(event.response()))
                    return int(event.code), event.reason or ""
                elif isinstance(event, (events.TextMessage, events.BytesMessage)):
                    part = event.data if isinstance(event.data, str) else bytes(event.data)
                    message = part if message is None else message + part  # type: ignore[operator]
                    if event.message_finished:
                        for answer in self._answers(message):
                            tls.sendall(protocol.send(answer))
                        message = None
        return 1006, ""

    def _answers(self, message: Message) -> Iterator[events.Event]:
        words = message.split(" ", 2) if isinstance(message, str) else [""]
        if words[0] == "!close":
            yield events.CloseConnection(int(words[1]), words[2])
        elif words[0] == "!ping":
            yield events.Ping(b"still there?")
        elif words[0] == "!fragments":
            for part in FRAGMENTS:
                yield events.TextMessage(part, message_finished=part == FRAGMENTS[-1])
        elif isinstance(message, str):
            yield events.TextMessage(message)
        else:
            yield events.BytesMessage(message)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


class Caller(Protocol):
    """A client with an open WebSocket that offered compression."""

    subprotocol: str | None
    extensions: int
    """How many were agreed on."""

    def send(self, *parts: Message) -> None:
        """One message, in so many fragments."""

    def receive(self) -> Message: ...

    def ping(self) -> bool:
        """Whether it is answered."""

    def close(self, code: int, reason: str) -> End: ...

    def closed(self) -> End:
        """Wait until the other side has closed."""


class WebsocketsCaller:
    """By `websockets`, in a loop that turns while something is awaited. (Its threads would share a TLS session, which OpenSSL
    does not allow.)"""

    def __init__(self, runner: asyncio.Runner, connection: client.ClientConnection) -> None:
        self._runner = runner
        self._connection = connection
        self.subprotocol: str | None = connection.subprotocol
        self.extensions = len(connection.protocol.extensions)

    def send(self, *parts: Message) -> None:
        message = iter(parts) if len(parts) > 1 else parts[0]
        self._runner.run(self._connection.send(message))

    def receive(self) -> Message:
        return self._runner.run(asyncio.wait_for(self._connection.recv(), 10))

    def ping(self) -> bool:
        async def answered() -> bool:
            await asyncio.wait_for(await self._connection.ping(), 10)
            return True

        return self._runner.run(answered())

    def close(self, code: int, reason: str) -> End:
        self._runner.run(self._connection.close(code, reason))
        return self._end()

    def closed(self) -> End:
        self._runner.run(asyncio.wait_for(self._connection.wait_closed(), 10))
        return self._end()

    def _end(self) -> End:
        return self._connection.close_code or 0, self._connection.close_reason or ""


class WsprotoCaller:
    """By `wsproto`."""

    def __init__(self, tls: ssl.SSLSocket, authority: str, path: str, protocols: Sequence[str]) -> None:
        self._tls = tls
        self._protocol = WSConnection(ConnectionType.CLIENT)
        self._events: list[events.Event] = []
        offered: list[Extension] = [PerMessageDeflate()]
        self._say(events.Request(authority, f"/{path}", extensions=offered, subprotocols=list(protocols)))
        accepted = self._event()
        assert isinstance(accepted, events.AcceptConnection), accepted
        self.subprotocol = accepted.subprotocol
        self.extensions = len(accepted.extensions)

    def _say(self, event: events.Event) -> None:
        self._tls.sendall(self._protocol.send(event))

    def _event(self) -> events.Event:
        while not self._events:
            data = self._tls.recv(65536)
            try:
                self._protocol.receive_data(data or None)
            except RemoteProtocolError as exc:
                raise EOFError from exc
            self._events += self._protocol.events()
        event = self._events.pop(0)
        if isinstance(event, events.Ping):
            self._say(event.response())
            return self._event()
        return event

    def send(self, *parts: Message) -> None:
        for at, part in enumerate(parts):
            is_last = at == len(parts) - 1
            if isinstance(part, str):
                self._say(events.TextMessage(part, message_finished=is_last))
            else:
                self._say(events.BytesMessage(part, message_finished=is_last))

    def receive(self) -> Message:
        message: Message | None = None
        while True:
            event = self._event()
            assert isinstance(event, (events.TextMessage, events.BytesMessage)), event
            part = event.data if isinstance(event.data, str) else bytes(event.data)
            message = part if message is None else message + part  # type: ignore[operator]
            if event.message_finished:
                return message

    def ping(self) -> bool:
        self._say(events.Ping(b"there?"))
        return self._event() == events.Pong(b"there?")

    def close(self, code: int, reason: str) -> End:
        self._say(events.CloseConnection(code, reason))
        return self.closed()

    def closed(self) -> End:
        event = self._event()
        assert isinstance(event, events.CloseConnection), event
        if self._protocol.state.name == "REMOTE_CLOSING":
            self._say(event.response())
        return int(event.code), event.reason or ""


@contextmanager
def by_websockets(url: str, context: ssl.SSLContext, protocols: Sequence[str]) -> Iterator[Caller]:
    async def connect() -> client.ClientConnection:
        offered = [Subprotocol(each) for each in protocols] or None
        return await client.connect(url, ssl=context, subprotocols=offered, max_size=_MAX_BYTES)

    with asyncio.Runner() as runner:
        connection = runner.run(connect())
        yield WebsocketsCaller(runner, connection)
        runner.run(connection.close())


@contextmanager
def by_wsproto(url: str, context: ssl.SSLContext, protocols: Sequence[str]) -> Iterator[Caller]:
    authority, _, path = url.removeprefix("wss://").partition("/")
    host, _, port = authority.partition(":")
    with context.wrap_socket(socket.create_connection((host, int(port)), 10), server_hostname=host) as tls:
        yield WsprotoCaller(tls, authority, path, protocols)


CALLERS = {"websockets": by_websockets, "wsproto": by_wsproto}
SERVICES: dict[str, Callable[[Path], Service]] = {"websockets": WebsocketsService, "wsproto": WsprotoService}
