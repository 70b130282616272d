"""Revoking, and saying so: what the authority publishes about what it has issued.

    state/status/               0700, read by the gateway's workers; everything in it is signed
      revocation.json           the newest set (`revocation.RevocationSet`)
      heartbeat.json            that it was the newest two seconds ago
      bundle.pem bundle.json    the roots and intermediates of each role; the roots as a SPIFFE bundle with its sequence
      trusted.json              the same bundle, vouched for by what was trusted before (`succession`)
      crl/<issuer's key>.crl    a standard list per issuer (RFC 5280, DER), for others
      issuance-log.json issued/   what the authority handed out, proven (`issuance`)

A revocation is in the record before it is in the set, and its number is taken durably before it is signed: after a crash at
any point the next publication holds everything that was revoked, under a number that nobody saw yet.
"""

from __future__ import annotations

import os
import threading
from base64 import b64encode
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from pki import bundle_json, crl
from pki.errors import IssueRefused, StatusRejected
from pki.io_authority import Authority
from pki.io_create import key_name, spki_sha256
from pki.io_files import if_there, private_directory, read_private, sync_directory, write_private
from pki.io_issuance import IssuedFiles
from pki.io_keys import Keyring, Passphrases
from pki.io_record import Issuance
from pki.io_succession import kept
from pki.issue import ISSUER_ROLES, UPSTREAM_ROLES, unverified_role
from pki.revocation import FRESH_S, MAX_BYTES, Entry, Heartbeat, RevocationSet
from pki.succession import TrustedBundle

STATUS = "status"
"""Below the state directory: what the authority publishes."""
SET = "revocation.json"
HEARTBEAT = "heartbeat.json"
TRUSTED = "trusted.json"
CRLS = "crl"
_COUNTER = "revocation"
_BUNDLE = "bundle"


def revoke(
    authority: Authority, role: str, name: str, now: datetime, *, reason: str, serial: int | None, requester: str
) -> list[Issuance]:
    """Revoke what an identity holds (or the one `serial` of it), and the tokens it could obtain more with. Of the role `root`
    it is the intermediates of the role `name` that no longer sign (attack P25).

    Raises:
        IssueRefused: the reason is not one of the standard's, there is nothing of that name and serial to revoke, or it is
            the intermediate that signs: without another one nobody could be certified.
        NotRecorded: could not be recorded.
    """
    if reason not in crl.REASONS:
        raise IssueRefused("reason", f"{reason!r} is none of {', '.join(crl.REASONS)}")
    with authority.record.rows() as rows:
        held = [each for each in rows.unexpired(now, role, name) if each.state != "revoked"]
        if serial is None:
            rows.cancel_tokens(role, name)
    chosen = [each for each in held if serial in (None, each.serial)]
    if role == "root":
        chosen = _out_of_use(authority, name, chosen)
    if not chosen and serial is not None:
        raise IssueRefused("nothing-to-revoke", f"{role}/{name} holds no certificate of serial {serial:x}")
    for each in chosen:
        authority.record.revoked(each.number, each.serial, reason, now, requester=requester)
    return chosen


def _out_of_use(authority: Authority, name: str, chosen: list[Issuance]) -> list[Issuance]:
    """Those before the one that signs: neither it nor one that a rotation is about to bring in.

    Raises:
        IssueRefused: there is none.
    """
    signing = {signers[0].serial_number for signers in authority.signers.values()}
    with authority.record.rows() as rows:
        first = max(
            (each.number for each in map(rows.find, signing) if each is not None and each.name == name), default=0
        )
    older = [each for each in chosen if each.number < first]
    if chosen and not older:
        raise IssueRefused("signs", f"the {name} intermediate signs; replace it first: edge ca rotate intermediate")
    return older


