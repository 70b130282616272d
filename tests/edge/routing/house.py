"""Routes of the tests, with what matters and nothing else."""

from __future__ import annotations

from edge.model.route import FieldCondition, PathPattern, Route, Upstream
from edge.routing.pattern import parse


def route(
    name: str,
    path: str,
    methods: tuple[str, ...] = ("GET",),
    hosts: tuple[str, ...] = (),
    headers: tuple[tuple[str, str], ...] = (),
    query: tuple[tuple[str, str], ...] = (),
    encoded_slash: bool = False,
) -> Route:
    pattern = parse(path)
    assert isinstance(pattern, PathPattern)
    return Route(
        name=name,
        pattern=pattern,
        hosts=hosts,
        methods=methods,
        upstream=Upstream("orders", "spiffe://mesh.internal/svc/orders"),
        auth=("jwt",),
        headers=tuple(FieldCondition(*each) for each in headers),
        query=tuple(FieldCondition(*each) for each in query),
        encoded_slash=encoded_slash,
    )
