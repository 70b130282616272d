"""Does this request come from a gateway, as it left it? What came → a `Caller`, or the rule that is broken.

The steps, in this order; the numbers stand in the code:
1. whoever opened the connection is a gateway: his chain leads to an anchor of the bundle through an intermediate of the
   role `gw` (`pki.svid`, the verifier that gateways use for services);
2. exactly one assertion, of bounded length, in the one spelling of `form`;
3. its header says ES256, the type of an assertion, and a chain that proves a gateway as in 1: algorithm and key are never
   the assertion's own choice (attacks D1, D2), and a service's certificate makes none (P10);
4. the signature, by the key of that chain's leaf on P-256;
5. `iss` is that gateway, and the one of 1 where the connection tells;
6. `aud` is this service: what was made for another one is worth nothing here;
7. 0 < `exp` − `iat` ≤ 30 s, and now lies between, give or take 5 s;
8. `X-Auth-*` say exactly what the assertion says, each once, nothing beside; a name that a server may take for one of them
   refuses (attack B2);
9. where the assertion is bound to a request: method, authority, target and id are this request's.

What steps 2 to 6 said is remembered for the same bytes; 5 and 7 to 9 are asked each time, and whether the chain still holds.
Whatever is not understood refuses. Memory: at most 64 gateways and 8192 assertions, bounded in length.
"""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeVar
from urllib.parse import unquote_to_bytes

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256

from edge.verify import claims, form
from edge.verify.claims import IDENTITY, Asserted, Caller
from edge.verify.form import Mode, NotOfTheForm
from edge.verify.rules import AssertionRefused, BadSettings
from pki import svid
from pki.bundle import Bundle
from pki.errors import SpiffeIdError, SvidRejected
from pki.spiffe import SpiffeId
from pki.svid import Revoked

MAX_CERTIFICATES = 4
"""In a header: a leaf, and what an outside authority may have between it and its anchor."""

_NS = 1_000_000_000
_COMPACT = re.compile(rb"([A-Za-z0-9_-]{2,12288})\.([A-Za-z0-9_-]{2,12288})\.([A-Za-z0-9_-]{86})")
"""Four certificates of 1.7 KiB, in base64 twice; claims about a target of 8 KiB; a signature of 64 octets (RFC 7518 §3.4)."""
_SIGNATURE = ec.ECDSA(SHA256())
_MAX_GATEWAYS = 64
_MAX_REMEMBERED = 8192

_UNSAID = (b"x-auth-roles", b"x-auth-tenant")
"""Fields that applications may believe and that no gateway sends."""
_READ = frozenset((form.FIELD, *IDENTITY, *_UNSAID, b"host", b"x-request-id"))
_LOOSE = bytes(byte if chr(byte).isalnum() and byte < 128 else ord("-") for byte in range(256)).lower()
"""How a loose server makes a name of bytes: letters in one case, everything else a hyphen."""

_K = TypeVar("_K")
_V = TypeVar("_V")


@dataclass(frozen=True, slots=True)
class Settings:
    """What a service expects."""

    service: str
    """Its own SPIFFE ID, such as `spiffe://mesh.internal/svc/orders`: the audience."""
    mode: Mode = "subject"
    """`request`: an assertion that is not bound to its request is refused."""
    gateways: frozenset[str] = frozenset()
    """SPIFFE IDs of the gateways; empty: every `/gw/` of the trust domain. They must be named where an outside authority
    issues, because its certificates tell no roles."""
    revoked: Callable[[datetime], Revoked | None] | None = None
    """What is revoked at a moment, where the service knows it; an answer of None refuses everybody."""


@dataclass(frozen=True, slots=True)
class Presented:
    """A request as the server read it, not decoded."""

    method: str
    raw_path: bytes
    raw_query: bytes
    """Without `?`; empty also where there is none."""
    fields: Iterable[tuple[bytes, bytes]]
    """Names in lower case."""
    is_decoded: bool = False
    """The server tells the path only with its escapes decoded, as WSGI does; then the asserted one is compared decoded."""


@dataclass(frozen=True, slots=True)
class _Proven:
    """A gateway's chain that was found good."""

    spiffe_id: str
    not_after_ns: int
    certificates: tuple[tuple[bytes, int], ...]
    """As a revocation names them."""


@dataclass(frozen=True, slots=True, eq=False)
class _Signer:
    """A gateway's key, proven by the chain in a header."""

    proven: _Proven
    key: ec.EllipticCurvePublicKey


