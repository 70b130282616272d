"""Policy files → one `PolicyBundle`: scanned, parsed, named, validated strictly, linted, sliced.

Everything that can be known to be wrong with a policy is found here, at load, because at run time Cedar skips a policy that
errors, and a skipped `forbid` lets through. In this order, each only for what passed the one before:

1. the file is scanned and cut into policies (`scan`), so that each fault has a line: Cedar gives none;
2. each is parsed alone, and must be exactly one static policy: our cut and Cedar's grammar agree;
3. it is named by its `@id` (Cedar's own names are positions), which is required and unique;
4. it is validated strictly against the schema: no access to an optional attribute without `has`;
5. the entities and captures it names must exist: the validator knows types, not instances, and a policy about
   `Edge::Service::"ordrs"` is a `forbid` that never fires.

A parser that dies takes its process along; callers that must survive compile in a child process first.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import cedarpy
from cedarpy import pst

from edge.authz import facts, slices
from edge.authz import schema as vocabulary
from edge.authz.scan import Chunk, PolicySource, ScanError, split
from edge.authz.slices import Policy, Slice
from edge.errors import ConfigError, Fault
from edge.model.route import Capture, Route

__all__ = ["PolicyBundle", "PolicySource", "compile"]

MAX_POLICIES = 4096
"""In all files. Cedar asks them one by one, 1.7 µs each, when a slice holds them all."""

_ID = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}\Z")
_SEE_SCHEMA = "see edge.cedarschema for what exists; an optional attribute (`?`) needs `has … &&` before it"


@dataclass(frozen=True, slots=True, eq=False)
class PolicyBundle:
    """All policies of a configuration, ready to be asked. Immutable; holds native handles, so it cannot be pickled."""

    policies: tuple[Policy, ...]
    """Sorted by id."""
    slices: Mapping[tuple[str, str], Slice]
    """(route name, method) → what can apply there; a method that is not in the schema has none."""
    service_names: Mapping[str, str]
    """SPIFFE ID → name in services.yaml."""
    known: dict[tuple[Policy, ...], Slice]
    """Every slice that was cut, by its policies; grows when routes are added, and is never more than there are sets."""

    def with_routes(self, routes: Mapping[str, str]) -> PolicyBundle:
        """The same policies about more routes: name → service. No policy can name one of them, so what reaches their service
        decides; native sets are shared."""
        services = {name: spiffe_id for spiffe_id, name in self.service_names.items()}
        added = slices.cut(self.policies, routes=routes, services=services, known=self.known)
        return replace(self, slices={**self.slices, **added})


@dataclass(frozen=True, slots=True)
class _Place:
    file: str
    line: int

    def fault(self, rule: str, message: str, remedy: str) -> Fault:
        return Fault(self.file, self.line, 1, rule, _one_line(message), remedy)


def compile(
    sources: Sequence[PolicySource],
    *,
    schema: PolicySource | None,
    services: Mapping[str, str],
    routes: Sequence[Route],
) -> PolicyBundle:
    """Build the bundle. `services` maps names to SPIFFE IDs. No policy at all is valid: then everything is denied.
    `schema`: the file beside the policies, which must say what ours says; None for the control plane's own, which have none.

    Raises:
        ConfigError: with every fault of every file.
    """
    faults = list(vocabulary.check(schema)) if schema is not None else []
    words = vocabulary.handle(vocabulary.TEXT if schema is not None else vocabulary.CONTROL_TEXT)
    known = _Known(services, routes)
    by_id: dict[str, Policy] = {}
    for source in sources:
        for place, found in _read(source, words):
            if isinstance(found, Fault):
                faults.append(found)
            elif found.id in by_id:
                first = by_id[found.id]
                message = f'@id("{found.id}") is taken by {first.file}:{first.line}'
                faults.append(place.fault("duplicate-id", message, "give this policy another id"))
            else:
                by_id[found.id] = found
                faults.extend(place.fault(*wrong) for wrong in known.lint(found))
    if len(by_id) > MAX_POLICIES:
        faults.append(Fault(sources[0].file, 1, 1, "too-many", f"more than {MAX_POLICIES} policies", "merge some"))
    if faults:
        raise ConfigError(faults)
    policies = tuple(by_id[policy_id] for policy_id in sorted(by_id))
    named = {route.name: route.upstream.service for route in routes}
    cut: dict[tuple[Policy, ...], Slice] = {}
    return PolicyBundle(
        policies=policies,
        slices=slices.cut(policies, routes=named, services=services, known=cut),
        service_names={spiffe_id: name for name, spiffe_id in services.items()},
        known=cut,
    )


def _read(source: PolicySource, words: cedarpy.Schema) -> Iterator[tuple[_Place, Policy | Fault]]:
    try:
        chunks = split(source.raw)
    except ScanError as exc:
        place = _Place(source.file, exc.line)
        yield place, place.fault(exc.rule, exc.message, exc.remedy)
        return
    for chunk in chunks:
        place = _Place(source.file, chunk.line)
        yield place, _policy(place, chunk, words)


def _policy(place: _Place, chunk: Chunk, words: cedarpy.Schema) -> Policy | Fault:
    try:
        parsed = cedarpy.PolicySet.from_str(chunk.text)
    except ValueError as exc:
        return place.fault("syntax", str(exc), "correct the policy that starts here")
    try:
        nodes = parsed.to_pst()
    except ValueError as exc:
        return place.fault("too-deep", str(exc), "split the policy into several, or use a set")
    if nodes.templates or len(nodes.static_policies) != 1:
        return place.fault("template", "not one policy without slots (`?principal`, `?resource`)", "name the entity")
    (node,) = nodes.static_policies.values()
    policy_id = node.annotations.get("id", "")
    if not _ID.match(policy_id):
        found = f'found @id("{policy_id}")' if policy_id else "no @id"
        return place.fault("policy-id", found, 'write @id("…") of a-z 0-9 . _ -, at most 64, before the policy')
    errors = cedarpy.validate_policies(chunk.text, words).errors
    if errors:
        # One policy may be reported once per action it applies to; it is one mistake.
        said = sorted(error.error.removeprefix(f"for policy `{error.policy_id}`, ") for error in errors)
        return place.fault("invalid-policy", f'@id("{policy_id}"): {said[0]}', _SEE_SCHEMA)
    return slices.policy(replace(node, id=policy_id), file=place.file, line=place.line)


class _Known:
    """What policies may name: the instances of this configuration."""

    def __init__(self, services: Mapping[str, str], routes: Sequence[Route]) -> None:
        self._services = frozenset(services)
        self._routes = frozenset(route.name for route in routes)
        self._params = frozenset(
            segment.name for route in routes for segment in route.pattern.segments if isinstance(segment, Capture)
        )

    def lint(self, policy: Policy) -> Iterator[tuple[str, str, str]]:
        """(rule, message, remedy) of each name in the policy that stands for nothing, once."""
        yield from sorted({wrong for node in slices.walk(policy.node) if (wrong := self._wrong(node))})

    def _wrong(self, node: object) -> tuple[str, str, str] | None:
        match node:
            case pst.EntityUid():
                return self._wrong_entity(node)
            case pst.BinaryOp(op="get_tag" | "has_tag", right=pst.StringLit(value=name)) if name not in self._params:
                return _unknown("unknown-param", f'no route captures "{name}"', name, self._params)
        return None

    def _wrong_entity(self, entity: pst.EntityUid) -> tuple[str, str, str] | None:
        match entity.type.basename:
            case "Service" if entity.id not in self._services:
                return _unknown("unknown-service", f"{entity} is not in services.yaml", entity.id, self._services)
            case "Route" if entity.id not in self._routes:
                return _unknown("unknown-route", f"{entity} is not in routes.yaml", entity.id, self._routes)
            case "User" if "#" not in entity.id:
                return ("unknown-principal", f"{entity} names nobody", 'write Edge::User::"<issuer>#<subject>"')
            case "Operator" if not facts.is_operator(entity.id):
                return ("unknown-principal", f"{entity} names nobody", "write the operator's SPIFFE ID, …/op/<name>")
            case "Anonymous" if entity.id != vocabulary.ANONYMOUS_UID:
                return ("unknown-principal", f"{entity} names nobody", 'write Edge::Anonymous::"anonymous"')
            case "Params":
                return ("unknown-param", f"{entity} cannot be named", "use context.params")
        return None


def _unknown(rule: str, message: str, name: str, known: Collection[str]) -> tuple[str, str, str]:
    close = difflib.get_close_matches(name, sorted(known), n=1)
    return (rule, message, f'did you mean "{close[0]}"?' if close else "correct the name, or add what it stands for")


def _one_line(text: str) -> str:
    return " ".join(text.split())[:300]
