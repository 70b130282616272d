"""Founding a mini-CA: root, role intermediates, keyrings and record, built beside their place and renamed into it.

`io_authority` says what each file is. Every intermediate is recorded like a leaf is: intent, signature, outcome.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Literal

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from pki import issue
from pki.errors import IssueRefused, WouldOverwrite
from pki.io_files import clear_trees, hold_directory, private_directory, sync_directory, write_private
from pki.io_keys import COST, Cost, make_ec, make_ed25519, seal
from pki.io_record import Intent, Record
from pki.issue import ISSUER_ROLES, SIGNER_ROLES, IssuerRole, NameSpace, SignerRole
from pki.spiffe import check_trust_domain


def create(
    directory: Path,
    *,
    trust_domain: str,
    dns_suffixes: Iterable[str],
    hosts: Iterable[str],
    passphrases: Mapping[str, bytes],
    now: datetime,
    unattended: Iterable[str] = (),
    cost: Cost = COST,
) -> None:
    """Make an authority in `directory` (it must not exist; its parent must). `passphrases`: `root` and `issuing`;
    those named in `unattended` are kept beside the keys, where an unattended start finds them.

    It is built beside `directory` and renamed into place, so that half an authority never stands there.

    Raises:
        WouldOverwrite: something is there.
        IssueRefused, SpiffeIdError: the trust domain, a suffix or a host is not acceptable.
        NotRecorded: the record could not be written.
    """
    check_trust_domain(trust_domain)
    if len(trust_domain) > 64:  # it is the O of every authority certificate, which X.520 bounds
        raise IssueRefused("trust-domain", "longer than 64 characters")
    spaces = {role: issue.name_space(hosts if role == "edge" else dns_suffixes) for role in ISSUER_ROLES}
    descriptor = hold_directory(directory.parent)
    try:
        _make(directory, trust_domain, spaces, passphrases, now.replace(microsecond=0), cost, tuple(unattended))
    finally:
        os.close(descriptor)


def _make(
    directory: Path,
    trust_domain: str,
    spaces: Mapping[IssuerRole, NameSpace],
    passphrases: Mapping[str, bytes],
    now: datetime,
    cost: Cost,
    unattended: tuple[str, ...],
) -> None:
    """While nobody else makes anything there."""
    if os.path.lexists(directory):
        raise WouldOverwrite(f"{directory} exists; an authority is never overwritten")
    clear_trees(directory)  # of one that was killed: it may hold passphrases beside their keys
    stage = directory.with_name(f".{directory.name}.{os.urandom(6).hex()}")
    private_directory(stage)
    try:
        _fill(stage, trust_domain, spaces, passphrases, now, cost)
        for name in unattended:
            write_private(stage / f"{name}.passphrase", passphrases[name] + b"\n")
        sync_directory(stage)
        os.rename(stage, directory)
        sync_directory(directory.parent)
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def key_name(role: SignerRole | Literal["root"], certificate: x509.Certificate) -> str:
    """The keyring's name of an intermediate's key: role and the first bytes of the key's digest."""
    return f"{role}-{spki_sha256(certificate.public_key()).hex()[:16]}"


def _fill(
    stage: Path,
    trust_domain: str,
    spaces: Mapping[IssuerRole, NameSpace],
    passphrases: Mapping[str, bytes],
    now: datetime,
    cost: Cost,
) -> None:
    log_key = make_ed25519()
    record = Record.open(stage, origin=f"{trust_domain}/ca", key=log_key, now=now)
    try:
        root, root_key = make_root(trust_domain, now)
        issuing: dict[str, ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey] = {"log": log_key}
        for role in SIGNER_ROLES:
            key = make_ec("p256")
            space = None if role == "status" else spaces[role]
            certificate = sign_signer(role, key, root, root_key, space, record, now)
            issuing[key_name(role, certificate)] = key
            write_private(stage / f"{role}.pem", certificate.public_bytes(Encoding.PEM))
    finally:
        record.close()
    write_private(stage / "root.pem", root.public_bytes(Encoding.PEM))
    write_private(stage / "root.key", seal({key_name("root", root): root_key}, passphrases["root"], cost=cost))
    write_private(stage / "issuing.key", seal(issuing, passphrases["issuing"], cost=cost))


def make_root(trust_domain: str, now: datetime) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    """A root and its key."""
    key, serial = make_ec("p384"), x509.random_serial_number()
    template = issue.root_template(key.public_key(), trust_domain=trust_domain, serial=serial, now=now)
    return template.sign(key, SHA384()), key


def sign_signer(
    role: SignerRole,
    key: ec.EllipticCurvePrivateKey,
    root: x509.Certificate,
    root_key: ec.EllipticCurvePrivateKey,
    space: NameSpace | None,
    record: Record,
    now: datetime,
) -> x509.Certificate:
    """Sign what stands directly below the root, recorded before and after. Only intermediates have a name space.

    Raises:
        NotRecorded: it could not be written.
    """
    serial = x509.random_serial_number()
    names: list[str] = []
    if role == "status":
        template = issue.status_template(key.public_key(), root, serial, now)
    else:
        assert space is not None
        names = [*space.dns, *map(str, space.ips)]
        template = issue.intermediate_template(key.public_key(), role, root, space, serial, now)
    intent = Intent(
        serial=serial,
        issuer_sha256=spki_sha256(root_key.public_key()).hex(),
        role="root",
        name=role,
        names=names,
        spki_sha256=spki_sha256(key.public_key()).hex(),
        not_after=min(now + issue.INTERMEDIATE_LIFE, root.not_valid_after_utc),
        requester="local",
    )
    number, _ = record.intend(intent, now)
    certificate = template.sign(root_key, SHA384())
    der = certificate.public_bytes(Encoding.DER)
    record.issued(number, intent, der, sha256(der).hexdigest(), now)
    return certificate


def spki_sha256(key: object) -> bytes:
    """SHA-256 of a public key's SubjectPublicKeyInfo."""
    assert isinstance(key, ec.EllipticCurvePublicKey)
    return sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).digest()
