"""Listening sockets. The supervisor makes them, keeps them, and lends them to workers.

A worker that dies must not reset the connections waiting in its queue: the socket outlives it and goes to its replacement.
SO_REUSEPORT gives each worker a queue of its own; the kernel lets only processes of the same user share a port that way.
Bound at start so that a taken port is said before anything else runs; a socket listens only when a worker serves it.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence

from edge.errors import UnsafeState


def bind(name: str, address: tuple[str, int], count: int) -> list[socket.socket]:
    """`count` sockets on one address, for one worker each; port 0 takes a free one. `name` is the listener's, for messages.

    Raises: UnsafeState when the address cannot be had; the process must not start.
    """
    host, port = address
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound: list[socket.socket] = []
    try:
        if port:
            # SO_REUSEPORT alone would share the port with a second gateway of this user: ask once without it.
            with _socket(family) as probe:
                probe.bind((host, port))
        for _ in range(count):
            sock = _socket(family)
            bound.append(sock)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            sock.bind((host, port))
            port = sock.getsockname()[1]
    except OSError as exc:
        for sock in bound:
            sock.close()
        reason = exc.strerror or str(exc)
        raise UnsafeState(
            f"listeners.{name}: cannot bind {_text(host, port)} ({reason}); free the address or change `bind`"
        ) from exc
    return bound


def _socket(family: socket.AddressFamily) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == socket.AF_INET6:
        # One listener, one family: `[::]` must not silently serve IPv4 as mapped addresses with other prefixes.
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    sock.setblocking(False)
    return sock


def port_of(sock: socket.socket | None) -> int | None:
    """Where it listens."""
    return int(sock.getsockname()[1]) if sock is not None else None


def address_text(sock: socket.socket) -> str:
    """`127.0.0.1:8443` or `[::1]:8443`, as the `ready` line has it."""
    host, port = sock.getsockname()[:2]
    return _text(host, port)


def _text(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def borrow(sock: socket.socket) -> socket.socket:
    """The worker's own descriptor of a socket it inherited: closing it leaves the supervisor's open."""
    return socket.socket(fileno=os.dup(sock.fileno()))


def close_all(listeners: dict[str, list[socket.socket]]) -> None:
    """Close the supervisor's copies: what no worker holds stops listening."""
    sockets: Sequence[socket.socket] = [sock for group in listeners.values() for sock in group]
    for sock in sockets:
        sock.close()
