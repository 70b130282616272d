"""The shared registry in the store: a hash of what stands, a stream of what changes. Nothing here is believed.

    {edge:registry}:entries   hash    SERVICE/INSTANCE → sealed entry
    {edge:registry}:changes   stream  sealed entry, the newest few thousand

A reader follows the stream, so that a change is everywhere within a look, and walks the hash in pieces, so that what it
missed, and what somebody changed or took away, is found as well. Both are read as bytes and judged above.

When a call fails the connection is dropped: an answer that came late would stand for the next question. So it is when an
answer is larger than any we ask for (`limit.replies`) or of another form: `BAD_ANSWER`, and nothing of it is taken. Where
entries are large, fewer are asked for.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from typing import Any, Protocol, TypeVar

from valkey.exceptions import InvalidResponse, NoScriptError, ValkeyClusterException, ValkeyError

from edge.errors import StoreUnavailable
from edge.registry.entry import MAX_BYTES

ENTRIES = "{edge:registry}:entries"
CHANGES = "{edge:registry}:changes"
"""The braces are a Valkey Cluster hash tag: both are written in one script."""
BATCH = 256
"""Entries in one answer: what a flood in the store may cost a reader per look."""
FEWEST = 8
"""Asked for where answers were too large: so many of the largest are far below what an answer may have."""
BAD_ANSWER = "store-answer"
"""The rule of `StoreUnavailable` when the store did answer."""
_MAX_IDENTITY_BYTES = 64
_KEPT = 4096
_FAILURES = (ValkeyError, ValkeyClusterException, OSError)
_MISSHAPEN = (InvalidResponse, TypeError, ValueError, LookupError, AttributeError)
"""What the client library raises, or we, where an answer is not of the form that the command has."""
_PUBLISH = """\
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
return redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[3], '*', 'e', ARGV[2])
"""
_DROP = """\
if redis.call('HGET', KEYS[1], ARGV[1]) == ARGV[2] then return redis.call('HDEL', KEYS[1], ARGV[1]) end
return 0
"""
_SHA = {text: hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest() for text in (_PUBLISH, _DROP)}


_Answer = TypeVar("_Answer")


class Client(Protocol):
    """As `limit.io_connect` makes it."""

    def execute_command(self, *words: Any) -> Awaitable[Any]: ...
    def aclose(self) -> Awaitable[None]: ...


class RegistryStore:
    """Owner: the worker; one event loop. Calls take turns: one connection carries them all."""

    def __init__(self, connect: Callable[[], Client], timeout_s: float) -> None:
        self._connect = connect
        self._timeout_s = timeout_s
        self._client: Client | None = None
        self._turn = asyncio.Lock()
        self._reading = asyncio.Lock()
        """Held by whoever follows the stream: nobody is given the same change twice."""
        self._seen: bytes | None = None
        """Id of the last change that was read; None before the first look."""
        self._cursor = 0
        self._batch = BATCH

    async def publish(self, field: str, raw: bytes) -> None:
        """Write what stands, and tell everybody. Raises: StoreUnavailable."""
        await self._script(_PUBLISH, (ENTRIES, CHANGES), field, raw, _KEPT)

    async def drop(self, field: bytes, raw: bytes) -> None:
        """Remove what stands there, if it is still this. Raises: StoreUnavailable."""
        await self._script(_DROP, (ENTRIES,), field, raw)

    async def changes(self) -> list[bytes]:
        """What was written since the last look, oldest first, at most BATCH. Raises: StoreUnavailable."""
        async with self._reading:
            if self._seen is None:
                self._seen = await self._call(_last, "XREVRANGE", CHANGES, "+", "-", "COUNT", 1)
                return []
            found = await self._call(_changes, "XREAD", "COUNT", self._batch, "STREAMS", CHANGES, self._seen)
            if found:
                self._seen = found[-1][0]
            return [raw for _, raw in found]

    async def walk(self) -> tuple[list[tuple[bytes, bytes]], bool]:
        """The next piece of what stands, and whether it was the last of a round. Raises: StoreUnavailable."""
        self._cursor, found = await self._call(_piece, "HSCAN", ENTRIES, self._cursor, "COUNT", self._batch)
        return found, not self._cursor

    async def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    async def _script(self, text: str, keys: tuple[str, ...], *arguments: object) -> None:
        try:
            await self._call(_anything, "EVALSHA", _SHA[text], len(keys), *keys, *arguments)
        except NoScriptError:
            await self._call(_anything, "EVAL", text, len(keys), *keys, *arguments)

    async def _call(self, read: Callable[[Any], _Answer], *words: object) -> _Answer:
        """A question, and its answer if it has the form of one."""
        async with self._turn:
            if self._client is None:
                self._client = self._connect()
            try:
                async with asyncio.timeout(self._timeout_s):
                    answer = read(await self._client.execute_command(*words))
            except NoScriptError:
                raise
            except _MISSHAPEN as exc:
                self._batch = max(FEWEST, self._batch // 4)
                await self._lose()
                raise StoreUnavailable(BAD_ANSWER, f"{words[0]}: {type(exc).__name__}: {exc}"[:200]) from exc
            except _FAILURES as exc:
                await self._lose()
                raise StoreUnavailable("registry", f"{type(exc).__name__}: {exc}") from exc
            except asyncio.CancelledError:
                await self._lose()
                raise
        self._batch = min(BATCH, self._batch * 2)
        return answer

    async def _lose(self) -> None:
        try:
            await self.close()
        except _FAILURES:
            pass  # it was lost before


def _anything(answer: object) -> None:
    """What a script says is not looked at."""


def _last(answer: Any) -> bytes:
    """XREVRANGE: the id of the newest message."""
    return _identity(answer[0][0]) if answer else b"0-0"


def _changes(answer: Any) -> list[tuple[bytes, bytes]]:
    """XREAD: (id, sealed entry) of each message. RESP2 gives a list of streams, RESP3 a mapping; the client library leaves
    that difference to us."""
    found: list[tuple[bytes, bytes]] = []
    for _, messages in (answer.items() if isinstance(answer, dict) else answer) if answer else ():
        for identity, fields in messages:
            raw = (fields or {}).get(b"e", b"")
            found.append((_identity(identity), _bytes(raw)[: MAX_BYTES + 1]))
    return found[:BATCH]


def _piece(answer: Any) -> tuple[int, list[tuple[bytes, bytes]]]:
    """HSCAN: the next cursor, and (field, sealed entry) of each."""
    cursor, found = answer
    if not isinstance(cursor, int) or not 0 <= cursor < 1 << 64:
        raise ValueError("a cursor of another kind")
    return cursor, [(_bytes(field), _bytes(raw)) for field, raw in found.items()]


def _identity(found: object) -> bytes:
    if len(_bytes(found)) > _MAX_IDENTITY_BYTES:
        raise ValueError("an id of another kind")
    return _bytes(found)


def _bytes(found: object) -> bytes:
    if not isinstance(found, bytes):
        raise TypeError(f"{type(found).__name__} in place of a string")
    return found