class Publisher:
    """Keeps `state/status` up to date with one authority. Owned by who holds the authority open."""

    def __init__(self, authority: Authority, directory: Path) -> None:
        """`directory`: its parent exists.

        Raises:
            UnsafeFile: it is open to others.
        """
        private_directory(directory)
        private_directory(directory / CRLS)
        self._authority = authority
        self._directory = directory
        self._issued = IssuedFiles(authority, directory)
        self._newest: RevocationSet | None = None
        self._beating = threading.Lock()  # around saying a heartbeat, which a thread does too (`io_heartbeat`)
        self._said_at = datetime.min.replace(tzinfo=UTC)

    def publish(self, now: datetime) -> RevocationSet:
        """Sign a new set and new lists where something changed since the last; → the newest set.

        Raises:
            NotRecorded: no number could be taken.
        """
        with self._authority.record.rows() as rows:
            entries = sorted(map(_entry, (each for each in rows.unexpired(now) if each.state == "revoked")))
            number = rows.counter(_COUNTER)
        newest = self._newest or self._held(now)
        signer = self._authority.status_signer()
        if (
            newest is None
            or newest.number != number
            or list(newest.entries) != entries
            or not newest.is_signed_by(signer.certificate)  # the one before will not be trusted for ever
        ):
            with self._authority.record.rows() as rows:
                number = rows.count(_COUNTER)
            domain = self._authority.trust_domain
            newest = RevocationSet.seal(signer, trust_domain=domain, number=number, entries=entries, now=now)
            write_private(self._directory / SET, newest.raw, replace=True)
        self._newest = newest
        self.publish_issued(now)
        self._publish_bundle(now)
        self._publish_lists(newest, now)
        return newest

    def publish_issued(self, now: datetime) -> None:
        """Before a certificate is handed out: gateways ask for the proof of it (`issuance`).

        Raises:
            NotRecorded: it could not be written.
        """
        self._issued.publish(now)

    @property
    def bundle_sequence(self) -> int:
        """Of the bundle in force. Raises: NotRecorded."""
        with self._authority.record.rows() as rows:
            return rows.counter(_BUNDLE)

    def _publish_bundle(self, now: datetime) -> None:
        pem, domain = self._authority.bundle_pem(roles=UPSTREAM_ROLES), self._authority.trust_domain
        signer, is_new = self._authority.status_signer(), if_there(read_private, self._directory / "bundle.pem") != pem
        is_vouched = b64encode(signer.certificate.public_bytes(Encoding.DER)) in trusted(self._directory)
        if is_vouched and not is_new and (self._directory / "bundle.json").exists():
            return
        with self._authority.record.rows() as rows:
            sequence = rows.count(_BUNDLE) if is_new else rows.counter(_BUNDLE)
        words = kept(self._authority.directory)
        vouched = TrustedBundle.seal(signer, trust_domain=domain, number=sequence, pem=pem, successions=words, now=now)
        write_private(self._directory / TRUSTED, vouched.raw, replace=True)
        write_private(
            self._directory / "bundle.json", bundle_json.encode(self._authority.roots, sequence), replace=True
        )
        write_private(self._directory / "bundle.pem", pem, replace=True)

    def beat(self, now: datetime) -> Heartbeat:
        """Say that the set is the newest."""
        if self._newest is None:
            self.publish(now)
        return self._say(now)

    def beat_again(self, now: datetime) -> Heartbeat | None:
        """The same, where a heartbeat was said before and gateways wait for the next. Also from another thread."""
        if self._newest is None or not (self._directory / HEARTBEAT).exists():
            return None
        return self._say(now)

    def _say(self, now: datetime) -> Heartbeat:
        with self._beating:
            assert self._newest is not None
            # `now` may be when a long piece of work began; what was said before is refused. A clock that was set back counts.
            if not now < self._said_at <= now + timedelta(seconds=FRESH_S):
                self._said_at = now
            heartbeat = Heartbeat.seal(self._authority.status_signer(), self._newest, self._said_at)
            write_heartbeat(self._directory, heartbeat.raw)
        return heartbeat

    def _held(self, now: datetime) -> RevocationSet | None:
        """What was published before, if this authority still stands by it."""
        try:
            raw = read_private(self._directory / SET, limit=MAX_BYTES)
            anchors = [root.public_bytes(Encoding.DER) for root in self._authority.roots]
            return RevocationSet.parse(raw, anchors=anchors, trust_domain=self._authority.trust_domain, now=now)
        except (FileNotFoundError, StatusRejected):
            return None

    def _publish_lists(self, newest: RevocationSet, now: datetime) -> None:
        for role in ISSUER_ROLES:
            for issuer in self._authority.signers[role]:
                if issuer.not_valid_after_utc > now:
                    self._publish_list(issuer, newest.entries, now, role)

    def _publish_list(self, issuer: x509.Certificate, entries: Sequence[Entry], now: datetime, role: str) -> None:
        path = self._directory / CRLS / f"{list_name(issuer)}.crl"
        own = [each for each in entries if each.issuer == key_digest(issuer)]
        if _is_current(path, own, now):
            return
        with self._authority.record.rows() as rows:
            number = rows.count(f"crl-{list_name(issuer)}")
        key = self._authority.key(role, issuer)  # type: ignore[arg-type]  # one of ISSUER_ROLES
        built = crl.build(issuer, key, own, number=number, now=now)
        write_private(path, built.public_bytes(Encoding.DER), replace=True)


