"""The mini-CA on disk: made once, opened for each use, one user at a time.

    state/ca/                 0700
      root.pem                the root's certificate (P-384)
      root.key                keyring (`io_keys`) with the root's key; its passphrase is needed to make intermediates only
      issuing.key             keyring with the keys svc, gw, op, edge and log, under a second passphrase
      svc.pem gw.pem op.pem edge.pem    the role's intermediates, newest first
      record.sqlite log/ log.head       the record (`io_record`)
      lock                    flock: who opens the authority holds it
      *.passphrase            0600; only where the authority was made for unattended use

Issuing, in this order, and nothing between may be left out:
1. names, key and lifetime against the role (`issue.leaf_names`); a refusal is recorded too;
2. the public key belongs to nobody else (attack P36);
3. the intent is recorded durably;
4. sign;
5. the leaf passes the verifying profile (`svid`), else it is revoked on the spot;
6. the outcome is recorded and published; only then is the certificate handed out.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from types import TracebackType

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from pki import issue, svid
from pki.errors import (
    AuthorityLocked,
    IssueRefused,
    SelfCheckFailed,
    SvidRejected,
)
from pki.io_create import create, key_name, sign_intermediate, spki_sha256
from pki.io_files import lock, private_directory, read_public, write_private
from pki.io_keys import Keyring, Passphrases, make_ec
from pki.io_record import Intent, Record
from pki.issue import ISSUER_ROLES, IssueRequest, IssuerRole, LeafNames, NameSpace
from pki.spiffe import SpiffeId

__all__ = ["Authority", "Issued", "Progress", "create"]

LOCK_WAIT_S = 10.0
"""An issuance takes some 10 ms: who waits longer faces a hung process, not a queue."""

Progress = Callable[[str, str], None]
"""Called with (step, what happened): `recorded`, `signed`, `verified`."""


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate that was recorded, signed, verified and logged."""

    number: int
    role: IssuerRole
    name: str
    spiffe_id: SpiffeId | None
    names: tuple[str, ...]
    serial: int
    not_before: datetime
    not_after: datetime
    leaf: bytes
    """DER."""
    leaf_pem: bytes
    chain_pem: bytes
    """Leaf, then the intermediate: what a TLS server presents."""
    bundle_pem: bytes
    """The root: what a service trusts."""
    intent_index: int
    log_index: int
    log_entry: bytes
    proof: bytes

    @property
    def renew_after(self) -> datetime:
        return issue.renew_at(self.not_before, self.not_after)


