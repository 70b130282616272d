"""`edge check`: is this configuration valid? One line for each thing that is wrong:
`file:line:column: rule: message; remedy`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from edge.cli.judged import from_here, judged


def command(
    config: Annotated[Path | None, typer.Option("-c", "--config", metavar="FILE", help="edge.yaml to check")] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="print {valid, faults, warnings, bundle_hash} instead")
    ] = False,
) -> None:
    """Validate edge.yaml, the policy directory and all files they name. Exit 0: valid, 1: faults, 4: unsafe or missing."""
    path, checked = judged(config)
    faults = [from_here(fault, path) for fault in (*checked.faults, *checked.findings)]
    if as_json:
        facts = {
            "valid": not faults,
            "faults": [asdict(fault) for fault in faults],
            "warnings": list(checked.warnings),
            "bundle_hash": checked.bundle_hash,
        }
        typer.echo(json.dumps(facts, indent=2))
    else:
        for fault in faults:
            typer.echo(str(fault))
        for warning in checked.warnings:
            typer.echo(f"warning: {warning}", err=True)
        if not faults:
            typer.echo(f"{path}: valid, bundle {checked.bundle_hash[:16]}")
    if faults:
        raise typer.Exit(1)
