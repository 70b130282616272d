"""The directory a certificate is handed out in, and how one reads whether it is still fresh.

state/issued/orders/               0700, replaced as a whole
  cert.pem                         the leaf
  chain.pem                        leaf and intermediate: what a TLS server presents
  key.pem                          0600; absent when a signing request brought its own key
  bundle.pem                       whom to trust
  identity.json                    the facts, for machines
  issuance.tlog-proof              that the authority logged it; verifies offline against the log's key
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from pki.errors import UnsafeFile
from pki.io_files import read_private, replace_directory
from pki.io_record import timestamp
from pki.issue import renew_at
from pki.issued import Issued


@dataclass(frozen=True, slots=True)
class Held:
    """A certificate found in such a directory."""

    names: frozenset[str]
    """Every subject alternative name as text."""
    not_before: datetime
    not_after: datetime
    bundle_pem: bytes
    serial: int
    issuer: x509.Name

    def is_fresh(self, now: datetime) -> bool:
        """Within the first two thirds of its life."""
        return self.not_before <= now < renew_at(self.not_before, self.not_after)


def write(
    target: Path,
    issued: Issued,
    *,
    key_pem: bytes | None,
    bundle_pem: bytes,
    root_sha256: str,
    replace: bool,
    more: Mapping[str, tuple[bytes, int]] | None = None,
) -> None:
    """Write the directory of one certificate; `more`: further files, name → content and mode.

    Raises:
        WouldOverwrite: something is there and `replace` is false.
        UnsafeFile: the place is not safe to write a key to.
    """
    files = {
        "cert.pem": (issued.leaf_pem, 0o644),
        "chain.pem": (issued.chain_pem, 0o644),
        "bundle.pem": (bundle_pem, 0o644),
        "identity.json": (json.dumps(facts(issued, root_sha256), indent=2).encode() + b"\n", 0o644),
        "issuance.tlog-proof": (issued.proof, 0o644),
    }
    if key_pem is not None:
        files["key.pem"] = (key_pem, 0o600)
    replace_directory(target, files | dict(more or {}), replace=replace)


def facts(issued: Issued, root_sha256: str) -> dict[str, object]:
    """What `identity.json` says."""
    return {
        "spiffe_id": str(issued.spiffe_id) if issued.spiffe_id else None,
        "role": issued.role,
        "name": issued.name,
        "names": list(issued.names),
        "serial": f"{issued.serial:x}",
        "not_before": timestamp(issued.not_before),
        "not_after": timestamp(issued.not_after),
        "renew_after": timestamp(issued.renew_after),
        "certificate_sha256": sha256(issued.leaf).hexdigest(),
        "root_sha256": root_sha256,
        "issuance": issued.number,
        "log": {"intent_index": issued.intent_index, "index": issued.log_index},
    }


def read(target: Path, prefix: str = "") -> Held | None:
    """What stands in `target`; None when there is no whole, matching set of chain, key (where there is one) and bundle.
    `prefix` comes before the names of chain and key.

    Raises:
        UnsafeFile: the key is open to others; a key that leaked is not renewed silently.
    """
    try:
        leaf = x509.load_pem_x509_certificates((target / f"{prefix}chain.pem").read_bytes())[0]
        bundle_pem = (target / "bundle.pem").read_bytes()
        key_path = target / f"{prefix}key.pem"
        if key_path.exists() or key_path.is_symlink():
            key = load_pem_private_key(read_private(key_path), None)
            if key.public_key() != leaf.public_key():
                return None
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except UnsafeFile:
        raise
    except (OSError, ValueError, TypeError, IndexError, x509.ExtensionNotFound):
        return None
    texts = frozenset(str(name.value) for name in names)
    return Held(texts, leaf.not_valid_before_utc, leaf.not_valid_after_utc, bundle_pem, leaf.serial_number, leaf.issuer)