class Verifier:
    """One service's view of its gateways, under one bundle. Threads may share it: what is kept is added or dropped whole."""

    def __init__(self, settings: Settings, bundle: Bundle) -> None:
        """Raises: BadSettings."""
        try:
            self._trust_domain = SpiffeId.parse(settings.service).trust_domain
            self._gateways = frozenset(str(SpiffeId.parse(gateway)) for gateway in settings.gateways)
        except SpiffeIdError as exc:
            raise BadSettings(str(exc)) from exc
        if settings.mode not in ("subject", "request"):
            raise BadSettings(f"mode is {settings.mode!r}; write subject or request")
        if not bundle.role_issuers and not self._gateways:
            raise BadSettings("the bundle names no intermediate of a role, so the gateways must be named")
        self._settings = settings
        self._bundle = bundle
        self._peers: dict[tuple[bytes, ...], _Proven] = {}
        self._signers: dict[bytes, _Signer] = {}
        # By claims and signature, with the signer whose header stood before them.
        self._asserted: dict[bytes, tuple[_Signer, Asserted]] = {}

    def check_peer(self, chain_der: Sequence[bytes], now_ns: int) -> str:
        """Step 1, for what the connection's peer presented, leaf first; → the gateway's SPIFFE ID.

        Raises: AssertionRefused.
        """
        chain = tuple(chain_der)
        proven = self._peers.get(chain)
        if proven is None or not self._holds(proven, now_ns):
            try:
                proven = self._prove(chain, now_ns)  # 1
            except SvidRejected as exc:
                raise AssertionRefused("peer-rejected", str(exc)) from exc
            _keep(self._peers, chain, proven, _MAX_GATEWAYS)
        return proven.spiffe_id

    def check(self, presented: Presented, now_ns: int, peer: str | None) -> Caller:
        """Steps 2 to 9; `peer` is what `check_peer` gave, or None where the connection does not tell who is there.

        Raises: AssertionRefused.
        """
        found = _read(presented.fields)
        asserted = self._verified(found.get(form.FIELD, []), now_ns)
        if peer is not None and asserted.caller.gateway != peer:  # 5
            raise AssertionRefused("peer-differs", f"{asserted.caller.gateway} at a connection of {peer}")
        if now_ns < asserted.not_before_ns:  # 7
            raise AssertionRefused("assertion-not-yet-valid")
        if now_ns >= asserted.expires_ns:
            raise AssertionRefused("assertion-expired")
        if any(name in found for name in _UNSAID):  # 8
            raise AssertionRefused("identity-fields")
        for name, expected in zip(IDENTITY, asserted.identity, strict=True):
            if found.get(name, []) != ([] if expected is None else [expected]):
                raise AssertionRefused("identity-fields", name.decode("ascii"))
        if asserted.request is None:
            if self._settings.mode == "request":
                raise AssertionRefused("assertion-mode")
        else:
            _check_request(presented, found, asserted)  # 9
        return asserted.caller

    def _verified(self, values: Sequence[bytes], now_ns: int) -> Asserted:
        """Steps 2 to 6, or the memory of them."""
        if not values:  # 2
            raise AssertionRefused("assertion-missing")
        if len(values) > 1:
            raise AssertionRefused("assertion-repeated")
        match = _COMPACT.fullmatch(values[0])
        if match is None:
            raise AssertionRefused("assertion-form")
        header, signed = match[1], values[0][match.start(2) :]
        signer = self._signers.get(header)
        if signer is None or not self._holds(signer.proven, now_ns):
            signer = self._signer(header, now_ns)  # 3
            _keep(self._signers, header, signer, _MAX_GATEWAYS)
        known = self._asserted.get(signed)
        if known is not None and known[0] is signer:
            return known[1]
        asserted = _assert(signer, header, match[2], match[3])  # 4, 5
        if asserted.audience != self._settings.service:  # 6
            raise AssertionRefused("assertion-audience", asserted.audience)
        if asserted.request is None:  # one that is bound to its request comes once
            _keep(self._asserted, signed, (signer, asserted), _MAX_REMEMBERED)
        return asserted

    def _signer(self, header: bytes, now_ns: int) -> _Signer:
        chain = _chain(header)
        try:
            proven = self._prove(chain, now_ns)
            key = x509.load_der_x509_certificate(chain[0]).public_key()
        except SvidRejected as exc:
            raise AssertionRefused("assertion-chain", str(exc)) from exc
        if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name != "secp256r1":
            raise AssertionRefused("assertion-key")
        return _Signer(proven, key)

    def _prove(self, chain: Sequence[bytes], now_ns: int) -> _Proven:
        """Raises: SvidRejected."""
        now = datetime.fromtimestamp(now_ns / _NS, UTC)
        bundle, revoked = self._bundle, self._settings.revoked
        proven = svid.verify(
            [*chain, *bundle.intermediates],
            anchors=bundle.anchors,
            expected_id=None,
            trust_domain=self._trust_domain,
            usage="client",
            now=now,
            role_issuers=bundle.role_issuers or None,
            revoked=revoked(now) if revoked is not None else frozenset(),
        )
        gateway = str(proven.spiffe_id)
        if gateway not in self._gateways if self._gateways else proven.spiffe_id.role != "gw":
            raise SvidRejected("spiffe-id", f"{gateway} is no gateway")
        return _Proven(gateway, int(proven.not_after.timestamp()) * _NS, proven.certificates)

    def _holds(self, proven: _Proven, now_ns: int) -> bool:
        """Whether what was proven may still be relied on; if not, it is proven again, and that says why."""
        if now_ns > proven.not_after_ns:
            return False
        if self._settings.revoked is None:
            return True
        revoked = self._settings.revoked(datetime.fromtimestamp(now_ns / _NS, UTC))
        return revoked is not None and not any(named in revoked for named in proven.certificates)


