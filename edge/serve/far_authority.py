"""The authority of another gateway, as one asks it that has joined: blocking, in a process of its own or in a command.

Everything goes over mTLS to that gateway's services listener, by EST (RFC 7030) and `control/word`; the first certificate
comes from its enrol listener, for a one-time token. Laws:

- Whoever answers is the gateway that holds the authority (`/gw/edge`), proven by OpenSSL in the handshake and by our profile
  before a byte is sent. On the enrol listener, where nobody has an identity yet, it is a root of the fingerprint that the
  operator was told, and a certificate below it that names the host and is no service's.
- A key is made here and leaves only as the signature of a signing request.
- What is fetched is returned, and written by who asked for it.
"""

from __future__ import annotations

import http.client
import socket
import ssl
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from typing import cast

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from edge.accept.tls import anonymous_context, presented_chain, unproven_context, upstream_context
from edge.config.edge_file import parse_place
from edge.control.word import Line
from pki import enrolled, est, io_material, svid
from pki.bundle import Bundle
from pki.errors import AnswerRejected, AuthorityLocked, IssueRefused, MaterialRejected, SvidRejected
from pki.io_keys import make_ec, private_pem
from pki.io_material import Files, Material
from pki.issue import GATEWAY_NAME
from pki.revocation import FRESH_S, MAX_BYTES
from pki.spiffe import SpiffeId

WITHIN_S = 15.0
"""Of one answer; the authority's process is asked for at most ten."""
_EST = "/.well-known/est"
_WORD = "/v1/authority/word"
_MAX_ANSWER_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Place:
    """Where a listener is."""

    host: str
    """A name or an address, without brackets."""
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Door:
    """A connection to one of the other gateway's listeners, whose owner is known."""

    def __init__(self, place: Place, tls: ssl.SSLSocket) -> None:
        self.place = place
        self._connection = http.client.HTTPConnection(place.host, place.port)
        self._connection.auto_open = 0  # a connection that ended is not made anew without a proof
        self._connection.sock = tls

    def close(self) -> None:
        self._connection.close()

    def bundle(self) -> tuple[bytes, int | None]:
        """Whom to trust, in PEM, and the port of the services listener. On the services listener it also says that we have
        it, which a rotation waits for."""
        answer, body = self._ask("GET", "cacerts")
        port = answer.getheader("Edge-Services-Port", "")
        return _pem(est.read_certificates(body)), int(port) if port.isascii() and port.isdigit() else None

    def certified(self, operation: str, issuers_pem: bytes, *, token: str | None = None) -> Files:
        """A certificate for a new key: chain and key. `issuers_pem`: where its issuer is, if it does not come along.

        Raises:
            IssueRefused: with the rule that the other gateway named.
        """
        key = make_ec("p256")
        request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, SHA256())
        fields = {"Content-Type": est.REQUEST_TYPE}
        if token is not None:
            fields["Authorization"] = "Basic " + b64encode(f":{token}".encode()).decode()
        body = b64encode(request.public_bytes(Encoding.DER))
        _, answer = self._ask("POST", operation, body, fields)
        leaf, *more = map(x509.load_der_x509_certificate, est.read_certificates(answer))
        issuers = more or x509.load_pem_x509_certificates(issuers_pem)
        issuer = next((each for each in issuers if each.subject == leaf.issuer), None)
        if issuer is None or leaf.public_key() != key.public_key():
            raise MaterialRejected(
                f"{self.place} answered {operation} with a certificate that is not what was asked for"
            )
        chain = leaf.public_bytes(Encoding.PEM) + issuer.public_bytes(Encoding.PEM)
        return {"chain.pem": (chain, 0o644), "key.pem": (private_pem(key), 0o600)}

    def words(self) -> Iterator[Line]:
        """What the authority says, as it says it; ends when the other side ends it.

        Raises:
            AuthorityLocked: nothing came for as long as nobody knows anything any more.
        """
        with self._translated():
            self._connection.sock.settimeout(FRESH_S)
            self._connection.request("GET", _WORD)
            answer = self._connection.getresponse()
            if answer.status != 200:
                raise self._refused(_WORD, answer.status, answer.read(_MAX_ANSWER_BYTES))
            while raw := answer.readline(2 * MAX_BYTES):
                yield msgspec.json.decode(raw, type=Line)

    def _ask(
        self, method: str, operation: str, body: bytes | None = None, fields: dict[str, str] | None = None
    ) -> tuple[http.client.HTTPResponse, bytes]:
        with self._translated():
            self._connection.request(method, f"{_EST}/{operation}", body, fields or {})
            answer = self._connection.getresponse()
            content = answer.read(_MAX_ANSWER_BYTES)
        if answer.status != 200:
            raise self._refused(operation, answer.status, content)
        return answer, content

    def _refused(self, operation: str, status: int, content: bytes) -> Exception:
        """EST's refusals name a rule and say a sentence for it."""
        rule, colon, sentence = est.said(content).partition(": ")
        if status in (400, 401, 403, 429) and colon and rule.replace("-", "").isalpha():
            return IssueRefused(rule, f"{sentence} (said by {self.place})")
        return AuthorityLocked(f"{self.place} answered {operation} with {status}; its own log says why")

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (http.client.HTTPException, msgspec.MsgspecError) as error:
            raise AuthorityLocked(f"{self.place} answered what it should not: {type(error).__name__}") from error
        except OSError as error:
            raise AuthorityLocked(f"{self.place}: {error}") from error


