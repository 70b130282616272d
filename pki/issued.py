"""A certificate as it leaves the authority, with everything its holder needs; also over a wire (`desk`)."""

from __future__ import annotations

from datetime import datetime

import msgspec

from pki.issue import IssuerRole, renew_at
from pki.spiffe import SpiffeId


class Issued(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A certificate that was recorded, signed, verified and logged."""

    number: int
    role: IssuerRole
    name: str
    names: tuple[str, ...]
    """Every subject alternative name as text; the SPIFFE ID first, except for role `edge`, which has none."""
    serial_hex: str
    not_before: datetime
    not_after: datetime
    leaf: bytes
    """DER."""
    leaf_pem: bytes
    chain_pem: bytes
    """Leaf, then the intermediate: what a TLS server presents."""
    bundle_pem: bytes
    """The roots: what a service trusts."""
    intent_index: int
    log_index: int
    log_entry: bytes
    proof: bytes

    @property
    def serial(self) -> int:
        return int(self.serial_hex, 16)  # 159 bits: more than a JSON number carries

    @property
    def spiffe_id(self) -> SpiffeId | None:
        return None if self.role == "edge" else SpiffeId.parse(self.names[0])

    @property
    def renew_after(self) -> datetime:
        return renew_at(self.not_before, self.not_after)
