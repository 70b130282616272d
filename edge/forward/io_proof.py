"""What is believed of who answers at an upstream's address: by which trust, and proven from one handshake.

A proof is asked for at each dial, again for what is open when the trust changes, and by the probe that shows no certificate.
"""

from __future__ import annotations

import asyncio
import itertools
import ssl
from collections.abc import Callable
from dataclasses import dataclass

from edge.errors import UpstreamIdentityRejected
from edge.forward.assertion import Assertions
from pki.errors import SvidRejected
from pki.issuance import RULE as UNRECORDED
from pki.svid import VerifiedSvid

generations = itertools.count(1)
"""Numbers of trust generations, unique in this process."""


@dataclass(frozen=True, slots=True)
class UpstreamTrust:
    """How this gateway proves itself and what it believes, as of one reload. `verify` raises `SvidRejected`."""

    generation: int
    digest: bytes
    """Of our chain, key, their anchors and whom we sign for: equal means that nothing changed, and connections live on."""
    context: ssl.SSLContext
    anonymous: ssl.SSLContext
    """The same belief, but nothing shown: for the probe."""
    verify: Callable[[ssl.SSLObject, str], VerifiedSvid]
    """(handshake, expected SPIFFE ID) → what was proven."""
    record_lag_s: float = 0.0
    """How long the proof of an issuance may be on its way to this gateway; 0 where the CA is, which writes it first."""
    assertions: Assertions | None = None
    """What it signs by the same key for services that ask for it; None: none does."""


def prove(trust: UpstreamTrust, handshake: ssl.SSLObject, spiffe_id: str) -> VerifiedSvid:
    """Raises: UpstreamIdentityRejected"""
    try:
        return trust.verify(handshake, spiffe_id)
    except SvidRejected as exc:
        raise UpstreamIdentityRejected(exc.rule) from exc


async def proven_soon(trust: UpstreamTrust, handshake: ssl.SSLObject, spiffe_id: str) -> VerifiedSvid:
    """Looks once more at who is not on record: his certificate may be some milliseconds old.

    Raises: UpstreamIdentityRejected
    """
    try:
        return prove(trust, handshake, spiffe_id)
    except UpstreamIdentityRejected as exc:
        if exc.rule != UNRECORDED or not trust.record_lag_s:
            raise
    await asyncio.sleep(trust.record_lag_s)
    return prove(trust, handshake, spiffe_id)
