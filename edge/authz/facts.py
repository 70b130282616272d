"""What Cedar is told about a request: the entities, the context, and the part of both that a decision is remembered by.

Nothing here reads a header or a claim: every fact comes from a value that an earlier step verified. Entity ids go over as
`{"type", "id"}`, never spliced into Cedar text, so a subject with quotes in it is only a strange name.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final, NotRequired, TypeAlias, TypedDict

from edge.authz.schema import ANONYMOUS_UID, GROUP_OF, NAMESPACE
from edge.model.http import Request
from edge.model.identity import Peer, Principal
from edge.model.route import RouteMatch
from pki.errors import SpiffeIdError
from pki.spiffe import SpiffeId

Json: TypeAlias = "str | int | bool | Mapping[str, Json] | Sequence[Json]"


class Uid(TypedDict):
    """An entity's name, in the form that needs no quoting."""

    type: str
    id: str


class Entity(TypedDict):
    """An entity as Cedar reads it."""

    uid: Uid
    attrs: Mapping[str, Json]
    parents: list[Uid]
    tags: NotRequired[Mapping[str, str]]


_USER_ATTRIBUTES: Final = frozenset(("issuer", "subject", "scopes", "roles", "tenant"))
_PARAMS_UID: Final = "request"
_PARAMS_REFERENCE: Final[Json] = {"__entity": {"type": f"{NAMESPACE}::Params", "id": _PARAMS_UID}}
_KINDS: Final[Mapping[str, str]] = {"op": "Operator", "gw": "Gateway"}
"""Who is known by the role in its SPIFFE ID; a service is known by services.yaml."""
_SECOND_NS: Final = 1_000_000_000


def uid(entity_type: str, name: str) -> Uid:
    return {"type": f"{NAMESPACE}::{entity_type}", "id": name}


def action_uid(method: str) -> Uid:
    return uid("Action", method)


def shared_entities(services: Mapping[str, str]) -> list[Entity]:
    """Entities that no request changes: the action hierarchy, and `services` (name → SPIFFE ID)."""
    groups = sorted({group for group in GROUP_OF.values() if group})
    actions = [_entity(action_uid(group)) for group in groups]
    actions += [
        _entity(action_uid(method), parents=[action_uid(group)] if group else []) for method, group in GROUP_OF.items()
    ]
    return actions + [_service(name, spiffe_id) for name, spiffe_id in services.items()]


def is_user(principal: Principal) -> bool:
    """True when the principal has scopes at all: `Edge::User`."""
    return not principal.is_anonymous and principal.method != "mtls"


def principal_entity(principal: Principal, scopes: frozenset[str], service_names: Mapping[str, str]) -> Entity | None:
    """The principal as an entity of the schema; None when the schema has no type for it (then nothing permits it).

    A user is given `scopes`, which are its own except where one asks what more of them would change.
    `service_names`: SPIFFE ID → name.

    Raises:
        ValueError: an issuer that holds `#`: two principals could share one uid.
    """
    if principal.is_anonymous:
        return _entity(uid("Anonymous", ANONYMOUS_UID))
    if not is_user(principal):
        name = service_names.get(principal.subject)
        if name is not None:
            return _service(name, principal.subject)
        kind = _KINDS.get(role_of(principal.subject))
        return _entity(uid(kind, principal.subject)) if kind is not None else None
    if "#" in principal.issuer:
        raise ValueError("an issuer is a URL without a fragment")
    attributes: dict[str, Json] = {
        "issuer": principal.issuer,
        "subject": principal.subject,
        "scopes": sorted(scopes),
        "roles": sorted(principal.roles),
    }
    if principal.tenant is not None:
        attributes["tenant"] = principal.tenant
    return _entity(uid("User", principal.uid), attributes)


