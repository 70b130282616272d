"""One request → its route, or why there is none. The order of candidates is `table`'s; here it is only walked.

In this order, and nothing else looks at hosts:
1. The host must be listed on the public listener, and equal to the TLS server name when one was sent (RFC 9110 §7.4,
   attacks A11, A12): a connection that was let in for one name must not reach another one's routes. Else 421.
2. The path is walked segment by segment over the canonical path; the query has no part in it (A5). Nothing fits: 404.
3. The first pattern with a route for this host whose conditions hold decides. A condition holds when the field or
   parameter occurs exactly once with the wanted value: "first wins" and "last wins" would each please someone (A8).
   If no route of that pattern takes the method: 405.
4. `%2F` in the path is refused unless the route has `encoded_slash` (400).
"""

from __future__ import annotations

from urllib.parse import unquote, unquote_plus

from edge.errors import MalformedRequest, MethodNotAllowed, Misdirected, RouteNotFound
from edge.model.http import Request
from edge.model.route import RouteMatch
from edge.routing.table import Entry, Node, Table


def match(table: Table, request: Request, sni: str | None) -> RouteMatch:
    """`sni`: the TLS server name, lower-case; None when absent or an IP literal.

    Captured segments are percent-decoded, so that a policy compares what the caller meant and not one spelling of it.
    Raises: Misdirected (421), RouteNotFound (404), MethodNotAllowed (405), MalformedRequest (400).
    """
    host = request.host
    memo = request.memo
    if memo is not None and (sni is None or sni == host):
        known: RouteMatch | None = memo.get(table)
        if known is not None:
            return known
    if host not in table.hosts:
        raise Misdirected("host-not-served")
    if sni is not None and sni != host:
        raise Misdirected("host-differs-from-server-name")
    parts = request.path.split("/")
    found = _find(table.root, parts, request)
    if found is None:
        raise RouteNotFound("no-route")
    terms = found.terms
    if "%2F" in request.path and not terms.encoded_slash:
        raise MalformedRequest("path-encoded-slash")
    if terms.captures:
        params = {name: _decoded(parts[at]) for at, name in terms.captures}
        found = Entry(found.route, params, found.turns, terms)
    if memo is not None:
        memo[table] = found
    return found


def _find(root: Node, parts: list[str], request: Request) -> Entry | None:
    """Depth first: at each node the literal, then the wildcard, then `/**`. Visits each node at most once."""
    end = len(parts)
    at = 1  # parts[0] is the nothing before the first slash
    node: Node | None = root
    later: list[tuple[Node | None, Entry | None, int]] = []
    while True:
        while node is not None:
            if node.rest is not None:
                later.append((None, node.rest, at))
            if at == end:
                if node.end is not None:
                    entry = _first(node.end, request)
                    if entry is not None:
                        return entry
                break
            part = parts[at]
            at += 1
            if node.one is not None and part:
                later.append((node.one, None, at))
            node = node.literals.get(part)
        if not later:
            return None
        node, rest, at = later.pop()
        if rest is not None:
            entry = _first(rest, request)
            if entry is not None:
                return entry


def _first(first: Entry, request: Request) -> Entry | None:
    """The first entry that fits, or None when none has this host and its conditions. Raises: MethodNotAllowed."""
    allowed: set[str] | None = None
    entry: Entry | None = first
    while entry is not None:
        terms = entry.terms
        if (
            (terms.hosts is None or request.host in terms.hosts)
            and (not terms.headers or _has_headers(terms.headers, request))
            and (not terms.query or _has_query(terms.query, request.raw_query))
        ):
            if request.method in terms.methods:
                return entry
            allowed = (allowed or set()) | terms.methods
        entry = terms.following
    if allowed is not None:
        raise MethodNotAllowed(sorted(allowed))
    return None


def _has_headers(wanted: tuple[tuple[bytes, bytes], ...], request: Request) -> bool:
    return all([found for each, found in request.fields if each == name] == [value] for name, value in wanted)


def _has_query(wanted: tuple[tuple[str, str], ...], raw_query: bytes) -> bool:
    pairs = [each.partition("=") for each in raw_query.decode("ascii").split("&")]
    return all(
        [unquote_plus(found) for each, _, found in pairs if unquote_plus(each) == name] == [value]
        for name, value in wanted
    )


def _decoded(part: str) -> str:
    return unquote(part, errors="strict") if "%" in part else part  # parse.target let only UTF-8 through