class Authority:
    """An opened authority. Holds the lock until closed; use it as a context manager and keep it short."""

    def __init__(
        self,
        directory: Path,
        root: x509.Certificate,
        intermediates: dict[IssuerRole, tuple[x509.Certificate, ...]],
        keyring: Keyring,
        record: Record,
        lock_descriptor: int,
    ):
        self._directory = directory
        self._root = root
        self._intermediates = intermediates
        self._keyring = keyring
        self._record = record
        self._lock = lock_descriptor
        self.trust_domain = _organization(root)

    @classmethod
    def open(
        cls, directory: Path, passphrases: Passphrases, *, now: datetime, lock_wait_s: float = LOCK_WAIT_S
    ) -> Authority:
        """Open the authority in `directory` and finish what a crash left open.

        Raises:
            AuthorityLocked: missing, no or wrong passphrase, or in use by another process.
            UnsafeFile: others can read or change it.
            NotRecorded: the record cannot be opened.
        """
        if not os.path.lexists(directory):
            raise AuthorityLocked(f"{directory}: no authority here; make one with: edge init")
        private_directory(directory)
        with ExitStack() as held:
            descriptor = lock(directory / "lock", wait_s=lock_wait_s)
            held.callback(os.close, descriptor)
            root = _certificates(directory / "root.pem")[0]
            intermediates = {role: _certificates(directory / f"{role}.pem") for role in ISSUER_ROLES}
            keyring = Keyring.open(directory / "issuing.key", passphrases.find("issuing"))
            log_key = keyring.key("log")
            assert isinstance(log_key, ed25519.Ed25519PrivateKey)
            record = Record.open(directory, origin=f"{_organization(root)}/ca", key=log_key, now=now)
            held.pop_all()  # from here on the object owns both
        return cls(directory, root, intermediates, keyring, record, descriptor)

    def close(self) -> None:
        self._record.close()
        os.close(self._lock)

    def __enter__(self) -> Authority:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    @property
    def root_sha256(self) -> str:
        """Fingerprint of the root's certificate, hex; what a joining machine pins."""
        return sha256(self._root.public_bytes(Encoding.DER)).hexdigest()

    def bundle_pem(self, *, roles: Iterable[IssuerRole] = ()) -> bytes:
        """The root, and the intermediates of `roles` behind it. `edge` never belongs into a bundle for upstreams."""
        certificates = [self._root, *(c for role in roles for c in self._intermediates[role])]
        return b"".join(certificate.public_bytes(Encoding.PEM) for certificate in certificates)

    def space(self, role: IssuerRole) -> NameSpace:
        """The names below the role's current intermediate, as its certificate says."""
        constraints = self._intermediates[role][0].extensions.get_extension_for_class(x509.NameConstraints).value
        texts = [str(name.value).partition("/")[0] for name in constraints.permitted_subtrees or ()]
        return issue.name_space(texts)

    def issue(self, request: IssueRequest, now: datetime, progress: Progress = lambda step, text: None) -> Issued:
        """Issue one leaf, in the order the head of this file gives.

        Raises:
            IssueRefused: not within the role's rules (recorded).
            NotRecorded: could not be recorded; nothing was handed out.
            SelfCheckFailed: the new leaf does not verify; it is revoked.
        """
        now = now.replace(microsecond=0)
        issuer = self._intermediates[request.role][0]
        serial = x509.random_serial_number()
        try:
            names = issue.leaf_names(request, trust_domain=self.trust_domain, space=self.space(request.role))
            self._check_key_is_free(request)
            template = issue.leaf_template(request, names, issuer, serial, now)
        except IssueRefused as refused:
            self.refuse(request.role, request.name, refused, now, requester=request.requester)
            raise
        key = self._keyring.ec_key(key_name(request.role, issuer))  # its name holds the key's digest (attack P22)
        not_after = min(now + request.life, issuer.not_valid_after_utc)
        intent = Intent(
            serial=serial,
            issuer_sha256=spki_sha256(key.public_key()).hex(),
            role=request.role,
            name=request.name,
            names=names.all(),
            spki_sha256=spki_sha256(request.public_key).hex(),
            not_after=not_after,
            requester=request.requester,
        )
        number, intent_index = self._record.intend(intent, now)
        progress("recorded", f"issuance #{number}, log index {intent_index}")
        certificate = template.sign(key, SHA256())
        leaf = certificate.public_bytes(Encoding.DER)
        progress("signed", f"serial {serial:x}, valid until {not_after:%Y-%m-%dT%H:%M:%SZ}")
        self._self_check(number, request, names, leaf, issuer, now)
        logged = self._record.issued(number, intent, leaf, sha256(leaf).hexdigest(), now)
        progress("verified", "chain, identity and key match")
        leaf_pem = certificate.public_bytes(Encoding.PEM)
        return Issued(
            number=number,
            role=request.role,
            name=request.name,
            spiffe_id=names.spiffe_id,
            names=tuple(names.all()),
            serial=serial,
            not_before=certificate.not_valid_before_utc,
            not_after=certificate.not_valid_after_utc,
            leaf=leaf,
            leaf_pem=leaf_pem,
            chain_pem=leaf_pem + issuer.public_bytes(Encoding.PEM),
            bundle_pem=self.bundle_pem(),
            intent_index=intent_index,
            log_index=logged.index,
            log_entry=logged.entry,
            proof=logged.proof,
        )

    def refuse(self, role: str, name: str, refused: IssueRefused, now: datetime, *, requester: str = "local") -> None:
        """Record a refusal, also one decided before the authority was asked.

        Raises:
            NotRecorded: it could not be written.
        """
        facts = {"pki.role": role, "pki.name": name[:256], "pki.requester": requester}
        self._record.refused({**facts, "event.reason": refused.rule, "error.message": refused.detail[:512]}, now)

    def renew_intermediate(
        self, role: IssuerRole, passphrases: Passphrases, now: datetime, *, space: NameSpace | None = None
    ) -> None:
        """Put a new intermediate before the role's present one; `space` changes its names. Needs the root's passphrase.

        Raises:
            AuthorityLocked: no or wrong passphrase.
            NotRecorded: could not be recorded; the old intermediate stays.
        """
        now = now.replace(microsecond=0)
        root_key = Keyring.open(self._directory / "root.key", passphrases.find("root")).ec_key("root")
        key = make_ec("p256")
        certificate = sign_intermediate(role, key, self._root, root_key, space or self.space(role), self._record, now)
        # Key first: an intermediate whose key is missing would stop issuing, an unused key stops nothing.
        name = key_name(role, certificate)
        write_private(self._directory / "issuing.key", self._keyring.with_key(name, key), replace=True)
        self._keyring = Keyring.open(self._directory / "issuing.key", passphrases.find("issuing"))
        current = (certificate, *(c for c in self._intermediates[role] if c.not_valid_after_utc > now))
        pem = b"".join(c.public_bytes(Encoding.PEM) for c in current)
        write_private(self._directory / f"{role}.pem", pem, replace=True)
        self._intermediates[role] = current

    def intermediate_renewal_due(self, role: IssuerRole, now: datetime) -> bool:
        """Past two thirds of its life: leaves would soon be cut short by it."""
        current = self._intermediates[role][0]
        return now >= issue.renew_at(current.not_valid_before_utc, current.not_valid_after_utc)

    def _check_key_is_free(self, request: IssueRequest) -> None:
        public = request.public_key
        authorities = [self._root, *(c for chain in self._intermediates.values() for c in chain)]
        if any(certificate.public_key() == public for certificate in authorities):
            raise IssueRefused("key-reuse", "the key is one of the authority's own")
        owner = self._record.key_owner(spki_sha256(public).hex())
        if owner is not None and owner != (request.role, request.name):
            raise IssueRefused("key-reuse", f"the key was certified for {'/'.join(owner)}; make a new one")

    def _self_check(
        self,
        number: int,
        request: IssueRequest,
        names: LeafNames,
        leaf: bytes,
        issuer: x509.Certificate,
        now: datetime,
    ) -> None:
        chain = [leaf, issuer.public_bytes(Encoding.DER)]
        anchors = [self._root.public_bytes(Encoding.DER)]
        issuers: dict[str, frozenset[bytes]] = {request.role: frozenset({spki_sha256(issuer.public_key())})}
        try:
            if names.spiffe_id is None:
                for host in (*names.dns, *names.ips):
                    svid.verify_host(chain, anchors=anchors, host=str(host), now=now)
            else:
                usage: svid.Usage = "client" if request.role == "op" else "server"
                svid.verify(
                    chain, anchors=anchors, expected_id=names.spiffe_id, usage=usage, now=now, role_issuers=issuers
                )
        except SvidRejected as rejected:
            serial = x509.load_der_x509_certificate(leaf).serial_number
            self._record.revoked(number, f"{serial:x}", "self-check", now)
            raise SelfCheckFailed(f"the new certificate does not verify ({rejected}); it was revoked") from rejected


def _certificates(path: Path) -> tuple[x509.Certificate, ...]:
    try:
        found = tuple(x509.load_pem_x509_certificates(read_public(path)))
    except FileNotFoundError as error:
        raise AuthorityLocked(f"{path}: missing; the authority is not complete here") from error
    except ValueError as error:
        raise AuthorityLocked(f"{path}: not a certificate; restore it from a backup") from error
    return found


def _organization(certificate: x509.Certificate) -> str:
    return str(certificate.subject.get_attributes_for_oid(x509.NameOID.ORGANIZATION_NAME)[0].value)
