"""What issuing a certificate needs of the configuration: the trust domain, where the state is, and the service's grant.

Only edge.yaml and services.yaml are judged: a fault in a route or a policy does not stop a service from being renewed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from edge.config import document
from edge.config.edge_file import EdgeShape
from edge.config.policy_files import ServiceShape
from edge.config.shape import fit
from edge.config.sources import Sources
from edge.errors import ConfigError, Fault
from pki.spiffe import is_name


@dataclass(frozen=True, slots=True)
class IssuingGrant:
    """One service of services.yaml, as far as certificates go."""

    dns: tuple[str, ...]
    may_serve: tuple[str, ...]
    """Patterns as written, for the operator's eyes."""


@dataclass(frozen=True, slots=True)
class IssuingPolicy:
    """Who may get which certificate."""

    trust_domain: str
    state: Path
    services_file: str
    """Name of services.yaml for messages."""
    dns_suffixes: tuple[str, ...]
    """Without leading dot."""
    grants: Mapping[str, IssuingGrant]
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
    grants = _grants(sources, faults)
    if faults or edge is None:
        raise ConfigError(faults)
    services = sources.policy("services")
    suffixes = edge.dns_suffixes if edge.dns_suffixes is not None else (".internal", edge.trust_domain)
    return IssuingPolicy(
        trust_domain=edge.trust_domain,
        state=Path(sources.path(edge.state)),
        services_file=services.name if services else "services.yaml",
        dns_suffixes=tuple(suffix.removeprefix(".") for suffix in suffixes),
        grants=grants,
        has_outside_identity=edge.identity is not None,
    )


def _grants(sources: Sources, faults: list[Fault]) -> dict[str, IssuingGrant]:
    file = sources.policy("services")
    if file is None:
        place = f"{sources.policies_name}/services.yaml"
        faults.append(
            Fault(place, 1, 1, "missing-file", "there is no such file", "write one: edge init shows its form")
        )
        return {}
    table = document.read(file.name, file.raw)
    faults += table.faults
    services = table.node(("services",))
    found: dict[str, IssuingGrant] = {}
    for name in services.entries or {} if services is not None else {}:
        if not is_name(name):
            place_name = ("services", name)
            faults.append(
                table.fault(
                    place_name, "wrong-value", f"{name!r} is not a service name", "use a-z, 0-9, -", at_key=True
                )
            )
            continue
        shape = fit(ServiceShape, table, ("services", name), faults)
        if shape is not None:
            dns = shape.dns if shape.dns is not None else (f"{name}.internal",)
            found[name] = IssuingGrant(dns=dns, may_serve=shape.may_serve)
    return found
