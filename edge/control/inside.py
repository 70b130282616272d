"""What a handler of the control plane may know of its worker. Callables, because a reload swaps what they answer."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Protocol

from edge.model.identity import Peer
from edge.registry.admission import Granted, Refused
from pki import desk

Facts = Mapping[str, object]
Ask = Callable[[desk.FromWorker], Awaitable[desk.Reply]]
"""Raises: Shedding when too many ask, NotReady when there is no answer."""


@dataclass(frozen=True, slots=True)
class Asked:
    """Who asks about which instance. `subject` is the SPIFFE ID that the line authenticated."""

    service: str
    instance: str
    subject: str
    peer: Peer


class Register(Protocol):
    """Who takes registrations. Refusals are values; they are recorded there."""

    async def register(self, asked: Asked, body: bytes) -> Granted | Refused: ...

    async def leave(self, asked: Asked) -> float | Refused:
        """→ for how many seconds requests may still come."""


@dataclass(frozen=True, slots=True)
class Inside:
    """One worker, as its control plane sees it."""

    status: Callable[[], Facts]
    routes: Callable[[], list[Facts]]
    metrics: Callable[[], bytes]
    """Of all workers, as Prometheus text."""
    bundle: Callable[[], bytes]
    """PEM: the roots of the trust domain and the intermediates below them."""
    words: Callable[[], AsyncIterator[tuple[bytes, bytes]]]
    """What the authority says of revocation: its heartbeat and its set, now and whenever either is new."""
    issued: Callable[[Collection[str]], tuple[bytes, Mapping[str, bytes]]]
    """Which log holds the authority's issuances (empty while it has not said so), and the proofs of all but these."""
    spiffe_bundle: Callable[[], bytes] = bytes
    """As the authority published it; empty where it has not."""
    trusted: Callable[[], bytes] = bytes
    """The bundle as the authority vouches for it (`pki.succession`); empty where it has not said so."""
    services_port: int | None = None
    """Of the services listener; None where it is not opened."""
    authority: Ask | None = None
    """The process that signs; None where this gateway hosts no CA."""
    register: Register | None = None
    """None where an outside authority issues: it has no services listener either."""
    services: Callable[[], Facts] = dict
    """Who serves what, and why something does not."""
