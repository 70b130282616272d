"""`edge services`: who serves what, since when, through which gateway, and why somebody does not."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from edge.cli.ending import exit_code_4
from edge.cli.live import fetch


def command(
    config: Annotated[
        Path | None,
        typer.Option("-c", "--config", metavar="FILE", help="edge.yaml; else $EDGE_CONFIG, else ./edge.yaml."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as one JSON object.")] = False,
) -> None:
    """Show the instances that the running gateway knows, and the registrations that it refused last."""
    with exit_code_4():
        facts = fetch(config, "/v1/services")
    print(json.dumps(facts, indent=2) if as_json else "\n".join(lines(facts)))


def lines(facts: Mapping[str, Any]) -> Iterator[str]:
    """For people: each service with its instances, then what was refused."""
    by_service: dict[str, list[Mapping[str, Any]]] = {name: [] for name in facts["services"]}
    for row in facts["instances"]:
        by_service.setdefault(row["service"], []).append(row)
    for service, rows in by_service.items():
        yield f"{service}: {'nobody' if not rows else ''}".rstrip()
        for row in rows:
            yield f"  {_instance(row)}"
            for route in row.get("routes", ()):
                state = "live" if route["live"] else f"not live: {route['reason'] or row['reason']}"
                yield f"    {','.join(route['methods'])} {','.join(route['hosts'])} {route['path']} [{state}]"
    if facts["refused"]:
        yield "refused by the worker that answered, newest last (all are in the access log):"
    for refused in facts["refused"]:
        who = refused.get("tls.client.spiffe_id", "")
        what = f"{refused.get('service.name') or '?'}/{refused.get('service.node.name', '?')}"
        yield f"  {what} by {who} from {refused.get('source.ip', '?')}: {refused['rule']}"


def _instance(row: Mapping[str, Any]) -> str:
    state = row["state"] if row.get("reason") is None else f"{row['state']}: {row['reason']}"
    health = _health(row.get("health"))
    if row["source"] != "registered":
        return f"{row['address']} [{state}] {health}, {row['source']}"
    return (
        f"{row['instance']} {row['address']} [{state}] {health}, since {row['since']}, ends in {row['expires_in_s']:.0f} s, "
        f"weight {row['weight']}, through {row['gateway']}"
    )


def _health(health: Mapping[str, Any] | None) -> str:
    """As the workers see it: the worst that any of them says."""
    if health is None:
        return "not asked yet"
    until = f" until {health['ejected_until']}" if health["ejected_until"] else ""
    return f"{health['state']}{until}, {health['in_flight']} under way"
