"""The key sets of all issuers: fetched, renewed, withdrawn.

An issuer's keys come from its `jwks` URL, or from discovery (metadata, then keys), or stood in a file and never change.
What is fetched is judged by pure code (`discovery`, `keys`), how one document is fetched is told in `io_fetch`; here is when:

- **one at a time**: all who wait for an issuer wait for the same fetch;
- **not too often** (attack D7): an unknown `kid` starts a fetch at most every `COOLDOWN_S`, and while there are no keys at
  all an attempt is made at most every `RETRY_S`; in between the answer costs nothing;
- **stale for a while**: keys are renewed every `REFRESH_S`; while the issuer does not answer they stay valid until
  `MAX_STALE_S` after the last good fetch, then they are invalid, and with them every token verified by them;
- **all or nothing**: a document that cannot be used changes nothing.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from edge.authn import discovery, io_fetch, keys, urls
from edge.authn.issuer import IssuerSettings
from edge.authn.keys import KeySet
from edge.errors import NotReady
from edge.model.decision import Need

NS_PER_S = 1_000_000_000

REFRESH_S = 300
"""A key that the issuer withdraws is gone here after five minutes at most."""
MAX_STALE_S = 3600
"""An issuer may be away for an hour; longer, and whoever keeps us from it would keep a stolen key alive."""
COOLDOWN_S = 10
"""Between fetches for unknown key names. A rotation without notice is seen after this time at most."""
RETRY_S = 2
"""Between attempts while there are no keys at all."""
TIMEOUT_S = 8.0
"""For metadata and keys together; a request that waits for them waits no longer."""


@dataclass(slots=True, eq=False)
class _Source:
    """One issuer. Owner: KeySets; one event loop, no lock."""

    settings: IssuerSettings
    keys: KeySet | None = None
    attempted_ns: int | None = None
    attempts: int = 0
    has_failed: bool = False
    """The last attempt gave no keys."""
    flight: asyncio.Task[None] | None = None
    """The fetch under way, which everybody awaits."""
    context: ssl.SSLContext | None = None

    @property
    def is_fixed(self) -> bool:
        return self.settings.jwks_document is not None

    def is_in_force(self, now_ns: int) -> bool:
        """Whether there are keys that tokens may be verified with now. All keys of a set go stale together."""
        return self.keys is not None and now_ns < self.keys.keys[0].valid_until_ns

    def is_rested(self, now_ns: int, wait_s: int) -> bool:
        """Whether the last attempt is `wait_s` ago. A clock that was set back does not make it wait."""
        return self.attempted_ns is None or not 0 <= now_ns - self.attempted_ns < wait_s * NS_PER_S


class KeySets:
    """Key sets by issuer. Built in `assemble`, closed with `close()`."""

    def __init__(self, issuers: Sequence[IssuerSettings], *, previous: KeySets | None = None) -> None:
        """`previous` are the sets before a reload: an issuer whose keys come from the same place keeps them.

        Raises: keys.KeySetUnusable for a `jwks_document` that `IssuerSettings.faults` would have refused.
        """
        self._sources = {settings.issuer: _Source(settings) for settings in issuers}
        for source in self._sources.values():
            document = source.settings.jwks_document
            if document is not None:
                algorithms = source.settings.algorithms
                source.keys = keys.parse(document, algorithms=algorithms, valid_until_ns=keys.NEVER_NS)
            elif previous is not None:
                _inherit(source, previous._sources.get(source.settings.issuer))

    def get(self, issuer: str) -> KeySet | None:
        """The keys of an issuer, or None before the first good fetch. Each key says until when it is valid."""
        source = self._sources.get(issuer)
        return None if source is None else source.keys

    def need(self, issuer: str, now_ns: int) -> Need | None:
        """A fetch of the issuer's keys, or None when they are in force and up to date: then a missing key is unknown.

        Raises: NotReady when that cannot be said, because the last attempt failed and the next is not yet due; then 503.
        """
        source = self._sources.get(issuer)
        if source is None or source.is_fixed:
            return None
        wait_s = COOLDOWN_S if source.is_in_force(now_ns) else RETRY_S
        if source.flight is None and not source.is_rested(now_ns, wait_s):
            if source.has_failed:
                raise NotReady("key-set-unavailable", issuer)
            return None
        attempts = source.attempts
        return Need(f"key-set {issuer}", lambda: self._refresh_unless_done(issuer, now_ns, attempts))

    async def refresh(self, issuer: str, now_ns: int) -> None:
        """Fetch the issuer's keys now, or wait for the fetch that is under way.

        Raises: NotReady when they cannot be had; keys in force stay.
        """
        source = self._sources[issuer]
        if source.is_fixed:
            return
        flight = source.flight
        if flight is None:
            source.attempted_ns = now_ns
            source.attempts += 1
            flight = source.flight = asyncio.create_task(_load(source, now_ns))
            flight.add_done_callback(lambda done: _land(source, done))
        # Whoever stops waiting must not stop it for the others.
        await asyncio.wait((flight,))
        if flight.cancelled():
            raise NotReady("key-set-unavailable", f"{issuer}: closing")
        flight.result()

    async def prefetch(self, now_ns: int) -> tuple[NotReady, ...]:
        """Fetch all that is missing, before the start or a swap; gives the failures, which are tolerated."""
        missing = [name for name, source in self._sources.items() if not source.is_in_force(now_ns)]
        return await self._refresh_all(missing, now_ns)

    async def refresh_due(self, now_ns: int) -> tuple[NotReady, ...]:
        """Renew what is older than `REFRESH_S`, retry what failed; for a timer, every few seconds. Gives the failures."""
        return await self._refresh_all([name for name in self._sources if self._is_due(name, now_ns)], now_ns)

    async def close(self) -> None:
        """End the fetches under way."""
        flights = [source.flight for source in self._sources.values() if source.flight is not None]
        for flight in flights:
            flight.cancel()
        if flights:
            await asyncio.wait(flights)

    def _is_due(self, issuer: str, now_ns: int) -> bool:
        source = self._sources[issuer]
        if source.is_fixed:
            return False
        if not source.is_in_force(now_ns):
            return source.is_rested(now_ns, RETRY_S)
        return source.is_rested(now_ns, COOLDOWN_S if source.has_failed else REFRESH_S)

    async def _refresh_unless_done(self, issuer: str, now_ns: int, attempts: int) -> None:
        """The fetch of a `Need`, unless one began and ended since the need arose: thousands may arise in one instant."""
        source = self._sources[issuer]
        if source.flight is not None or source.attempts == attempts:
            await self.refresh(issuer, now_ns)

    async def _refresh_all(self, issuers: Iterable[str], now_ns: int) -> tuple[NotReady, ...]:
        async def failure_of(issuer: str) -> NotReady | None:
            try:
                await self.refresh(issuer, now_ns)
            except NotReady as failure:
                return failure
            return None

        failures = await asyncio.gather(*map(failure_of, issuers))
        return tuple(failure for failure in failures if failure is not None)


def _inherit(source: _Source, before: _Source | None) -> None:
    """Take over the keys of the issuer as it was before a reload, if they would be fetched and read in the same way.

    The key objects are shared, so a withdrawal is also seen by requests that finish on the old configuration.
    """
    if before is None:
        return
    new, old = source.settings, before.settings
    if (new.jwks, new.jwks_document, new.algorithms, new.ca_pem) == (
        old.jwks,
        old.jwks_document,
        old.algorithms,
        old.ca_pem,
    ):
        source.keys, source.attempted_ns, source.has_failed = before.keys, before.attempted_ns, before.has_failed


def _land(source: _Source, done: asyncio.Task[None]) -> None:
    """A fetch ended. Its error is read here too, in case nobody waits any more."""
    source.flight = None
    if not done.cancelled():
        source.has_failed = done.exception() is not None


async def _load(source: _Source, now_ns: int) -> None:
    """One fetch of one issuer's keys; the new set is in force when this returns.

    Raises: NotReady.
    """
    try:
        async with asyncio.timeout(TIMEOUT_S):
            raw = await _document(source)
        new = keys.parse(raw, algorithms=source.settings.algorithms, valid_until_ns=now_ns + MAX_STALE_S * NS_PER_S)
    except TimeoutError as exc:
        raise NotReady("key-set-unavailable", f"{source.settings.issuer}: too slow") from exc
    except (io_fetch.FetchFailed, discovery.MetadataUnusable, keys.KeySetUnusable, urls.UrlRefused, OSError) as exc:
        raise NotReady("key-set-unavailable", f"{source.settings.issuer}: {exc}") from exc
    source.keys = keys.renewed(source.keys, new)


async def _document(source: _Source) -> bytes:
    """The key set document, by the `jwks` URL or by discovery."""
    settings = source.settings
    if source.context is None:
        source.context = io_fetch.tls_context(settings.ca_pem)
    if settings.jwks is not None:
        return await io_fetch.fetch(urls.parse(settings.jwks), source.context)
    failure: Exception | None = None
    for text in discovery.metadata_urls(settings.issuer):
        try:
            raw = await io_fetch.fetch(urls.parse(text), source.context)
        except io_fetch.FetchFailed as exc:
            failure = exc
            continue
        return await io_fetch.fetch(discovery.jwks_uri(raw, issuer=settings.issuer), source.context)
    raise failure or discovery.MetadataUnusable("no place to ask")
