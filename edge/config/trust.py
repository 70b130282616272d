"""Certificates and keys as files, and the gateway's identity towards upstreams.

Judged at load, because a worker that cannot shake hands is worse than a reload that is refused (attack P22): each file
parses, key and certificate belong together, and an identity from an outside authority is one that upstreams can accept.
Dates are not judged: this is a function of its arguments, and `certificates.finding` asks when it is told the time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from edge.config.document import Document, Step
from edge.config.edge_file import EdgeShape
from edge.config.secret import Secret
from edge.config.settings import Identity
from edge.config.sources import Sources
from edge.errors import Fault
from pki.errors import SpiffeIdError
from pki.profile import PARSE_ERRORS, unwarned
from pki.spiffe import SpiffeId

_ISSUED = "remove it; edge serve issues a new one"


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate chain and its key; empty when there is none yet."""

    chain: bytes
    key: Secret
    leaf: x509.Certificate | None


NOTHING = Pair(b"", Secret(b""), None)


class _Bad(Exception):
    """A file does not hold what it should; the text says why."""


def identity(edge: EdgeShape, document: Document, sources: Sources, faults: list[Fault]) -> Identity:
    """Who the gateway is towards upstreams."""
    if edge.identity is None:
        directory = f"{edge.state}/identity/gateway"
        pair = issued_pair(directory, sources, faults)
        bundle_file = sources.path(f"{directory}/bundle.pem")
        bundle = sources.files[bundle_file].reveal() if pair.chain and bundle_file in sources.files else b""
        return Identity(pair.chain if bundle else b"", pair.key, bundle, outside=False, has_server_auth=True)
    way = ("identity",)
    pair = given_pair(way, edge.identity.certificate, edge.identity.key, document, sources, faults)
    raw_bundle = content((*way, "bundle"), edge.identity.bundle, document, sources, faults)
    bundle = raw_bundle.reveal() if raw_bundle is not None else b""
    if raw_bundle is not None and not has_certificates(bundle):
        faults.append(
            document.fault((*way, "bundle"), "certificate", "no certificates in PEM", "give the trust bundle")
        )
    if pair.leaf is not None:
        flaw = _identity_flaw(pair.leaf, edge.trust_domain)
        if flaw is not None:
            faults.append(document.fault((*way, "certificate"), "certificate", *flaw))
    has_server_auth = pair.leaf is not None and ExtendedKeyUsageOID.SERVER_AUTH in _usages(pair.leaf)
    return Identity(pair.chain, pair.key, bundle, outside=True, has_server_auth=has_server_auth)


def assertion_faults(chain: bytes, document: Document) -> Iterator[Fault]:
    """What keeps an identity from signing assertions, which are ES256; the mini-CA's keys are all on P-256."""
    key = _certificates(chain)[0].public_key() if chain else None
    if key is not None and not (isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name == "secp256r1"):
        message = "services.yaml asks for assertions, and this key is not on P-256"
        remedy = "give an identity with a P-256 key, or remove assertion: there"
        yield document.fault(("identity", "certificate"), "certificate", message, remedy)


def content(way: Sequence[Step], text: str, document: Document, sources: Sources, faults: list[Fault]) -> Secret | None:
    """The file that the setting at `way` names; or None, and a fault."""
    path = sources.path(text)
    if path in sources.files:
        return sources.files[path]
    reason = sources.unreadable.get(path, "not read")
    faults.append(document.fault(way, "missing-file", f"cannot read {text}: {reason}", "correct the path"))
    return None


def has_certificates(raw: bytes) -> bool:
    try:
        return bool(_certificates(raw))
    except _Bad:
        return False


def _certificates(raw: bytes) -> list[x509.Certificate]:
    """With everything in them parsed now that anybody may ask for later. Raises: _Bad."""
    try:
        with unwarned():
            found = x509.load_pem_x509_certificates(raw)
            for each in found:
                each.public_key()
                _ = len(each.extensions), each.not_valid_before_utc, each.not_valid_after_utc
    except PARSE_ERRORS as exc:
        raise _Bad("no certificate in PEM") from exc
    return found


def given_pair(
    way: tuple[Step, ...], certificate: str, key: str, document: Document, sources: Sources, faults: list[Fault]
) -> Pair:
    """A pair that edge.yaml names."""
    chain = content((*way, "certificate"), certificate, document, sources, faults)
    private = content((*way, "key"), key, document, sources, faults)
    if chain is None or private is None:
        return NOTHING
    try:
        return Pair(chain.reveal(), private, _leaf(chain, private))
    except _Bad as exc:
        faults.append(document.fault((*way, "certificate"), "certificate", str(exc), "give a certificate with its key"))
        return NOTHING


def issued_pair(directory: str, sources: Sources, faults: list[Fault]) -> Pair:
    """A pair that the mini-CA put under `state/`; empty when it is not there yet."""
    chain = sources.files.get(sources.path(f"{directory}/chain.pem"))
    private = sources.files.get(sources.path(f"{directory}/key.pem"))
    if chain is None or private is None:
        return NOTHING
    try:
        return Pair(chain.reveal(), private, _leaf(chain, private))
    except _Bad as exc:
        faults.append(Fault(f"{directory}/chain.pem", 1, 1, "certificate", str(exc), _ISSUED))
        return NOTHING


def _leaf(chain: Secret, private: Secret) -> x509.Certificate:
    """The first certificate, which `private` must belong to. Raises: _Bad."""
    leaf = _certificates(chain.reveal())[0]
    try:
        key = serialization.load_pem_private_key(private.reveal(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as exc:
        raise _Bad("the key is not an unencrypted private key in PEM") from exc
    form = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    if leaf.public_key().public_bytes(*form) != key.public_key().public_bytes(*form):
        raise _Bad("the key belongs to another certificate")
    return leaf


def _identity_flaw(leaf: x509.Certificate, trust_domain: str) -> tuple[str, str] | None:
    """(message, remedy) when no upstream of the trust domain could accept this identity."""
    try:
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    except (x509.ExtensionNotFound, ValueError):
        uris = []
    if len(uris) != 1:
        return f"{len(uris)} URI names where an SVID has exactly one", "give the X509-SVID of the gateway"
    try:
        spiffe_id = SpiffeId.parse(uris[0])
    except SpiffeIdError as exc:
        return f"not a SPIFFE ID: {exc}", "give the X509-SVID of the gateway"
    if spiffe_id.trust_domain != trust_domain:
        return (
            f"it is of the trust domain {spiffe_id.trust_domain}",
            f"give one of {trust_domain}, or correct trust_domain",
        )
    if ExtendedKeyUsageOID.CLIENT_AUTH not in _usages(leaf):
        return "its key may not be used by a TLS client", "give one with the extended key usage clientAuth"
    return None


def _usages(leaf: x509.Certificate) -> frozenset[x509.ObjectIdentifier]:
    try:
        return frozenset(leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
    except (x509.ExtensionNotFound, ValueError):
        return frozenset()
