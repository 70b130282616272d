"""A sidecar's certificate: found, enrolled with a token, renewed with itself, and kept beside whom it believes.

    DIR/identity/      0700, replaced as a whole: cert.pem chain.pem key.pem (0600) bundle.pem, as issue-cert.py writes them;
                       trusted.json, by which the bundle was believed

The key is made here and never leaves. Laws:

- Before the first certificate one root is believed, by its fingerprint, and what that root signed. From then on a bundle is
  believed because the authority vouches for it by what is trusted already (`pki.succession`), never because of the gateway
  that hands it on.
- The token goes to nobody but who shows a certificate for the host that was named, or a gateway's identity.
- What is taken from an answer is a certificate for this service and the key just made; anything else changes nothing.
- A new certificate is on disk before it is used.
"""

from __future__ import annotations

import ssl
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from edge.accept.tls import anonymous_context, presented_chain, unproven_context
from edge.config.secret import Secret
from edge.errors import UnsafeState
from edge.serve.attach_settings import AttachSettings, Place
from edge.serve.gateway_call import Answer, CallFailed, GatewayCall, GatewayCalls
from pki import csr, enrolled, est, succession
from pki.bundle import Bundle
from pki.errors import AnswerRejected, IssueRefused
from pki.io_files import if_there, private_directory, read_private, read_public, replace_directory
from pki.io_keys import make_ec, private_pem
from pki.spiffe import SpiffeId

_EST = "/.well-known/est"
Asked = GatewayCall | GatewayCalls
_TRUSTED = "/v1/authority/bundle"
_MAX_TOKEN_BYTES = 256


@dataclass(frozen=True, slots=True)
class Held:
    """What the sidecar is and whom it believes. All PEM."""

    spiffe_id: SpiffeId
    chain: bytes
    key: Secret
    bundle: bytes
    not_after: datetime
    renew_after: datetime
    trusted: bytes = b""
    """The document that the bundle came with, verified; empty for the first."""


def find(settings: AttachSettings, now: datetime) -> Held | None:
    """The certificate that ends last, of those that are there; None: none that is good.

    Raises: UnsafeFile: a key is open to others.
    """
    places = [settings.state / "identity", *([settings.identity] if settings.identity is not None else [])]
    found = [held for place in places if (held := _read(place, settings.service, now)) is not None]
    if not found:
        return None
    # What issue-cert.py wrote since does not take back how far the authority's bundles had come.
    newest = max((held.trusted for held in found), key=succession.number_of)
    return replace(max(found, key=lambda held: held.not_after), trusted=newest)


def _read(place: Path, service: str, now: datetime) -> Held | None:
    try:
        chain, bundle = read_public(place / "chain.pem"), read_public(place / "bundle.pem")
        key_pem = read_private(place / "key.pem")
        key = load_pem_private_key(key_pem, None)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            return None
        trusted = if_there(read_public, place / "trusted.json")
        return replace(_held(enrolled.ders_of(chain), bundle, service, key, now), trusted=trusted)
    except (FileNotFoundError, ValueError, AnswerRejected):
        return None


def _held(chain: Sequence[bytes], bundle: bytes, service: str, key: ec.EllipticCurvePrivateKey, now: datetime) -> Held:
    """Raises: AnswerRejected."""
    proven = enrolled.certified(chain, bundle, "svc", service, key.public_key(), now)
    return Held(
        spiffe_id=proven.svid.spiffe_id,
        chain=proven.chain_pem,
        key=Secret(private_pem(key)),
        bundle=bundle,
        not_after=proven.svid.not_after,
        renew_after=est.renew_when(proven.not_before, proven.not_after, proven.svid.serial),
    )


def require_gateway_role(held: Held) -> None:
    """Raises: UnsafeState: the bundle does not tell a gateway's certificate from a service's."""
    if "gw" not in Bundle.parse(held.bundle).role_issuers:
        raise UnsafeState(
            "bundle.pem names no intermediate for gateways, so a gateway cannot be told from a service; "
            "take the bundle of `edge ca bundle --pem`, or issue the certificate again"
        )


