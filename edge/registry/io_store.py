"""The shared registry in the store: a hash of what stands, a stream of what changes. Nothing here is believed.

    {edge:registry}:entries   hash    SERVICE/INSTANCE → sealed entry
    {edge:registry}:changes   stream  sealed entry, the newest few thousand

A reader follows the stream, so that a change is everywhere within a look, and walks the hash in pieces, so that what it
missed, and what somebody changed or took away, is found as well. Both are read as bytes and judged above.

When a call fails the connection is dropped: an answer that came late would stand for the next question.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from valkey.exceptions import NoScriptError, ValkeyClusterException, ValkeyError

from edge.errors import StoreUnavailable
from edge.registry.entry import MAX_BYTES

ENTRIES = "{edge:registry}:entries"
CHANGES = "{edge:registry}:changes"
"""The braces are a Valkey Cluster hash tag: both are written in one script."""
BATCH = 256
"""Entries in one answer: what a flood in the store may cost a reader per look."""
_KEPT = 4096
_FAILURES = (ValkeyError, ValkeyClusterException, OSError)
_PUBLISH = """\
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
return redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[3], '*', 'e', ARGV[2])
"""
_DROP = """\
if redis.call('HGET', KEYS[1], ARGV[1]) == ARGV[2] then return redis.call('HDEL', KEYS[1], ARGV[1]) end
return 0
"""
_SHA = {text: hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest() for text in (_PUBLISH, _DROP)}


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
                last = await self._call("XREVRANGE", CHANGES, "+", "-", "COUNT", 1)
                self._seen = last[0][0] if last else b"0-0"
                return []
            answer = await self._call("XREAD", "COUNT", BATCH, "STREAMS", CHANGES, self._seen)
            found = []
            for _, messages in _streams(answer):
                for identity, fields in messages:
                    self._seen = identity
                    found.append(bytes((fields or {}).get(b"e", b"")[: MAX_BYTES + 1]))
            return found

    async def walk(self) -> tuple[list[tuple[bytes, bytes]], bool]:
        """The next piece of what stands, and whether it was the last of a round. Raises: StoreUnavailable."""
        self._cursor, found = await self._call("HSCAN", ENTRIES, self._cursor, "COUNT", BATCH)
        return list(found.items()), not self._cursor

    async def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    async def _script(self, text: str, keys: tuple[str, ...], *arguments: object) -> None:
        try:
            await self._call("EVALSHA", _SHA[text], len(keys), *keys, *arguments)
        except NoScriptError:
            await self._call("EVAL", text, len(keys), *keys, *arguments)

    async def _call(self, *words: object) -> Any:
        async with self._turn:
            if self._client is None:
                self._client = self._connect()
            try:
                async with asyncio.timeout(self._timeout_s):
                    return await self._client.execute_command(*words)
            except NoScriptError:
                raise
            except _FAILURES as exc:
                await self._lose()
                raise StoreUnavailable("registry", f"{type(exc).__name__}: {exc}") from exc
            except asyncio.CancelledError:
                await self._lose()
                raise

    async def _lose(self) -> None:
        try:
            await self.close()
        except _FAILURES:
            pass  # it was lost before


def _streams(answer: Any) -> list[tuple[Any, list[tuple[bytes, dict[bytes, bytes] | None]]]]:
    """RESP2 gives a list of streams, RESP3 a mapping; the client library leaves that difference to us."""
    if not answer:
        return []
    return list(answer.items()) if isinstance(answer, dict) else list(answer)
