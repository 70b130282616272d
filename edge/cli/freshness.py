"""Is there anything to do? What `issue-cert.py --if-needed` looks at before it asks the authority."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from pki import io_material, io_output
from pki.errors import StatusRejected
from pki.io_files import read_private
from pki.io_identity import host_names
from pki.io_output import Held
from pki.io_status import STATUS
from pki.revocation import MAX_BYTES, RevocationSet
from pki.spiffe import Role, SpiffeId


@dataclass(frozen=True, slots=True)
class Wanted:
    """What was asked for, after the policy agreed."""

    role: Role
    spiffe_id: SpiffeId
    dns: tuple[str, ...]
    hosts: tuple[str, ...]
    """What a gateway's public listener answers for; its certificate is made too."""
    target: Path


def is_fresh(state: Path, wanted: Wanted, now: datetime) -> bool:
    """Right names, young enough, not revoked, of the issuer that signs now, and beside it the roots that are trusted now."""
    held = io_output.read(wanted.target)
    if held is None or held.names != {str(wanted.spiffe_id), *wanted.dns} or not held.is_fresh(now):
        return False
    roots = _certificates(state / "ca" / "root.pem")
    signing = _certificates(state / "ca" / f"{wanted.role}.pem")
    if signing and held.issuer != signing[0].subject:
        return False
    if not set(roots) <= set(x509.load_pem_x509_certificates(held.bundle_pem)):
        return False
    if _is_revoked(state, held, roots, wanted.spiffe_id.trust_domain, now):
        return False
    public = io_output.read(wanted.target, io_material.PUBLIC) if wanted.hosts else None
    return not wanted.hosts or (
        public is not None and public.names == host_names(wanted.hosts) and public.is_fresh(now)
    )


def _certificates(path: Path) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(path.read_bytes())
    except (OSError, ValueError):
        return []  # the authority itself will say what is wrong


def _is_revoked(state: Path, held: Held, roots: list[x509.Certificate], domain: str, now: datetime) -> bool:
    try:
        raw = read_private(state / STATUS / "revocation.json", limit=MAX_BYTES)
        anchors = [root.public_bytes(Encoding.DER) for root in roots]
        newest = RevocationSet.parse(raw, anchors=anchors, trust_domain=domain, now=now)
    except (FileNotFoundError, StatusRejected):
        return False
    return any(serial == held.serial for _, serial in newest.revoked)
