"""Enrolment over Secure Transport (RFC 7030): whom to trust, the first certificate, and the next one.

`cacerts` (§4.1): whom to trust, as a certs-only PKCS#7 message in base64. A client that has nothing yet fetches it over a
connection it cannot judge, compares the root's fingerprint with the one it was told, and trusts from then on (§4.1.1). Beside
the roots stand the intermediates below them, so that a client can build any chain of ours (§4.1.3).

`public/simpleenroll`, on the services listener, is for gateways: the certificate of their public listener, for the hosts that
the gateway with the CA certifies. It is a label of ours (§3.2.2); its answer holds the intermediate too, which no bundle has.

`simpleenroll` (§4.2.1), on the enrol listener: HTTP Basic with a one-time token as the password, the user name empty or
the name that the token is for. `simplereenroll` (§4.2.2), on the services listener: the old certificate in the handshake, the
same identity, another key. Both answer the certificate alone (§4.2.3), and `Edge-Renew-After`: when to come again.

Nothing is decided here. The authority's process judges the token, the request and the certificate; the line has let the
connection in, and the CA's log has the reason of each refusal. What a client is told is a rule and a sentence for it (§4.2.3
asks for text), so that who runs it can mend it.
"""

from __future__ import annotations

import binascii
from base64 import b64decode
from collections.abc import Mapping
from email.utils import format_datetime
from hashlib import sha256

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from quart import Response, request

from edge.control.inside import Ask, Inside
from edge.errors import NotReady, NotRecordable, Unavailable
from edge.model.identity import Peer
from pki import desk, est
from pki.bundle_json import REFRESH_HINT_S
from pki.errors import CsrRejected

_TOKEN = "token"  # noqa: S105 — the name of a rule
SENTENCES: Mapping[str, str] = {
    _TOKEN: "the one-time token is missing, unknown, spent, expired, or for another name",
    "csr-malformed": "the body is not one signing request (PKCS#10) in base64",
    "csr-key": "only P-256 and P-384 keys are certified",
    "csr-signature": "the signing request is not signed by its own key",
    "csr-extension": "the signing request asks for more than names",
    "csr-names": "the signing request asks for a name that is not granted; leave the names out",
    "key-reuse": "this key belongs to somebody else, or was compromised; make a new one",
    "name-taken": "a DNS name that is asked for is a gateway's; grant another one",
    "not-due": "the present certificate is renewed from two thirds of its life on",
    "revoked": "the present certificate was revoked; enrol with a token",
    "expired": "the present certificate has ended; enrol with a token",
    "unknown": "the present certificate is not one that this authority issued",
    "unknown-service": "this service is not granted any more",
    "too-many": "this identity was renewed too often within the hour",
    "hosts": "the gateway with the authority certifies no host; its public listener has a certificate from elsewhere",
    "content-type": "the body must be application/pkcs10",
}
"""Every rule that is named to a client, and what is said of it; any other is `refused`."""
_LATER_S = 600


async def cacerts(inside: Inside) -> Response:
    """Also tells the authority who has the bundle now: what a rotation waits for."""
    bundle = inside.bundle()
    await saw_bundle(inside, bundle)  # if it was not heard, he fetches again; until then a rotation waits for him
    answer = _certificates([_der(each) for each in x509.load_pem_x509_certificates(bundle)], est.ROOTS_TYPE)
    if inside.services_port is not None:
        answer.headers["Edge-Services-Port"] = str(inside.services_port)  # where to go with a certificate
    return answer


async def spiffe_bundle(inside: Inside) -> Response:
    """The same roots for who federates: a SPIFFE bundle endpoint (SPIFFE Trust Domain and Bundle §5.2), with its sequence."""
    document = inside.spiffe_bundle()
    if not document:
        raise NotReady("no-spiffe-bundle")  # the authority was never open here; where it is, it is served
    answer = Response(document, content_type="application/json")
    answer.headers["Cache-Control"] = f"max-age={REFRESH_HINT_S}"
    return answer


async def simpleenroll(inside: Inside) -> Response:
    user, password = _basic(request.headers.get("Authorization", ""))
    if not password:
        return _refused(401, _TOKEN)
    signing_request = await _signing_request()
    if isinstance(signing_request, Response):
        return signing_request
    return _answer(await _authority(inside)(desk.Enrol(user, password, signing_request)))


