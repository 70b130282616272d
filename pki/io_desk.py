"""The desk of an opened authority: one request in, one reply out, whoever carried it (`desk`).

The process that holds the authority open owns it: the `ca` child while a gateway runs, an operator's command otherwise. Both
do the same, so a certificate is the same certificate either way.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from hashlib import sha256

import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_der_public_key

from pki import desk, io_enrol, io_rotate, io_status
from pki.errors import AuthorityLocked, IssueRefused, PkiError
from pki.io_authority import Authority
from pki.io_enrol import Grants
from pki.io_identity import renew_own
from pki.io_keys import Passphrases
from pki.io_record import Issuance
from pki.io_status import Publisher, list_name
from pki.issue import GATEWAY_NAME, SIGNER_ROLES, UPSTREAM_ROLES, IssueRequest
from pki.issued import Issued
from pki.refusals import ENROL, Pace, told

_LISTED = 400
"""Certificates in one answer, so that it stays a datagram."""
_NOT_IN_FORCE = "this gateway does not go by it yet: edge reload says what keeps it from it"
_STRANGERS_PER_S = 5
"""Refusals of who shows no token that exists: so many become a leaf of their own, the others are counted in the next."""


class Desk:
    """Answers for one authority. Not shared between threads."""

    def __init__(
        self,
        authority: Authority,
        passphrases: Passphrases,
        publisher: Publisher,
        grants: Grants,
        own: desk.RenewOwn | None = None,
    ) -> None:
        self._authority = authority
        self._passphrases = passphrases
        self._publisher = publisher
        self.grants = grants
        """Replaced when the configuration is."""
        self.own = own
        """As the gateway last asked for its own certificates; None where no gateway runs."""
        self.has_renewed = False
        """Certificates of the gateway were written; set back by who tells the gateway."""
        self.in_force: str | None = None
        """SHA-256 (hex) of the bundle that every worker of the gateway goes by; None where nobody says. Until it is the
        newest a rotation does not go on: a service could show what a worker does not know yet."""
        self._noted = 0  # sequence of the bundle that is known, on the record, to be in force
        self._told = 0  # sequence of the bundle that its certificates came with
        self._strangers = Pace(most=_STRANGERS_PER_S, window_s=1)

    def answer(self, request: desk.FromWorker | desk.FromOperator, now: datetime) -> desk.Reply:
        """Do it; an error of the authority is an answer too."""
        try:
            return self._answer(request, now)
        except PkiError as error:
            return desk.failure(error)

    def _answer(self, request: desk.FromWorker | desk.FromOperator, now: datetime) -> desk.Reply:
        authority = self._authority
        match request:
            case desk.Hello():
                return desk.Done()
            case desk.Enrol() | desk.Renew() | desk.EnrolListener() | desk.SawBundle():
                return self._from_afar(request, now)
            case desk.Issue():
                return self._issue(request, now)
            case desk.Refuse():
                refused = IssueRefused(request.rule, request.detail)
                authority.refuse(request.role, request.name, refused, now, requester=request.requester)
                return desk.Done()
            case desk.MakeToken():
                ttl, life = timedelta(seconds=request.ttl_s), timedelta(seconds=request.life_s)
                text, end = io_enrol.make_token(
                    authority,
                    request.role,
                    request.name,
                    request.dns,
                    now,
                    ttl=ttl,
                    life=life,
                    requester=request.requester,
                )
                return desk.TokenMade(text, end, authority.root_sha256)
            case desk.Revoke():
                return self._revoke(request, now)
            case desk.Show():
                return self._show(now)
            case desk.RenewOwn():
                return self._renew_own(request, now)
            case desk.Advance():
                self.advance(now, force=request.force)
                return desk.Done()
            case desk.StandAside():
                raise AuthorityLocked("nobody to stand aside for: the authority is not held by a gateway")

    def _from_afar(self, request: desk.FromWorker, now: datetime) -> desk.Reply:
        authority = self._authority
        match request:
            case desk.Enrol():
                return self._enrol(request, now)
            case desk.Renew():
                issued = io_enrol.renew(authority, self.grants, request.certificate, request.request, now)
                return self._certified(issued, now)
            case desk.EnrolListener():
                hosts = self.own.hosts if self.own is not None else ()
                issued = io_enrol.enrol_listener(authority, hosts, request.certificate, request.request, now)
                return self._certified(issued, now)
            case desk.SawBundle():
                is_newest = request.bundle_sha256 == sha256(authority.bundle_pem(roles=UPSTREAM_ROLES)).hexdigest()
                sequence = self._publisher.bundle_sequence if is_newest else 0
                io_enrol.saw_bundle(authority, request.certificate, sequence, now)
                return desk.Done()

    def is_waiting_for(self, request: desk.FromWorker | desk.FromOperator) -> bool:
        """Whether a rotation is under way that such a request may be evidence for."""
        kinds = (desk.SawBundle, desk.Renew, desk.EnrolListener, desk.Enrol, desk.Issue)
        return isinstance(request, kinds) and io_rotate.current(self._authority) is not None

    def advance(self, now: datetime, *, force: bool = False) -> None:
        """Take a rotation as far as the evidence goes; the gateway's own certificates follow each stage at once.

        Raises:
            PkiError: it could not be done, or recorded.
        """
        own = self.own
        if self._told != self._publisher.bundle_sequence and own is not None:
            self._renew_own(own, now)  # an operator announced something while the authority was closed here
        while (force or self._is_in_force(now)) and io_rotate.advance(self._authority, now, force=force):
            self._publisher.publish(now)
            if own is not None:
                self._renew_own(own, now)
            if force:
                return

    def _is_in_force(self, now: datetime) -> bool:
        """Does the gateway go by the newest bundle? Then that is evidence."""
        if self.in_force is None:
            return True
        if self.in_force != sha256(self._authority.bundle_pem(roles=UPSTREAM_ROLES)).hexdigest():
            return False
        sequence = self._publisher.bundle_sequence
        if self._noted != sequence:
            with self._authority.record.rows() as rows:
                rows.saw_bundle("gw", GATEWAY_NAME, sequence, now)
            self._noted = sequence
        return True

    def _enrol(self, request: desk.Enrol, now: datetime) -> desk.Reply:
        try:
            issued = io_enrol.enrol(self._authority, self.grants, request.user, request.password, request.request, now)
        except io_enrol.UnknownToken as refused:
            self._record_stranger(request.user, refused, now)
            raise
        return self._certified(issued, now)

    def _record_stranger(self, user: str, refused: IssueRefused, now: datetime) -> None:
        """Anybody can be refused as often as he likes: the log must not grow with that (attack P39)."""
        dropped = self._strangers.dropped("stranger", now)
        if dropped is not None:
            name = "".join(c if c.isascii() and c.isprintable() else "?" for c in user[:64])
            refused = IssueRefused(refused.rule, told(refused.detail, dropped))
            self._authority.refuse("svc", name, refused, now, requester=ENROL)

    def _issue(self, request: desk.Issue, now: datetime) -> desk.Reply:
        try:
            key = load_der_public_key(request.key)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise IssueRefused("key-type", str(error)) from error
        if not isinstance(key, ec.EllipticCurvePublicKey):
            raise IssueRefused("key-type", "only P-256 and P-384 keys are certified")
        life = timedelta(seconds=request.life_s)
        wish = IssueRequest(
            request.role, request.name, key, request.dns, request.ips, life=life, requester=request.requester
        )
        issued = self._authority.issue(wish, now)
        with self._authority.record.rows() as rows:  # who asks here is handed the bundle with it
            rows.saw_bundle(request.role, request.name, self._publisher.bundle_sequence, now)
        return self._certified(issued, now)

    def _certified(self, issued: Issued, now: datetime) -> desk.Certified:
        self._publisher.publish_issued(now)
        # Who answers gateways must tell them from services, and who dials services from gateways.
        roles = UPSTREAM_ROLES if issued.role in ("gw", "svc") else ()
        return desk.Certified(issued, self._authority.bundle_pem(roles=roles), self._authority.root_sha256)

    def _revoke(self, request: desk.Revoke, now: datetime) -> desk.Reply:
        try:
            serial = None if request.serial is None else int(request.serial, 16)
        except ValueError as error:
            raise IssueRefused("serial", f"{request.serial!r} is not hexadecimal") from error
        revoked = io_status.revoke(
            self._authority,
            request.role,
            request.name,
            now,
            reason=request.reason,
            serial=serial,
            requester=request.requester,
        )
        newest = self._publisher.publish(now)
        self._publisher.beat_again(now)  # whoever waits for it hears of the new set at once
        return desk.Revoked(tuple(f"{each.serial:x}" for each in revoked), newest.number)

    def _renew_own(self, request: desk.RenewOwn, now: datetime) -> desk.Reply:
        self.own = msgspec.structs.replace(request, force=False)
        renewal = renew_own(
            self._authority,
            self._passphrases,
            trust_domain=request.trust_domain,
            hosts=request.hosts,
            now=now,
            force=request.force,
        )
        self._publisher.publish(now)  # an intermediate may be new
        self._told = self._publisher.bundle_sequence
        self.has_renewed = self.has_renewed or bool(renewal.renewed)
        if "gateway" in renewal.renewed and self.in_force is None:
            with self._authority.record.rows() as rows:
                rows.saw_bundle("gw", GATEWAY_NAME, self._publisher.bundle_sequence, now)
        return desk.OwnRenewed(renewal.renewed, renewal.warnings)

    def _show(self, now: datetime) -> desk.Reply:
        authority = self._authority
        newest = self._publisher.publish(now)
        with authority.record.rows() as rows:
            rows_now = [each for each in rows.unexpired(now) if each.role != "root"]
            seen = rows.bundles_seen()
        current = {(each.role, each.name): each.number for each in rows_now if each.state == "issued"}
        names = _issuer_names(authority)
        listed = sorted(rows_now[-_LISTED:], key=lambda each: (each.role, each.name, each.number))
        return desk.Shown(
            trust_domain=authority.trust_domain,
            root_sha256=authority.root_sha256,
            roots=tuple((list_name(root), root.not_valid_after_utc) for root in authority.roots),
            signers=tuple(
                (list_name(each), each.not_valid_after_utc, each is authority.signers[role][0])
                for role in SIGNER_ROLES
                for each in authority.signers[role]
            ),
            set_number=newest.number,
            revoked=len(newest.entries),
            bundle_sequence=self._publisher.bundle_sequence,
            certificates=tuple(
                _certificate(
                    each,
                    names,
                    is_current=current.get((each.role, each.name)) == each.number,
                    bundle=seen.get((each.role, each.name), 0),
                )
                for each in listed
            ),
            more=max(0, len(rows_now) - _LISTED),
            rotation=self._rotation(now),
        )

    def _rotation(self, now: datetime) -> str:
        text = io_rotate.describe(self._authority, now)
        return text if not text or self._is_in_force(now) else f"{text}; {_NOT_IN_FORCE}"


def _issuer_names(authority: Authority) -> dict[str, str]:
    return {
        io_status.key_digest(each): list_name(each)
        for each in (*authority.roots, *(c for role in SIGNER_ROLES for c in authority.signers[role]))
    }


def _certificate(row: Issuance, names: dict[str, str], *, is_current: bool, bundle: int) -> desk.Certificate:
    return desk.Certificate(
        role=row.role,
        name=row.name,
        serial=f"{row.serial:x}",
        issuer=names.get(row.issuer_sha256, row.issuer_sha256[:16]),
        not_after=datetime.fromtimestamp(row.not_after, UTC),
        state=row.state,
        reason=row.reason,
        requester=row.requester,
        is_current=is_current,
        bundle=bundle,
    )
