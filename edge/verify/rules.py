"""Why a service refuses: a closed list. The status goes to the caller, the rule to the service's own log and nobody else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

RULES: Mapping[str, tuple[int, str]] = {
    "peer-unknown": (403, "The server shows no certificate of whoever opened the connection."),
    "peer-rejected": (403, "Whoever opened the connection is not a gateway of the trust domain."),
    "peer-differs": (403, "The assertion was made by another gateway than the one at the other end of the connection."),
    "assertion-missing": (401, "There is no Edge-Assertion."),
    "assertion-repeated": (401, "There is more than one Edge-Assertion."),
    "assertion-form": (401, "It is not of the form: its length, its three segments, their spelling, their JSON."),
    "assertion-header": (401, "Its header is not exactly ES256, the type of an assertion, and a chain."),
    "assertion-chain": (401, "The chain in its header does not prove a gateway of the trust domain."),
    "assertion-key": (401, "The key of the gateway's certificate is not on P-256, so it signs no ES256."),
    "assertion-signature": (401, "The signature is not the gateway's."),
    "assertion-claims": (401, "A claim is missing, unknown, or of another type."),
    "assertion-issuer": (401, "`iss` is not the identity in the gateway's certificate."),
    "assertion-lifetime": (401, "It was made to live longer than 30 s, or not at all."),
    "assertion-not-yet-valid": (401, "Its time has not come; clocks may differ by 5 s."),
    "assertion-expired": (401, "Its time is over; clocks may differ by 5 s."),
    "assertion-audience": (403, "It was made for another service."),
    "assertion-mode": (403, "This service asks for assertions that are bound to the request, and this one is not."),
    "identity-fields": (403, "The X-Auth-* fields do not say what the assertion says, or say more, or stand twice."),
    "look-alike": (403, "A field's name is one that a server may take for an identity field."),
    "request-differs": (403, "Method, authority, target or id of the request are not those that were asserted."),
}  # fmt: skip
"""Rule → (status, meaning)."""


class AssertionRefused(Exception):
    """The request does not come from a gateway, or not as it left it. `rule` is a key of `RULES`."""

    def __init__(self, rule: str, detail: str = "") -> None:
        self.rule = rule
        self.detail = detail
        """For the operator's eyes only."""
        super().__init__(f"{rule}: {detail}" if detail else rule)

    @property
    def status(self) -> int:
        """What the caller is told: 401 without a valid assertion, 403 with one that does not fit."""
        return RULES[self.rule][0]


class BadSettings(ValueError):
    """The verifier cannot be made as asked: told at start, before anything is served."""


Peer = Literal["shown", "server"]
"""Who knows that a gateway is at the other end: the server shows us the certificate, or it requires one by itself."""


def require_peer(peer: str) -> None:
    """Raises: BadSettings."""
    if peer not in ("shown", "server"):
        raise BadSettings(f"peer is {peer!r}; write shown or server")
