"""What another gateway is added with: its identity and the certificate of its public listener, made where the CA is.

state/issued/gateway-edge-b/       written by `issue-cert.py edge-b --role gateway`, carried over, read by `edge init --join`
  chain.pem key.pem bundle.pem …   as in `io_output`; the bundle names the role intermediates
  public-chain.pem                 for the hosts of the public listener; these three are absent when that one has a
  public-key.pem                   certificate of its own, or the identity's key came by a signing request
  public-issuance.tlog-proof

Everything is verified before anything is put in place: a gateway that starts with half an identity refuses every request.
A second visit with newer material of the same gateway renews it; a gateway that serves notices the files.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

from pki import svid
from pki.bundle import Bundle
from pki.errors import BundleError, MaterialRejected, SvidRejected, WouldOverwrite
from pki.io_authority import Issued
from pki.io_files import private_directory, read_private, read_public, replace_directory
from pki.io_output import read as read_output
from pki.spiffe import SpiffeId

PUBLIC = "public-"
"""What the names of the public listener's files start with."""

Files = Mapping[str, tuple[bytes, int]]
"""Name → content and mode."""


@dataclass(frozen=True, slots=True)
class Material:
    """Verified material. Built only by `read`."""

    spiffe_id: SpiffeId
    not_after: datetime
    hosts: tuple[str, ...]
    """What the public listener may answer for; empty when it needs a certificate of its own."""
    gateway: Files
    public: Files


def public_files(issued: Issued, key_pem: bytes) -> Files:
    """The certificate of the public listener, as further files of the gateway's directory."""
    return {
        f"{PUBLIC}chain.pem": (issued.chain_pem, 0o644),
        f"{PUBLIC}key.pem": (key_pem, 0o600),
        f"{PUBLIC}issuance.tlog-proof": (issued.proof, 0o644),
    }


def read(directory: Path, now: datetime) -> Material:
    """Read and verify.

    Raises:
        MaterialRejected: not whole, not valid now, or of something that is not a gateway.
        UnsafeFile: a key is open to others.
    """
    public: Files = {}
    try:
        gateway = {**_pair(directory, ""), "bundle.pem": (read_public(directory / "bundle.pem"), 0o644)}
        if os.path.lexists(directory / f"{PUBLIC}chain.pem"):
            public = _pair(directory, PUBLIC)
    except FileNotFoundError as error:
        raise MaterialRejected(
            f"{error.filename}: missing; make the directory where the CA is: scripts/issue-cert.py NAME --role gateway"
        ) from error
    return verified(gateway, public, now, source=str(directory))


def verified(gateway: Files, public: Files, now: datetime, *, source: str) -> Material:
    """Material of these files, wherever they come from. `public`: chain and key, or nothing.

    Raises:
        MaterialRejected: as `read`.
    """
    try:
        bundle = Bundle.parse(gateway["bundle.pem"][0])
        spiffe_id, not_after = _verify_gateway(_matching(gateway), bundle, now)
        hosts: tuple[str, ...] = ()
        if public:
            chain = _matching(public)
            hosts = _hosts(chain[0])
            for host in hosts:
                not_after = min(not_after, svid.verify_host(chain, anchors=bundle.anchors, host=host, now=now))
            public = {**public, "bundle.pem": (b"".join(map(_pem, bundle.anchors)), 0o644)}
    except (BundleError, SvidRejected, ValueError, TypeError, x509.ExtensionNotFound) as error:
        raise MaterialRejected(f"{source}: {error}") from error
    return Material(spiffe_id, not_after, hosts, gateway, public)


def install(state: Path, material: Material) -> bool:
    """Put the material in place under `state`; → whether it renewed what was there.

    Raises:
        WouldOverwrite: `state` holds a CA, or the identity of another gateway.
        UnsafeFile: a directory is open to others.
    """
    check_free(state, material)
    identity = state / "identity"
    private_directory(state)
    private_directory(identity)
    renews = os.path.lexists(identity / "gateway")
    for name, files in (("public", material.public), ("gateway", material.gateway)):
        if files:
            replace_directory(identity / name, files, replace=True)
    return renews


def check_free(state: Path, material: Material) -> None:
    """Could `install` put it there?

    Raises:
        WouldOverwrite: no.
    """
    check_joinable(state)
    held = read_output(state / "identity" / "gateway")
    if held is not None and str(material.spiffe_id) not in held.names:
        raise WouldOverwrite(
            f"{state / 'identity'} is of another gateway than {material.spiffe_id}; join in another directory"
        )


def check_joinable(state: Path) -> None:
    """Could any gateway join there?

    Raises:
        WouldOverwrite: it has a CA of its own.
    """
    if os.path.lexists(state / "ca"):
        raise WouldOverwrite(f"{state / 'ca'} exists: this gateway has a CA of its own; join in another directory")


def _pair(directory: Path, prefix: str) -> Files:
    """Chain, key and, where there is one, the proof of issuance."""
    files = {
        "chain.pem": (read_public(directory / f"{prefix}chain.pem"), 0o644),
        "key.pem": (read_private(directory / f"{prefix}key.pem"), 0o600),
    }
    for name in ("identity.json", "issuance.tlog-proof"):
        if os.path.lexists(directory / f"{prefix}{name}"):
            files[name] = (read_public(directory / f"{prefix}{name}"), 0o644)
    return files


def _matching(files: Files) -> list[bytes]:
    """The chain, DER, to which the key belongs. Raises: ValueError."""
    chain = x509.load_pem_x509_certificates(files["chain.pem"][0])
    if load_pem_private_key(files["key.pem"][0], None).public_key() != chain[0].public_key():
        raise ValueError("key.pem belongs to another certificate than chain.pem")
    return [each.public_bytes(Encoding.DER) for each in chain]


def _verify_gateway(chain: Sequence[bytes], bundle: Bundle, now: datetime) -> tuple[SpiffeId, datetime]:
    """Whose it is and when it ends. Raises: SvidRejected, ValueError."""
    names = x509.load_der_x509_certificate(chain[0]).extensions.get_extension_for_class(x509.SubjectAlternativeName)
    uris = names.value.get_values_for_type(x509.UniformResourceIdentifier)
    trust_domain = uris[0].removeprefix("spiffe://").partition("/")[0] if uris else ""
    verified = svid.verify(
        chain,
        anchors=bundle.anchors,
        expected_id=None,
        usage="client",
        now=now,
        trust_domain=trust_domain,
        role_issuers=bundle.role_issuers,
    )
    if verified.spiffe_id.role != "gw":
        raise ValueError(f"{verified.spiffe_id} is not a gateway; issue with --role gateway")
    if "svc" not in bundle.role_issuers:
        raise ValueError("bundle.pem does not name the intermediate that issues for services")
    return verified.spiffe_id, verified.not_after


def _hosts(leaf: bytes) -> tuple[str, ...]:
    names = x509.load_der_x509_certificate(leaf).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    addresses = map(str, names.get_values_for_type(x509.IPAddress))
    return (*names.get_values_for_type(x509.DNSName), *addresses)


def _pem(der: bytes) -> bytes:
    return x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM)
