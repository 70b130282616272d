"""All endpoints of all services, as one worker knows them: put together from the files and the roster, and judged.

The one place where file endpoints and registered instances meet. An address that both name is the registered instance's. What
an endpoint has under way and how it has done belongs to (SPIFFE ID, address): it is the same for all routes that lead there,
and outlives reloads. Settings are the service's.

Nothing here reads a clock, and nothing is worked out for a request: it is told what happened, and rearranges what is
concerned. `tick` brings what time alone changes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Protocol

from edge.forward.balance import DEFAULT, NEVER, BalanceSettings, Rotation, Turns
from edge.forward.endpoint import Address, Endpoint, spell
from edge.forward.health import CheckSettings, ejectable
from edge.model.instance import Instance
from edge.model.route import Upstream


class Registered(Protocol):
    """Who has registered: `registry.Roster`."""

    @property
    def generation(self) -> int:
        """Grows with every change."""

    def instances(self, service: str) -> tuple[Instance, ...]:
        """The same tuple until something changes."""


_Key = tuple[str, tuple[Address, ...], tuple[int, ...]]


class Fleet:
    """Owner: the pool, one per worker; one event loop, no lock. Outlives reloads."""

    def __init__(self, registered: Registered, draw: Callable[[], float]) -> None:
        """`draw` gives numbers from 0 to below 1."""
        self.registered = registered
        self._draw = draw
        self._settings: Mapping[str, BalanceSettings] = {}
        self._by_content: dict[str, dict[_Key, Rotation]] = {}
        self._endpoints: dict[str, dict[tuple[str, Address], Endpoint]] = {}
        self._restless: set[str] = set()
        """Services whose picture changes by time alone."""

    # -- who there is ----------------------------------------------------------------------------

    def configure(self, settings: Mapping[str, BalanceSettings], upstreams: Collection[Upstream], now_s: float) -> None:
        """Another configuration: its settings by service, and the upstreams that its routes name."""
        self._settings = settings
        wanted = {(upstream.service, _key(upstream)) for upstream in upstreams}
        for service, known in self._by_content.items():
            for key in [key for key in known if (service, key) not in wanted]:
                known.pop(key).turns.generation = NEVER  # a request of the generation before may hold it
        self._by_content = {service: known for service, known in self._by_content.items() if known}
        cold = {upstream.service for upstream in upstreams if self._is_cold(upstream.service)}
        for upstream in upstreams:
            self._arrange(upstream, now_s, is_cold=upstream.service in cold)
        for service in self._endpoints:
            self._mark_members(service)
            self._rearrange(service, now_s)

    def arranged(self, upstream: Upstream, now_s: float) -> Rotation:
        """The rotation of an upstream, as of now."""
        return self._arrange(upstream, now_s, is_cold=self._is_cold(upstream.service))

    def turns(self, upstream: Upstream) -> Turns:
        """Always the same for upstreams that say the same; not yet arranged."""
        return self._rotation(upstream).turns

    def _rotation(self, upstream: Upstream) -> Rotation:
        known = self._by_content.setdefault(upstream.service, {})
        key = _key(upstream)
        if key not in known:
            peers = self._endpoints.setdefault(upstream.service, {}).values()
            known[key] = Rotation(upstream.service, peers, self._draw)
        return known[key]

    def _is_cold(self, service: str) -> bool:
        """Nobody of it has had requests yet: then none of its endpoints need start slower than another."""
        return not any(each.is_member for each in self._endpoints.get(service, {}).values())

    def _arrange(self, upstream: Upstream, now_s: float, *, is_cold: bool) -> Rotation:
        rotation = self._rotation(upstream)
        registered = self.registered.instances(upstream.service)
        if rotation.registered is not registered:
            self._assemble(upstream, rotation, registered)
            if not is_cold and any(each.is_member for each in rotation.members):
                for endpoint in rotation.members:
                    if not endpoint.is_member:
                        endpoint.health.start_slowly(now_s)
            self._mark_members(upstream.service)
            self._rearrange(upstream.service, now_s)
        rotation.turns.generation = self.registered.generation
        return rotation

    def _assemble(self, upstream: Upstream, rotation: Rotation, registered: tuple[Instance, ...]) -> None:
        """Who belongs to it."""
        found: dict[Address, Endpoint] = {}
        for at, address in enumerate(upstream.endpoints):
            endpoint = found[address] = self._endpoint(upstream, address)
            endpoint.name, endpoint.weight = spell(address), upstream.weights[at] if upstream.weights else 1
            endpoint.check_path, endpoint.is_draining = None, False
        for instance in registered:
            endpoint = found[instance.address] = self._endpoint(upstream, instance.address)
            endpoint.name, endpoint.weight = instance.name, instance.weight
            endpoint.check_path, endpoint.is_draining = instance.health_path, instance.is_draining
        rotation.members = tuple(endpoint for endpoint in found.values() if not endpoint.is_draining)
        rotation.registered = registered

    def _endpoint(self, upstream: Upstream, address: Address) -> Endpoint:
        known = self._endpoints.setdefault(upstream.service, {})
        key = (upstream.spiffe_id, address)
        if key not in known:
            known[key] = Endpoint(upstream.service, upstream.spiffe_id, address)
        return known[key]

    def _mark_members(self, service: str) -> None:
        members = {each for rotation in self._rotations(service) for each in rotation.members}
        for endpoint in self._endpoints.get(service, {}).values():
            endpoint.is_member = endpoint in members

    def _rotations(self, service: str) -> list[Rotation]:
        return list(self._by_content.get(service, {}).values())

    def forget_departed(self) -> list[Endpoint]:
        """Drop who is no member any more and has nothing under way; → those, their idle connections may close."""
        departed = []
        for known in self._endpoints.values():
            for key in [key for key, each in known.items() if not (each.is_member or each.in_flight)]:
                departed.append(known.pop(key))
        return departed

    def endpoints(self) -> Iterator[Endpoint]:
        """All that are known."""
        for known in self._endpoints.values():
            yield from known.values()

    # -- how they do -----------------------------------------------------------------------------

    def answered(self, endpoint: Endpoint, status: int, now_s: float) -> None:
        """A whole answer came. Worth telling only of an error of the server, or after a failure."""
        ejection = self._settings.get(endpoint.service, DEFAULT).ejection
        if status >= 500 and ejection is not None and ejection.counts_5xx:
            self.failed(endpoint, now_s)
        else:
            endpoint.failures = 0

    def failed(self, endpoint: Endpoint, now_s: float) -> None:
        """No connection, no proof, no answer, or one that breaks HTTP."""
        health, service = endpoint.health, endpoint.service
        endpoint.failures += 1
        ejection = self._settings.get(service, DEFAULT).ejection
        if ejection is None or endpoint.failures < ejection.failures or health.is_ejected:
            return
        concerned = [rotation for rotation in self._rotations(service) if endpoint in rotation.members]
        if concerned and all(each.may_eject(endpoint, ejectable(len(each.members))) for each in concerned):
            health.eject(now_s, ejection)
            endpoint.failures = 0
            self._rearrange(service, now_s)

    def checked(self, endpoint: Endpoint, now_s: float, *, passed: bool) -> None:
        """A check of ours came to its end."""
        settings = self._settings.get(endpoint.service, DEFAULT).check or CheckSettings()
        if endpoint.health.checked(settings, now_s, passed=passed):
            self._rearrange(endpoint.service, now_s)

    def checks(self) -> Iterator[tuple[Endpoint, CheckSettings]]:
        """Who is to be checked, and how: by the service's settings, or because it named a path of its own."""
        for service, known in self._endpoints.items():
            settings = self._settings.get(service, DEFAULT).check
            for endpoint in known.values():
                if endpoint.is_member and (settings is not None or endpoint.check_path is not None):
                    yield endpoint, settings or _DEFAULT_CHECK

    def tick(self, now_s: float) -> None:
        """What time alone changes: ejections end, weights grow."""
        for service in list(self._restless):
            for endpoint in self._endpoints.get(service, {}).values():
                if endpoint.health.is_due(now_s):
                    _readmit(endpoint, now_s)
            self._rearrange(service, now_s)

    def _rearrange(self, service: str, now_s: float) -> None:
        settings = self._settings.get(service, DEFAULT)
        rotations = self._rotations(service)
        if settings.check is None:
            for endpoint in self._endpoints.get(service, {}).values():
                if endpoint.check_path is None:
                    endpoint.health.forget_checks()
        for rotation in rotations:
            self._keep_enough(rotation, now_s)
        for rotation in rotations:
            rotation.arrange(settings, now_s)
        if any(each.health.is_ejected or each.health.is_starting for each in self._endpoints.get(service, {}).values()):
            self._restless.add(service)
        else:
            self._restless.discard(service)

    @staticmethod
    def _keep_enough(rotation: Rotation, now_s: float) -> None:
        """Others left or fail their checks: no more are ejected than those who are left can bear."""
        ejected = sorted((each for each in rotation.members if each.health.is_ejected), key=lambda e: e.health.until_s)
        surplus = len(ejected) - ejectable(len(rotation.members))
        healthy = any(not (each.health.is_ejected or each.health.is_failing) for each in rotation.members)
        for at, endpoint in enumerate(ejected):
            if at < surplus or not (healthy or endpoint.health.is_failing):
                _readmit(endpoint, now_s)
                healthy = healthy or not endpoint.health.is_failing


_DEFAULT_CHECK = CheckSettings()


def _readmit(endpoint: Endpoint, now_s: float) -> None:
    endpoint.health.readmit(now_s)
    endpoint.failures = 0


def _key(upstream: Upstream) -> _Key:
    return upstream.spiffe_id, upstream.endpoints, upstream.weights
