"""`edge routes`: what is routed where and who may ask, in the order that matching follows."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge.cli.ending import exit_code_4
from edge.cli.judged import judged
from edge.cli.live import fetch

if TYPE_CHECKING:
    from edge.model.route import Route


def command(
    config: Annotated[Path | None, typer.Option("-c", "--config", metavar="FILE", help="edge.yaml to read")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print a list of objects instead")] = False,
    live: Annotated[bool, typer.Option("--live", help="ask the running gateway: declared routes as well")] = False,
) -> None:
    """List the routes of a valid configuration, most specific first. Exit 1 when it is not valid (see edge check)."""
    if live:
        _show_live(config, as_json=as_json)
        return
    from edge.routing.table import in_order

    path, checked = judged(config)
    if checked.faults:
        typer.echo(f"edge: {path} has {len(checked.faults)} faults; see them with: edge check -c {path}", err=True)
        raise typer.Exit(1)
    rows = [_row(route, checked.hosts) for route in in_order(checked.routes)]
    if as_json:
        typer.echo(json.dumps([asdict(row) for row in rows], indent=2))
        return
    for row in rows:
        who = "+".join(row.auth) or f"public: {row.public_reason}"
        where = f"{row.service} {' '.join(row.endpoints) or '(no endpoint)'}"
        typer.echo(f"{row.name}: {','.join(row.methods)} {','.join(row.hosts)} {row.path} -> {where} [{who}]")


def _show_live(config: Path | None, *, as_json: bool) -> None:
    """What the gateway routes at this moment, and the declared routes that it does not."""
    with exit_code_4():
        rows = fetch(config, "/v1/routes")["routes"]
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    for row in rows:
        if row["live"]:
            where = f"{row['service']} [{'+'.join(row['auth']) or 'public'}] {row['source']}"
            typer.echo(f"{row['name']}: {','.join(row['methods'])} {','.join(row['hosts'])} {row['path']} -> {where}")
        else:
            typer.echo(f"{row['name']}: not live: {row['reason']}")


@dataclass(frozen=True, slots=True)
class _Row:
    """One route as printed; the names are those of routes.yaml."""

    name: str
    methods: tuple[str, ...]
    hosts: tuple[str, ...]
    path: str
    conditions: tuple[str, ...]
    service: str
    spiffe_id: str
    endpoints: tuple[str, ...]
    strip_prefix: str
    auth: tuple[str, ...]
    public_reason: str | None
    place: str


def _row(route: Route, hosts: tuple[str, ...]) -> _Row:
    upstream = route.upstream
    return _Row(
        name=route.name,
        methods=route.methods,
        hosts=route.hosts or hosts,
        path=route.pattern.text,
        conditions=tuple(f"{each.name}={each.value}" for each in (*route.headers, *route.query)),
        service=upstream.service,
        spiffe_id=upstream.spiffe_id,
        endpoints=tuple(f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in upstream.endpoints),
        strip_prefix=upstream.strip_prefix,
        auth=route.auth,
        public_reason=route.public_reason,
        place=":".join(map(str, route.place)),
    )
