"""A small valid configuration in memory, to be broken in one place by each test."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from edge.authz.schema import TEXT as SCHEMA
from edge.config.parse import parse
from edge.config.secret import Secret
from edge.config.sources import RawFile, Sources
from edge.errors import ConfigError

EDGE = """\
trust_domain: mesh.internal
listeners:
  public: {bind: "127.0.0.1:8443", hosts: [localhost, API.example.com, "::1"]}
  admin: {bind: "127.0.0.1:9901"}
issuers:
  - {issuer: "https://idp.example.com/", audience: [api], algorithms: [ES256]}
"""
SERVICES = """\
services:
  orders: {may_serve: ["/orders/**"], methods: [GET, POST]}
"""
ROUTES = """\
routes:
  - name: orders
    match: {path: "/orders/**", methods: [GET, POST]}
    upstream: {service: orders, endpoints: ["127.0.0.1:9101"]}
    auth: [jwt]
"""
LIMITS = "limits: []\n"
CEDAR = """\
@id("orders-read")
permit (principal is Edge::User, action in Edge::Action::"read", resource in Edge::Service::"orders")
when { principal.scopes.contains("orders:read") };
"""

POLICIES: Mapping[str, str] = {
    "services.yaml": SERVICES,
    "routes.yaml": ROUTES,
    "limits.yaml": LIMITS,
    "orders.cedar": CEDAR,
    "edge.cedarschema": SCHEMA,
}


def sources(
    edge: str = EDGE,
    *,
    files: Mapping[str, bytes] | None = None,
    unreadable: Mapping[str, str] | None = None,
    variables: Mapping[str, str] | None = None,
    unknown: tuple[str, ...] = (),
    policies: Mapping[str, str | None] | None = None,
) -> Sources:
    """`policies`: name → text in place of the one above; None leaves the file out. Paths of `files` are below /edge."""
    texts = {**POLICIES, **(policies or {})}
    present = sorted((name, text) for name, text in texts.items() if text is not None)
    return Sources(
        source=Path("/edge/edge.yaml"),
        edge=RawFile("edge.yaml", edge.encode()),
        policies_name="policies",
        policies=tuple(RawFile(f"policies/{name}", text.encode()) for name, text in present),
        unknown=unknown,
        files={f"/edge/{name}": Secret(raw) for name, raw in (files or {}).items()},
        unreadable={f"/edge/{name}": reason for name, reason in (unreadable or {}).items()},
        variables={name: Secret(text.encode()) for name, text in (variables or {}).items()},
    )


def faults(found: Sources) -> list[str]:
    """What `parse` says about them, one text per fault; it must say something."""
    try:
        parse(found)
    except ConfigError as exc:
        return [str(fault) for fault in exc.faults]
    raise AssertionError("the configuration is valid")
