"""How a command reaches the CA: over the control socket while a gateway runs that has it open, else by opening it itself.

Either way it is the same desk (`pki.io_desk`), so the same rules, the same record, the same certificate.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from edge.errors import UnsafeState
from edge.serve import control_socket
from pki import desk
from pki.errors import AuthorityBusy, AuthorityLocked
from pki.io_authority import LOCK_WAIT_S, Authority
from pki.io_desk import Desk
from pki.io_enrol import Grants
from pki.io_heartbeat import Heartbeats
from pki.io_keys import Passphrases
from pki.io_status import STATUS, Publisher

Asks = Callable[[desk.FromOperator], desk.Reply]
_PATIENCE_S = 30.0
_TURN_S = 0.5
"""Less than a gateway's authority stands aside for."""


@contextmanager
def reach(state: Path, passphrases: Passphrases, services: Mapping[str, tuple[str, ...]]) -> Iterator[Asks]:
    """Something to ask with. It raises the `PkiError` that the authority refused with.

    Raises:
        AuthorityLocked: missing, no or wrong passphrase, or held by another process for too long.
        UnsafeFile, NotRecorded: see `Authority.open`.
    """
    authority = _opened(state, passphrases, until=lambda: _is_open_there(state))
    if authority is None:
        yield lambda request: _granted(_over_there(state, request))
        return
    with authority:
        publisher = Publisher(authority, state / STATUS)
        own = Desk(authority, passphrases, publisher, Grants(services))
        with Heartbeats(publisher):  # a gateway may wait to have it open again
            yield partial(_granted_by, own)


@contextmanager
def alone(state: Path, passphrases: Passphrases) -> Iterator[Authority]:
    """The authority itself, for what needs the root's key; a gateway that has it open stands aside meanwhile.

    Raises: as `reach`.
    """

    def ask_for_it() -> bool:
        """Each turn anew: it is back after a second, and this process may have been slower."""
        if _is_open_there(state):
            _granted(_over_there(state, desk.StandAside()))
        return False

    authority = _opened(state, passphrases, until=ask_for_it)
    assert authority is not None
    with authority:
        yield authority


def _opened(state: Path, passphrases: Passphrases, *, until: Callable[[], bool]) -> Authority | None:
    """The authority, as soon as nobody else has it; None when `until`, asked before each turn of waiting, is so.

    Raises: as `reach`.
    """
    deadline = time.monotonic() + LOCK_WAIT_S
    while not until():
        left_s = max(0.0, min(_TURN_S, deadline - time.monotonic()))
        try:
            return Authority.open(state / "ca", passphrases, now=datetime.now(UTC), lock_wait_s=left_s)
        except AuthorityBusy:  # another command; or a gateway that starts, whose socket is not there yet
            if time.monotonic() >= deadline:
                raise
    return None


def _is_open_there(state: Path) -> bool:
    """Does a gateway run that has the authority open?"""
    try:
        _granted(_over_there(state, desk.Hello()))
    except (UnsafeState, AuthorityLocked):
        return False
    return True


def _over_there(state: Path, request: desk.FromOperator) -> desk.Reply:
    """Raises: UnsafeState when no gateway runs, AuthorityLocked when it has no authority open."""
    answer = control_socket.ask(state / "run", "ca", _PATIENCE_S, desk.encode(request))
    if not answer.ok:
        raise AuthorityLocked("; ".join(answer.faults))
    return desk.read_reply(bytes(answer.ca))


def _granted_by(own: Desk, request: desk.FromOperator) -> desk.Reply:
    return _granted(own.answer(request, datetime.now(UTC)))


def _granted(reply: desk.Reply) -> desk.Reply:
    if isinstance(reply, desk.Failed):
        raise desk.error_of(reply)
    return reply
