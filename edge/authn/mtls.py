"""The client certificate of the connection → a principal: `Edge::Service`. No header has a part in it.

OpenSSL proved in the handshake that the client holds the key of a chain that leads to our anchors. Who that is, is proven
here by the second parser and our profile (`pki.svid`): one SPIFFE ID of our trust domain, of a role that may call, from the
intermediate of that role. It is proven when the connection opens and again at each request, because under a connection that
stays open certificates end, trust changes, and what is revoked grows (attacks P30).

This is the only place that turns a `PkiError` about a client into a `CredentialRejected`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from edge.authn.method import NOT_PRESENT, Materials, NotPresent
from edge.errors import CredentialRejected
from edge.model.http import Request
from edge.model.identity import Peer, Principal
from edge.model.recent import Recent
from pki.errors import SvidRejected
from pki.svid import Revoked, VerifiedSvid, verify

_REMEMBERED = 1024
_NS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class ClientTrust:
    """Whom we believe to say who a client is, as of one reload. Certificates are DER."""

    trust_domain: str
    anchors: tuple[bytes, ...]
    intermediates: tuple[bytes, ...]
    """Ours, for clients that show their leaf alone."""
    role_issuers: Mapping[str, frozenset[bytes]]
    revoked: Callable[[datetime], Revoked | None]
    """What is revoked, as known at a moment; None when that is not known, and then nobody is believed."""
    check_issued: Callable[[bytes, datetime], None]
    """Raises `SvidRejected` for a leaf (its SHA-256) that our CA's record does not know."""
    roles: frozenset[str] = frozenset(("svc",))
    """Who may call at all; a gateway's or an operator's certificate is no service's (attacks P09)."""
    ids: frozenset[str] | None = None
    """The only SPIFFE IDs that may call; None: every one of these roles."""

    def prove(self, chain: Sequence[bytes], now_ns: int) -> VerifiedSvid:
        """Who presented `chain` (leaf first, DER), at `now_ns` since the epoch.

        Raises: CredentialRejected with a rule of `pki.profile.RULES`, or `role`.
        """
        now = datetime.fromtimestamp(now_ns / _NS, UTC)
        try:
            proven = verify(
                [*chain, *self.intermediates],
                anchors=self.anchors,
                expected_id=None,
                trust_domain=self.trust_domain,
                usage="client",
                now=now,
                role_issuers=self.role_issuers,
                revoked=self.revoked(now),
            )
            self.check_issued(proven.leaf_sha256, now)
        except SvidRejected as exc:
            raise CredentialRejected(exc.rule, exc.detail) from exc
        if proven.spiffe_id.role not in self.roles:
            raise CredentialRejected("role", str(proven.spiffe_id))
        if self.ids is not None and str(proven.spiffe_id) not in self.ids:
            raise CredentialRejected("spiffe-id", str(proven.spiffe_id))
        return proven


@dataclass(slots=True, eq=False)
class _Proof:
    """What a chain proved once. Signatures do not age; from when until when it holds, and whether it was revoked since, is
    asked at each request."""

    principal: Principal
    leaf_sha256: bytes
    certificates: tuple[tuple[bytes, int], ...]
    from_ns: int
    until_ns: int

    def holds(self, trust: ClientTrust, now_ns: int) -> bool:
        """False: prove it again, and that says why it does not."""
        if not self.from_ns <= now_ns < self.until_ns:
            return False
        now = datetime.fromtimestamp(now_ns / _NS, UTC)
        revoked = trust.revoked(now)
        if revoked is None or any(named in revoked for named in self.certificates):
            return False
        try:
            trust.check_issued(self.leaf_sha256, now)
        except SvidRejected:
            return False
        return True


class MtlsMethod:
    """`auth: [mtls]` of a control route, and of a sidecar."""

    def __init__(self, materials: Materials) -> None:
        self._trust = materials.client_trust
        # By the chain as it was presented; dies with the trust it was held against. Owner: this object.
        self._proofs: Recent[tuple[bytes, ...], _Proof] = Recent(_REMEMBERED)
        # The same principal for the same leaf, because decisions are remembered by the object. Owner: this object.
        self._principals: Recent[bytes, Principal] = Recent(_REMEMBERED)

    def authenticate(self, request: Request, peer: Peer, now_ns: int) -> Principal | NotPresent:
        """Raises: CredentialRejected."""
        if not peer.chain or self._trust is None:
            return NOT_PRESENT
        proof = self._proofs.find(peer.chain)
        if proof is None or not proof.holds(self._trust, now_ns):
            proof = self._prove(peer.chain, self._trust, now_ns)
        return proof.principal

    def _prove(self, chain: tuple[bytes, ...], trust: ClientTrust, now_ns: int) -> _Proof:
        proven = trust.prove(chain, now_ns)
        principal = self._principals.find(proven.leaf_sha256)
        if principal is None:
            principal = Principal(method="mtls", issuer="", subject=str(proven.spiffe_id))
            self._principals.put(proven.leaf_sha256, principal)
        until_ns = int(proven.not_after.timestamp()) * _NS
        proof = _Proof(principal, proven.leaf_sha256, proven.certificates, now_ns, until_ns)
        self._proofs.put(chain, proof)
        return proof

    def remembers(self, raw_authorization: bytes) -> bool:
        """A certificate is in no field."""
        return False
