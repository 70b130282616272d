"""Certificate signing requests: nothing but the public key is taken out of one.

A request that asks for more than the names it is authorised to have is refused and recorded, not trimmed: who asks for
CA:TRUE, another name or another key usage is broken or hostile (attack P34). Its signature proves possession of the key.
"""

from __future__ import annotations

from collections.abc import Iterable

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from pki.errors import CsrRejected
from pki.profile import PARSE_ERRORS, unwarned

_MAX_BYTES = 16 << 10


def make(key: ec.EllipticCurvePrivateKey) -> bytes:
    """A request (DER) that asks for nothing by name: the authority knows what this key's holder may have."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return builder.sign(key, SHA256()).public_bytes(Encoding.DER)


def public_key(raw: bytes, *, names: Iterable[str]) -> ec.EllipticCurvePublicKey:
    """The public key of a request in PEM or DER; `names` are all names the certificate will have (SPIFFE ID included).

    Raises:
        CsrRejected: with the rule that is broken.
    """
    if len(raw) > _MAX_BYTES:
        raise CsrRejected("csr-malformed", f"larger than {_MAX_BYTES} bytes")
    try:
        with unwarned():
            load = x509.load_pem_x509_csr if raw.lstrip().startswith(b"-----") else x509.load_der_x509_csr
            request = load(raw)
            key = request.public_key()
            extensions = list(request.extensions)
            asked = {str(cn.value) for cn in request.subject.get_attributes_for_oid(NameOID.COMMON_NAME)}
            proven = request.is_signature_valid
    except PARSE_ERRORS as error:
        raise CsrRejected("csr-malformed", str(error)) from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name not in {"secp256r1", "secp384r1"}:
        raise CsrRejected("csr-key", "only P-256 and P-384 keys are certified")
    if not proven:
        raise CsrRejected("csr-signature", "the request is not signed by its own key")
    for extension in extensions:
        if not isinstance(extension.value, x509.SubjectAlternativeName):
            raise CsrRejected("csr-extension", f"asks for {extension.oid.dotted_string}; only names may be asked for")
        asked |= {str(name.value) for name in extension.value}
    beyond = asked - set(names)
    if beyond:
        raise CsrRejected("csr-names", f"asks for {', '.join(sorted(beyond))}, which is not authorised")
    return key
