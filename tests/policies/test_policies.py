"""Runs every `*.policytest.yaml` of policies/ and examples/ against the policies, services and routes beside it.

One case asks one request of the real steps: target canonicalised, route matched, policies asked.

    - name: reading needs the scope
      request:
        method: GET
        host: localhost
        path: /orders/7?x=1
        principal: {issuer: "https://idp.example.com/", subject: alice, scopes: [], roles: [], tenant: acme}
        # or: anonymous | {service: orders} | {operator: "spiffe://mesh.internal/op/alice"}
        token: {age: 30, acr: "2"}         # optional; a user's token is 0 s old by default
        conn: {peer: "spiffe://…", ip: 192.0.2.1}          # optional
        now: 2026-11-21T10:00:00Z          # optional
      expect: {decision: deny, by: [], missing_scopes: ["orders:read"]}     # missing_scopes optional

A table must also notice when any one policy is dropped: a policy without a case that needs it is not tested.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from edge.authz.evaluate import Authorizer
from edge.authz.policies import PolicySource, compile
from edge.authz.scan import split
from edge.model.decision import Denial, Permit
from edge.model.http import Request
from edge.model.identity import ANONYMOUS, Peer, Principal
from edge.model.route import PathPattern, Route, Upstream
from edge.parse.target import canonical_host, canonicalize
from edge.routing import match, pattern, table

ROOT = Path(__file__).parents[2]
TABLES = sorted(path for place in ("policies", "examples") for path in (ROOT / place).rglob("*.policytest.yaml"))
NOW = datetime(2026, 11, 21, 10, tzinfo=UTC)
SECOND_NS = 10**9


@dataclass(frozen=True)
class Policies:
    """A policy directory, read as far as policies need it."""

    services: dict[str, str]
    routes: tuple[Route, ...]
    files: tuple[PolicySource, ...]
    schema: PolicySource

    def authorizer(self, files: Sequence[PolicySource]) -> Authorizer:
        return Authorizer(compile(files, schema=self.schema, services=self.services, routes=self.routes))


def read(directory: Path) -> Policies:
    services = {name: f"spiffe://mesh.internal/svc/{name}" for name in load(directory / "services.yaml")["services"]}
    return Policies(
        services=services,
        routes=tuple(route(entry, services) for entry in load(directory / "routes.yaml")["routes"]),
        files=tuple(PolicySource(path.name, path.read_bytes()) for path in sorted(directory.glob("*.cedar"))),
        schema=PolicySource("edge.cedarschema", (directory / "edge.cedarschema").read_bytes()),
    )


def load(path: Path) -> Any:
    return yaml.safe_load(path.read_bytes())


def route(entry: dict[str, Any], services: dict[str, str]) -> Route:
    matching, service = entry["match"], entry["upstream"]["service"]
    parsed = pattern.parse(matching["path"])
    assert isinstance(parsed, PathPattern)
    return Route(
        name=entry["name"],
        pattern=parsed,
        hosts=tuple(matching["hosts"]),
        methods=tuple(matching["methods"]),
        upstream=Upstream(service, services[service]),
        auth=tuple(entry.get("auth", ())),
    )


def answer(policies: Policies, step: Authorizer, asked: dict[str, Any]) -> Permit | Denial:
    """What the line would decide; a key that means nothing is an error, or a typo would be a passing test."""
    assert set(asked) <= {"method", "host", "path", "principal", "token", "conn", "now"}
    target = canonicalize(asked["path"].encode(), encoded_slash=True)
    host, authority = canonical_host(asked["host"].encode())
    request = Request(
        asked["method"], target.path, target.raw_query, target.has_query, host, authority, (), None, None, False
    )
    hosts = {each for route in policies.routes for each in route.hosts}
    now_ns = int(asked.get("now", NOW).timestamp()) * SECOND_NS
    token, conn = asked.get("token", {}), asked.get("conn", {})
    assert set(token) <= {"age", "acr"}
    assert set(conn) <= {"peer", "ip"}
    ip = conn.get("ip", "192.0.2.1")
    peer = Peer(ip, 4711, ip, None, "TLSv1.3", "", spiffe_id=conn.get("peer"))
    matched = match.match(table.compile(policies.routes, hosts), request, None)
    return step.authorize(request, matched, principal(asked["principal"], token, policies, now_ns), peer, now_ns)


def principal(given: Any, token: dict[str, Any], policies: Policies, now_ns: int) -> Principal:
    if given == "anonymous":
        return ANONYMOUS
    if set(given) == {"service"}:
        return Principal(method="mtls", issuer="", subject=policies.services[given["service"]])
    if set(given) == {"operator"}:
        return Principal(method="mtls", issuer="", subject=given["operator"])
    assert set(given) <= {"issuer", "subject", "scopes", "roles", "tenant"}
    return Principal(
        method="jwt",
        issuer=given["issuer"],
        subject=given["subject"],
        scopes=frozenset(given.get("scopes", ())),
        roles=frozenset(given.get("roles", ())),
        tenant=given.get("tenant"),
        acr=token.get("acr"),
        issued_ns=now_ns - token.get("age", 0) * SECOND_NS,
    )


def differs(case: dict[str, Any], policies: Policies, step: Authorizer) -> str | None:
    """What is wrong with the answer, or None."""
    assert set(case) == {"name", "request", "expect"}
    expected = case["expect"]
    assert {"decision", "by"} <= set(expected) <= {"decision", "by", "missing_scopes"}
    found = answer(policies, step, case["request"])
    decision = "allow" if isinstance(found, Permit) else "deny"
    if (decision, sorted(found.policies)) != (expected["decision"], sorted(expected["by"])):
        return f"{case['name']}: {decision} by {found.policies}"
    missing = sorted(expected.get("missing_scopes", ()))
    if missing and (isinstance(found, Permit) or sorted(found.missing_scopes) != missing):
        return f"{case['name']}: {found}"
    return None


def test_there_is_something_to_test() -> None:
    assert TABLES


@pytest.mark.parametrize("path", TABLES, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_policies_answer_as_their_table_says(path: Path) -> None:
    policies = read(path.parent)
    step = policies.authorizer(policies.files)
    assert [wrong for case in load(path) if (wrong := differs(case, policies, step))] == []


@pytest.mark.parametrize("directory", sorted({path.parent for path in TABLES}), ids=lambda path: path.name)
def test_a_table_notices_when_any_one_policy_is_dropped(directory: Path) -> None:
    policies = read(directory)
    cases = [case for path in sorted(directory.glob("*.policytest.yaml")) for case in load(path)]
    unnoticed = []
    for file in policies.files:
        for chunk in split(file.raw):
            rest = [other for other in policies.files if other != file]
            kept = PolicySource(file.file, b"\n".join(each.text.encode() for each in split(file.raw) if each != chunk))
            step = policies.authorizer([*rest, kept])
            if not any(differs(case, policies, step) for case in cases):
                unnoticed.append(chunk.text)
    assert unnoticed == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"expect": {"decision": "allow", "by": []}},
        {"expect": {"decision": "deny", "by": ["orders-read"]}},
        {"expect": {"decision": "deny", "by": [], "missing_scopes": ["orders:write"]}},
    ],
)
def test_a_wrong_expectation_is_noticed(wrong: dict[str, Any]) -> None:
    policies = read(ROOT / "policies")
    case = next(
        case for case in load(ROOT / "policies" / "orders.policytest.yaml") if "needs the scope" in case["name"]
    )
    step = policies.authorizer(policies.files)
    assert differs(case, policies, step) is None
    assert differs({**case, **wrong}, policies, step) is not None
