"""Replacing intermediates, or the root and them, without an interruption: which stage follows, and what it waits for.

    making ──▶ announced ──▶ switched ──▶ (nothing: the old ones are gone)
               new beside     new sign,    every current certificate
               the old in     old still    is of the new ones
               all bundles    trusted

The order is what keeps every connection up: nobody is shown a certificate of an authority that he was not told of before.
What each stage waits for is evidence from the record and not the passing of time:
- announced: who must know the new ones was given a bundle that has them. For a new root that is everybody; for intermediates
  only gateways, since services trust the root and are sent the intermediate in the handshake;
- switched: the newest certificate of every identity was issued by a new one; and who renewed over the network has shown one
  such, for the answer may have been lost on the way: whoever was left with the old one could never come back.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

import msgspec

from pki.est import RENEWAL
from pki.io_rows import Issuance

Kind = Literal["intermediate", "root"]
Stage = Literal["making", "announced", "switched"]


class Rotation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is under way, as it is kept."""

    kind: Kind
    stage: Stage
    started_at: int
    """Seconds since the epoch. What was made since is new."""
    bundle: int = 0
    """Sequence of the first bundle that has the new ones; known once they are announced."""


class Evidence(msgspec.Struct, frozen=True):
    """How far a stage has come."""

    what: str
    done: int
    waiting: tuple[str, ...]
    """Identities, `role/name`."""

    @property
    def is_complete(self) -> bool:
        return not self.waiting

    def __str__(self) -> str:
        text = f"{self.done}/{self.done + len(self.waiting)} {self.what}"
        return f"{text}; waiting for {', '.join(self.waiting[:10])}" if self.waiting else text


def holders(issuances: Iterable[Issuance]) -> dict[tuple[str, str], Issuance]:
    """(role, name) → the newest certificate that is good, of everybody who has one; in the order of the rows."""
    return {(each.role, each.name): each for each in issuances if each.state == "issued" and each.role != "root"}


def announced(
    rotation: Rotation, current: Mapping[tuple[str, str], Issuance], seen: Mapping[tuple[str, str], int]
) -> Evidence:
    """Who was given the new bundle."""
    roles = ("gw",) if rotation.kind == "intermediate" else ("svc", "gw", "op")
    asked = [identity for identity in current if identity[0] in roles]
    waiting = [identity for identity in asked if seen.get(identity, 0) < rotation.bundle]
    return _evidence("identities have the new bundle", asked, waiting)


def switched(
    current: Mapping[tuple[str, str], Issuance], new: Iterable[str], shown: Mapping[tuple[str, str], str]
) -> Evidence:
    """Whose newest certificate is of a new issuer. `new`: their key digests, hex; `shown`: that of the newest certificate
    that each was seen with."""
    good = frozenset(new)
    waiting = [
        identity
        for identity, each in current.items()
        if each.issuer_sha256 not in good or (each.requester == RENEWAL and shown.get(identity) not in good)
    ]
    return _evidence("identities have a certificate of the new issuers", list(current), waiting)


def _evidence(what: str, asked: list[tuple[str, str]], waiting: list[tuple[str, str]]) -> Evidence:
    return Evidence(what, len(asked) - len(waiting), tuple(f"{role}/{name}" for role, name in waiting))
