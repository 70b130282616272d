from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from edge.serve.service_manager import ServiceManager


@pytest.fixture
def path() -> Iterator[Path]:
    with TemporaryDirectory(prefix="n") as directory:
        yield Path(directory) / "notify"


def listen(address: str) -> socket.socket:
    manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    manager.bind(address)
    manager.settimeout(1)
    return manager


def test_it_says_ready_reloading_stopping_and_takes_the_variable(path: Path) -> None:
    environ = {"NOTIFY_SOCKET": str(path), "HOME": "/"}
    with listen(str(path)) as manager:
        ours = ServiceManager.take(environ)
        assert environ == {"HOME": "/"}
        ours.ready("abcdef0123456789ffff")
        ours.reloading()
        ours.serving("0123")
        ours.stopping()
        assert manager.recv(1000) == b"READY=1\nSTATUS=serving bundle abcdef0123456789"
        first, second = manager.recv(1000).split(b"\n")
        assert (first, second.partition(b"=")[0]) == (b"RELOADING=1", b"MONOTONIC_USEC")
        assert int(second.partition(b"=")[2]) > 0
        assert manager.recv(1000) == b"STATUS=serving bundle 0123"
        assert manager.recv(1000).startswith(b"STOPPING=1\n")


def test_an_abstract_address(path: Path) -> None:
    name = f"edge-test-{path.parent.name}"
    with listen("\0" + name) as manager:
        ServiceManager.take({"NOTIFY_SOCKET": "@" + name}).stopping()
        assert manager.recv(1000).startswith(b"STOPPING=1")


@pytest.mark.parametrize("value", [None, "", "relative", "vsock:2:1234", "/nonexistent/notify", "/" + "x" * 200])
def test_no_manager_no_harm(value: str | None) -> None:
    environ = {} if value is None else {"NOTIFY_SOCKET": value}
    ServiceManager.take(environ).ready("abc")
    assert environ == {}
