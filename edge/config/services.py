"""services.yaml → grants: who may serve what.

A grant gives a name in the mesh and nothing else gives one: a service that is not here has no identity the gateway would
forward to, whatever certificate it holds.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

from edge.config.balancing import settings
from edge.config.edge_file import parse_host
from edge.config.policy_files import METHODS, ServiceShape
from edge.config.shape import fit
from edge.config.tables import Table
from edge.errors import Fault
from edge.forward.balance import BalanceSettings
from edge.model.route import PathPattern
from edge.registry.grant import Grant
from edge.routing.pattern import parse
from pki.issue import GATEWAY_NAME
from pki.spiffe import SpiffeId, is_name

_OF_THE_GATEWAY = f"{GATEWAY_NAME}.internal"
"""A service that had it would be the gateway to whoever compares host names alone; the CA refuses those of other gateways."""


@dataclass(frozen=True, slots=True)
class Mesh:
    """What edge.yaml says that the tables build on. Stand-ins when edge.yaml itself is wrong (the faults say so)."""

    trust_domain: str
    hosts: tuple[str, ...] | None
    """Of the public listener, canonical; None when not known: nothing is held against it then."""


@dataclass(frozen=True, slots=True)
class Grants:
    """The grants that could be read."""

    sound: dict[str, Grant]
    names: frozenset[str]
    """Also of entries with a fault."""
    is_whole: bool
    """Every name of the file is in `names`."""
    balancing: dict[str, BalanceSettings]
    """Of each sound one: how its instances share its requests."""


def read(table: Table, mesh: Mesh, faults: list[Fault]) -> Grants:
    """One grant for each entry without a fault."""
    sound: dict[str, Grant] = {}
    balancing: dict[str, BalanceSettings] = {}
    for way in table.ways:
        name = str(way[-1])
        if not is_name(name):
            message = "expected a service name of a-z, 0-9 and inner hyphens, at most 63"
            faults.append(table.document.fault(way, "wrong-value", message, "rename it, such as orders", at_key=True))
            continue
        shape = fit(ServiceShape, table.document, way, faults)
        if shape is None:
            continue
        hosts = canonical_hosts(shape.hosts)
        dns = shape.dns if shape.dns is not None else (f"{name}.internal",)
        if _OF_THE_GATEWAY in dns:
            own = (*way, "dns", dns.index(_OF_THE_GATEWAY)) if shape.dns is not None else way
            message = f"the DNS name {_OF_THE_GATEWAY} is the gateway's own"
            remedy = "give another one, or dns: []"
            faults.append(table.document.fault(own, "wrong-value", message, remedy, at_key=shape.dns is None))
            continue
        unserved = unserved_host(hosts, mesh)
        if unserved is not None:
            faults.append(
                table.document.fault((*way, "hosts", unserved), "unknown-host", *unknown_host(hosts[unserved]))
            )
            continue
        balancing[name] = settings(shape.balance, shape.slow_start_s, shape.max_in_flight, shape.ejection, shape.health)
        sound[name] = Grant(
            service=name,
            spiffe_id=str(SpiffeId.of(mesh.trust_domain, "svc", name)),
            may_serve=tuple(pattern(text) for text in shape.may_serve),
            hosts=hosts or mesh.hosts or (),
            methods=shape.methods or METHODS,
            dns=dns,
            assertion=shape.assertion,
            addresses=tuple(map(ipaddress.ip_network, shape.addresses)),
        )
    return Grants(sound, frozenset(str(way[-1]) for way in table.ways), table.is_whole, balancing)


def pattern(text: str) -> PathPattern:
    """A pattern that its shape has already judged."""
    parsed = parse(text)
    assert isinstance(parsed, PathPattern), text
    return parsed


def canonical_hosts(hosts: tuple[str, ...] | None) -> tuple[str, ...]:
    """Hosts that their shape has judged, in the spelling of requests, each once."""
    return tuple(dict.fromkeys(found for host in hosts or () if (found := parse_host(host)) is not None))


def unserved_host(hosts: tuple[str, ...], mesh: Mesh) -> int | None:
    """The index of the first host that the public listener does not answer for."""
    if mesh.hosts is None:
        return None
    return next((at for at, host in enumerate(hosts) if host not in mesh.hosts), None)


def unknown_host(host: str) -> tuple[str, str]:
    """(message, remedy)."""
    return f"the public listener does not answer for {host}", "correct it, or add it to listeners.public.hosts"
