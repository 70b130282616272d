"""Who calls a sidecar: a gateway by its client certificate, and where the operator asks for it what the gateway vouches for.

The certificate says that a gateway holds the connection. An `Edge-Assertion` says that the gateway which signed it sent this
caller to this service: a connection that somebody took over, or a gateway that was led astray, has none that fits. Nothing of
it concerns the caller, whose own credential the gateway has judged; so what is refused here is forbidden, and not a challenge
that a client would answer.
"""

from __future__ import annotations

from edge.authn.method import NOT_PRESENT, Materials, NotPresent
from edge.authn.mtls import MtlsMethod
from edge.errors import Forbidden
from edge.model.decision import Denial
from edge.model.http import Request
from edge.model.identity import Peer, Principal
from edge.verify.rules import AssertionRefused
from edge.verify.verifier import Presented


class AttachedMethod:
    """`auth: [attached]`, of a sidecar's one route."""

    def __init__(self, materials: Materials) -> None:
        self._mtls = MtlsMethod(materials)
        self._assertions = materials.assertions

    def authenticate(self, request: Request, peer: Peer, now_ns: int) -> Principal | NotPresent:
        """Raises: CredentialRejected; Forbidden with a rule of `edge.verify.rules`."""
        gateway = self._mtls.authenticate(request, peer, now_ns)
        if gateway is NOT_PRESENT or self._assertions is None:
            return gateway
        presented = Presented(request.method, request.path.encode("ascii"), request.raw_query, request.fields)
        try:
            self._assertions.check(presented, now_ns, gateway.subject)
        except AssertionRefused as exc:
            raise Forbidden(Denial(exc.rule)) from exc
        return gateway

    def remembers(self, raw_authorization: bytes) -> bool:
        """A certificate is in no field."""
        return False
