"""`Edge-Assertion`: what a service asked for in services.yaml, so that it need not take the caller's identity on trust.

    services:
      orders: {may_serve: ["/orders/**"], assertion: subject}     # or request; absent: none

Signed by the key that shows the gateway to upstreams, so it proves no more and no less than the connection does, and ends
with it; a gateway of the next generation signs with its own. The form stands in `edge.verify.form`, read by `edge.verify`.

`subject` says who calls which service; one is signed per principal and service and used for at most 25 s, so the common
request costs a look into a map. `request` binds method, authority, target and the decision's id as well, and is signed anew
for each. Neither outlives the caller's own token. A service that asks for nothing costs nothing.

A health check of ours is vouched for too, since the verifier makes no exception for it: for nobody (anonymous), and always
bound to that one GET, whichever mode the service asks for. Whoever gets hold of it can ask for the health page again, and
nothing else.
"""

from __future__ import annotations

from base64 import b64encode

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

from edge.forward.fields import upstream_target
from edge.model.decision import Admission
from edge.model.http import Request
from edge.model.identity import ANONYMOUS, Principal
from edge.model.recent import Recent
from edge.verify import form

USE_S = 25
"""How long one is used of the 30 s that it lives: what was sent at the end still arrives in time."""
_REMEMBERED = 4096
_NS = 1_000_000_000
_HASH = ec.ECDSA(SHA256())


class Assertions:
    """What one generation of the gateway vouches for. Owner: the worker's loop, no lock."""

    def __init__(self, chain_pem: bytes, key_pem: bytes, bundle_pem: bytes, asking: frozenset[str]) -> None:
        """The identity towards upstreams; `config` has judged that its key is on P-256. `asking`: SPIFFE IDs of the services
        that want assertions."""
        leaf, *issuers = x509.load_pem_x509_certificates(chain_pem)
        key = load_pem_private_key(key_pem, password=None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        assert key.curve.name == "secp256r1"
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        known = x509.load_pem_x509_certificates(bundle_pem)
        # What services have in their bundles is not sent along: 0.7 KiB of every request.
        chain = [leaf, *(issuer for issuer in issuers if issuer not in known)]
        x5c = [b64encode(each.public_bytes(Encoding.DER)).decode("ascii") for each in chain]
        self._gateway = names.get_values_for_type(x509.UniformResourceIdentifier)[0]
        self._header = form.printed({"alg": form.ALGORITHM, "typ": form.TYPE, "x5c": x5c})
        self._key = key
        self._asking = asking
        # (principal, service) → (until when it is used, claims and signature).
        self._signed: Recent[tuple[Principal, str], tuple[int, bytes]] = Recent(_REMEMBERED)

    def vouch(self, head: bytes, admission: Admission, request: Request, decision_id: str, now_ns: int) -> bytes:
        """The head of a request (`fields.request_head`), with the assertion that its service asks for."""
        match, principal = admission.permit.match, admission.permit.principal
        upstream = match.route.upstream
        if upstream.assertion is None:
            return head
        if upstream.assertion == "request":
            target = upstream_target(match.route, request).decode("ascii")
            bound = {"method": request.method, "authority": request.authority, "target": target}
            _, signed = self._sign(principal, upstream.spiffe_id, now_ns, {"jti": decision_id, "request": bound})
        else:
            kept = self._signed.find((principal, upstream.service))
            if kept is None or now_ns >= kept[0]:
                kept = self._sign(principal, upstream.spiffe_id, now_ns, {})
                self._signed.put((principal, upstream.service), kept)
            signed = kept[1]
        return b"%bedge-assertion: %b.%b\r\n\r\n" % (head[:-2], self._header, signed)

    def vouch_check(self, spiffe_id: str, authority: str, target: str, check_id: str, now_ns: int) -> bytes:
        """Field lines for a health check (`GET target`) of ours; empty where the service asks for none."""
        if spiffe_id not in self._asking:
            return b""
        bound = {"method": "GET", "authority": authority, "target": target}
        _, signed = self._sign(ANONYMOUS, spiffe_id, now_ns, {"jti": check_id, "request": bound})
        return b"x-request-id: %b\r\nedge-assertion: %b.%b\r\n" % (check_id.encode("ascii"), self._header, signed)

    def _sign(self, principal: Principal, audience: str, now_ns: int, more: dict[str, object]) -> tuple[int, bytes]:
        """→ (until when it may be used, claims and signature)."""
        now_s = now_ns // _NS
        ends_s = now_s + form.LIFE_S
        if principal.expires_ns:
            ends_s = max(now_s + 1, min(ends_s, principal.expires_ns // _NS))
        claims: dict[str, object] = {
            "iss": self._gateway, "aud": audience, "iat": now_s, "nbf": now_s, "exp": ends_s,
        }  # fmt: skip
        if not principal.is_anonymous:
            claims["sub_id"] = {"format": "iss_sub", "iss": principal.issuer, "sub": principal.subject}
            claims["scopes"] = sorted(principal.scopes)
        payload = form.printed(claims | more)
        r, s = decode_dss_signature(self._key.sign(b"%b.%b" % (self._header, payload), _HASH))
        signature = form.segment(r.to_bytes(32, "big") + s.to_bytes(32, "big"))
        return min(now_s + USE_S, ends_s) * _NS, b"%b.%b" % (payload, signature)