def _read(fields: Iterable[tuple[bytes, bytes]]) -> dict[bytes, list[bytes]]:
    """The fields that are judged here, with all their values."""
    found: dict[bytes, list[bytes]] = {}
    for name, value in fields:
        loose = name.translate(_LOOSE)
        if loose in _READ:
            if loose != name:
                raise AssertionRefused("look-alike", repr(name))
            found.setdefault(name, []).append(value)
    return found


def _chain(header: bytes) -> list[bytes]:
    """The certificates in a header that is exactly what a gateway writes; nobody has believed them yet."""
    try:
        unverified_header = form.parsed(header)
    except NotOfTheForm as exc:
        raise AssertionRefused("assertion-form", str(exc)) from exc
    texts = unverified_header.pop("x5c", None)
    if unverified_header != {"alg": form.ALGORITHM, "typ": form.TYPE} or not isinstance(texts, list):
        raise AssertionRefused("assertion-header")
    if not 0 < len(texts) <= MAX_CERTIFICATES or not all(isinstance(text, str) for text in texts):
        raise AssertionRefused("assertion-header", "x5c")
    try:
        chain = [b64decode(text, validate=True) for text in texts]
    except ValueError as exc:
        raise AssertionRefused("assertion-header", "x5c") from exc
    if [b64encode(der).decode("ascii") for der in chain] != texts:
        raise AssertionRefused("assertion-header", "x5c")
    return chain


def _assert(signer: _Signer, header: bytes, claims_segment: bytes, signature_segment: bytes) -> Asserted:
    try:
        signature = form.opened(signature_segment)
        r, s = (int.from_bytes(half, "big") for half in (signature[:32], signature[32:]))
        signer.key.verify(encode_dss_signature(r, s), b"%b.%b" % (header, claims_segment), _SIGNATURE)  # 4
        asserted = claims.read(form.parsed(claims_segment))
    except NotOfTheForm as exc:
        raise AssertionRefused("assertion-form", str(exc)) from exc
    except InvalidSignature as exc:
        raise AssertionRefused("assertion-signature") from exc
    if asserted.caller.gateway != signer.proven.spiffe_id:  # 5
        raise AssertionRefused("assertion-issuer", asserted.caller.gateway)
    return asserted


def _check_request(presented: Presented, found: dict[bytes, list[bytes]], asserted: Asserted) -> None:
    assert asserted.request is not None
    method, authority, target = asserted.request
    path, _, query = target.partition(b"?")
    is_same = (
        presented.method == method
        and presented.raw_path == (unquote_to_bytes(path) if presented.is_decoded else path)
        and presented.raw_query == query
        and found.get(b"host") == [authority]
        and found.get(b"x-request-id") == [(asserted.caller.request_id or "").encode("ascii", "replace")]
    )
    if not is_same:
        raise AssertionRefused("request-differs")


def _keep(kept: dict[_K, _V], key: _K, value: _V, most: int) -> None:
    if len(kept) >= most:
        kept.clear()
    kept[key] = value