def alike(tells_by: frozenset[str], principal: Principal) -> Hashable:
    """What all principals have in common that policies which look at these attributes cannot tell from `principal`.

    The principal itself when nobody shares its decisions: when a policy names it, when it is no user, or when Cedar might
    not take what its token says (then the question fails, and must fail for it alone, whoever asked before).
    """
    if "uid" in tells_by or not is_user(principal) or "#" in principal.issuer:
        return principal
    words = (principal.issuer, principal.subject, principal.tenant or "", *principal.scopes, *principal.roles)
    if not all(map(str.isascii, words)):
        return principal
    return tuple([getattr(principal, attribute) for attribute in sorted(tells_by & _USER_ATTRIBUTES)])


def is_operator(spiffe_id: str) -> bool:
    """True for `spiffe://<trust domain>/op/<name>`."""
    return role_of(spiffe_id) == "op"


def role_of(spiffe_id: str) -> str:
    """The role in its path; empty for what is no SPIFFE ID of ours."""
    try:
        return SpiffeId.parse(spiffe_id).role or ""
    except SpiffeIdError:
        return ""


def route_entity(match: RouteMatch) -> Entity:
    """The route that matched, below its service."""
    return _entity(uid("Route", match.route.name), parents=[uid("Service", match.route.upstream.service)])


def params_entity(params: Mapping[str, str]) -> Entity:
    """The captured segments, as tags: a route names its captures freely, and a record type could not."""
    return {"uid": uid("Params", _PARAMS_UID), "attrs": {}, "parents": [], "tags": params}


def context(
    mentions: frozenset[str], request: Request, principal: Principal, peer: Peer, now_ns: int
) -> dict[str, Json]:
    """The context, with the mentioned attributes only: each `ip` and `datetime` costs Cedar 5 µs to read."""
    given: dict[str, Json] = {}
    if "conn" in mentions:
        conn: dict[str, Json] = {}
        if "conn.mtls" in mentions:
            conn["mtls"] = peer.spiffe_id is not None
        if "conn.peer" in mentions and peer.spiffe_id is not None:
            conn["peer"] = peer.spiffe_id
        if "conn.ip" in mentions:
            conn["ip"] = _extension("ip", peer.ip)
        given["conn"] = conn
    if "token" in mentions and principal.issued_ns:
        token: dict[str, Json] = {}
        if "token.age" in mentions:
            token["age"] = _age_s(principal, now_ns)
        if "token.acr" in mentions and principal.acr is not None:
            token["acr"] = principal.acr
        given["token"] = token
    if "path" in mentions:
        given["path"] = request.path
    if "params" in mentions:
        given["params"] = _PARAMS_REFERENCE
    if "now" in mentions:
        moment = datetime.fromtimestamp(now_ns // _SECOND_NS, UTC)
        given["now"] = _extension("datetime", moment.strftime("%Y-%m-%dT%H:%M:%SZ"))
    return given


def varying(
    mentions: frozenset[str], request: Request, match: RouteMatch, principal: Principal, peer: Peer, now_ns: int
) -> Iterable[Hashable]:
    """The mentioned values that differ between requests of one principal to one route, in a fixed order."""
    if "conn.mtls" in mentions or "conn.peer" in mentions:
        yield peer.spiffe_id
    if "conn.ip" in mentions:
        yield peer.ip
    if "token.age" in mentions:
        yield _age_s(principal, now_ns)
    if "path" in mentions:
        yield request.path
    if "params" in mentions:
        yield tuple(match.params.items())
    if "now" in mentions:
        yield now_ns // _SECOND_NS


def _entity(entity_uid: Uid, attributes: Mapping[str, Json] | None = None, parents: list[Uid] | None = None) -> Entity:
    return {"uid": entity_uid, "attrs": attributes or {}, "parents": parents or []}


def _service(name: str, spiffe_id: str) -> Entity:
    return _entity(uid("Service", name), {"spiffe_id": spiffe_id})


def _extension(function: str, argument: str) -> Json:
    return {"__extn": {"fn": function, "arg": argument}}


def _age_s(principal: Principal, now_ns: int) -> int:
    """Whole seconds since the token was issued; an issuer whose clock is ahead of ours gives 0."""
    return max(0, (now_ns - principal.issued_ns) // _SECOND_NS)
