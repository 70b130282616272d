"""`edge lint`: what is legal in a configuration and deserves a second look, one line each, in the form of `edge check`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from edge.cli.judged import from_here, judged
from edge.errors import Fault
from edge.model.route import Route


def command(
    config: Annotated[Path | None, typer.Option("-c", "--config", metavar="FILE", help="edge.yaml to look at")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print {findings} instead")] = False,
) -> None:
    """Look for what is risky although it is valid. Exit 0: nothing, 1: findings or faults, 4: unsafe or missing."""
    path, checked = judged(config)
    found = [from_here(each, path) for each in (*checked.faults, *_overlaps(checked.routes))]
    if as_json:
        typer.echo(json.dumps({"findings": [asdict(each) for each in found]}, indent=2))
    else:
        typer.echo("".join(f"{each}\n" for each in found) or f"{path}: nothing to say", nl=not found)
    if found:
        raise typer.Exit(1)


def _overlaps(routes: Iterable[Route]) -> Iterator[Fault]:
    from edge.routing.ownership import contested

    for route, other in contested(tuple(routes)):
        file, line, column = route.place
        message = (
            f'route "{route.name}" has requests that route "{other.name}" ({other.place[0]}:{other.place[1]}) of service '
            f"{other.upstream.service} matches too: it is the more specific one"
        )
        yield Fault(file, line, column, "overlap", message, "keep it if that is meant; else narrow one of the two")
