"""Listening sockets that outlive a worker."""

from __future__ import annotations

import socket

import pytest

from edge.errors import UnsafeState
from edge.serve import sockets


def test_port_zero_gives_all_workers_the_same_free_port() -> None:
    group = sockets.bind("public", ("127.0.0.1", 0), 3)
    addresses = {sockets.address_text(sock) for sock in group}
    sockets.close_all({"public": group})
    assert len(addresses) == 1
    assert not addresses.pop().endswith(":0")


def test_bound_socket_does_not_accept_before_a_worker_listens() -> None:
    (sock,) = sockets.bind("public", ("127.0.0.1", 0), 1)
    with socket.socket() as caller:
        with pytest.raises(ConnectionRefusedError):
            caller.connect(sock.getsockname())
    sock.close()


def test_taken_port_is_refused_by_the_listeners_name() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(UnsafeState, match=r"listeners\.public: cannot bind 127\.0\.0\.1:\d+ .*change `bind`"):
            sockets.bind("public", other.getsockname(), 1)


def test_port_of_another_gateway_is_not_silently_shared() -> None:
    (first,) = sockets.bind("public", ("127.0.0.1", 0), 1)
    first.listen()
    with pytest.raises(UnsafeState):
        sockets.bind("public", first.getsockname(), 1)
    first.close()


def test_address_that_is_not_here_is_refused() -> None:
    with pytest.raises(UnsafeState, match=r"cannot bind 192\.0\.2\.1:0"):
        sockets.bind("admin", ("192.0.2.1", 0), 1)


def test_queued_connection_survives_the_borrower() -> None:
    (kept,) = sockets.bind("public", ("127.0.0.1", 0), 1)
    borrowed = sockets.borrow(kept)
    borrowed.listen()
    with socket.create_connection(kept.getsockname()) as caller:
        borrowed.close()  # the worker dies
        kept.setblocking(True)
        accepted, _ = kept.accept()  # its replacement
        accepted.sendall(b"hello")
        assert caller.recv(5) == b"hello"
        accepted.close()
    kept.close()


def test_ipv6_addresses_are_written_in_brackets_and_take_no_ipv4() -> None:
    try:
        (sock,) = sockets.bind("public", ("::1", 0), 1)
    except UnsafeState:
        pytest.skip("no IPv6 on this machine")
    with sock:
        assert sockets.address_text(sock).startswith("[::1]:")
        assert sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY) == 1
