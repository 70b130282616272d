"""What is valid and deserves a second look: `edge lint`. Each finding is certain; what might be meant is not here.

| rule | says |
|---|---|
| `overlap` | routes of two services match the same requests; an order there is |
| `unreached-route` | other routes have every request that it matches |
| `denied-route` | no policy permits anything on it, so each request is refused with 403 |
| `nobody-serves` | it has no endpoint, and nobody can register: each request is refused with 502 |
| `unused-grant` | no route leads to the service, and it cannot register |
| `shadowed-grant` | the same, where it can register, but a route of another service owns all that it could declare |
| `wide-addresses` | networks of a grant that are nobody's own: the gateway would dial wherever the service says |
| `dead-addresses` | networks of a grant in which no instance is ever taken |
| `unreached-limit` | it applies to no route, and none that a service could declare |
| `unreached-policy` | there is no such request |

What services declare for themselves is not known here. So whatever they could still make use of is no finding.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from cedarpy import pst

from edge.authz.slices import EVERYWHERE, Policy
from edge.config import document
from edge.config.document import Document, Step
from edge.config.settings import Config
from edge.config.sources import Sources
from edge.errors import Fault
from edge.model.route import PathPattern, Route
from edge.registry.address import refusal
from edge.registry.grant import Grant, Network, is_covered
from edge.routing.ownership import Owners, contested, meets
from edge.routing.pattern import shape
from edge.routing.table import rank

_ANONYMOUS = "Anonymous"
_WIDEST = {4: 8, 6: 16}
"""Nobody's own network has a shorter prefix, but for the one of RFC 4193."""
_UNIQUE_LOCAL = ipaddress.IPv6Network("fc00::/7")


def findings(config: Config, sources: Sources) -> Iterator[Fault]:
    """In order of the files: services, routes, limits, policies."""
    look = _Look.of(config, sources)
    yield from look.grants()
    yield from look.routes()
    yield from look.limits()
    yield from look.policies()


@dataclass(frozen=True, slots=True)
class _Look:
    config: Config
    services_file: Document
    limits_file: Document
    may_register: bool
    """Here, or at another gateway of the same store."""
    there: Owners
    """Of all routes of the file."""
    owners: Mapping[str, Route | None]
    """By service: the route that owns what it could declare (or the first of those that do)."""

    @classmethod
    def of(cls, config: Config, sources: Sources) -> _Look:
        services, limits = (_read(sources, stem) for stem in ("services", "limits"))
        is_shared = config.store is not None or "services" in config.opened
        may_register = is_shared and not config.identity.outside
        there = Owners(config.routes)
        owners = {each.service: _owner(each, there) if may_register else None for each in config.grants}
        return cls(config, services, limits, may_register, there, owners)

    def _may_declare(self, grant: Grant) -> bool:
        """Whether a route that the service declares could ever live."""
        return self.may_register and self.owners[grant.service] is None

    def _chosen(self, route: Route) -> set[Policy]:
        """The policies that can apply to one of its methods."""
        found = (self.config.policies.slices.get((route.name, method)) for method in route.methods)
        return {policy for each in found if each is not None for policy in each.policies}

    # -- services.yaml --------------------------------------------------------------------------

    def grants(self) -> Iterator[Fault]:
        led_to = {route.upstream.service for route in self.config.routes}
        for grant in self.config.grants:
            way = ("services", grant.service)
            if grant.service not in led_to:
                yield from self._unused(grant, way)
            for at, network in enumerate(grant.addresses):
                yield from self._addresses(network, (*way, "addresses", at))

    def _unused(self, grant: Grant, way: tuple[Step, ...]) -> Iterator[Fault]:
        if not self.may_register:
            message = "no route leads to it, and nobody can register at this gateway"
            remedy = "add a route in routes.yaml or listeners.services in edge.yaml, or remove it"
            yield self.services_file.fault(way, "unused-grant", message, remedy, at_key=True)
        elif (owner := self.owners[grant.service]) is not None:
            message = f"what it could declare belongs to route {_named(owner)} of service {owner.upstream.service}"
            remedy = "add a route to it in routes.yaml, narrow that one, or remove it"
            yield self.services_file.fault(way, "shadowed-grant", message, remedy, at_key=True)

    def _addresses(self, network: Network, way: tuple[Step, ...]) -> Iterator[Fault]:
        if _is_dead(network, may_loopback=self.config.may_loopback):
            kind = "loopback" if network.is_loopback else "link-local, multicast, reserved or a cloud's own"
            remedy = "remove it" + ("; registration.loopback in edge.yaml allows it" if network.is_loopback else "")
            yield self.services_file.fault(
                way, "dead-addresses", f"{network} is {kind}: no instance is taken there", remedy
            )
        elif _is_wide(network):
            message = f"{network} is nobody's own network: the gateway dials any address of it that the service names"
            remedy = "name the networks in which its instances are"
            yield self.services_file.fault(way, "wide-addresses", message, remedy)

    # -- routes.yaml ----------------------------------------------------------------------------

    def routes(self) -> Iterator[Fault]:
        routes = self.config.routes
        for route in routes:
            if not (route.upstream.endpoints or self.may_register):
                message = "no endpoints, and nobody can register at this gateway: each request is refused with 502"
                remedy = "add endpoints, or listeners.services in edge.yaml"
                yield _of(route, "nobody-serves", message, remedy)
            if self._is_denied(route):
                who = "nobody without a credential" if not route.auth else "nobody"
                message = f"the policies permit {who} to use it: each request is refused with 403"
                yield _of(route, "denied-route", message, "write a permit for it, or remove it")
            if (others := _before(route, self.there, self.config.listeners.public.hosts)) is not None:
                message = f"every request that it matches belongs to {', '.join(map(_named, others))}"
                yield _of(route, "unreached-route", message, "remove it, or narrow what comes before it")
        for first, second in contested(routes):
            message = (
                f'route "{first.name}" has requests that route {_named(second)} of service {second.upstream.service} '
                "matches too: it is the more specific one"
            )
            yield Fault(*first.place, "overlap", message, "keep it if that is meant; else narrow one of the two")

    def _is_denied(self, route: Route) -> bool:
        permits = [each for each in self._chosen(route) if each.effect == "permit"]
        return not any(route.auth or _fits_strangers(each) for each in permits)

    # -- limits.yaml ----------------------------------------------------------------------------

    def limits(self) -> Iterator[Fault]:
        for at, limit in enumerate(self.config.limits):
            if any(map(limit.applies_to, self.config.routes)):
                continue
            if limit.route is None and any(
                limit.service in (None, each.service) and self._may_declare(each) for each in self.config.grants
            ):
                continue  # to what will be declared
            of = f"service {limit.service}" if limit.service is not None else "any service"
            why = f"no route leads to {of}" if limit.route is None else f"route {limit.route} is not one of {of}"
            remedy = "correct its match, or remove the limit"
            yield self.limits_file.fault(("limits", at), "unreached-limit", f"it never applies: {why}", remedy)

    # -- *.cedar --------------------------------------------------------------------------------

    def policies(self) -> Iterator[Fault]:
        reached = {policy for route in self.config.routes for policy in self._chosen(route)}
        for policy in self.config.policies.policies:
            if policy not in reached and not self._reaches_declared(policy):
                message = (
                    f'@id("{policy.id}") decides nothing: no route is what it is about, with a method of its actions'
                )
                remedy = "correct resource or action, or remove the policy"
                yield Fault(policy.file, policy.line, 1, "unreached-policy", message, remedy)

    def _reaches_declared(self, policy: Policy) -> bool:
        kind, name = policy.reach
        return any(
            (policy.reach == EVERYWHERE or (kind == "Service" and name == each.service))
            and not policy.methods.isdisjoint(each.methods)
            and self._may_declare(each)
            for each in self.config.grants
        )


