"""What a sidecar knows of revocation: the authority's signed set, asked for at a gateway every five seconds.

The set is the CA's word, so it does not matter which gateway passes it on; an older one than is known is not taken. There is
no heartbeat here: a sidecar that cannot reach this gateway for a while must still serve others, so what it knows holds on.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime

from edge.serve.attach_identity import Held
from edge.serve.gateway_call import CallFailed, GatewayCalls
from pki.bundle import Bundle
from pki.known_status import KnownStatus

AGAIN_S = 5.0
_PATH = "/v1/authority/revocations"


class AttachRevoked:
    """Owner: the sidecar; one loop."""

    def __init__(self) -> None:
        self.known = KnownStatus()
        self.bundle_tag = b""
        """Of the bundle that this gateway would hand on, as it said with its last answer."""
        self._tag = b""
        self._at_s = 0.0

    def hurry(self) -> None:
        """Ask at the next look: a rotation of the authority that goes on tells of its next stage there."""
        self._at_s = 0.0

    async def look(self, call: GatewayCalls, held: Held) -> bool:
        """Ask, when it is time; → whether more is revoked than was known.

        Raises: CallFailed; StatusRejected when what came is not the authority's word.
        """
        if time.monotonic() < self._at_s:
            return False
        self._at_s = time.monotonic() + AGAIN_S
        answer = await call.ask("GET", _PATH, [(b"if-none-match", self._tag)] if self._tag else [])
        self.bundle_tag = answer.field(b"edge-bundle") or b""
        if answer.status in (304, 503):  # nothing new, or nothing that was ever said
            return False
        if answer.status != 200:
            raise CallFailed(f"revocations: status {answer.status}: {answer.text}")
        is_newer = self.known.take_set(
            answer.body,
            anchors=Bundle.parse(held.bundle).anchors,
            trust_domain=held.spiffe_id.trust_domain,
            now=datetime.now(UTC),
        )
        self._tag = answer.field(b"etag") or b""
        return is_newer
