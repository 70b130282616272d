"""A rotation on disk: `state/ca/rotation.json` says how far it is, and every step can be repeated.

`begin` needs the root's key and is an operator's; `advance` needs none and is called by whoever holds the authority open,
again and again. A crash anywhere is resumed by the same call: what was made since the rotation began is new.
"""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec
from cryptography import x509

from pki import rotation
from pki.errors import IssueRefused
from pki.io_authority import Authority
from pki.io_create import key_name, make_root, sign_signer
from pki.io_files import read_private, sync_directory, write_private
from pki.io_keys import Keyring, Passphrases, make_ec
from pki.io_status import Publisher, key_digest
from pki.io_succession import keep
from pki.issue import BACKDATE, SIGNER_ROLES
from pki.rotation import Evidence, Kind, Rotation, Stage
from pki.succession import succeed

_FILE = "rotation.json"


def current(authority: Authority) -> Rotation | None:
    """What is under way."""
    try:
        return msgspec.json.decode(read_private(authority.directory / _FILE), type=Rotation)
    except FileNotFoundError:
        return None


def begin(authority: Authority, publisher: Publisher, passphrases: Passphrases, kind: Kind, now: datetime) -> Rotation:
    """Make the new ones and announce them; resumes a beginning that was cut short.

    Raises:
        IssueRefused: another rotation is under way.
        AuthorityLocked: no or wrong passphrase of the root.
        NotRecorded: could not be recorded.
    """
    now = now.replace(microsecond=0)
    found = current(authority)
    if found is not None and (found.stage != "making" or found.kind != kind):
        raise IssueRefused("rotation", f"a rotation of the {found.kind} is {found.stage}; it must end first")
    keyring = Keyring.open(authority.directory / "root.key", passphrases.find("root"))
    keyring.ec_key(key_name("root", authority.roots[0]))  # a wrong passphrase shows before anything is written
    rotating = found or Rotation(kind, "making", _after_all(authority, now))
    _write(authority, rotating)
    made_at = max(now, datetime.fromtimestamp(rotating.started_at, UTC))
    if kind == "root" and not _new(authority.roots, rotating):
        root, root_key = make_root(authority.trust_domain, made_at)
        raw = keyring.with_key(key_name("root", root), root_key)
        write_private(authority.directory / "root.key", raw, replace=True)
        # Before the new root is one: the only moment at which both keys are at hand for certain.
        old = authority.roots[0]
        keep(authority.directory, succeed(keyring.ec_key(key_name("root", old)), old, root, authority.trust_domain))
        keyring = keyring.reopened(raw)
        authority.set_roots((*authority.roots, root))
    signing = _new(authority.roots, rotating)[-1] if kind == "root" else authority.roots[0]
    signing_key = keyring.ec_key(key_name("root", signing))
    for role in SIGNER_ROLES:
        if not _new(authority.signers[role], rotating):
            key = make_ec("p256")
            space = None if role == "status" else authority.space(role)
            certificate = sign_signer(role, key, signing, signing_key, space, authority.record, made_at)
            authority.add_key(role, certificate, key)
            authority.set_signers(role, (*authority.signers[role], certificate))
    publisher.publish(now)
    rotating = msgspec.structs.replace(rotating, stage="announced", bundle=publisher.bundle_sequence)
    return _stage(authority, rotating, now)


def evidence(authority: Authority, rotating: Rotation, now: datetime) -> Evidence:
    """What the present stage waits for."""
    with authority.record.rows() as rows:
        held, seen, shown = rotation.holders(rows.unexpired(now)), rows.bundles_seen(), rows.issuers_shown()
    if rotating.stage == "switched":
        new = [key_digest(each) for role in SIGNER_ROLES for each in _new(authority.signers[role], rotating)]
        return rotation.switched(held, new, shown)
    return rotation.announced(rotating, held, seen)


def advance(authority: Authority, now: datetime, *, force: bool = False) -> bool:
    """Go one stage on if the evidence is there, or without it; → whether something changed.

    Raises:
        IssueRefused: the new ones were not all made yet; `begin` must be repeated.
        NotRecorded: could not be recorded.
    """
    rotating = current(authority)
    if rotating is None:
        return False
    if rotating.stage == "making":
        if force:
            raise IssueRefused("rotation", "it was cut short while the new keys were made; give the command again")
        return False
    if not force and not evidence(authority, rotating, now).is_complete:
        return False
    if rotating.stage == "announced":
        # Files first: done twice it is the same, and a stage that was not written is tried again.
        for role in SIGNER_ROLES:
            authority.set_signers(role, _new_first(authority.signers[role], rotating))
        authority.set_roots(_new_first(authority.roots, rotating))
        _stage(authority, msgspec.structs.replace(rotating, stage="switched"), now)
    else:
        for role in SIGNER_ROLES:
            authority.set_signers(role, _new(authority.signers[role], rotating))
        if rotating.kind == "root":
            authority.set_roots(_new(authority.roots, rotating))
        authority.record.event("pki.rotation", {"pki.kind": rotating.kind, "pki.stage": "done"}, now)
        (authority.directory / _FILE).unlink()
        sync_directory(authority.directory)
    return True


def describe(authority: Authority, now: datetime) -> str:
    """For people; empty when nothing is under way."""
    rotating = current(authority)
    if rotating is None:
        return ""
    if rotating.stage == "making":
        return f"rotation of the {rotating.kind}: cut short while keys were made; give the command again"
    return f"rotation of the {rotating.kind}: {rotating.stage}; {evidence(authority, rotating, now)}"


def _stage(authority: Authority, rotating: Rotation, now: datetime) -> Rotation:
    stage: Stage = rotating.stage
    authority.record.event("pki.rotation", {"pki.kind": rotating.kind, "pki.stage": stage}, now)
    _write(authority, rotating)
    return rotating


def _write(authority: Authority, rotating: Rotation) -> None:
    write_private(authority.directory / _FILE, msgspec.json.encode(rotating) + b"\n", replace=True)


def _after_all(authority: Authority, now: datetime) -> int:
    """The second from which on what is made is new: after all there is. A rotation in the very second of the founding, or of
    the end of another one, would else take the old ones for its own, make nothing, and be done."""
    there = (*authority.roots, *(each for role in SIGNER_ROLES for each in authority.signers[role]))
    newest = max(each.not_valid_before_utc for each in there) + BACKDATE
    return max(int(now.timestamp()), int(newest.timestamp()) + 1)


def _new(certificates: tuple[x509.Certificate, ...], rotating: Rotation) -> tuple[x509.Certificate, ...]:
    began = rotating.started_at - BACKDATE.total_seconds()
    return tuple(each for each in certificates if each.not_valid_before_utc.timestamp() >= began)


def _new_first(certificates: tuple[x509.Certificate, ...], rotating: Rotation) -> tuple[x509.Certificate, ...]:
    new = _new(certificates, rotating)
    return (*new, *(each for each in certificates if each not in new))
