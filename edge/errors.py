"""Every exception the gateway raises on purpose, as one tree.

EdgeError
├── ConfigError                    a file or setting is wrong; carries every Fault found (start and reload only)
├── UnsafeState                    state on disk is unsafe, locked or missing; the process must not start (exit 4)
├── Refusal                        the request is refused by a step of the line
│   ├── MalformedRequest           400
│   ├── PayloadTooLarge            413
│   ├── UriTooLong                 414
│   ├── HeadersTooLarge            431
│   ├── RouteNotFound              404
│   ├── MethodNotAllowed           405
│   ├── Misdirected                421
│   ├── WebSocketVersion           426
│   ├── Unauthenticated
│   │   ├── CredentialMissing      401
│   │   └── CredentialRejected     401
│   ├── Forbidden                  403
│   └── QuotaExceeded              429
├── UpstreamError
│   ├── UpstreamUnreachable        502
│   ├── UpstreamIdentityRejected   502
│   ├── UpstreamProtocolError      502
│   └── UpstreamTimeout            504
└── Unavailable
    ├── Shedding                   503
    ├── NotRecordable              503
    ├── StoreUnavailable           503
    └── NotReady                   503

Exceptions carry facts (a `rule`, a list of allowed methods), never status codes: `respond/problem.py` alone maps a class
to status, `type` and the public sentence. `rule` is a short machine-readable name for the audit record, never shown to
the downstream.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edge.model.decision import Denial, Exhausted


@dataclass(frozen=True, slots=True, order=True)
class Fault:
    """One thing wrong in a file, in the one form of all diagnostics.

    `line` and `column` count from 1; a fault of a whole file uses 1, 1.
    """

    file: str
    line: int
    column: int
    rule: str
    message: str
    remedy: str

    def __str__(self) -> str:
        """One line, whatever stands in the file: what is shown of it steers no terminal (attack E8)."""
        text = f"{self.file}:{self.line}:{self.column}: {self.rule}: {self.message}; {self.remedy}"
        return text if text.isprintable() else "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)


class EdgeError(Exception):
    """Root of everything the gateway raises on purpose."""


class ConfigError(EdgeError):
    """The configuration is wrong; nothing was changed. Carries all faults, in file order."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        self.faults = tuple(sorted(faults))
        super().__init__("\n".join(map(str, self.faults)))


class UnsafeState(EdgeError):
    """Something under `state/` is missing, locked by another process, or unsafe. The text says what to do."""


class RuledError(EdgeError):
    """An error that names the rule which was broken; the rule goes to the access log only."""

    def __init__(self, rule: str, detail: str = "") -> None:
        self.rule = rule
        self.detail = detail
        super().__init__(f"{rule}: {detail}" if detail else rule)


class Refusal(RuledError):
    """A step of the line refuses the request."""


class MalformedRequest(Refusal):
    """The request cannot be understood in exactly one way; then 400 and the connection closes."""


class PayloadTooLarge(Refusal):
    """The body is larger than allowed; then 413."""


class UriTooLong(Refusal):
    """The request target is longer than allowed; then 414."""


class HeadersTooLarge(Refusal):
    """Too many or too large header fields; then 431."""


class RouteNotFound(Refusal):
    """No route matches; then 404."""


class MethodNotAllowed(Refusal):
    """The path has a route, but not for this method; then 405 with `Allow`."""

    def __init__(self, allow: Sequence[str]) -> None:
        self.allow = tuple(allow)
        super().__init__("method-not-allowed")


class Misdirected(Refusal):
    """The host is not served here, or differs from the TLS server name; then 421."""


class WebSocketVersion(Refusal):
    """A WebSocket of a version that is not spoken; then 426 with the one that is."""


class Unauthenticated(Refusal):
    """Who calls is not established; then 401 with a challenge."""


class CredentialMissing(Unauthenticated):
    """The route wants a credential and the request holds none."""


class CredentialRejected(Unauthenticated):
    """A credential is present and bad. The chain stops: it never falls through to a weaker method."""


class Forbidden(Refusal):
    """The policy denies; then 403."""

    def __init__(self, denial: Denial) -> None:
        self.denial = denial
        super().__init__(denial.reason)


class QuotaExceeded(Refusal):
    """A limit is used up; then 429 with `Retry-After`."""

    def __init__(self, exhausted: Exhausted) -> None:
        self.exhausted = exhausted
        super().__init__(exhausted.limit)


class UpstreamError(RuledError):
    """The upstream did not give an answer that may be passed on."""


class UpstreamUnreachable(UpstreamError):
    """No connection could be made, or it broke before an answer; then 502."""


class UpstreamIdentityRejected(UpstreamError):
    """Whoever answers at the address did not prove to be the service of the route; then 502. No request byte was sent."""


class UpstreamProtocolError(UpstreamError):
    """The answer breaks HTTP; then 502 and the upstream connection is dropped."""


class UpstreamTimeout(UpstreamError):
    """No answer in time; then 504."""


class Unavailable(RuledError):
    """The gateway itself cannot decide or record at the moment; it refuses rather than guess."""


class Shedding(Unavailable):
    """Too much load; then 503 with `Retry-After`."""


class NotRecordable(Unavailable):
    """The decision could not be recorded; then 503 and the upstream is not contacted."""


class StoreUnavailable(Unavailable):
    """The shared store does not answer and the limit says `closed`; then 503."""


class NotReady(Unavailable):
    """A key set or another thing needed to decide is not there yet; then 503."""
