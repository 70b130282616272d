"""Enrolment over Secure Transport (RFC 7030): its two media types as bytes, and when a certificate may be renewed.

    POST /.well-known/est/simpleenroll      application/pkcs10: base64 of the DER of a signing request
    200 OK                                  application/pkcs7-mime; smime-type=certs-only: base64 of a PKCS#7 without signers

RFC 8951 §3 settles what 7030 left open: bodies are base64 whatever Content-Transfer-Encoding says, white space in it means
nothing. PEM armour is not asked for, but that is what people paste, so a request in it is read too.
"""

from __future__ import annotations

import binascii
from base64 import b64decode, encodebytes
from collections.abc import Iterable
from datetime import datetime

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.hazmat.primitives.serialization.pkcs7 import load_der_pkcs7_certificates, serialize_certificates

from pki.errors import AnswerRejected, CsrRejected
from pki.issue import renew_at
from pki.profile import PARSE_ERRORS

RENEWAL = "est-renew"
"""Who asks, in the authority's record."""
REQUEST_TYPE = "application/pkcs10"
ANSWER_TYPE = "application/pkcs7-mime; smime-type=certs-only"
ROOTS_TYPE = "application/pkcs7-mime"
"""Of `cacerts` (§4.1.3)."""
MAX_REQUEST_BYTES = 16 << 10
MAX_ANSWER_BYTES = 1 << 20
"""A bundle holds 64 certificates at most."""
_ARMOUR = (b"-----BEGIN CERTIFICATE REQUEST-----", b"-----BEGIN NEW CERTIFICATE REQUEST-----")


def read_request(body: bytes) -> bytes:
    """The DER (or, as it came, PEM) of the signing request in a body.

    Raises:
        CsrRejected: too large, or not base64.
    """
    if len(body) > MAX_REQUEST_BYTES:
        raise CsrRejected("csr-malformed", f"larger than {MAX_REQUEST_BYTES} bytes")
    if body.lstrip().startswith(_ARMOUR):
        return body.strip() + b"\n"
    try:
        return b64decode(b"".join(body.split()), validate=True)
    except binascii.Error as error:
        raise CsrRejected("csr-malformed", f"not base64: {error}") from error


def certs_only(certificates: Iterable[bytes]) -> bytes:
    """The body of an answer: PKCS#7 with these certificates (DER) and no signer (RFC 5751 §3.8), base64 in lines."""
    parsed = [x509.load_der_x509_certificate(der) for der in certificates]
    return encodebytes(serialize_certificates(parsed, Encoding.DER))


def read_certificates(body: bytes) -> list[bytes]:
    """The certificates (DER) of such an answer, as a client reads it.

    Raises:
        AnswerRejected: too large, or not that.
    """
    try:
        if len(body) > MAX_ANSWER_BYTES:
            raise ValueError(f"larger than {MAX_ANSWER_BYTES} bytes")
        message = b64decode(b"".join(body.split()), validate=True)
        return [each.public_bytes(Encoding.DER) for each in load_der_pkcs7_certificates(message)]
    except PARSE_ERRORS as error:
        raise AnswerRejected(f"not a list of certificates: {error}") from error


def said(body: bytes) -> str:
    """What a refusal says, for people: its first line, and nothing in it that steers their terminal: who is asked before he
    has proven himself can say anything (attack E8)."""
    line = body[:1200].decode("utf-8", "replace").strip().partition("\n")[0][:300]
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in line)


def renew_when(not_before: datetime, not_after: datetime, serial: int) -> datetime:
    """When to renew: at two thirds of the life and up to a twelfth of it later, by the serial, so that services which
    were started together do not come together for ever."""
    jitter = (serial & 0xFFFF) / 0x10000
    return renew_at(not_before, not_after) + (not_after - not_before) / 12 * jitter
