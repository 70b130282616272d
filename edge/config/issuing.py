"""What issuing a certificate needs of the configuration: the trust domain, where the state is, and the service's grant.

Only edge.yaml and services.yaml are judged: a fault in a route or a policy does not stop a service from being renewed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from edge.config import document, services, tables
from edge.config.edge_file import EdgeShape
from edge.config.services import Mesh
from edge.config.shape import fit
from edge.config.sources import Sources
from edge.errors import ConfigError, Fault
from edge.registry.grant import Grant


@dataclass(frozen=True, slots=True)
class IssuingPolicy:
    """Who may get which certificate."""

    trust_domain: str
    state: Path
    services_file: str
    """Name of services.yaml for messages."""
    dns_suffixes: tuple[str, ...]
    """Without leading dot."""
    grants: Mapping[str, Grant]
    public_hosts: tuple[str, ...]
    """Hosts of the public listener that the CA certifies; empty when it has a certificate of its own."""
    has_outside_identity: bool
    """An outside authority is configured; the bundled CA is not used, whatever lies in the state directory."""

    def allows_dns(self, name: str) -> bool:
        return any(name == suffix or name.endswith(f".{suffix}") for suffix in self.dns_suffixes)


def read(sources: Sources) -> IssuingPolicy:
    """Judge the two files.

    Raises:
        ConfigError: one of them is wrong.
    """
    faults: list[Fault] = []
    edge_document = document.read(sources.edge.name, sources.edge.raw)
    faults += edge_document.faults
    edge = fit(EdgeShape, edge_document, (), faults) if edge_document.root is not None else None
    if edge is None:
        raise ConfigError(faults)
    table = tables.read(sources, edge_document, faults).services
    hosts = services.canonical_hosts(edge.listeners.public.hosts)
    grants = services.read(table, Mesh(edge.trust_domain, hosts), faults)
    ours = [fault for fault in faults if fault.file in {sources.edge.name, table.document.file}]
    if ours:
        raise ConfigError(ours)
    suffixes = edge.dns_suffixes if edge.dns_suffixes is not None else (".internal", edge.trust_domain)
    return IssuingPolicy(
        trust_domain=edge.trust_domain,
        state=Path(sources.path(edge.state)),
        services_file=table.document.file,
        dns_suffixes=tuple(suffix.removeprefix(".") for suffix in suffixes),
        grants=grants.sound,
        public_hosts=(hosts or ()) if edge.listeners.public.tls is None else (),
        has_outside_identity=edge.identity is not None,
    )
