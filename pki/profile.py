"""The verifying profile's rules for single certificates, beyond what path validation checks.

Path validation (`cryptography.x509.verification`) alone accepts a leaf without extended key usage or with `any`, wildcards,
RSA-1024 and P-192 keys, a zero serial, non-critical name constraints, and more. The functions here look at one certificate
each and raise the rule that is broken; `svid` puts them together. `RULES` is the closed list of everything that can be
wrong with a presented chain, in the words of the documentation.

Tolerated on purpose, for outside SPIFFE authorities: a subject, a CN (never read), a long life, a missing intermediate.
"""

from __future__ import annotations

import ipaddress
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TypeVar

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from pki.errors import SvidRejected
from pki.issue import is_dns_name

PARSE_ERRORS = (
    ValueError,
    TypeError,
    OverflowError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
    x509.InvalidVersion,
    x509.AttributeNotFound,
)
"""What the library's parsers throw at hostile bytes; all of it means the same to us."""

RULES: Mapping[str, str] = {
    "malformed": "A certificate cannot be parsed in full, or repeats an extension.",
    "too-large": "The chain has more than 16 certificates or 64 KiB.",
    "untrusted": "No path of valid signatures, names, constraints and dates leads from the leaf to a trust anchor.",
    "expired": "The leaf's validity is over.",
    "not-yet-valid": "The leaf's validity has not begun.",
    "serial": "A serial number is zero, negative, or longer than 20 octets (RFC 5280 §4.1.2.2).",
    "key-type": "A key is none of P-256, P-384 and RSA of 2048 to 8192 bits.",
    "leaf-is-ca": "The leaf is a CA certificate or may sign certificates; identities are never authorities.",
    "leaf-is-anchor": "The leaf itself stands among the trust anchors; it proves nothing about who issued it.",
    "key-usage": "The leaf's key usage is missing or lacks digitalSignature.",
    "extended-key-usage": "The leaf's extended key usage is missing, is `any`, or does not name the use at hand.",
    "authority-profile": "An issuing certificate breaks the profile: constraints that are not critical, a missing or wrong"
    " key identifier, no right to sign certificates, or an extended key usage that does not permit the use at hand.",
    "constraint-kind": "An issuing certificate constrains names other than DNS names and addresses; such constraints cannot"
    " be applied here, so nothing below them is believed.",
    "wildcard": "A DNS name has a wildcard; an identity names one thing.",
    "spiffe-uri": "The leaf does not hold exactly one URI name, or it is not a SPIFFE ID with a path.",
    "trust-domain": "The SPIFFE ID is of another trust domain.",
    "spiffe-id": "The SPIFFE ID is not the one that was expected, byte for byte.",
    "role-issuer": "The issuing intermediate may not issue this role.",
    "dns-name": "A DNS name of the leaf is not a plain lower-case or mixed-case host name.",
    "host-name": "None of the leaf's names is the host that was expected.",
    "subject": "The subject's CN is not one of the subject alternative names, or names and subject contradict each other.",
    "revoked": "The leaf or an intermediate is revoked.",
    "not-in-issuance-record": "Our CA's log holds no issuance of this certificate, although the signature is right.",
    "revocation-unknown": "What is revoked is not known at the moment; an unknown state refuses.",
}

_CONSTRAINED = (x509.DNSName, x509.IPAddress)
_E = TypeVar("_E", bound=x509.ExtensionType)
_CURVES = {"secp256r1", "secp384r1"}
_ANY_USAGE = ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE


def check_any(certificate: x509.Certificate) -> None:
    """What holds for every certificate of a chain: its key, and that its bytes are the only ones for what is signed.

    The signature's BIT STRING could say that some of its last bits are unused. It would be the same certificate in other
    bytes, which whoever knows certificates by their hash takes for another.

    Raises:
        SvidRejected: key-type, malformed.
    """
    if not certificate.public_bytes(Encoding.DER).endswith(b"\0" + certificate.signature):
        raise SvidRejected("malformed", "the signature is not whole bytes")
    key = certificate.public_key()
    if isinstance(key, ec.EllipticCurvePublicKey):
        good = key.curve.name in _CURVES
    else:
        good = isinstance(key, rsa.RSAPublicKey) and 2048 <= key.key_size <= 8192 and key.key_size % 8 == 0
    if not good:
        raise SvidRejected("key-type", type(key).__name__)


def check_serial(certificate: x509.Certificate) -> None:
    """What holds for every certificate that somebody issued; an anchor is trusted by its bytes, whatever its number.

    Raises:
        SvidRejected: serial.
    """
    with unwarned():
        serial = certificate.serial_number
    if serial <= 0 or serial.bit_length() > 159:
        raise SvidRejected("serial", f"{serial:x}")


