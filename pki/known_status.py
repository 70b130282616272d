"""What one process knows of revocation: the newest set that it verified, and until when not knowing of a newer one is fine.

It takes what the authority signed, in any order and from wherever it was read, and gets either wiser or an exception. Laws:

- The set that is held is never replaced by an older one, nor by another of its number (attack P28). The same document again
  changes nothing.
- A heartbeat is never replaced by one that was said before it.
- Whoever has heard a heartbeat goes on asking for one: ten seconds after the last nobody knows what is revoked, and that
  refuses (`revoked` is None), also when the document is gone. The same when the set that a heartbeat tells of is withheld.
- Before that refuses, whoever reads for us is asked to look (`look_again`): a process that stood still, or had no time, has
  not read what lies there by now.
- Who never heard one has an authority that is closed, or none: what was revoked is still refused, and nothing else. But
  something there that cannot be verified is not nothing: then nobody knows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime

from pki.errors import StatusRejected
from pki.revocation import Heartbeat, RevocationSet


class KnownStatus:
    """Owner: the process; one thread. It never forgets what it verified, whatever is trusted later."""

    def __init__(self) -> None:
        self._held: RevocationSet | None = None
        self._heartbeat: Heartbeat | None = None
        self._doubts_set = self._doubts_heartbeat = False
        self.look_again: Callable[[], None] = lambda: None
        """Called when what is held does not say what is revoked; it may give us something newer."""
        self._is_looking = False

    @property
    def number(self) -> int:
        """Of the set that is held; 0 when none is."""
        return self._held.number if self._held is not None else 0

    @property
    def listed(self) -> frozenset[tuple[bytes, int]]:
        """What the set that is held names, whether it is still the newest or not."""
        return self._held.revoked if self._held is not None else frozenset()

    @property
    def documents(self) -> tuple[bytes, bytes] | None:
        """Heartbeat and set as the authority signed them, for who cannot hear it himself; None where both are not held."""
        if self._heartbeat is None or self._held is None:
            return None
        return self._heartbeat.raw, self._held.raw

    def take_set(self, raw: bytes, *, anchors: Sequence[bytes], trust_domain: str, now: datetime) -> bool:
        """→ whether a newer set is held now.

        Raises:
            StatusRejected: it does not verify, or would take back what is known (`rollback`).
        """
        if self._held is not None and raw == self._held.raw:
            return False
        offered = RevocationSet.parse(raw, anchors=anchors, trust_domain=trust_domain, now=now)
        if not offered.supersedes(self._held):
            raise StatusRejected("rollback", f"number {offered.number}, while {self.number} is known")
        self._held = offered
        return True

    def take_heartbeat(self, raw: bytes, *, anchors: Sequence[bytes], trust_domain: str, now: datetime) -> None:
        """Raises:
        StatusRejected: it does not verify, or was said before the one that is known (`rollback`).
        """
        offered = Heartbeat.parse(raw, anchors=anchors, trust_domain=trust_domain, now=now)
        known = self._heartbeat
        if known is not None and (offered.at, offered.number) < (known.at, known.number):
            raise StatusRejected("rollback", f"said {known.at - offered.at} s before the one that is known")
        self._heartbeat = offered

    def doubt_set(self) -> None:
        """There is one that cannot be read or believed. Of no account when one is held."""
        self._doubts_set = True

    def doubt_heartbeat(self) -> None:
        """As `doubt_set`."""
        self._doubts_heartbeat = True

    def revoked(self, now: datetime) -> frozenset[tuple[bytes, int]] | None:
        """What `svid.verify` asks: what is revoked, or None when that is not known."""
        revoked = self._revoked(now)
        if revoked is None and not self._is_looking:
            self._is_looking = True
            try:
                self.look_again()
            finally:
                self._is_looking = False
            revoked = self._revoked(now)
        return revoked

    def _revoked(self, now: datetime) -> frozenset[tuple[bytes, int]] | None:
        heartbeat = self._heartbeat
        if heartbeat is None:
            is_doubtful = self._doubts_heartbeat or (self._doubts_set and self._held is None)
            return None if is_doubtful else self.listed
        if self._held is None or not heartbeat.vouches_for(self._held, now):
            return None
        return self._held.revoked