async def enrol_listener(inside: Inside) -> Response:
    return await _certified(inside, desk.EnrolListener, with_issuer=True)


async def simplereenroll(inside: Inside) -> Response:
    return await _certified(inside, desk.Renew)


async def _certified(
    inside: Inside, wish: type[desk.EnrolListener | desk.Renew], *, with_issuer: bool = False
) -> Response:
    """For who shows a certificate: what the authority makes of this wish and the signing request in the body."""
    shown = _shown()
    assert shown is not None  # the line admits nobody without
    signing_request = await _signing_request()
    if isinstance(signing_request, Response):
        return signing_request
    return _answer(await _authority(inside)(wish(shown, signing_request)), with_issuer=with_issuer)


async def saw_bundle(inside: Inside, bundle: bytes) -> bool:
    """Tell the authority that who asks has this one (PEM); → whether it heard so. Where he shows no certificate, or none of
    ours hosts an authority, there is nothing to hear."""
    shown = _shown()
    if shown is None or inside.authority is None:
        return True
    try:
        return isinstance(await inside.authority(desk.SawBundle(shown, sha256(bundle).hexdigest())), desk.Done)
    except Unavailable:
        return False


def _authority(inside: Inside) -> Ask:
    if inside.authority is None:
        raise NotReady("no-authority")
    return inside.authority


def _shown() -> bytes | None:
    """The client's certificate, DER, as the handshake proved it."""
    peer = request.scope.get("edge.peer")  # put there by forward/asgi
    return peer.chain[0] if isinstance(peer, Peer) and peer.chain else None


def _basic(field: str) -> tuple[str, str]:
    """User and password (RFC 7617), both empty where there is none."""
    scheme, _, encoded = field.partition(" ")
    if scheme.lower() != "basic":
        return "", ""
    try:
        user, _, password = b64decode(encoded.strip(), validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return "", ""
    return user, password


async def _signing_request() -> bytes | Response:
    if request.mimetype != est.REQUEST_TYPE:
        return _refused(415, "content-type")
    try:
        body = await request.get_data()
        assert isinstance(body, bytes)
        return est.read_request(body)
    except CsrRejected as rejected:
        return _refused(400, rejected.rule)


def _answer(reply: desk.Reply, *, with_issuer: bool = False) -> Response:
    if isinstance(reply, desk.Certified):
        issued = reply.issued
        chain = x509.load_pem_x509_certificates(issued.chain_pem) if with_issuer else []
        answer = _certificates([issued.leaf, *(_der(each) for each in chain[1:])], est.ANSWER_TYPE)
        due = est.renew_when(issued.not_before, issued.not_after, issued.serial)
        answer.headers["Edge-Renew-After"] = format_datetime(due.replace(microsecond=0), usegmt=True)
        return answer
    assert isinstance(reply, desk.Failed)
    if reply.kind == "CsrRejected":
        return _refused(400, reply.rule)
    if reply.kind == "IssueRefused":
        return _refused({_TOKEN: 401, "too-many": 429}.get(reply.rule, 403), reply.rule)
    if reply.kind == "NotRecorded":
        raise NotRecordable("authority-record")
    raise NotReady("authority-closed")


def _refused(status: int, rule: str) -> Response:
    text = f"{rule}: {SENTENCES[rule]}\n" if rule in SENTENCES else "refused: the authority's rules do not allow this\n"
    answer = Response(text, status=status, content_type="text/plain; charset=utf-8")
    if status == 401:
        answer.headers["WWW-Authenticate"] = 'Basic realm="edge-enrol", charset="UTF-8"'
    elif status == 429:
        answer.headers["Retry-After"] = str(_LATER_S)
    return answer


def _der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.DER)


def _certificates(certificates: list[bytes], content_type: str) -> Response:
    """Certificates (DER) in a degenerate PKCS#7 message (RFC 5272 §4.1), base64 in lines of 76 (RFC 8951 §3.1)."""
    answer = Response(est.certs_only(certificates), content_type=content_type)
    # RFC 7030 §4.1.3 asks for it, RFC 8951 §3.1 lets clients ignore it; old ones do not.
    answer.headers["Content-Transfer-Encoding"] = "base64"
    return answer
