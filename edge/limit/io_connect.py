"""Make the client of the store that the settings describe. The only file that knows the client library's options."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from typing import Any, Protocol, cast

from valkey.asyncio import Valkey
from valkey.asyncio.cluster import ClusterNode, ClusterParser, ValkeyCluster
from valkey.asyncio.connection import DefaultParser
from valkey.asyncio.sentinel import Sentinel
from valkey.exceptions import InvalidResponse, ValkeyError

from edge.limit.replies import Reply, TooLarge
from edge.limit.store import StoreSettings

_RESTED_S = 0.005
"""A server is not started anew in less; a connection used since needs no look."""


class Client(Protocol):
    """The one call used, and the end."""

    def execute_command(self, *words: Any) -> Awaitable[Any]: ...
    def aclose(self) -> Awaitable[None]: ...


class _Measured:
    """What a parser reads from, with every answer held against its bounds before the parser sees it."""

    def __init__(self, stream: asyncio.StreamReader) -> None:
        self._stream = stream
        self._reply = Reply()

    async def read(self, size: int) -> bytes:
        raw = await self._stream.read(size)
        try:
            self._reply.take(raw)
        except TooLarge as exc:
            raise InvalidResponse(f"an answer beyond its bounds: {exc}") from exc
        return raw


def _measuring(parser: Any) -> Any:
    """The library's parser, reading from what is measured."""

    class Measuring(parser):  # type: ignore[misc] # whose base is known only now
        _stream: Any

        def on_connect(self, connection: Any) -> None:
            super().on_connect(connection)
            self._stream = _Measured(self._stream)

    return Measuring


_PARSER = _measuring(DefaultParser)  # one of two, by what is installed
_CLUSTER_PARSER = _measuring(ClusterParser)


class _Single:
    """One connection to one server. After a rest it is looked at before it is used: the server may have been started anew
    meanwhile, and a question that is lost on a dead connection would look as if the store were away."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._used_s = 0.0
        self._lock = asyncio.Lock()
        """Held by whoever reads from the connection."""

    async def execute_command(self, *words: Any) -> Any:
        async with self._lock:
            if time.monotonic() - self._used_s > _RESTED_S:
                await self._look()
            answer = await self._client.execute_command(*words)
            self._used_s = time.monotonic()
            return answer

    async def _look(self) -> None:
        connection = self._client.connection
        if connection is None or not connection.is_connected:
            return
        try:
            is_usable = not await connection.can_read_destructive()
        except ValkeyError:
            is_usable = False
        if not is_usable:
            await connection.disconnect()  # the next command connects again

    async def aclose(self) -> None:
        await self._client.aclose()


class _Watched:
    """A master as the sentinels name it, asked again at each reconnection. Ends together with their connections."""

    def __init__(self, master: Any, *sentinels: Any) -> None:
        self._master = master
        self._clients = (master, *sentinels)

    def execute_command(self, *words: Any) -> Awaitable[Any]:
        return cast(Awaitable[Any], self._master.execute_command(*words))

    async def aclose(self) -> None:
        for client in self._clients:
            await client.aclose()


def connect(settings: StoreSettings) -> Client:
    """A client that has not connected yet. It never repeats a command by itself: what was lost stays lost.

    One connection carries everything: questions of one tick of the loop go together, so more would gain nothing.
    """
    options: dict[str, Any] = {"db": settings.db, "username": settings.username, "password": settings.password}
    if settings.tls:
        options |= {
            "ssl": True,
            "ssl_cert_reqs": "required",
            "ssl_check_hostname": True,
            "ssl_ca_certs": settings.ca_file,
            "ssl_certfile": settings.certificate_file,
            "ssl_keyfile": settings.key_file,
        }
    if settings.topology == "cluster":
        del options["db"]
        nodes = [ClusterNode(host, port) for host, port in settings.addresses]
        cluster = ValkeyCluster(
            startup_nodes=nodes, cluster_error_retry_attempts=1, socket_timeout=settings.timeout_s, **options
        )
        # The nodes that are named here share no options with those that are heard of.
        for known in (cluster.connection_kwargs, *(node.connection_kwargs for node in nodes)):
            known["parser_class"] = _CLUSTER_PARSER
        return cast(Client, cluster)
    if settings.topology == "sentinel":
        # The sentinels themselves speak with the same TLS, and are asked without the master's credentials.
        secured = {name: value for name, value in options.items() if name.startswith("ssl")}
        secured["socket_timeout"] = settings.timeout_s
        sentinel: Any = Sentinel(settings.addresses, sentinel_kwargs=secured, **options)  # type: ignore[no-untyped-call]
        master = sentinel.master_for(settings.master, socket_timeout=settings.timeout_s)
        return _Watched(*map(_measured, (master, *sentinel.sentinels)))
    # The caller bounds each call as a whole; a second timer per read would cost more than the read.
    options |= {"single_connection_client": True, "lib_name": None, "lib_version": None}
    options |= {"socket_timeout": None, "socket_connect_timeout": settings.timeout_s}
    if settings.socket_path is not None:
        return _Single(_measured(Valkey(unix_socket_path=settings.socket_path, **options)))
    host, port = settings.addresses[0]
    return _Single(_measured(Valkey(host=host, port=port, **options)))


def _measured(client: Any) -> Any:
    """The same client, before it has connected: it takes no answer beyond the bounds."""
    client.connection_pool.connection_kwargs["parser_class"] = _PARSER
    return client