def _read(sources: Sources, stem: str) -> Document:
    file = sources.policy(stem)
    assert file is not None  # or it would not be valid
    return document.read(file.name, file.raw)


def _of(route: Route, rule: str, message: str, remedy: str) -> Fault:
    return Fault(*route.place, rule, f'route "{route.name}": {message}', remedy)


def _named(route: Route) -> str:
    return f'"{route.name}" ({route.place[0]}:{route.place[1]})'


def _owner(grant: Grant, there: Owners) -> Route | None:
    """A route of another service that owns all that the grant allows to declare, as `ownership` judges it. One with
    conditions leaves something; whatever lies inside another's pattern is at least as specific, and would take from it."""

    def owns(route: Route, path: PathPattern) -> bool:
        is_whole = not (route.headers or route.query or (route.hosts and not set(grant.hosts) <= set(route.hosts)))
        is_other = route.upstream.service != grant.service
        return is_other and is_whole and is_covered(path.segments, [route.pattern.segments])

    owners = [next((each for each in there.near(path) if owns(each, path)), None) for path in grant.may_serve]
    return owners[0] if None not in owners else None


def _before(route: Route, there: Owners, hosts: Sequence[str]) -> list[Route] | None:
    """The routes that together have every request of this one; None: some are its own. Held against each host and method, and
    against routes without conditions only: a condition may not hold."""
    near = [
        each
        for each in there.near(route.pattern)
        if each is not route
        and not (each.headers or each.query)
        and meets(each.pattern.segments, route.pattern.segments)
        and rank(each) <= rank(route)
    ]
    used: list[Route] = []
    for host in route.hosts or hosts:
        here = [each for each in near if not each.hosts or host in each.hosts]
        # A pattern that is more specific has the request whatever its methods are; one that is equal has its methods.
        deeper = [each for each in here if shape(each.pattern) != shape(route.pattern)]
        equal = [each for each in here if shape(each.pattern) == shape(route.pattern)]
        if here and is_covered(route.pattern.segments, [each.pattern.segments for each in deeper]):
            used += deeper
        elif set(route.methods) <= {method for each in equal for method in each.methods}:
            used += equal
        else:
            return None
    return list(dict.fromkeys(used))


def _fits_strangers(policy: Policy) -> bool:
    """Whether its scope can be who has shown no credential."""
    principal = policy.node.principal
    if isinstance(principal, pst.ScopeIs | pst.ScopeIsIn):
        return principal.entity_type.basename == _ANONYMOUS
    entity = getattr(principal, "entity", None)
    return not isinstance(entity, pst.EntityUid) or entity.type.basename == _ANONYMOUS


def _is_wide(network: Network) -> bool:
    if isinstance(network, ipaddress.IPv6Network) and network.subnet_of(_UNIQUE_LOCAL):
        return False
    return network.prefixlen < _WIDEST[network.version]


def _is_dead(network: Network, *, may_loopback: bool) -> bool:
    """Whether `address.refusal` takes no address of it, whoever asks: what both ends of one kind are, all in between are."""
    if any(refusal(end, end, (), may_loopback=may_loopback) is None for end in (network[0], network[-1])):
        return False
    is_reserved = network.version == 4 and network.is_reserved
    return (
        network.num_addresses == 1
        or network.is_loopback
        or network.is_link_local
        or network.is_multicast
        or is_reserved
    )
