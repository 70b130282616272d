"""What a hostile store can cost a reader: a server that speaks RESP, and says what it likes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial

import pytest

from edge.errors import StoreUnavailable
from edge.limit import replies
from edge.limit.io_connect import connect
from edge.limit.store import StoreSettings, parse_store
from edge.registry.io_store import BAD_ANSWER, BATCH, FEWEST, RegistryStore

pytestmark = pytest.mark.asyncio
EMPTY = {b"HSCAN": b"*2\r\n$1\r\n0\r\n*0\r\n", b"XREVRANGE": b"*0\r\n", b"XREAD": b"*-1\r\n"}
_IN_SOCKETS = 16 << 20
"""What the kernel and the loops may hold beside what was read."""


class Hostile:
    """Answers each command as `says` has it, as often as there is something more to say."""

    def __init__(self) -> None:
        self.says: dict[bytes, bytes] = dict(EMPTY)
        self.endless: Callable[[], bytes] | None = None
        self.sent = 0
        self.asked: list[list[bytes]] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            while words := await _words(reader):
                self.asked.append(words)
                await self._send(writer, self.says.get(words[0].upper(), b"+OK\r\n"))
                while self.endless is not None and words[0].upper() in EMPTY:
                    await self._send(writer, self.endless())
        writer.close()

    async def _send(self, writer: asyncio.StreamWriter, raw: bytes) -> None:
        writer.write(raw)
        self.sent += len(raw)
        await writer.drain()


async def _words(reader: asyncio.StreamReader) -> list[bytes]:
    count = int((await reader.readline() or b"*0\r\n")[1:])
    found = []
    for _ in range(count):
        size = int((await reader.readline())[1:])
        found.append((await reader.readexactly(size + 2))[:-2])
    return found


@asynccontextmanager
async def hostile(timeout_s: float = 20.0) -> AsyncIterator[tuple[Hostile, RegistryStore]]:
    server = Hostile()
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    settings = parse_store(f"valkey://127.0.0.1:{port}")
    assert isinstance(settings, StoreSettings)
    store = RegistryStore(partial(connect, settings), timeout_s)
    try:
        yield server, store
    finally:
        await store.close()
        server.endless = None
        listening.close()


def _blob(raw: bytes) -> bytes:
    return b"$%d\r\n%b\r\n" % (len(raw), raw)


def _message(identity: bytes, raw: bytes) -> bytes:
    return b"*2\r\n" + _blob(identity) + b"*2\r\n$1\r\ne\r\n" + _blob(raw)


def _xread(*messages: bytes) -> bytes:
    return b"*1\r\n*2\r\n$1\r\nk\r\n*%d\r\n" % len(messages) + b"".join(messages)


HUGE = [
    b"*50000000\r\n",
    b"*2\r\n$1\r\n0\r\n*50000000\r\n" * 3,
    b"$536870912\r\n",
    b"*1\r\n" * 2000,
    b"*900\r\n",
]


@pytest.mark.parametrize("beginning", HUGE)
@pytest.mark.parametrize("command", sorted(EMPTY))
async def test_store_an_answer_without_end_is_cut_and_the_next_one_counts(
    command: bytes, beginning: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replies, "MAX_VALUES", 1000)
    monkeypatch.setattr(replies, "MAX_BYTES", 1 << 18)
    async with hostile() as (server, store):
        if command == b"XREAD":
            await store.changes()
        server.says[command] = beginning
        server.endless = lambda: b"*0\r\n" * 16_384
        with pytest.raises(StoreUnavailable) as refused:
            await (store.walk() if command == b"HSCAN" else store.changes())
        assert refused.value.rule == BAD_ANSWER
        assert server.sent <= _IN_SOCKETS
        server.endless = None
        server.says = dict(EMPTY)
        assert await store.walk() == ([], True)
        assert await store.changes() == []


@pytest.mark.parametrize(
    "answer",
    [
        b":7\r\n",
        b"+OK\r\n",
        b"$3\r\nabc\r\n",
        b"*1\r\n:1\r\n",
        b"*2\r\n:1\r\n:2\r\n",
        b"*2\r\n$1\r\nx\r\n*0\r\n",
        b"*2\r\n$2\r\n-1\r\n*0\r\n",
        b"*2\r\n$1\r\n0\r\n*1\r\n$1\r\na\r\n",
        b"*2\r\n$1\r\n0\r\n*2\r\n:1\r\n:2\r\n",
        b"*2\r\n$1\r\n0\r\n*2\r\n*0\r\n$1\r\na\r\n",
        b"*2\r\n$1\r\n0\r\n*2\r\n$1\r\na\r\n-ERR\r\n",
        b"%1\r\n+a\r\n+b\r\n",
        b"*1\r\n*1\r\n*0\r\n",
        b"*1\r\n*2\r\n$1\r\nk\r\n*1\r\n*2\r\n:5\r\n*0\r\n",
        b"*1\r\n*2\r\n$1\r\nk\r\n*1\r\n*2\r\n$3\r\n1-0\r\n*2\r\n$1\r\ne\r\n:5\r\n",
        b"*1\r\n*2\r\n$1\r\nk\r\n*1\r\n*2\r\n$100\r\n" + b"1" * 100 + b"\r\n*0\r\n",
        b"!5\r\nERR x\r\n",
        b"#t\r\n",
    ],
)
async def test_store_an_answer_of_another_form_is_none(answer: bytes) -> None:
    async with hostile() as (server, store):
        await store.changes()
        server.says[b"HSCAN"] = server.says[b"XREAD"] = answer
        for ask in (store.walk, store.changes):
            before = len(server.asked)
            try:
                found = await ask()
            except StoreUnavailable:
                continue
            assert found in ([], ([], True)), "nothing was made of it"
            assert len(server.asked) == before + 1


async def test_large_entries_are_read_in_smaller_pieces() -> None:
    async with hostile() as (server, store):
        await store.changes()
        large = [_message(b"%d-0" % at, b"x" * 32_000) for at in range(1, BATCH + 1)]
        server.says[b"XREAD"] = _xread(*large)
        with pytest.raises(StoreUnavailable):
            await store.changes()
        server.says[b"XREAD"] = _xread(*large[:FEWEST])
        assert len(await store.changes()) == FEWEST
        await store.changes()
        counts = [int(words[2]) for words in server.asked if words[0] == b"XREAD"]
        assert counts == [BATCH, BATCH // 4, BATCH // 2]
        assert [words[-1] for words in server.asked if words[0] == b"XREAD"][-1] == b"%d-0" % FEWEST


async def test_no_more_is_taken_at_once_than_was_asked_for() -> None:
    async with hostile() as (server, store):
        await store.changes()
        server.says[b"XREAD"] = _xread(*(_message(b"%d-0" % at, b"x") for at in range(1, 3 * BATCH)))
        assert len(await store.changes()) == BATCH
        await store.changes()
        assert server.asked[-1][-1] == b"%d-0" % BATCH, "the rest is asked for again"


async def test_answers_to_what_is_written_are_bounded_too() -> None:
    async with hostile() as (server, store):
        server.says[b"EVALSHA"] = b"*50000000\r\n"
        with pytest.raises(StoreUnavailable) as refused:
            await store.publish("orders/a", b"x")
        assert refused.value.rule == BAD_ANSWER
        server.says[b"EVALSHA"] = b"$3\r\n1-0\r\n"
        await store.publish("orders/a", b"x")


@pytest.mark.parametrize("url", ["valkey+cluster://127.0.0.1:{}", "valkey+sentinel://127.0.0.1:{}/main"])
async def test_clusters_and_sentinels_are_bounded_too(url: str) -> None:
    server = Hostile()
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    settings = parse_store(url.format(listening.sockets[0].getsockname()[1]))
    assert isinstance(settings, StoreSettings)
    server.says |= dict.fromkeys((b"CLUSTER", b"SENTINEL", b"COMMAND"), b"*50000000\r\n")
    store = RegistryStore(partial(connect, settings), 20.0)
    with pytest.raises(StoreUnavailable):
        await store.walk()
    assert server.asked
    await store.close()
    listening.close()