def check_leaf(certificate: x509.Certificate, usage: x509.ObjectIdentifier) -> None:
    """What holds for every leaf: not an authority, fit for signing, and for this use.

    Raises:
        SvidRejected: leaf-is-ca, key-usage, extended-key-usage, serial and those of `check_any`.
    """
    check_any(certificate)
    check_serial(certificate)
    constraints = extension(certificate, x509.BasicConstraints)
    key_usage = extension(certificate, x509.KeyUsage)
    if (constraints is not None and constraints.ca) or (key_usage is not None and key_usage.key_cert_sign):
        raise SvidRejected("leaf-is-ca")
    if key_usage is None or not key_usage.digital_signature or key_usage.crl_sign:
        raise SvidRejected("key-usage")
    usages = extension(certificate, x509.ExtendedKeyUsage)
    if usages is None or usage not in usages or _ANY_USAGE in usages:
        raise SvidRejected("extended-key-usage")


def check_authority(certificate: x509.Certificate, usage: x509.ObjectIdentifier, *, is_anchor: bool) -> None:
    """What holds for an anchor or intermediate, on a verified path or one that was tried in vain.

    Raises:
        SvidRejected: authority-profile, constraint-kind, serial and those of `check_any`.
    """
    check_any(certificate)
    if not is_anchor:
        check_serial(certificate)
    extensions = certificate.extensions
    constraints = extension(certificate, x509.BasicConstraints)
    key_usage = extension(certificate, x509.KeyUsage)
    if constraints is None or not constraints.ca or key_usage is None or not key_usage.key_cert_sign:
        raise SvidRejected("authority-profile", "not a CA certificate that may sign certificates")
    for kind in (x509.NameConstraints, x509.PolicyConstraints, x509.InhibitAnyPolicy):
        try:
            if not extensions.get_extension_for_class(kind).critical:
                raise SvidRejected("authority-profile", f"{kind.__name__} is not critical")
        except x509.ExtensionNotFound:
            pass
    names = extension(certificate, x509.NameConstraints)
    if names is not None:
        subtrees = [*(names.permitted_subtrees or ()), *(names.excluded_subtrees or ())]
        if not all(isinstance(name, _CONSTRAINED) for name in subtrees):
            raise SvidRejected("constraint-kind")
    own_key = extension(certificate, x509.SubjectKeyIdentifier)
    if own_key is None:
        raise SvidRejected("authority-profile", "no subject key identifier")
    usages = extension(certificate, x509.ExtendedKeyUsage)
    is_root = is_anchor and certificate.subject == certificate.issuer
    if usages is not None and (is_root or (usage not in usages and _ANY_USAGE not in usages)):
        raise SvidRejected("authority-profile", "extended key usage")
    issuer_key = extension(certificate, x509.AuthorityKeyIdentifier)
    if issuer_key is not None:
        if issuer_key.authority_cert_issuer is not None or issuer_key.authority_cert_serial_number is not None:
            raise SvidRejected("authority-profile", "authority key identifier names more than a key")
        if is_root and issuer_key.key_identifier != own_key.digest:
            raise SvidRejected("authority-profile", "the root's two key identifiers differ")


def uri_names(certificate: x509.Certificate) -> list[str]:
    """The URI names of a leaf; wildcards among its DNS names refuse.

    Raises:
        SvidRejected: wildcard.
    """
    names = extension(certificate, x509.SubjectAlternativeName)
    if names is None:
        return []
    if any("*" in name for name in names.get_values_for_type(x509.DNSName)):
        raise SvidRejected("wildcard")
    return names.get_values_for_type(x509.UniformResourceIdentifier)


def check_host_names(certificate: x509.Certificate) -> None:
    """A public listener's leaf: plain host names, and a subject that agrees with them (CA/B BR §7.1.4.3).

    Raises:
        SvidRejected: wildcard, dns-name, subject.
    """
    names = extension(certificate, x509.SubjectAlternativeName)
    if names is None:
        raise SvidRejected("host-name", "no subject alternative name")
    dns = [name.lower() for name in names.get_values_for_type(x509.DNSName)]
    if any("*" in name for name in dns):
        raise SvidRejected("wildcard")
    if not all(is_dns_name(name) for name in dns):
        raise SvidRejected("dns-name")
    addresses = {str(ip) for ip in names.get_values_for_type(x509.IPAddress)}
    critical = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).critical
    if critical != (not list(certificate.subject)):
        raise SvidRejected("subject", "names must be critical exactly when the subject is empty")
    common_names = [str(cn.value) for cn in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    if len(common_names) > 1 or any(cn.lower() not in dns and cn not in addresses for cn in common_names):
        raise SvidRejected("subject", "CN is not one of the names")


@contextmanager
def unwarned() -> Iterator[None]:
    """Reading what is hostile makes the library warn: of a serial that it will refuse one day and `check_serial` refuses
    today, of a name's length. Whoever is read by us writes no lines on our stderr."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        yield


def is_address(text: str) -> bool:
    """Is this host an IP literal?"""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def extension(certificate: x509.Certificate, kind: type[_E]) -> _E | None:
    """The extension's value, or None."""
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None
