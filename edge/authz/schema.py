"""The vocabulary that policies are written in: entity types, actions, context attributes.

`policies/edge.cedarschema` is a copy of `TEXT` for editors and reviewers. The gateway builds every entity and every
context itself, so a schema that says something else would make the strict validator prove things about requests that
never come: a required `tenant` here and an absent one there is a `forbid` that errors. Hence the file must say the same,
token by token (white space and comments are free), and the native parser only ever reads our own text.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Final

import cedarpy

from edge.authz.scan import PolicySource, ScanError, tokens
from edge.errors import Fault

if TYPE_CHECKING:
    from collections.abc import Mapping

TEXT: Final = """\
// The words that policies may use. The gateway fills in exactly these, so this file is checked, not configured:
// `edge check` refuses one that differs in more than comments and white space.
namespace Edge {
  // A verified token's holder; uid is "<issuer>#<subject>".
  entity User = { issuer: String, subject: String, scopes: Set<String>, roles: Set<String>, tenant?: String };
  // A service of services.yaml; uid is its name there.
  entity Service = { spiffe_id: String };
  // An operator; uid is the SPIFFE ID.
  entity Operator;
  // Whoever calls a route that asks for no credential; uid is "anonymous".
  entity Anonymous;
  // A route of routes.yaml; uid is its name, its parent the service it forwards to.
  entity Route in [Service];
  // The segments that the route's pattern captured, percent-decoded:
  // context.params.hasTag("id") && context.params.getTag("id") == "7".
  entity Params tags String;

  type Request = {
    // mtls: a client certificate was proven; peer: its SPIFFE ID; ip: address of the other end of the connection.
    conn: { mtls: Bool, peer?: String, ip: ipaddr },
    // age: whole seconds since the token was issued.
    token?: { age: Long, acr?: String },
    // Canonical path, percent-encoded, without the query.
    path: String,
    params: Params,
    // The current time in whole seconds.
    now: datetime,
  };

  action "read", "write";
  action "GET", "HEAD" in ["read"]
    appliesTo { principal: [User, Service, Operator, Anonymous], resource: [Route], context: Request };
  action "POST", "PUT", "PATCH", "DELETE" in ["write"]
    appliesTo { principal: [User, Service, Operator, Anonymous], resource: [Route], context: Request };
  action "OPTIONS"
    appliesTo { principal: [User, Service, Operator, Anonymous], resource: [Route], context: Request };
}
"""

CONTROL_TEXT: Final = TEXT.replace(
    "  entity Operator;\n",
    "  entity Operator;\n  // Another gateway; uid is the SPIFFE ID.\n  entity Gateway;\n",
).replace("Operator, Anonymous]", "Operator, Gateway, Anonymous]")
"""What the policies of the control plane are written in, which are ours: gateways come there and nowhere else."""

NAMESPACE: Final = "Edge"

GROUP_OF: Final[Mapping[str, str | None]] = {
    "GET": "read",
    "HEAD": "read",
    "POST": "write",
    "PUT": "write",
    "PATCH": "write",
    "DELETE": "write",
    "OPTIONS": None,
}
"""Every method that can be allowed at all, with the action group it is in."""

ATTRIBUTES: Final[Mapping[str, tuple[str, ...]]] = {
    "conn": ("mtls", "peer", "ip"),
    "token": ("age", "acr"),
    "path": (),
    "params": (),
    "now": (),
}
"""The context's attributes and, for records, theirs."""

ANONYMOUS_UID: Final = "anonymous"


@cache
def handle(text: str = TEXT) -> cedarpy.Schema:
    """A schema as Cedar holds it. Each is parsed once per process: they are constants."""
    return cedarpy.Schema.from_str(text)


def check(source: PolicySource) -> tuple[Fault, ...]:
    """No fault, or the first place where the file differs from `TEXT`."""
    try:
        found = tokens(source.raw)
    except ScanError as exc:
        return (Fault(source.file, exc.line, 1, exc.rule, exc.message, exc.remedy),)
    expected = tokens(TEXT.encode())
    for (line, text), (_, wanted) in zip(found, expected, strict=False):
        if text != wanted:
            return (_differs(source.file, line, f"found `{text[:40]}`, expected `{wanted}`"),)
    if len(found) != len(expected):
        line = found[-1][0] if found else 1
        return (_differs(source.file, line, "the file goes on after the schema ends or stops before"),)
    return ()


def _differs(file: str, line: int, what: str) -> Fault:
    return Fault(
        file,
        line,
        1,
        "schema-differs",
        f"not the schema of this gateway: {what}",
        "restore the file that `edge init` writes",
    )