async def enrol(settings: AttachSettings, now: datetime) -> Held:
    """The first certificate, for a token.

    Raises: CallFailed; AnswerRejected; IssueRefused when the gateway says no; UnsafeState, UnsafeFile.
    """
    if settings.enrol is None or settings.token_file is None or settings.root_sha256 is None:
        raise UnsafeState(
            f"no certificate for {settings.service} under {settings.state}; give --enrol, --token-file and --fingerprint, "
            "or --identity with what scripts/issue-cert.py wrote"
        )
    try:
        token = read_private(settings.token_file, limit=_MAX_TOKEN_BYTES).strip()
    except FileNotFoundError as exc:
        raise UnsafeState(f"{settings.token_file}: no such token file; run: edge ca token {settings.service}") from exc
    stranger = GatewayCall(settings.enrol, unproven_context(), lambda handshake: None)
    try:
        bundle = enrolled.pinned_bundle(est.read_certificates((await _bundle(stranger)).body), settings.root_sha256)
    finally:
        stranger.close()
    gateway = _enrolling(settings.enrol, bundle)
    try:
        key = make_ec("p256")
        basic = b64encode(settings.service.encode() + b":" + token)
        leaf = await _certificate(gateway, "simpleenroll", key, [(b"authorization", b"Basic " + basic)])
        held = _held([leaf], bundle, settings.service, key, now)
        write(settings.state, held)
        return held
    finally:
        gateway.close()


async def renew(settings: AttachSettings, held: Held, gateway: Asked, now: datetime) -> Held:
    """The next certificate, for the present one.

    Raises: CallFailed; AnswerRejected; IssueRefused when the gateway says no; UnsafeFile.
    """
    key = make_ec("p256")
    leaf = await _certificate(gateway, "simplereenroll", key, [])
    renewed = replace(_held([leaf], held.bundle, settings.service, key, now), trusted=held.trusted)
    if renewed.spiffe_id != held.spiffe_id:
        raise AnswerRejected(f"the certificate is for {renewed.spiffe_id}, and this is {held.spiffe_id}")
    write(settings.state, renewed)
    return renewed


async def next_bundle(gateway: Asked, held: Held, tag: bytes, now: datetime) -> tuple[Held, bytes] | None:
    """Whom to believe from now on, and the tag of that; None: `tag` still names it, and the gateway knows that we have it.

    Raises: CallFailed; StatusRejected when nothing that is trusted vouches for what came.
    """
    answer = await gateway.ask("GET", _TRUSTED, [(b"if-none-match", tag)] if tag else [])
    if answer.status == 304:
        return None
    if answer.status != 200:
        raise CallFailed(f"bundle: status {answer.status}: {answer.text}")
    domain = held.spiffe_id.trust_domain
    found = succession.followed(answer.body, held_pem=held.bundle, held=held.trusted, trust_domain=domain, now=now)
    return replace(held, bundle=found.pem, trusted=found.raw), answer.field(b"etag") or b""


def write(state: Path, held: Held) -> None:
    """Put it down, all at once.

    Raises: UnsafeFile.
    """
    private_directory(state)
    files = {
        "cert.pem": (enrolled.pem_of(enrolled.ders_of(held.chain)[:1]), 0o644),
        "chain.pem": (held.chain, 0o644),
        "bundle.pem": (held.bundle, 0o644),
        "key.pem": (held.key.reveal(), 0o600),
        **({"trusted.json": (held.trusted, 0o644)} if held.trusted else {}),
    }
    replace_directory(state / "identity", files, replace=True)


async def _bundle(gateway: GatewayCall) -> Answer:
    answer = await gateway.ask("GET", f"{_EST}/cacerts")
    if answer.status != 200:
        raise CallFailed(f"cacerts: status {answer.status}: {answer.text}")
    return answer


async def _certificate(
    gateway: Asked, operation: str, key: ec.EllipticCurvePrivateKey, fields: Sequence[tuple[bytes, bytes]]
) -> bytes:
    body = b64encode(csr.make(key))
    kind = (b"content-type", est.REQUEST_TYPE.encode())
    answer = await gateway.ask("POST", f"{_EST}/{operation}", [kind, *fields], body)
    if answer.status in (400, 401, 403):
        rule, _, sentence = answer.text.partition(": ")
        raise IssueRefused(rule, sentence)
    if answer.status != 200:
        raise CallFailed(f"{operation}: status {answer.status}: {answer.text}")
    certificates = est.read_certificates(answer.body)
    if len(certificates) != 1:
        raise AnswerRejected(f"{operation}: {len(certificates)} certificates, expected one")
    return certificates[0]


def _enrolling(place: Place, bundle_pem: bytes) -> GatewayCall:
    """Questions to the enrol listener: it shows the public listener's certificate, or the gateway's own."""
    bundle = Bundle.parse(bundle_pem)

    def prove(handshake: ssl.SSLObject) -> None:
        enrolled.check_enroller(presented_chain(handshake), bundle, place[0], datetime.now(UTC))

    return GatewayCall(place, anonymous_context(bundle_pem), prove)
