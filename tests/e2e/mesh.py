"""Two gateways that share one store, as two machines would be, with listeners for services; and certificates for these."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from edge.cli import init, issue
from examples.issuer.minting import Minter, key_set_document, signing_key
from tests.e2e.limit_server import Server
from tests.e2e.member import identities
from tests.e2e.whole_gateway import EDGE_YAML, Gateway, Variant, make, serving

SERVICES = """\
services:
  orders: {may_serve: ["/orders/**", "/new/**"], methods: [GET]}
  billing: {may_serve: ["/billing/**"], methods: [GET]}
"""
ROUTES = """\
routes:
  - name: orders
    match: {hosts: [localhost], path: /orders/**, methods: [GET]}
    upstream: {service: orders}
    public: {reason: a test without tokens}
  - name: billing
    match: {hosts: [localhost], path: /billing/**, methods: [GET]}
    upstream: {service: billing}
    public: {reason: a test without tokens}
"""
POLICY = """\
@id("anybody")
permit (principal is Edge::Anonymous, action in Edge::Action::"read", resource)
when { resource == Edge::Route::"orders" || resource == Edge::Route::"billing" };
@id("reader")
permit (principal is Edge::User, action in Edge::Action::"read", resource in Edge::Service::"orders")
when { principal.scopes.contains("new:read") };
"""
MINTER = Minter(signing_key(), "https://idp.example.com/", "https://api.example.com")
_ISSUERS = f"""\
issuers:
  - {{issuer: "{MINTER.issuer}", audience: ["{MINTER.audience}"], algorithms: [ES256], jwks: keys.json}}
"""
_DOORS = 'listeners:\n  services: {bind: "127.0.0.1:0"}\n'


@dataclass(frozen=True)
class Mesh:
    """What stands on disk, and what runs."""

    homes: dict[str, Path]
    """`a` has the CA."""
    store: Path
    """The store's socket."""
    identities: dict[str, Path]
    gateways: tuple[Gateway, Gateway]
    has_many_workers: bool


@contextmanager
def two_gateways(root: Path, names: Sequence[str], *, workers: tuple[int, int] = (1, 1)) -> Iterator[Mesh]:
    """`names`: certificates, as `member.identities` has them."""
    homes = {"a": make(root / "a", Variant(services=SERVICES, policy=POLICY)), "b": root / "b"}
    assert issue.main(["edge-b", "--role", "gateway", "-q", "-c", str(homes["a"] / "edge.yaml")]) == 0
    found = identities(homes["a"], *names)
    shutil.copytree(homes["a"] / "policies", homes["b"] / "policies")
    with TemporaryDirectory(prefix="v") as directory, Server(directory) as server:
        for (name, home), count in zip(homes.items(), workers, strict=True):
            (home / "policies" / "routes.yaml").write_text(ROUTES)
            text = EDGE_YAML.replace("listeners:\n", _DOORS) + f"store: unix://{server.socket_path}\nworkers: {count}\n"
            text += f"registration: {{loopback: true}}\naudit: {{origin: log/{name}}}\n" + _ISSUERS
            (home / "keys.json").write_bytes(key_set_document(MINTER.key))
            (home / "edge.yaml").write_text(text)
        init.command(homes["b"], join=str(homes["a"] / "state" / "issued" / "gateway-edge-b"))
        with serving(homes["a"]) as a, serving(homes["b"]) as b:
            yield Mesh(homes, Path(server.socket_path), found, (a, b), max(workers) > 1)