def services_door(place: Place, files: Files, trust_domain: str) -> Door:
    """The services listener, as the gateway whose chain, key and bundle `files` holds.

    Raises:
        AuthorityLocked: it cannot be reached, or is not the gateway with the authority.
    """
    bundle_pem = files["bundle.pem"][0]
    context = upstream_context(files["chain.pem"][0], files["key.pem"][0], bundle_pem)
    tls = _shaken(place, context, server_name="")
    try:
        _prove(tls, Bundle.parse(bundle_pem), trust_domain)
    except SvidRejected as error:
        tls.close()
        raise AuthorityLocked(f"{place}: not the gateway that holds the authority: {error}") from error
    return Door(place, tls)


def enrol_door(place: Place, root_sha256: str) -> Door:
    """The enrol listener, of whose authority nothing is known but the fingerprint of a root (hex).

    Raises:
        AuthorityLocked: it cannot be reached, has no such root, or does not prove to be below it and of this name.
    """
    door = Door(place, _shaken(place, unproven_context(), server_name=place.host))
    try:
        certificates = x509.load_pem_x509_certificates(door.bundle()[0])
    finally:
        door.close()
    pinned = [each for each in certificates if sha256(_der(each)).hexdigest() == root_sha256]
    if not pinned:
        raise AuthorityLocked(
            f"{place}: no root of the fingerprint {root_sha256}; somebody else answers, or it was mistyped"
        )
    context = anonymous_context(pinned[0].public_bytes(Encoding.PEM))
    context.check_hostname = True
    tls = _shaken(place, context, server_name=place.host)
    try:
        bundle = Bundle.parse(enrolled.pinned_bundle([_der(each) for each in certificates], root_sha256))
        enrolled.check_enroller(presented_chain(cast(ssl.SSLObject, tls)), bundle, place.host, datetime.now(UTC))
    except (AnswerRejected, SvidRejected) as error:
        tls.close()
        raise AuthorityLocked(f"{place}: not the listener of a gateway: {error}") from error
    return Door(place, tls)


def _shaken(place: Place, context: ssl.SSLContext, *, server_name: str) -> ssl.SSLSocket:
    try:
        raw = socket.create_connection((place.host, place.port), WITHIN_S)
    except OSError as error:
        raise AuthorityLocked(f"{place}: cannot be reached: {error}") from error
    try:
        return context.wrap_socket(raw, server_hostname=server_name or None)
    except OSError as error:
        raw.close()
        reason = error.verify_message if isinstance(error, ssl.SSLCertVerificationError) else str(error)
        raise AuthorityLocked(f"{place}: the handshake failed: {reason}") from error


def _prove(tls: ssl.SSLSocket, bundle: Bundle, trust_domain: str) -> None:
    presented = presented_chain(cast(ssl.SSLObject, tls))
    svid.verify(
        [*presented, *bundle.intermediates],
        anchors=bundle.anchors,
        expected_id=SpiffeId.of(trust_domain, "gw", GATEWAY_NAME),
        usage="server",
        now=datetime.now(UTC),
        role_issuers=bundle.role_issuers,
    )


def _der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.DER)


def _pem(certificates: list[bytes]) -> bytes:
    return b"".join(x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM) for der in certificates)


def place_of(text: str) -> Place:
    """`https://HOST:PORT` or `HOST:PORT`.

    Raises:
        MaterialRejected: it is neither.
    """
    found = parse_place(text.removeprefix("https://").rstrip("/"))
    if found is None:
        raise MaterialRejected(f"{text} is not HOST:PORT")
    return Place(*found)


@dataclass(frozen=True, slots=True)
class Joined:
    """Everything a gateway joins with."""

    material: Material
    authority: Place
    """Where it is renewed."""
    word: Line
    """What was revoked by then. Where it lies, more of it is expected (`known_status`)."""


def joined(enrol: Place, root_sha256: str, token: str, services: Place | None, now: datetime) -> Joined:
    """Enrol. `services`: None where the enrol listener says the port.

    Raises:
        AuthorityLocked, IssueRefused, MaterialRejected: as each step says; then nothing is known but that the token may be
            spent.
    """
    door = enrol_door(enrol, root_sha256)
    try:
        bundle_pem, port = door.bundle()
        if services is None and port is None:
            raise AuthorityLocked(f"{enrol}: the gateway there has no services listener; a gateway that joins needs it")
        services = services or Place(enrol.host, port or 0)
        gateway = {**door.certified("simpleenroll", bundle_pem, token=token), "bundle.pem": (bundle_pem, 0o644)}
    finally:
        door.close()
    material = io_material.verified(gateway, {}, now, source=str(enrol))
    door = services_door(services, gateway, material.spiffe_id.trust_domain)
    try:
        public = _of_the_listener(door)
        word = next(door.words(), None)
    finally:
        door.close()
    if word is None:
        raise AuthorityLocked(f"{services}: the authority says nothing; is it open there? edge status says it")
    return Joined(io_material.verified(gateway, public, now, source=str(services)), services, word)


def _of_the_listener(door: Door) -> Files:
    """The public listener's; nothing where the gateway with the authority has one from elsewhere."""
    try:
        return door.certified("public/simpleenroll", b"")
    except IssueRefused as refused:
        if refused.rule != "hosts":
            raise
        return {}
