"""Routes, compiled into a tree of path segments, in the order of design §6; and what is wrong between two routes.

The order, decided here once and only followed by `match`:
1. From the left, a literal segment comes before `*` or `{name}`, and these before `/**`.
2. Among routes of one pattern, more header and query conditions come first.
3. Then routes that name the host before those for any host.
The first pattern that has a route for this host whose conditions hold decides: if none of its routes takes the method,
the answer is 405, and a less specific pattern is not tried. So a weaker route below can never be reached by changing the
method (attack A13). Two routes that no rule orders and one request could match are an error at load (`overlaps`).

Sample: /orders/{id} [GET], /orders/** [GET, POST]:

    root ─ "orders" ─ one: leaf /orders/{id}
                    └ rest: leaf /orders/**
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from edge.model.route import Capture, FieldCondition, Route, RouteMatch, Upstream, Wildcard
from edge.routing.pattern import shape

if TYPE_CHECKING:
    from edge.forward.balance import Turns


@dataclass(frozen=True, slots=True)
class Terms:
    """What a request must have for a route beside its path, and what is read off its path. In the form that is quickest to
    look at; equal terms of a table are one object, but for those that something follows."""

    hosts: frozenset[str] | None
    """None: any host of the listener."""
    methods: frozenset[str]
    headers: tuple[tuple[bytes, bytes], ...]
    query: tuple[tuple[str, str], ...]
    captures: tuple[tuple[int, str], ...]
    """(position in `path.split("/")`, name)."""
    encoded_slash: bool
    following: Entry | None = None
    """Which entry is looked at if this one does not fit."""


# With a thousand services a match costs what the processor has to fetch for it, more than what it does: a node and an entry
# are one line of the cache each (four words beside what every object has).
class Entry(RouteMatch):
    """One route at its leaf, and the match of every request that it fits, unless it captures: then one is made of it, of this
    class too, since the interpreter is quickest with those who always meet the same."""

    __slots__ = ("terms",)

    def __init__(self, route: Route, params: dict[str, str], turns: Turns | None, terms: Terms) -> None:
        self.route = route
        self.params = params
        self.turns = turns
        self.terms = terms


@dataclass(slots=True, eq=False)
class Node:
    """One position in a path. Entries are ordered: the first one that fits is the right one."""

    literals: dict[str, Node] = field(default_factory=lambda: _NO_NODES)
    one: Node | None = None
    rest: Entry | None = None
    """The first of the routes whose pattern ends here in `/**`."""
    end: Entry | None = None
    """Of those whose pattern ends exactly here."""


_NO_NODES: dict[str, Node] = {}
_NO_PARAMS: dict[str, str] = {}
"""Of every node below which nothing is, and of every match that captures nothing. Never written to; one object each, for a
thousand empty ones lie between what a match looks at."""


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """All routes of a gateway, and the hosts that it answers for."""

    root: Node
    hosts: Container[str]
    routes: tuple[Route, ...]
    """In the order of the file."""


class _Any:
    """Every host."""

    def __contains__(self, host: object) -> bool:
        return True


def compile(
    routes: Sequence[Route], hosts: Iterable[str] | None, turns: Callable[[Upstream], Turns] | None = None
) -> Table:
    """`hosts`: those of the listener, lower-case; None: any, where a name leads to nothing that another would not. `turns`:
    of the fleet that will balance. The routes must hold no pair of `overlaps`."""
    root, known = Node(), dict[Terms, Terms]()
    # One kind after the other: what many requests look at lies close together, on few pages.
    turn = [turns(route.upstream) if turns is not None else None for route in routes]
    terms = [known.setdefault(each, each) for each in map(_terms, routes)]
    entries = [Entry(route, _NO_PARAMS, turn[at], terms[at]) for at, route in enumerate(routes)]
    for entry in entries:
        _insert(root, entry)
    return Table(root, _Any() if hosts is None else frozenset(hosts), tuple(routes))


def _terms(route: Route) -> Terms:
    segments = route.pattern.segments
    return Terms(
        hosts=frozenset(route.hosts) or None,
        methods=frozenset(route.methods),
        headers=tuple((each.name.encode("ascii"), each.value.encode("utf-8")) for each in route.headers),
        query=tuple((each.name, each.value) for each in route.query),
        captures=tuple((at, segment.name) for at, segment in enumerate(segments, 1) if isinstance(segment, Capture)),
        encoded_slash=route.encoded_slash,
    )


def _insert(root: Node, entry: Entry) -> None:
    node = root
    for segment in shape(entry.route.pattern):
        if segment is Wildcard.REST:
            node.rest = _placed(node.rest, entry)
            return
        if segment is Wildcard.ONE:
            node.one = node.one or Node()
            node = node.one
        else:
            if node.literals is _NO_NODES:
                node.literals = {}
            node = node.literals.setdefault(segment, Node())
    node.end = _placed(node.end, entry)


def _placed(first: Entry | None, entry: Entry) -> Entry:
    """The entries from `first` on with another one among them, behind those of its rank; → the first."""
    if first is None:
        return entry
    if _place(entry) < _place(first):
        _put_before(entry, first)
        return entry
    before = first
    while (following := before.terms.following) is not None and _place(following) <= _place(entry):
        before = following
    if following is not None:
        _put_before(entry, following)
    _put_before(before, entry)
    return first


def _put_before(entry: Entry, following: Entry) -> None:
    entry.terms = replace(entry.terms, following=following)


def _place(entry: Entry) -> tuple[int, bool]:
    return -_conditions(entry.route), entry.terms.hosts is None


def _conditions(route: Route) -> int:
    return len(route.headers) + len(route.query)


def in_order(routes: Iterable[Route]) -> list[Route]:
    """Most specific first: any request is decided by the first route of this list that matches it."""
    return sorted(routes, key=rank)


def rank(route: Route) -> tuple[tuple[tuple[int, str], ...], int, bool]:
    """Less = decides first, of all that match one request."""
    segments = tuple(
        (0, segment) if isinstance(segment, str) else (1 if segment is Wildcard.ONE else 2, "")
        for segment in shape(route.pattern)
    )
    return segments, -_conditions(route), not route.hosts


def overlaps(routes: Sequence[Route]) -> Iterator[tuple[Route, Route]]:
    """Pairs (earlier, later) that some request matches both of, with nothing in the order to tell which one decides."""
    by_shape: dict[tuple[str | Wildcard, ...], list[Route]] = {}
    for later in routes:
        same_paths = by_shape.setdefault(shape(later.pattern), [])
        for earlier in same_paths:
            if _is_equal(earlier, later):
                yield earlier, later
        same_paths.append(later)


def _is_equal(a: Route, b: Route) -> bool:
    if _conditions(a) != _conditions(b) or bool(a.hosts) != bool(b.hosts):
        return False
    if a.hosts and not set(a.hosts) & set(b.hosts):
        return False
    if not set(a.methods) & set(b.methods):
        return False
    return not (_exclude(a.headers, b.headers) or _exclude(a.query, b.query))


def _exclude(a: Iterable[FieldCondition], b: Iterable[FieldCondition]) -> bool:
    """Whether one name must have two values: a condition holds only for a name that occurs exactly once."""
    wanted = {each.name: each.value for each in a}
    return any(wanted.get(each.name, each.value) != each.value for each in b)
