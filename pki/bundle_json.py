"""The SPIFFE bundle of a trust domain (SPIFFE Trust Domain and Bundle §4): a JWK set of the roots, with a sequence number.

{"keys":[{"use":"x509-svid","kty":"EC","crv":"P-384","x":"…","y":"…","x5c":["<base64 DER>"]}],
 "spiffe_sequence":7,"spiffe_refresh_hint":300}
"""

from __future__ import annotations

import json
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Iterable

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

REFRESH_HINT_S = 300
_CURVES = {"secp256r1": "P-256", "secp384r1": "P-384"}


def encode(roots: Iterable[x509.Certificate], sequence: int) -> bytes:
    """The document; roots are ours, with EC keys."""
    document = {
        "keys": [_key(root) for root in roots],
        "spiffe_sequence": sequence,
        "spiffe_refresh_hint": REFRESH_HINT_S,
    }
    return json.dumps(document, indent=1).encode() + b"\n"


def _key(root: x509.Certificate) -> dict[str, object]:
    key = root.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    numbers, size = key.public_numbers(), (key.curve.key_size + 7) // 8
    x, y = (urlsafe_b64encode(n.to_bytes(size, "big")).rstrip(b"=").decode() for n in (numbers.x, numbers.y))
    der = b64encode(root.public_bytes(Encoding.DER)).decode()
    return {"use": "x509-svid", "kty": "EC", "crv": _CURVES[key.curve.name], "x": x, "y": y, "x5c": [der]}
