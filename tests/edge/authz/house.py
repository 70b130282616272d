"""A small configuration to ask policies about: two services, three routes, and whoever calls them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from edge.authz import schema
from edge.authz.evaluate import Authorizer
from edge.authz.policies import PolicyBundle, PolicySource, compile
from edge.model.decision import Denial, Permit
from edge.model.http import Request
from edge.model.identity import Peer, Principal
from edge.model.route import Capture, PathPattern, Route, RouteMatch, Upstream, Wildcard

SERVICES: Final[Mapping[str, str]] = {
    "orders": "spiffe://mesh.internal/svc/orders",
    "users": "spiffe://mesh.internal/svc/users",
}
ISSUED_NS: Final = 1_700_000_000 * 10**9
NOW_NS: Final = ISSUED_NS + 60 * 10**9
SCHEMA: Final = PolicySource("edge.cedarschema", schema.TEXT.encode())


def route(name: str, service: str) -> Route:
    return Route(
        name=name,
        pattern=PathPattern(f"/{name}/{{id}}/**", (name, Capture("id"), Wildcard.REST)),
        hosts=("localhost",),
        methods=("GET", "POST"),
        upstream=Upstream(service, SERVICES[service]),
        auth=("jwt",),
    )


ORDERS: Final = route("orders", "orders")
REFUNDS: Final = route("refunds", "orders")
USERS: Final = route("users", "users")
ROUTES: Final = (ORDERS, REFUNDS, USERS)


def bundle(*texts: str) -> PolicyBundle:
    sources = [PolicySource(f"policy{number}.cedar", text.encode()) for number, text in enumerate(texts)]
    return compile(sources, schema=SCHEMA, services=SERVICES, routes=ROUTES)


def authorizer(*texts: str) -> Authorizer:
    return Authorizer(bundle(*texts))


def permit_when(condition: str, policy_id: str = "p") -> str:
    return f'@id("{policy_id}") permit (principal, action, resource) when {{ {condition} }};\n'


def forbid_when(condition: str, policy_id: str = "f") -> str:
    return f'@id("{policy_id}") forbid (principal, action, resource) when {{ {condition} }};\n'


PERMIT_ALL: Final = permit_when("true")


def user(*scopes: str, subject: str = "alice", tenant: str | None = None, acr: str | None = None) -> Principal:
    return Principal(
        method="jwt",
        issuer="https://idp.example.com/",
        subject=subject,
        scopes=frozenset(scopes),
        tenant=tenant,
        acr=acr,
        issued_ns=ISSUED_NS,
    )


def request(method: str = "GET", path: str = "/orders/7") -> Request:
    return Request(
        method=method,
        path=path,
        raw_query=b"",
        has_query=False,
        host="localhost",
        authority="localhost",
        fields=(),
        raw_authorization=None,
        content_length=None,
        chunked=False,
    )


def matched(route: Route = ORDERS, **params: str) -> RouteMatch:
    return RouteMatch(route, params or {"id": "7"})


def peer(ip: str = "192.0.2.1", spiffe_id: str | None = None) -> Peer:
    return Peer(ip=ip, port=4711, prefix=ip, sni=None, tls_version="TLSv1.3", tls_cipher="", spiffe_id=spiffe_id)


def deciding(answer: Permit | Denial) -> tuple[str, tuple[str, ...]]:
    """What was decided, and by which policies."""
    return ("permit" if isinstance(answer, Permit) else answer.reason, answer.policies)
