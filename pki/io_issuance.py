"""The issuance record on a gateway's disk (`issuance`): the authority writes it, gateways ask it.

A gateway looks when it meets a certificate for the first time: the authority writes the proof before it hands the certificate
out, so a service that was certified a moment ago is known at its first handshake; it takes no timer and no message. Laws:

- Where `issuance-log.json` lies, a proof is expected of every certificate of ours; a document that cannot be believed is one
  that lies there, and then nothing is known, which refuses. Who has seen the document goes on asking if it disappears.
- Where it never lay, there is no record to ask: an authority that was not opened since, or a gateway that joined by material
  and to which nobody copies `state/status`. Then the signature alone counts.
- What is proven once stays proven: the log only grows.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from hashlib import sha256
from pathlib import Path

from pki.errors import NotRecorded, PkiError, StatusRejected, SvidRejected
from pki.io_authority import Authority
from pki.io_files import private_directory, read_private, write_private
from pki.issuance import ISSUED, LOG_KEY, RULE, check_issued, parse_log_key, seal_log_key
from pki.revocation import MAX_BYTES, StatusSigner
from pki.tlog import note
from pki.tlog.proof import MAX_PROOF_BYTES

_KEPT = 4096
_NAME = re.compile(r"[0-9a-f]{64}\Z")


class IssuedFiles:
    """Writes them. Owned by who holds the authority open."""

    def __init__(self, authority: Authority, directory: Path) -> None:
        """`directory`: what the authority publishes.

        Raises:
            UnsafeFile: it is open to others.
        """
        private_directory(directory / ISSUED)
        self._authority = authority
        self._directory = directory
        self._said_by: StatusSigner | None = None

    def publish(self, now: datetime) -> None:
        """A proof of each certificate that has not ended, and no other; then, once, whose log that is.

        Raises:
            NotRecorded: the log is damaged, or the disk refused.
        """
        try:
            self._publish_proofs(now)
            self._say_key()
        except OSError as error:
            raise NotRecorded(f"the proof of an issuance cannot be written: {error}") from error

    def _publish_proofs(self, now: datetime) -> None:
        record, directory = self._authority.record, self._directory / ISSUED
        with record.rows() as rows:
            wanted = {sha256(certificate).hexdigest(): index for certificate, index in rows.placed(now)}
        held = set(os.listdir(directory))
        for name in wanted.keys() - held:
            write_private(directory / name, record.proof(wanted[name]))
        for name in held - wanted.keys():
            (directory / name).unlink(missing_ok=True)

    def _say_key(self) -> None:
        signer = self._authority.status_signer()
        if self._said_by is None or self._said_by.certificate != signer.certificate:  # which is not trusted for ever
            raw = seal_log_key(signer, self._authority.trust_domain, self._authority.record.log_key)
            write_private(self._directory / LOG_KEY, raw, replace=True)
            self._said_by = signer


def published(directory: Path, known: Collection[str]) -> tuple[bytes, dict[str, bytes]]:
    """What lies there: the document that names the log (empty when there is none), and the proofs by digest but for these."""
    try:
        raw = read_private(directory / LOG_KEY, limit=MAX_BYTES)
        names = [name for name in os.listdir(directory / ISSUED) if _NAME.match(name) and name not in known]
    except FileNotFoundError:
        return b"", {}
    found = {}
    for name in names:
        with suppress(FileNotFoundError):  # it has ended meanwhile
            found[name] = read_private(directory / ISSUED / name, limit=MAX_PROOF_BYTES)
    return raw, found


class IssuanceCopy:
    """Writes what another gateway passes on, as `published` there gives it. Nothing is written that is not proven."""

    def __init__(self, directory: Path) -> None:
        """`directory`: exists."""
        self._directory = directory
        self._key: note.Verifier | None = None

    def take(
        self, log: bytes, issued: Mapping[str, str], *, anchors: Sequence[bytes], trust_domain: str, now: datetime
    ) -> None:
        """`log`: empty, or then `issued` is all there is, and what else lies here is taken away.

        Raises:
            StatusRejected, SvidRejected: something in it is not the authority's word.
        """
        if log:
            self._key = parse_log_key(log, anchors=anchors, trust_domain=trust_domain, now=now)
        if self._key is None:
            return
        for name, text in issued.items():
            if not _NAME.match(name):
                raise StatusRejected("malformed", "not the name of a proof")
            check_issued(text.encode(), bytes.fromhex(name), self._key)
        place = self._directory / ISSUED
        private_directory(place)
        held = set(os.listdir(place))
        for name in issued.keys() - held:
            write_private(place / name, issued[name].encode())
        if log:
            for name in held - issued.keys():
                (place / name).unlink(missing_ok=True)
            write_private(self._directory / LOG_KEY, log, replace=True)


class IssuanceRecord:
    """Asks them. Owner: a worker; one thread."""

    def __init__(self, directory: Path) -> None:
        """`directory`: what the authority publishes, or a copy; it need not exist."""
        self._directory = directory
        self._key: note.Verifier | None = None  # never replaced: an authority does not change its log
        self._proven: set[bytes] = set()

    def check(self, leaf_sha256: bytes, *, anchors: Sequence[bytes], trust_domain: str, now: datetime) -> None:
        """Was this certificate handed out by the authority? `anchors`: roots, DER.

        Raises:
            SvidRejected: `not-in-issuance-record`
        """
        if leaf_sha256 in self._proven:
            return
        try:
            if self._key is None:
                raw = read_private(self._directory / LOG_KEY, limit=MAX_BYTES)
                self._key = parse_log_key(raw, anchors=anchors, trust_domain=trust_domain, now=now)
        except FileNotFoundError:
            return
        except (PkiError, OSError) as error:
            raise SvidRejected(RULE, f"{LOG_KEY} cannot be believed: {error}") from error
        try:
            raw = read_private(self._directory / ISSUED / leaf_sha256.hex(), limit=MAX_PROOF_BYTES)
        except (PkiError, OSError) as error:
            raise SvidRejected(RULE, f"no proof of {leaf_sha256.hex()}") from error
        check_issued(raw, leaf_sha256, self._key)
        if len(self._proven) >= _KEPT:
            self._proven.clear()
        self._proven.add(leaf_sha256)
