"""What every authentication method is to the chain.

A method answers in one of four ways: `NOT_PRESENT` (the request holds no credential of this kind; the next method is asked),
a `Principal` (valid), a `Need` (a key set must be fetched first; ask again afterwards), or it raises `CredentialRejected`
(present and bad: the chain stops, it never falls through to a weaker method). It never writes a response.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Literal, Protocol

from edge.authn.issuer import IssuerSettings
from edge.authn.keys import KeySet
from edge.model.decision import Need
from edge.model.http import Request
from edge.model.identity import Peer, Principal

if TYPE_CHECKING:
    from edge.authn.mtls import ClientTrust
    from edge.verify.verifier import Verifier


class Absence(Enum):
    """The answer of a method that finds no credential of its kind."""

    NOT_PRESENT = "not-present"


NotPresent = Literal[Absence.NOT_PRESENT]
NOT_PRESENT: NotPresent = Absence.NOT_PRESENT


class KeySource(Protocol):
    """Key sets as a method sees them; `io_keyset.KeySets` fetches, the simulator of the tests holds them in memory."""

    def get(self, issuer: str) -> KeySet | None:
        """The current keys of an issuer, or None when there are none (yet, or any more)."""

    def need(self, issuer: str, now_ns: int) -> Need | None:
        """A fetch of the issuer's keys, or None when one was tried too recently to try again.

        Raises: NotReady when there are no keys and no fetch may start now; then 503.
        """


class Method(Protocol):
    """One authentication method, built once per configuration."""

    def authenticate(self, request: Request, peer: Peer, now_ns: int) -> Principal | Need | NotPresent:
        """Who calls, by this method.

        Raises: CredentialRejected; NotReady.
        """

    def remembers(self, raw_authorization: bytes) -> bool:
        """Whether this credential was verified lately, so that its holder may go before strangers; proves nothing."""


@dataclass(frozen=True, slots=True)
class Materials:
    """What methods are built from; a method takes what is its own."""

    issuers: Sequence[IssuerSettings]
    key_source: KeySource
    client_trust: ClientTrust | None = None
    """None: no listener asks for client certificates."""
    assertions: Verifier | None = None
    """None: nobody has to show an `Edge-Assertion`."""
