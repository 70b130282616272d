"""What one policy can decide and what it looks at, read from its typed nodes.

Two uses. Cedar asks every policy of a set about every request, so the set is cut into slices: the policies that can apply
to a method on a route. And a decision is a function of the attributes that its slice *mentions*: only these are handed
to Cedar, and when none of them changes between two requests, neither does the decision. The same holds for principals: two
users that agree in all that a slice mentions of them are decided alike.

Every doubt widens: a scope that is not understood reaches everything, a bare `context` mentions every attribute, a bare
`principal` all of who it is. Too wide a slice costs time; too narrow a one would lose a `forbid`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Final

import cedarpy
from cedarpy import pst

from edge.authz import facts
from edge.authz.schema import ATTRIBUTES, GROUP_OF

EVERYWHERE: Final = ("", "")
"""A reach is (`Service` or `Route`, its name), or this."""

WHOLE: Final = "uid"
"""Mention of a principal as such: nobody else is decided like it."""

VARYING: Final = frozenset(("conn.mtls", "conn.peer", "conn.ip", "token.age", "path", "params", "now"))
"""Mentions whose value can differ between two requests of one principal to one route."""

_EVERY_MENTION: Final = frozenset(
    mention for name, inner in ATTRIBUTES.items() for mention in (name, *(f"{name}.{attribute}" for attribute in inner))
)


@dataclass(frozen=True, slots=True, eq=False)
class Policy:
    """One policy that passed every check."""

    id: str
    """Its `@id`, unique in the bundle."""
    effect: str
    """`permit` or `forbid`."""
    file: str
    line: int
    node: pst.Template
    """Its nodes, renamed to `id`."""
    methods: frozenset[str]
    reach: tuple[str, str]
    mentions: frozenset[str]
    """Context attributes it looks at, dotted; the name of a record alone means that only its presence is asked."""
    tells_by: frozenset[str]
    """Attributes of the principal that it looks at, or `WHOLE`. The principal's type is always looked at."""
    asked_scopes: frozenset[str]
    """OAuth scopes that its conditions look for in `principal.scopes`."""
    named_services: frozenset[str]
    """Services whose attributes its conditions could ask for, because they name them."""


@dataclass(frozen=True, slots=True, eq=False)
class Slice:
    """The policies that can apply to one method on one route, as one native set."""

    policies: tuple[Policy, ...]
    handle: cedarpy.PolicySet
    entities: cedarpy.Entities
    """What no request changes: the actions, and the services that the policies name."""
    mentions: frozenset[str]
    tells_by: frozenset[str]
    """Attributes by which it can tell two users apart, or `WHOLE`."""
    is_settled: bool
    """Principal, route and method alone determine the decision."""


def policy(node: pst.Template, *, file: str, line: int) -> Policy:
    """Read the parsed and validated `node`, which is already named by its `@id`."""
    mentions: set[str] = set()
    tells_by: set[str] = set() if isinstance(node.principal, pst.ScopeAny | pst.ScopeIs) else {WHOLE}
    scopes: set[str] = set()
    for clause in node.clauses:
        _collect(clause.expr, mentions, scopes)
        _collect_told(clause.expr, tells_by)
    return Policy(
        id=node.id,
        effect=node.effect,
        file=file,
        line=line,
        node=node,
        methods=_methods(node.action),
        reach=_reach(node.resource),
        mentions=frozenset(mentions),
        tells_by=frozenset(tells_by),
        asked_scopes=frozenset(scopes),
        named_services=frozenset(
            each.id
            for each in walk(node.clauses)
            if isinstance(each, pst.EntityUid) and each.type.basename == "Service"
        ),
    )


def cut(
    policies: tuple[Policy, ...],
    *,
    routes: Mapping[str, str],
    services: Mapping[str, str],
    known: dict[tuple[Policy, ...], Slice],
) -> dict[tuple[str, str], Slice]:
    """(route, method) → slice, for every route and every method of the schema.

    `routes` maps names to services, `services` maps names to SPIFFE IDs. Equal slices are one object, so a thousand routes
    of one service share a handful of native sets; `known` holds those that were cut before, and is filled.
    """
    result: dict[tuple[str, str], Slice] = {}
    for method in GROUP_OF:
        by_reach: dict[tuple[str, str], list[Policy]] = {}
        for each in policies:
            if method in each.methods:
                by_reach.setdefault(each.reach, []).append(each)
        for route, service in routes.items():
            reaches = (EVERYWHERE, ("Service", service), ("Route", route))
            chosen = tuple(each for reach in reaches for each in by_reach.get(reach, ()))
            if chosen not in known:
                known[chosen] = _slice(chosen, services)
            result[route, method] = known[chosen]
    return result


