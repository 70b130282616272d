"""A gateway, a sidecar before a plain service, and an authority that is older than the certificates which are due."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from edge.cli import init
from edge.serve.control_socket import ask
from examples.demo import stranger
from tests.e2e.sidecar import Sidecar, attached, certificate, token
from tests.e2e.upstream import Upstream
from tests.e2e.whole_gateway import EDGE_YAML, Gateway, serving
from tests.pki.founding import found_authority
from tests.wire.rig import Client

DOORS = 'listeners:\n  enrol: {bind: "127.0.0.1:0"}\n  services: {bind: "127.0.0.1:0"}\n'
SERVICES = "services:\n" + "".join(
    f'  {name}: {{may_serve: ["/{name}/**"]{more}}}\n'
    for name, more in (("orders", ", assertion: subject"), ("python", ""), ("node", ""), ("nginx", ""))
)
POLICY = "".join(
    f'@id("{name}")\npermit (principal is Edge::Anonymous, action, resource in Edge::Service::"{name}");\n'
    for name in ("orders", "python", "node", "nginx")
)


def route(name: str, port: int | None) -> str:
    endpoints = "" if port is None else f'endpoints: ["127.0.0.1:{port}"], '
    return (
        f"  - name: {name}\n    match: {{path: /{name}/**}}\n"
        f"    upstream: {{service: {name}, {endpoints}timeout_s: 10}}\n"
        "    public: {reason: a test without tokens}\n"
    )


@dataclass
class Mesh:
    """A gateway, a plain service that keeps every byte, and a sidecar that enrolled with a token."""

    directory: Path
    gateway: Gateway
    plain: Upstream
    sidecar: Sidecar
    routed: dict[str, int | None] = field(default_factory=dict)

    def lead(self, name: str, port: int | None) -> None:
        """From now on the gateway looks for this service at this port; None: wherever it registers."""
        self.routed[name] = port
        text = "routes:\n" + "".join(route(*each) for each in self.routed.items())
        (self.directory / "policies" / "routes.yaml").write_text(text)
        assert ask(self.directory / "state" / "run", "reload", 30).ok

    def client(self) -> Client:
        self.plain.clear()
        return Client(self.gateway)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With an authority that is older than the certificates which are due."""
    directory = tmp_path_factory.mktemp("attach") / "edge"
    edge_yaml = EDGE_YAML.replace("listeners:\n", DOORS) + "registration: {loopback: true}\n"
    init.command(directory, host=["localhost"], ca=False)
    for policy in (directory / "policies").glob("orders.*"):
        policy.unlink()
    (directory / "edge.yaml").write_text(edge_yaml)
    files = {"services.yaml": SERVICES, "anybody.cedar": POLICY, "routes.yaml": "routes: []\n"}
    for name, text in (files | {"limits.yaml": "limits: []\n"}).items():
        (directory / "policies" / name).write_text(text)
    found_authority(directory / "state" / "ca", datetime.now(UTC) - timedelta(hours=30))
    for name in ("python", "node", "nginx"):
        certificate(directory, name)
    certificate(directory, "orders", age=timedelta(hours=18), place=directory / "due")
    certificate(directory, "elsewhere", role="gw")
    certificate(directory, "gone", role="gw")
    certificate(directory, "alice", role="op")
    other = stranger.Authority(stranger.name_of(directory / "state" / "ca" / "root.pem"))
    other.issue(directory / "impostor", x509.UniformResourceIdentifier("spiffe://mesh.internal/gw/edge"))
    return directory


@pytest.fixture(scope="module")
def mesh(home: Path) -> Iterator[Mesh]:
    with ExitStack() as stack:
        gateway = stack.enter_context(serving(home))
        plain = Upstream(None)
        stack.callback(plain.close)
        options = [*enrolling(home, gateway), "--no-register", "--assertion", "subject", "--accept", "edge"]
        sidecar = stack.enter_context(attached("orders", f"http://localhost:{plain.port}", *options))
        found = Mesh(home, gateway, plain, sidecar)
        found.lead("orders", sidecar.port)
        yield found
        assert sidecar.stop() == 0


def enrolling(home: Path, gateway: Gateway, state: str = "attached") -> list[str | Path]:
    file, fingerprint = token(home, "orders")
    enrol, services = (f"https://localhost:{gateway.ports[name]}" for name in ("enrol", "services"))
    options: list[str | Path] = [
        "--enrol",
        enrol,
        "--gateway",
        services,
        "--token-file",
        file,
        "--fingerprint",
        fingerprint,
    ]
    return [*options, "--state", home / state]
