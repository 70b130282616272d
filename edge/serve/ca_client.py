"""A worker's end of the process `ca`: what strangers ask on the enrol and services listeners is passed on, and awaited.

Few at a time and few in the queue: an issuance costs some milliseconds of one process, so a queue of any length would only
make everybody wait for what he has given up by then. Who does not fit is told to come back.
"""

from __future__ import annotations

import asyncio
import itertools
import socket
from collections.abc import Callable

import msgspec

from edge.errors import NotReady, Shedding
from edge.serve.ca import Word
from pki import desk

WITHIN_S = 10.0
"""As long as an operator's command waits for the lock: a process that died is replaced in three seconds."""
_QUEUE = 64
_IN_FLIGHT = 4


class CaClient:
    """Owner of the worker's socket. One event loop."""

    def __init__(self, sock: socket.socket, on_status: Callable[[int], None] = lambda number: None) -> None:
        """`on_status(number)`: of the newest revocation set, with each heartbeat and at once when it changed."""
        sock.setblocking(False)
        self._sock = sock
        self._on_status = on_status
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[desk.Reply]] = {}
        self._slots = asyncio.Semaphore(_IN_FLIGHT)
        self._queued = 0
        asyncio.get_running_loop().add_reader(sock.fileno(), self._readable)

    async def ask(self, request: desk.FromWorker) -> desk.Reply:
        """One request, one reply.

        Raises:
            Shedding: too many ask already.
            NotReady: no answer came in time. Whether a certificate was made is not known then; one that was not handed
                out harms nobody, and is on the record.
        """
        if self._queued >= _QUEUE:
            raise Shedding("authority-queue")
        self._queued += 1
        try:
            async with asyncio.timeout(WITHIN_S), self._slots:
                return await self._ask(request)
        except TimeoutError as exc:
            raise NotReady("authority-silent") from exc
        finally:
            self._queued -= 1

    async def _ask(self, request: desk.FromWorker) -> desk.Reply:
        number = next(self._numbers)
        future: asyncio.Future[desk.Reply] = asyncio.get_running_loop().create_future()
        self._waiting[number] = future
        try:
            self._sock.send(msgspec.json.encode({"id": number, "ask": msgspec.Raw(desk.encode(request))}))
            return await future
        except OSError as exc:
            raise NotReady("authority-away") from exc
        finally:
            del self._waiting[number]

    def _readable(self) -> None:
        try:
            raw = self._sock.recv(1 << 18)
            word = msgspec.json.decode(raw, type=Word)
            reply = desk.read_reply(bytes(word.reply)) if word.id else None
        except (BlockingIOError, msgspec.MsgspecError):
            return
        except OSError:
            raw = b""
        if not raw:
            asyncio.get_running_loop().remove_reader(self._sock.fileno())
            return
        if reply is None:
            self._on_status(word.number)
        elif (future := self._waiting.get(word.id)) and not future.done():
            future.set_result(reply)

    def close(self) -> None:
        """Give up what waits."""
        asyncio.get_running_loop().remove_reader(self._sock.fileno())
        self._sock.close()
        for future in self._waiting.values():
            future.cancel()
