"""A sidecar's upstream cannot be anywhere but on this machine, and a connection is used again only while that is sure."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import pytest

from edge.errors import UpstreamError, UpstreamUnreachable
from edge.forward.io_plain import BadTarget, PlainPool, PlainTarget, parse_target
from edge.model.http import RawField
from edge.model.route import Upstream
from tests.edge.forward.house import to

UPSTREAM = Upstream("edge.attached", "")


@pytest.mark.parametrize(
    ("text", "addresses"),
    [
        ("http://127.0.0.1:8001", (("127.0.0.1", 8001),)),
        ("http://127.9.9.9:8001/", (("127.9.9.9", 8001),)),
        ("http://[::1]:8001", (("::1", 8001),)),
        ("http://localhost:8001", (("127.0.0.1", 8001), ("::1", 8001))),
        ("unix:/run/orders.sock", (("/run/orders.sock", 0),)),
    ],
)
def test_this_machine_is_a_target(text: str, addresses: tuple[tuple[str, int], ...]) -> None:
    assert parse_target(text) == PlainTarget(addresses, is_socket=text.startswith("unix:"))


@pytest.mark.parametrize(
    "text",
    [
        "http://10.0.0.1:80", "http://0.0.0.0:80", "http://[::]:80", "http://169.254.169.254:80", "http://orders:80",
        "http://localhost.evil.example:80", "http://127.1:80", "http://2130706433:80", "http://0177.0.0.1:80",
        "http://[::ffff:10.0.0.1]:80", "http://[fe80::1%lo]:80", "http://user@127.0.0.1:80", "http://127.0.0.1",
        "http://127.0.0.1:0", "http://127.0.0.1:65536", "http://127.0.0.1:80/base", "http://127.0.0.1:80?a",
        "https://127.0.0.1:80", "HTTP://127.0.0.1:80", "unix:orders.sock", "unix:/" + "a" * 107, "unix:/a\0b", "",
    ],
)  # fmt: skip
def test_anything_beyond_it_is_not(text: str) -> None:
    with pytest.raises(BadTarget):
        parse_target(text)


class Answered:
    """The receiver of one answer."""

    def __init__(self) -> None:
        self.over = asyncio.Event()
        self.body = b""
        self.error: UpstreamError | None = None

    def on_upstream_head(
        self, status: int, fields: Sequence[RawField], length: int | None, *, has_body: bool
    ) -> None: ...

    def on_upstream_body(self, body: bytes) -> None:
        self.body += body

    def on_upstream_end(self) -> None:
        self.over.set()

    def on_upstream_flush(self) -> None: ...

    def on_upstream_failed(self, error: UpstreamError) -> None:
        self.error = error
        self.over.set()

    def on_upstream_paused(self, *, is_paused: bool) -> None: ...


def playing(path: Path, work: Callable[[PlainPool, list[asyncio.StreamWriter]], Awaitable[None]]) -> None:
    """With a service on a unix socket that answers `ok` to whatever it reads."""

    async def main() -> None:
        writers: list[asyncio.StreamWriter] = []

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writers.append(writer)
            while await reader.read(65536):
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")

        server = await asyncio.start_unix_server(serve, path)
        pool = PlainPool(asyncio.get_running_loop(), parse_target(f"unix:{path}"))
        try:
            await work(pool, writers)
        finally:
            pool.close()
            for writer in writers:
                writer.close()
            server.close()

    asyncio.run(main())


async def ask(pool: PlainPool) -> bytes:
    address = pool.addresses(to(UPSTREAM))[0]
    pinned = pool.acquire(address) or await pool.dial(UPSTREAM, (address,))
    answered = Answered()
    pinned.connection.start(answered, b"GET / HTTP/1.1\r\nhost: a\r\n\r\n", is_head_method=False, is_complete=True)
    await answered.over.wait()
    assert answered.error is None
    return answered.body


def test_a_connection_serves_one_request_after_the_other(tmp_path: Path) -> None:
    async def work(pool: PlainPool, writers: list[asyncio.StreamWriter]) -> None:
        assert [await ask(pool) for _ in range(3)] == [b"ok"] * 3
        assert len(writers) == 1

    playing(tmp_path / "s", work)


def test_one_that_waited_too_long_is_closed_and_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work(pool: PlainPool, writers: list[asyncio.StreamWriter]) -> None:
        monkeypatch.setattr("edge.forward.io_plain.MAX_IDLE_S", 0.0)
        assert [await ask(pool) for _ in range(2)] == [b"ok"] * 2
        assert len(writers) == 2
        pool.sweep()
        assert pool.acquire(pool.addresses(to(UPSTREAM))[0]) is None

    playing(tmp_path / "s", work)


def test_nobody_there_is_unreachable_after_all_addresses_were_tried() -> None:
    async def main() -> None:
        with socket.create_server(("127.0.0.1", 0)) as unused:
            port = unused.getsockname()[1]
        pool = PlainPool(asyncio.get_running_loop(), parse_target(f"http://localhost:{port}"))
        with pytest.raises(UpstreamUnreachable, match=rf"127\.0\.0\.1:{port}, \[::1\]:{port}"):
            await pool.dial(UPSTREAM, pool.addresses(to(UPSTREAM)))

    asyncio.run(main())