def _slice(policies: tuple[Policy, ...], services: Mapping[str, str]) -> Slice:
    mentions = frozenset(mention for each in policies for mention in each.mentions)
    tells_by = {attribute for each in policies for attribute in each.tells_by}
    if "token" in mentions:  # its claims are the principal's as well
        tells_by.add(WHOLE)
    named = {name: services[name] for each in policies for name in each.named_services}
    static = {each.id: each.node for each in policies}
    return Slice(
        policies=policies,
        handle=cedarpy.PolicySet.from_pst(pst.PolicySet(templates={}, static_policies=static, template_links=())),
        entities=cedarpy.Entities.from_json_str(json.dumps(facts.shared_entities(named))),
        mentions=mentions,
        tells_by=frozenset(tells_by),
        is_settled=not mentions & VARYING,
    )


def walk(node: object) -> Iterator[object]:
    """`node` and everything below it."""
    pending = [node]
    while pending:
        current = pending.pop()
        yield current
        pending.extend(_children(current))


def _methods(action: pst.ActionConstraint) -> frozenset[str]:
    if isinstance(action, pst.ActionEq):
        named = {action.entity.id}
    elif isinstance(action, pst.ActionIn):
        named = {entity.id for entity in action.entities}
    else:
        return frozenset(GROUP_OF)
    return frozenset(method for method, group in GROUP_OF.items() if method in named or group in named)


def _reach(resource: pst.PrincipalOrResourceConstraint) -> tuple[str, str]:
    entity = getattr(resource, "entity", None)
    if isinstance(entity, pst.EntityUid) and entity.type.basename in {"Service", "Route"}:
        return (entity.type.basename, entity.id)
    return EVERYWHERE


def _collect(expr: object, mentions: set[str], scopes: set[str]) -> None:
    """Add what `expr` looks at. An access to the context is taken whole; anything else is searched below."""
    path = _context_path(expr)
    if path is not None:
        mentions |= _below(path)
        return
    if isinstance(expr, pst.HasAttr):
        path = _context_path(expr.base)
        if path is not None:
            mentions |= _tested((*path, *expr.attrs))
            return
    match expr:
        case pst.BinaryOp(
            op="contains" | "contains_all" | "contains_any",
            left=pst.GetAttr(base=pst.Var(name="principal"), attr="scopes"),
        ):
            scopes |= {each.value for each in walk(expr.right) if isinstance(each, pst.StringLit)}
    for child in _children(expr):
        _collect(child, mentions, scopes)


def _collect_told(expr: object, tells_by: set[str]) -> None:
    """Add what `expr` looks at of the principal. All of it, but for three forms that are known to look at less."""
    match expr:
        case pst.Var(name="principal"):
            tells_by.add(WHOLE)
        case pst.GetAttr(base=pst.Var(name="principal"), attr=attribute):
            tells_by.add(attribute)
        case pst.HasAttr(base=pst.Var(name="principal"), attrs=attributes):
            tells_by.add(attributes[0])
        case pst.Is(base=pst.Var(name="principal"), in_expr=None):
            pass
        case _:
            for child in _children(expr):
                _collect_told(child, tells_by)


def _children(expr: object) -> Iterable[object]:
    if isinstance(expr, Mapping):
        return expr.values()
    if isinstance(expr, tuple):
        return expr
    if is_dataclass(expr) and not isinstance(expr, type):
        return [getattr(expr, each.name) for each in fields(expr)]
    return ()


def _context_path(expr: object) -> tuple[str, ...] | None:
    """`context.conn.ip` → ("conn", "ip"); `context` → (); None for anything else."""
    if isinstance(expr, pst.GetAttr):
        base = _context_path(expr.base)
        return None if base is None else (*base, expr.attr)
    return () if expr == pst.Var(name="context") else None


def _below(path: tuple[str, ...]) -> frozenset[str]:
    """Mentions of the value at `path`: a record used as a value mentions all its attributes."""
    if not path:
        return _EVERY_MENTION
    if len(path) == 1:
        return frozenset((path[0], *(f"{path[0]}.{attribute}" for attribute in ATTRIBUTES[path[0]])))
    return frozenset((path[0], f"{path[0]}.{path[1]}"))


def _tested(path: tuple[str, ...]) -> frozenset[str]:
    """Mentions of `has`: of a record its presence is enough, of anything else the value is given."""
    return frozenset((path[0],)) if len(path) == 1 else _below(path)
