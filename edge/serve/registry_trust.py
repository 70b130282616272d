"""What one worker believes about entries of the shared registry: whose signature counts, and with what it signs itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

from edge.assemble import check_issued
from edge.config.settings import Config
from edge.model.route import Route
from edge.registry.grant import Grant
from pki.bundle import Bundle
from pki.errors import SvidRejected
from pki.io_issuance import IssuanceRecord
from pki.svid import Revoked, verify

_MAX_SIGNERS = 1024


@dataclass(frozen=True, slots=True)
class View:
    """What a generation of the configuration says of registration."""

    trust_domain: str
    bundle: Bundle
    grants: Mapping[str, Grant]
    """In the order of services.yaml."""
    routes: tuple[Route, ...]
    """Of routes.yaml."""
    may_loopback: bool
    gateway_id: str
    """Ours, and what proves it."""
    leaf: bytes
    key: ec.EllipticCurvePrivateKey
    check_issued: Callable[[bytes, datetime], None]
    """Raises SvidRejected for a leaf (SHA-256) that our CA did not hand out."""

    @classmethod
    def of(cls, config: Config, issuances: IssuanceRecord) -> View | None:
        """None where an outside authority issues: its identities are of no role, so nobody could tell who may sign."""
        if config.identity.outside:
            return None
        leaf = x509.load_pem_x509_certificate(config.identity.chain)
        key = load_pem_private_key(config.identity.key.reveal(), None)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            return None  # our CA issues no other
        bundle = Bundle.parse(config.identity.bundle)
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        return cls(
            trust_domain=config.trust_domain,
            bundle=bundle,
            grants={grant.service: grant for grant in config.grants},
            routes=config.routes,
            may_loopback=config.may_loopback,
            gateway_id=names.get_values_for_type(x509.UniformResourceIdentifier)[0],
            leaf=leaf.public_bytes(Encoding.DER),
            key=key,
            check_issued=check_issued(config.identity, bundle, issuances, config.trust_domain),
        )


@dataclass(frozen=True, slots=True)
class Signer:
    """A gateway that was proven by its certificate."""

    gateway_id: str
    not_after: datetime
    certificates: tuple[tuple[bytes, int], ...]


class Signers:
    """Gateways by their certificates, as of one generation and one revocation set: make another when either changes."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._found: dict[bytes, Signer | None] = {}

    def find(self, leaf: bytes, revoked: Revoked) -> Signer | None:
        """The gateway whose certificate (DER) it is; None when it is no gateway's."""
        if leaf not in self._found:
            if len(self._found) >= _MAX_SIGNERS:
                self._found.clear()
            self._found[leaf] = self._prove(leaf, revoked)
        found = self._found[leaf]
        # Also who was proven a moment ago: between a revocation and the next look he could still end others' leases.
        return None if found is None or any(named in revoked for named in found.certificates) else found

    def _prove(self, leaf: bytes, revoked: Revoked) -> Signer | None:
        now, view = datetime.now(UTC), self._view
        try:
            proven = verify(
                [leaf, *view.bundle.intermediates],
                anchors=view.bundle.anchors,
                expected_id=None,
                trust_domain=view.trust_domain,
                usage="client",
                now=now,
                role_issuers=view.bundle.role_issuers,
                revoked=revoked,
            )
            view.check_issued(proven.leaf_sha256, now)
        except SvidRejected:
            return None
        if proven.spiffe_id.role != "gw":
            return None
        return Signer(str(proven.spiffe_id), proven.not_after, proven.certificates)
