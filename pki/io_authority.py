"""The mini-CA on disk: made once, opened for each use, one user at a time.

    state/ca/                 0700
      root.pem                the root's certificate (P-384); more than one while it is being replaced, the first signs
      root.key                keyring (`io_keys`) with the root's key; its passphrase is needed to make intermediates only
      issuing.key             keyring with the keys svc, gw, op, edge, status and log, under a second passphrase
      svc.pem gw.pem op.pem edge.pem status.pem    the role's certificates; the first signs, the others are still trusted
      record.sqlite log/ log.head       the record (`io_record`)
      lock                    flock: who opens the authority holds it
      *.passphrase            0600; only where the authority was made for unattended use

Issuing, in this order, and nothing between may be left out:
1. names, key and lifetime against the role (`issue.leaf_names`); a refusal is recorded too;
2. the public key belongs to nobody else (attack P36), and no DNS name of it to a gateway;
3. the intent is recorded durably;
4. sign;
5. the leaf passes the verifying profile (`svid`), else it is revoked on the spot;
6. the outcome is recorded and published; only then is the certificate handed out.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from types import TracebackType

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from pki import issue, svid
from pki.errors import (
    AuthorityLocked,
    IssueRefused,
    SelfCheckFailed,
    SvidRejected,
)
from pki.io_create import create, key_name, sign_signer, spki_sha256
from pki.io_files import clear_leftovers, lock, private_directory, read_public, write_private
from pki.io_keys import Keyring, Passphrases, make_ec
from pki.io_record import Intent, Record
from pki.issue import SIGNER_ROLES, IssueRequest, IssuerRole, LeafNames, NameSpace, SignerRole
from pki.issued import Issued
from pki.refusals import FROM_AFAR, Pace, told
from pki.revocation import StatusSigner

__all__ = ["Authority", "Issued", "Progress", "create"]

LOCK_WAIT_S = 10.0
"""An issuance takes some 10 ms: who waits longer faces a hung process, not a queue."""
_REFUSALS_A_MINUTE = 10
"""Leaves of one kind, for one identity that asks from afar."""

Progress = Callable[[str, str], None]
"""Called with (step, what happened): `recorded`, `signed`, `verified`."""


class Authority:
    """An opened authority. Holds the lock until closed; use it as a context manager and keep it short."""

    def __init__(
        self,
        directory: Path,
        roots: tuple[x509.Certificate, ...],
        signers: dict[SignerRole, tuple[x509.Certificate, ...]],
        keyring: Keyring,
        record: Record,
        lock_descriptor: int,
    ):
        self.directory = directory
        self.roots = roots
        """The first signs; the others are on their way in or out."""
        self.signers = signers
        """What the roots signed, by role; the first signs, the others are on their way in or out."""
        self.record = record
        self._keyring = keyring
        self._lock = lock_descriptor
        self._refusals = Pace(most=_REFUSALS_A_MINUTE, window_s=60)
        self.trust_domain = _organization(roots[0])

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
            clear_leftovers(directory)
            roots = _certificates(directory / "root.pem")
            signers = {role: _certificates(directory / f"{role}.pem") for role in SIGNER_ROLES}
            keyring = Keyring.open(directory / "issuing.key", passphrases.find("issuing"))
            log_key = keyring.key("log")
            assert isinstance(log_key, ed25519.Ed25519PrivateKey)
            record = Record.open(directory, origin=f"{_organization(roots[0])}/ca", key=log_key, now=now)
            held.pop_all()  # from here on the object owns both
        return cls(directory, roots, signers, keyring, record, descriptor)

    def close(self) -> None:
        self.record.close()
        os.close(self._lock)

    def __enter__(self) -> Authority:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    @property
    def root_sha256(self) -> str:
        """Fingerprint of the root's certificate, hex; what a joining machine pins."""
        return sha256(self.roots[0].public_bytes(Encoding.DER)).hexdigest()

    def bundle_pem(self, *, roles: Iterable[IssuerRole] = ()) -> bytes:
        """The roots, and the intermediates of `roles` behind them. `edge` never belongs into a bundle for upstreams."""
        certificates = [*self.roots, *(c for role in roles for c in self.signers[role])]
        return b"".join(certificate.public_bytes(Encoding.PEM) for certificate in certificates)

    def space(self, role: IssuerRole) -> NameSpace:
        """The names below the role's current intermediate, as its certificate says."""
        constraints = self.signers[role][0].extensions.get_extension_for_class(x509.NameConstraints).value
        texts = [str(name.value).partition("/")[0] for name in constraints.permitted_subtrees or ()]
        return issue.name_space(texts)

    def issue(self, request: IssueRequest, now: datetime, progress: Progress = lambda step, text: None) -> Issued:
        """Issue one leaf, in the order the head of this file gives.

        Raises:
            IssueRefused: not within the role's rules, or the token is spent (recorded).
            NotRecorded: could not be recorded; nothing was handed out.
            SelfCheckFailed: the new leaf does not verify; it is revoked.
        """
        now = now.replace(microsecond=0)
        issuer = self.signers[request.role][0]
        serial = x509.random_serial_number()
        try:
            names = issue.leaf_names(request, trust_domain=self.trust_domain, space=self.space(request.role))
            self._check_key_is_free(request)
            self._check_names_are_free(request, names, now)
            template = issue.leaf_template(request, names, issuer, serial, now)
            key = self.key(request.role, issuer)
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
            number, intent_index = self.record.intend(intent, now, request.token_sha256)
        except IssueRefused as refused:
            if request.requester in FROM_AFAR:
                self.refuse_from_afar(request.role, request.name, refused, now, requester=request.requester)
            else:
                self.refuse(request.role, request.name, refused, now, requester=request.requester)
            raise
        progress("recorded", f"issuance #{number}, log index {intent_index}")
        certificate = template.sign(key, SHA256())
        leaf = certificate.public_bytes(Encoding.DER)
        progress("signed", f"serial {serial:x}, valid until {not_after:%Y-%m-%dT%H:%M:%SZ}")
        self._self_check(number, request, names, leaf, issuer, now)
        logged = self.record.issued(number, intent, leaf, sha256(leaf).hexdigest(), now)
        progress("verified", "chain, identity and key match")
        leaf_pem = certificate.public_bytes(Encoding.PEM)
        return Issued(
            number=number,
            role=request.role,
            name=request.name,
            names=tuple(names.all()),
            serial_hex=f"{serial:x}",
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
        self.record.refused({**facts, "event.reason": refused.rule, "error.message": refused.detail[:512]}, now)

    def refuse_from_afar(self, role: str, name: str, refused: IssueRefused, now: datetime, *, requester: str) -> None:
        """The same for who is one of ours and can be refused as often as he likes: the first few of a kind in a minute are
        recorded, the others counted in the next (attack P39).

        Raises:
            NotRecorded: it could not be written.
        """
        dropped = self._refusals.dropped((requester, role, name, refused.rule), now)
        if dropped is not None:
            self.refuse(role, name, IssueRefused(refused.rule, told(refused.detail, dropped)), now, requester=requester)

    def renew_intermediate(
        self, role: SignerRole, passphrases: Passphrases, now: datetime, *, space: NameSpace | None = None
    ) -> None:
        """Put a new intermediate, or status signer, before the role's present one; `space` changes its names.

        Needs the root's passphrase.

        Raises:
            AuthorityLocked: no or wrong passphrase.
            NotRecorded: could not be recorded; the old intermediate stays.
        """
        now = now.replace(microsecond=0)
        root_key = Keyring.open(self.directory / "root.key", passphrases.find("root")).ec_key(
            key_name("root", self.roots[0])
        )
        if role != "status":
            space = space or self.space(role)
        key = make_ec("p256")
        certificate = sign_signer(role, key, self.roots[0], root_key, space, self.record, now)
        self.add_key(role, certificate, key)
        self.set_signers(role, (certificate, *(c for c in self.signers[role] if c.not_valid_after_utc > now)))

    def key(self, role: SignerRole, certificate: x509.Certificate) -> ec.EllipticCurvePrivateKey:
        """The key of one of `signers`; its name holds the key's digest, so that none signs for another (attack P22).

        Raises:
            AuthorityLocked: there is none.
        """
        return self._keyring.ec_key(key_name(role, certificate))

    def add_key(self, role: SignerRole, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
        """Keep a signer's key. Before its certificate: one whose key is missing would stop issuing, an unused key
        stops nothing."""
        raw = self._keyring.with_key(key_name(role, certificate), key)
        write_private(self.directory / "issuing.key", raw, replace=True)
        self._keyring = self._keyring.reopened(raw)

    def set_signers(self, role: SignerRole, certificates: tuple[x509.Certificate, ...]) -> None:
        """Which certificates of a role there are; the first signs."""
        pem = b"".join(each.public_bytes(Encoding.PEM) for each in certificates)
        write_private(self.directory / f"{role}.pem", pem, replace=True)
        self.signers[role] = certificates

    def set_roots(self, certificates: tuple[x509.Certificate, ...]) -> None:
        """Which roots there are; the first signs."""
        pem = b"".join(each.public_bytes(Encoding.PEM) for each in certificates)
        write_private(self.directory / "root.pem", pem, replace=True)
        self.roots = certificates

    def status_signer(self) -> StatusSigner:
        """Who signs revocation sets.

        Raises:
            AuthorityLocked: its key is missing.
        """
        certificate = self.signers["status"][0]
        return StatusSigner(self.key("status", certificate), certificate)

    def intermediate_renewal_due(self, role: SignerRole, now: datetime) -> bool:
        """Past two thirds of its life: leaves would soon be cut short by it."""
        current = self.signers[role][0]
        return now >= issue.renew_at(current.not_valid_before_utc, current.not_valid_after_utc)

    def _check_key_is_free(self, request: IssueRequest) -> None:
        public = request.public_key
        authorities = [*self.roots, *(c for chain in self.signers.values() for c in chain)]
        if any(certificate.public_key() == public for certificate in authorities):
            raise IssueRefused("key-reuse", "the key is one of the authority's own")
        with self.record.rows() as rows:
            held = rows.key_holders(spki_sha256(public).hex())
        for each in held:
            if (each.role, each.name) != (request.role, request.name):
                raise IssueRefused("key-reuse", f"the key was certified for {each.role}/{each.name}; make a new one")
            if each.reason == "keyCompromise":
                raise IssueRefused("key-reuse", "the key was revoked as compromised; make a new one")

    def _check_names_are_free(self, request: IssueRequest, names: LeafNames, now: datetime) -> None:
        """Whoever compares host names alone, as a plain EST client does, would take a service that has a gateway's DNS name
        for the gateway, and hand it the tokens of others. The CA's own gateway is never refused: it would end."""
        rivals: tuple[str, ...] = ("gw",) if request.role in ("svc", "op") else ()
        if request.role == "gw" and request.name != issue.GATEWAY_NAME:
            rivals = ("svc", "op")
        with self.record.rows() as rows:
            held = [each for role in rivals if names.dns for each in rows.unexpired(now, role)]
        for each in held:
            taken = sorted(set(names.dns).intersection(each.names))
            if taken and each.state != "revoked":
                raise IssueRefused("name-taken", f"{', '.join(taken)}: a certificate of {each.role}/{each.name} has it")

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
        anchors = [root.public_bytes(Encoding.DER) for root in self.roots]
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
            self.record.revoked(number, serial, "self-check", now)
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
