"""What both middlewares are made of: their settings, the verifier of today, and one judgement of a request.

How a request and its connection are read is the middleware's; what is let in is decided here, the same for both.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from os import PathLike
from typing import Required, TypedDict

from edge.verify.claims import Caller
from edge.verify.form import Mode
from edge.verify.io_bundle import Watched
from edge.verify.rules import AssertionRefused, Peer, require_peer
from edge.verify.verifier import Presented, Settings

_log = logging.getLogger("edge.verify")


class Options(TypedDict, total=False):
    """What a middleware is told beside its application."""

    service: Required[str]
    """As in `Settings`, like `mode` and `gateways`."""
    bundle: Required[str | PathLike[str]]
    """The PEM file that was issued with the certificate."""
    mode: Mode
    gateways: Iterable[str]
    peer: Peer
    """`shown`, the server must show the connection's certificate; `server`, it requires one of the bundle by itself and shows
    nothing, as Hypercorn and uvicorn do, and the assertion alone tells the gateway."""


class Guard:
    """Threads may share it, as they may its verifiers."""

    def __init__(
        self,
        *,
        service: str,
        bundle: str | PathLike[str],
        mode: Mode = "subject",
        gateways: Iterable[str] = (),
        peer: Peer = "shown",
    ) -> None:
        """As `Options` say. Raises: BadSettings."""
        require_peer(peer)
        self._must_show = peer == "shown"
        self._watched = Watched(Settings(service, mode, frozenset(gateways)), bundle)

    def caller(self, shown: Callable[[], Sequence[bytes] | None], presented: Presented) -> Caller:
        """Who calls. `shown` gives what the connection's peer proved itself with, leaf first, DER, or None where the server
        shows nothing; a ValueError: it cannot be read.

        Raises: AssertionRefused, which the log has then.
        """
        try:
            now_ns = time.time_ns()
            verifier = self._watched.verifier()
            try:
                chain = shown()
            except ValueError as exc:
                raise AssertionRefused("peer-rejected", "not PEM") from exc
            if not chain and (self._must_show or chain is not None):
                raise AssertionRefused("peer-unknown")
            peer = verifier.check_peer(chain, now_ns) if chain else None
            return verifier.check(presented, now_ns, peer)
        except AssertionRefused as refused:
            _log.warning("refused: %s", refused)
            raise