def published_bundle(directory: Path) -> bytes:
    """The SPIFFE bundle that lies there; empty when there is none."""
    return if_there(read_private, directory / "bundle.json")


def trusted(directory: Path) -> bytes:
    """The bundle as the authority vouches for it; empty where it does not publish."""
    return if_there(read_private, directory / TRUSTED)


def write_heartbeat(directory: Path, raw: bytes) -> None:
    """Put a heartbeat in place. Not synced: after a power cut the next one is two seconds away."""
    stage = directory / f".{HEARTBEAT}.new"
    descriptor = os.open(stage, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with open(descriptor, "wb") as file:
        file.write(raw)
    os.rename(stage, directory / HEARTBEAT)


def publish_root_list(authority: Authority, passphrases: Passphrases, directory: Path, now: datetime) -> None:
    """The lists of the roots, whose keys are at hand now: which intermediates are revoked.

    Raises:
        AuthorityLocked: no or wrong passphrase of the root.
    """
    private_directory(directory)
    private_directory(directory / CRLS)
    keyring = Keyring.open(authority.directory / "root.key", passphrases.find("root"))
    with authority.record.rows() as rows:
        revoked = [_entry(each) for each in rows.unexpired(now, role="root") if each.state == "revoked"]
    for root in authority.roots:
        own = [each for each in revoked if each.issuer == key_digest(root)]
        with authority.record.rows() as rows:
            number = rows.count(f"crl-{list_name(root)}")
        key = keyring.ec_key(key_name("root", root))
        built = crl.build(root, key, own, number=number, now=now, life=crl.ROOT_LIFE)
        write_private(directory / CRLS / f"{list_name(root)}.crl", built.public_bytes(Encoding.DER), replace=True)
    sync_directory(directory)


def list_name(issuer: x509.Certificate) -> str:
    """Role (or `root`) and the first bytes of the key's digest, as in the keyring."""
    return f"{unverified_role(issuer)}-{key_digest(issuer)[:16]}"


def key_digest(issuer: x509.Certificate) -> str:
    """SHA-256 of its public key, hex."""
    return spki_sha256(issuer.public_key()).hex()


def _entry(row: Issuance) -> Entry:
    return Entry(row.issuer_sha256, f"{row.serial:x}", row.not_after, row.revoked_at or row.requested_at, row.reason)


def _is_current(path: Path, entries: Sequence[Entry], now: datetime) -> bool:
    """Says the list there the same, for at least half of its life more?"""
    try:
        held = x509.load_der_x509_crl(read_private(path, limit=MAX_BYTES))
    except (FileNotFoundError, ValueError):
        return False
    until = held.next_update_utc
    fresh = until is not None and until - now > (until - held.last_update_utc) / 2
    return fresh and {each.serial_number for each in held} == {int(each.serial, 16) for each in entries}
