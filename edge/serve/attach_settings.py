"""What `edge attach` was told. Made by the command; afterwards nobody validates again."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edge.forward.io_plain import PlainTarget
from edge.verify.form import Mode

Place = tuple[str, int]
"""(host, port)."""


@dataclass(frozen=True, slots=True)
class Registering:
    """What the gateway is told of this instance (docs/registration.md)."""

    instance: str
    """Empty: named for the machine and the port."""
    address: str
    """`HOST:PORT`; empty: wherever the gateway sees us come from, at the port we listen on."""
    weight: int
    health_path: str | None
    routes: tuple[str, ...]
    """Path patterns inside the grant."""


@dataclass(frozen=True, slots=True)
class AttachSettings:
    """One sidecar."""

    service: str
    """Its name in services.yaml: `svc/<service>` is who it is."""
    target: PlainTarget
    listen: Place
    state: Path
    identity: Path | None
    """What issue-cert.py wrote; read, never written."""
    gateways: tuple[str, ...]
    """Names of the gateways that are let in; empty: all of the trust domain."""
    assertion: Mode | None
    """What each request must be vouched for by; None: the certificate of the connection is enough."""
    services: tuple[Place, ...]
    """Services listeners of gateways that share a store: to renew and register at the first that answers; empty: none."""
    enrol: Place | None
    """The gateway's enrol listener."""
    token_file: Path | None
    root_sha256: str | None
    """Of the root that is believed before anything else is, in hexadecimal."""
    registering: Registering | None
    drain_s: float
