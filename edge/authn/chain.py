"""The step: which methods a route wants, asked in the route's order, until one knows the caller.

| answer of a method | what the chain does |
|---|---|
| `Principal` | done |
| `Need` | hands it to the shell, which fetches and asks again |
| `NOT_PRESENT` | asks the next method; after the last: `CredentialMissing` |
| raises `CredentialRejected` | stops: a bad credential never falls through to a weaker method |
"""

from __future__ import annotations

from collections.abc import Sequence

from edge.authn import METHODS
from edge.authn.issuer import IssuerSettings
from edge.authn.method import NOT_PRESENT, KeySource, Materials, Method
from edge.authn.mtls import ClientTrust
from edge.errors import CredentialMissing
from edge.model.decision import Need
from edge.model.http import Request
from edge.model.identity import ANONYMOUS, Peer, Principal
from edge.model.route import Route
from edge.verify.verifier import Verifier


class Authenticator:
    """Built anew with each configuration: what a token was allowed under the old audience must not outlive it."""

    __slots__ = ("_chains", "_materials", "_methods")

    def __init__(
        self,
        issuers: Sequence[IssuerSettings],
        key_source: KeySource,
        client_trust: ClientTrust | None = None,
        assertions: Verifier | None = None,
    ) -> None:
        self._materials = Materials(tuple(issuers), key_source, client_trust, assertions)
        # Both grow to what the routes name and no further. Owner: this object; one event loop, no lock.
        self._methods: dict[str, Method] = {}
        self._chains: dict[tuple[str, ...], tuple[Method, ...]] = {}

    def authenticate(self, request: Request, peer: Peer, route: Route, now_ns: int) -> Principal | Need:
        """Who calls; `now_ns` is nanoseconds since the epoch.

        Raises: CredentialMissing, CredentialRejected (401); Forbidden (403, of a sidecar); NotReady (503).
        """
        names = route.auth
        if not names:
            return ANONYMOUS
        chain = self._chains.get(names)
        if chain is None:
            chain = self._build(names)
        for method in chain:
            answer = method.authenticate(request, peer, now_ns)
            if answer is not NOT_PRESENT:
                return answer
        raise CredentialMissing("no-credential" if request.raw_authorization is None else "scheme-not-accepted")

    def knows(self, request: Request) -> bool:
        """Whether a credential like this was verified lately: under load such callers go first. Proves nothing."""
        raw = request.raw_authorization
        return raw is not None and any(method.remembers(raw) for method in self._methods.values())

    def _build(self, names: tuple[str, ...]) -> tuple[Method, ...]:
        for name in names:
            if name not in self._methods:
                self._methods[name] = METHODS[name](self._materials)
        chain = tuple(self._methods[name] for name in names)
        self._chains[names] = chain
        return chain
