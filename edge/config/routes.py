"""routes.yaml → routes, each held against the grant of the service it forwards to.

Checked here, because it lies between two entries or two files: names are unique, the service exists, exactly one of `auth`
and `public` is there, hosts are served, the route lies inside its service's grant before and after its rewrite (attack A6),
and no two routes are equal in the order of matching. A route with a fault takes no part in the comparison with others.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import dataclass

from edge.authn import PUBLIC_METHODS as AUTHENTICATION
from edge.config.document import Document, Step
from edge.config.policy_files import FROM_UPSTREAM, METHODS, RouteShape, UpstreamShape, WebSocketShape, parse_endpoint
from edge.config.services import Grants, Mesh, canonical_hosts, pattern, unknown_host, unserved_host
from edge.config.shape import fit
from edge.config.tables import Table
from edge.errors import Fault
from edge.model.http import RawField
from edge.model.route import NOSNIFF, FieldCondition, PathPattern, Route, Segment, Upstream
from edge.model.websocket import WebSocketBounds
from edge.registry.grant import Grant, is_covered
from edge.routing.table import overlaps

Way = tuple[Step, ...]


@dataclass(frozen=True, slots=True)
class Routes:
    """The routes that could be read, in the order of the file."""

    sound: tuple[Route, ...]
    names: frozenset[str]
    """Also of entries with a fault, as far as they have one."""
    is_whole: bool
    """Every route of the file is among `sound`."""


def read(table: Table, grants: Grants, mesh: Mesh, faults: list[Fault]) -> Routes:
    """One route for each entry without a fault."""
    places: dict[str, Way] = {}
    sound: list[Route] = []
    for way in table.ways:
        name_node = table.document.node((*way, "name"))
        name = name_node.value if name_node is not None else None
        if isinstance(name, str) and name in places:
            line, _ = table.document.place((*places[name], "name"))
            message = f'"{name}" is the name of another route (line {line})'
            faults.append(
                table.document.fault((*way, "name"), "duplicate-name", message, "give each route its own name")
            )
            continue
        if isinstance(name, str):
            places[name] = way
        route = _route(table.document, way, grants, mesh, faults)
        if route is not None:
            sound.append(route)
    by_name = {route.name: route for route in sound}
    blamed: set[str] = set()
    for earlier, later in overlaps(sound):
        if later.name not in blamed:
            blamed.add(later.name)
            faults.append(_overlap(table.document, places, by_name[earlier.name], by_name[later.name]))
    is_whole = table.is_whole and len(sound) == len(table.ways)
    return Routes(tuple(sound), frozenset(places), is_whole)


def _overlap(document: Document, places: dict[str, Way], earlier: Route, later: Route) -> Fault:
    way = (*places[later.name], "match", "path")
    line, column = document.place((*places[earlier.name], "match", "path"))
    message = (
        f'route "{later.name}" and route "{earlier.name}" ({document.file}:{line}:{column}) match the same requests '
        "and nothing orders them"
    )
    return document.fault(way, "overlap", message, "change the path, hosts, methods or conditions of one, or remove it")


def _route(document: Document, way: Way, grants: Grants, mesh: Mesh, faults: list[Fault]) -> Route | None:
    shape = fit(RouteShape, document, way, faults)
    if shape is None:
        return None
    found = [fault for fault in _flaws(document, way, shape, grants, mesh) if fault is not None]
    grant = grants.sound.get(shape.upstream.service)
    route = _build(document, way, shape, grant, mesh)
    if not found and grant is not None:
        outside = _outside_grant(document, way, route, grant, mesh)
        found += [outside] if outside is not None else []
    faults += found
    return route if not found else None


def _flaws(document: Document, way: Way, shape: RouteShape, grants: Grants, mesh: Mesh) -> Iterator[Fault | None]:
    """What is wrong with the route apart from its grant."""
    if (shape.auth is None) == (shape.public is None):
        message = "both auth and public are there" if shape.auth else "neither auth nor public is there"
        yield document.fault(way, "auth", message, 'write either auth: [jwt] or public: {reason: "…"}')
    for at, method in enumerate(shape.auth or ()):
        known = ", ".join(AUTHENTICATION)
        if method not in AUTHENTICATION:
            message = f'no such method of authentication "{method}"'
            yield document.fault((*way, "auth", at), "unknown-auth", message, f"known: {known}")
        elif method in (shape.auth or ())[:at]:
            yield document.fault((*way, "auth", at), "duplicate-name", f'"{method}" stands here twice', "keep one")
    hosts = canonical_hosts(shape.match.hosts)
    unserved = unserved_host(hosts, mesh)
    if unserved is not None:
        yield document.fault((*way, "match", "hosts", unserved), "unknown-host", *unknown_host(hosts[unserved]))
    if shape.origins and (shape.websocket is None or "GET" not in (shape.match.methods or METHODS)):
        message = "origins are for WebSockets, and this route takes none"
        yield document.fault(
            (*way, "origins"), "websocket", message, "remove them, or let the route take GET and WebSockets"
        )
    service = shape.upstream.service
    if grants.is_whole and service not in grants.names:
        near = difflib.get_close_matches(service, sorted(grants.names), n=1)
        remedy = (
            f"did you mean {near[0]}?" if near else f'add it there: {service}: {{may_serve: ["{shape.match.path}"]}}'
        )
        message = f"the service {service} is not in services.yaml"
        yield document.fault((*way, "upstream", "service"), "unknown-service", message, remedy)
    endpoints = _endpoints(shape.upstream)
    for text in shape.upstream.weights:
        if parse_endpoint(text) not in endpoints:
            way_of_it = (*way, "upstream", "weights", text)
            message = f"{text} is not among the endpoints"
            yield document.fault(way_of_it, "unknown-endpoint", message, "add it there, or remove it", at_key=True)
    prefix = shape.upstream.strip_prefix
    if prefix and _stripped(pattern(shape.match.path), prefix) is None:
        message = f"{prefix} is not how {shape.match.path} begins"
        yield document.fault(
            (*way, "upstream", "strip_prefix"), "rewrite", message, "write leading literal segments of it"
        )


def _build(document: Document, way: Way, shape: RouteShape, grant: Grant | None, mesh: Mesh) -> Route:
    return Route(
        name=shape.name,
        pattern=pattern(shape.match.path),
        hosts=canonical_hosts(shape.match.hosts),
        methods=tuple(dict.fromkeys(shape.match.methods or METHODS)),
        upstream=Upstream(
            service=shape.upstream.service,
            spiffe_id=grant.spiffe_id if grant is not None else "",  # without a grant the route is never used
            endpoints=_endpoints(shape.upstream),
            weights=_weights(shape.upstream),
            strip_prefix=shape.upstream.strip_prefix,
            timeout_s=shape.upstream.timeout_s,
            assertion=grant.assertion if grant is not None else None,
        ),
        auth=shape.auth or (),
        public_reason=shape.public.reason if shape.public is not None else None,
        headers=tuple(FieldCondition(name.lower(), value) for name, value in sorted(shape.match.headers.items())),
        query=tuple(FieldCondition(name, value) for name, value in sorted(shape.match.query.items())),
        encoded_slash=shape.encoded_slash,
        forward_token=shape.forward_token,
        max_body_bytes=shape.max_body_bytes,
        websocket=_bounds(shape.websocket),
        origins=shape.origins,
        answer_fields=_answer_fields(shape),
        place=(document.file, *document.place(way)),
    )


def _endpoints(shape: UpstreamShape) -> tuple[tuple[str, int], ...]:
    """Each once."""
    return tuple(dict.fromkeys(found for text in shape.endpoints if (found := parse_endpoint(text)) is not None))


def _weights(shape: UpstreamShape) -> tuple[int, ...]:
    """Of the endpoints, in their order; empty when nobody has one."""
    named = {parse_endpoint(text): weight for text, weight in shape.weights.items()}
    return tuple(named.get(endpoint, 1) for endpoint in _endpoints(shape)) if named else ()


def _answer_fields(shape: RouteShape) -> tuple[RawField, ...]:
    wanted = {name.encode("ascii"): value for name, value in shape.answer_headers.items()}
    said = {NOSNIFF[0]: NOSNIFF[1].decode("ascii")} | wanted
    return tuple((name, value.encode("ascii")) for name, value in sorted(said.items()) if value != FROM_UPSTREAM)


def _bounds(shape: WebSocketShape | None) -> WebSocketBounds | None:
    return WebSocketBounds(**shape.model_dump()) if shape is not None else None


def _outside_grant(document: Document, way: Way, route: Route, grant: Grant, mesh: Mesh) -> Fault | None:
    """The first way in which the route leaves the grant of its service."""
    grants = f"the grant of {grant.service}"
    may_serve = ", ".join(each.text for each in grant.may_serve)
    if not grant.covers(route.pattern):
        message = f"{route.pattern.text} is not inside {grants} ({may_serve})"
        remedy = "narrow the path, or widen may_serve in services.yaml"
        return document.fault((*way, "match", "path"), "outside-grant", message, remedy)
    stripped = _stripped(route.pattern, route.upstream.strip_prefix)
    if stripped is not None and not is_covered(stripped, [each.segments for each in grant.may_serve]):
        message = f"the rewritten path {_spelled(stripped)} is not inside {grants} ({may_serve})"
        remedy = "add what the service receives to its may_serve in services.yaml"
        return document.fault((*way, "upstream", "strip_prefix"), "outside-grant", message, remedy)
    methods = [method for method in route.methods if method not in grant.methods]
    if methods:
        message = f"{', '.join(methods)} not in {grants}"
        remedy = f"write methods: [{', '.join(method for method in route.methods if method in grant.methods)}]"
        return document.fault((*way, "match", "methods"), "outside-grant", message, remedy)
    hosts = [host for host in route.hosts or mesh.hosts or () if host not in grant.hosts]
    if hosts and mesh.hosts is not None:
        message = f"{', '.join(hosts)} not in {grants}"
        return document.fault(
            (*way, "match", "hosts"), "outside-grant", message, f"write hosts: [{', '.join(grant.hosts)}]"
        )
    return None


def _stripped(path: PathPattern, prefix: str) -> tuple[Segment, ...] | None:
    """The segments that are left when `prefix` is taken off; None when the pattern does not begin with it."""
    leading = tuple(prefix.split("/")[1:])
    if path.segments[: len(leading)] != leading:
        return None
    return path.segments[len(leading) :] or ("",)


def _spelled(segments: tuple[Segment, ...]) -> str:
    return "/" + "/".join(each if isinstance(each, str) else getattr(each, "value", "*") for each in segments)
