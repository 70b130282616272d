"""How a command reaches the authority while a gateway has it open."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from edge.cli.authority import alone
from edge.serve.control_socket import Answer, Command, ControlSocket, Reply
from edge.serve.reactor import Reactor
from edge.serve.run_state import open_directory
from pki import desk
from pki.io_files import lock
from pki.io_keys import Passphrases
from tests.pki.founding import found_authority


@pytest.fixture
def state(tmp_path: Path) -> Path:
    found_authority(tmp_path / "ca", datetime.now(UTC))
    return tmp_path


class Office:
    """A gateway that has the authority open and stands aside when it is asked for the `patience`th time: before, it is back
    before who asked has come."""

    def __init__(self, state: Path, patience: int) -> None:
        self.asked, self.patience = 0, patience
        self._lock: int | None = lock(state / "ca" / "lock", wait_s=0)
        self._is_over = False
        self._reactor = Reactor()
        (state / "run").mkdir(mode=0o700)
        self._directory_fd = open_directory(state / "run")
        self._control = ControlSocket(self._reactor, self._directory_fd, self._handle)
        self._look()
        self._thread = threading.Thread(target=self._reactor.run_until, args=(lambda: self._is_over,))
        self._thread.start()

    def _look(self) -> None:
        """Whether it is over."""
        self._reactor.after(0.02, self._look)

    def _handle(self, command: Command, reply: Reply) -> None:
        assert command.command == "ca"
        if isinstance(desk.read_operator(bytes(command.ca)), desk.StandAside):
            self.asked += 1
            if self.asked == self.patience:
                self.release()
            said: desk.Reply = desk.Done()
        else:
            said = desk.Failed("AuthorityLocked", "", "") if self._lock is None else desk.Done()
        reply(Answer(ok=True, ca=msgspec.Raw(desk.encode(said))))

    def release(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def close(self) -> None:
        self._is_over = True
        self._thread.join()
        self._control.close()
        self._reactor.close()
        os.close(self._directory_fd)
        self.release()


@pytest.fixture
def office(state: Path, request: pytest.FixtureRequest) -> Iterator[Office]:
    office = Office(state, request.param)
    yield office
    office.close()


@pytest.mark.parametrize("office", [1, 2], indirect=True, ids=["at once", "back before we came"])
def test_a_gateway_is_asked_to_stand_aside_until_the_authority_is_had(state: Path, office: Office) -> None:
    with alone(state, Passphrases(state / "ca")) as authority:
        assert (authority.directory, office.asked) == (state / "ca", office.patience)
