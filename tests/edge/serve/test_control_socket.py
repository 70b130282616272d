"""`control.sock`: one command, one answer, for the gateway's own user only."""

from __future__ import annotations

import os
import socket
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge.errors import UnsafeState
from edge.serve.control_socket import Answer, Command, ControlSocket, Reply, ask, peer_uid
from edge.serve.reactor import Reactor
from edge.serve.run_state import open_directory, unix_address


class Owner:
    """What the supervisor is to the socket: takes commands, answers when it likes."""

    def __init__(self) -> None:
        self.commands: list[tuple[str, Reply]] = []

    def __call__(self, command: Command, reply: Reply) -> None:
        self.commands.append((command.command, reply))


@pytest.fixture
def owner() -> Owner:
    return Owner()


@pytest.fixture
def directory_fd(tmp_path: Path) -> Iterator[int]:
    directory_fd = open_directory(tmp_path)
    yield directory_fd
    os.close(directory_fd)


@pytest.fixture
def control(reactor: Reactor, directory_fd: int, owner: Owner) -> Iterator[ControlSocket]:
    control = ControlSocket(reactor, directory_fd, owner)
    yield control
    control.close()


def connect(directory_fd: int) -> socket.socket:
    caller = socket.socket(socket.AF_UNIX)
    caller.connect(unix_address(directory_fd, "control.sock"))
    caller.settimeout(2)
    return caller


def exchange(reactor: Reactor, directory_fd: int, *chunks: bytes) -> bytes:
    """What comes back, once the other end hung up."""
    with connect(directory_fd) as caller:
        for chunk in chunks:
            caller.sendall(chunk)
            reactor.run_until(lambda: False, 0.003)
        caller.setblocking(False)
        received = b""

        def hung_up() -> bool:
            nonlocal received
            try:
                part = caller.recv(4096)
            except BlockingIOError:
                return False
            except ConnectionResetError:
                return True
            received += part
            return not part

        caller.shutdown(socket.SHUT_WR)
        reactor.run_until(hung_up, 0.2)
        return received


def test_only_the_owner_may_open_the_file(control: ControlSocket, tmp_path: Path) -> None:
    assert stat.S_IMODE((tmp_path / "control.sock").stat().st_mode) == 0o600


def test_answer_may_come_later(reactor: Reactor, control: ControlSocket, owner: Owner, tmp_path: Path) -> None:
    answers: list[Answer] = []
    caller = threading.Thread(target=lambda: answers.append(ask(tmp_path, "reload", 5)))
    caller.start()
    assert reactor.run_until(lambda: bool(owner.commands), 2)
    command, reply = owner.commands[0]
    assert command == "reload"
    reply(Answer(ok=False, faults=("routes.yaml:1:1: x: y; z",)))
    caller.join(5)
    assert answers == [Answer(ok=False, faults=("routes.yaml:1:1: x: y; z",))]


def test_second_answer_is_ignored(reactor: Reactor, control: ControlSocket, directory_fd: int, owner: Owner) -> None:
    with connect(directory_fd) as caller:
        caller.sendall(b'{"command":"reload"}\n')
        assert reactor.run_until(lambda: bool(owner.commands), 2)
        owner.commands[0][1](Answer(ok=True))
        owner.commands[0][1](Answer(ok=False))
        assert caller.recv(4096).count(b"\n") == 1


@pytest.mark.parametrize(
    "line",
    [b"reload\n", b"{}\n", b'{"command":1}\n', b'{"command":"reload","x":1}\n', b"\n", b"\xff\n", b"[" * 3000 + b"\n"],
)
def test_line_that_is_no_command_is_answered_with_why(
    reactor: Reactor, control: ControlSocket, directory_fd: int, owner: Owner, line: bytes
) -> None:
    with connect(directory_fd) as caller:
        caller.sendall(line)
        reactor.run_until(lambda: False, 0.02)
        assert caller.recv(4096).startswith(b'{"ok":false')
    assert owner.commands == []


@pytest.mark.parametrize(
    "chunks",
    [(b'{"command":"reload"}',), (b'{"command":"reload"}\nx',), (b"x" * 3000, b"x" * 3000), (b"",)],
    ids=["no newline", "something after it", "too long", "nothing"],
)
def test_anything_but_one_line_is_hung_up_on(
    reactor: Reactor, control: ControlSocket, directory_fd: int, owner: Owner, chunks: tuple[bytes, ...]
) -> None:
    assert exchange(reactor, directory_fd, *chunks) == b""
    assert owner.commands == []


def test_command_may_come_byte_by_byte(
    reactor: Reactor, control: ControlSocket, directory_fd: int, owner: Owner
) -> None:
    with connect(directory_fd) as caller:
        for byte in b'{"command":"reload"}\n':
            caller.sendall(bytes((byte,)))
            reactor.run_until(lambda: False, 0.001)
        assert [command for command, _ in owner.commands] == ["reload"]


def test_silent_callers_do_not_pile_up(reactor: Reactor, control: ControlSocket, directory_fd: int) -> None:
    callers = []
    for _ in range(12):
        callers.append(connect(directory_fd))
        reactor.run_until(lambda: False, 0.002)
    refused = 0
    for caller in callers:
        caller.setblocking(False)
        try:
            refused += caller.recv(1) == b""
        except BlockingIOError:
            pass
        caller.close()
    assert refused == 4


def test_long_answers_are_shortened_to_what_never_blocks(
    reactor: Reactor, control: ControlSocket, owner: Owner, tmp_path: Path
) -> None:
    answers: list[Answer] = []
    caller = threading.Thread(target=lambda: answers.append(ask(tmp_path, "reload", 5)))
    caller.start()
    assert reactor.run_until(lambda: bool(owner.commands), 2)
    owner.commands[0][1](Answer(ok=False, faults=("f" * 9000,) * 5000))
    caller.join(5)
    assert len(answers[0].faults) == 101
    assert answers[0].faults[-1] == "… and 4900 more; `edge check` shows all"


def test_socket_of_a_killed_predecessor_is_replaced(reactor: Reactor, directory_fd: int, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(unix_address(directory_fd, "control.sock"))
    control = ControlSocket(reactor, directory_fd, Owner())
    connect(directory_fd).close()
    control.close()
    assert not (tmp_path / "control.sock").exists()


def test_no_gateway_is_said_with_the_remedy(tmp_path: Path) -> None:
    for directory in (tmp_path, tmp_path / "none"):
        with pytest.raises(UnsafeState, match="start it with `edge serve`"):
            ask(directory, "reload", 1)


def test_kernel_names_the_peer() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert peer_uid(ours) == os.getuid()
