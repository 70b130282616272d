"""Enrolment over Secure Transport (RFC 7030), the part that needs no key of the CA.

`cacerts` (§4.1): whom to trust, as a certs-only PKCS#7 message in base64. A client that has nothing yet fetches it over a
connection it cannot judge, compares the root's fingerprint with the one it was told, and trusts from then on (§4.1.1). Beside
the roots stand the intermediates below them, so that a client can build any chain of ours (§4.1.3).
"""

from __future__ import annotations

import base64

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, pkcs7
from quart import Response

from edge.control.inside import Inside


async def cacerts(inside: Inside) -> Response:
    return certs_only(x509.load_pem_x509_certificates(inside.bundle()))


def certs_only(certificates: list[x509.Certificate]) -> Response:
    """Certificates in a degenerate PKCS#7 message (RFC 5272 §4.1), base64 in lines of 76 (RFC 8951 §3.1)."""
    message = pkcs7.serialize_certificates(certificates, Encoding.DER)
    answer = Response(base64.encodebytes(message), content_type="application/pkcs7-mime")
    # RFC 7030 §4.1.3 asks for it, RFC 8951 §3.1 lets clients ignore it; old ones do not.
    answer.headers["Content-Transfer-Encoding"] = "base64"
    return answer
