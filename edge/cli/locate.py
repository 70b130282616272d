"""Which edge.yaml a command works on: `-c FILE`, then `$EDGE_CONFIG`, then `./edge.yaml`, in this order."""

from __future__ import annotations

import os
from pathlib import Path

import typer

VARIABLE = "EDGE_CONFIG"


def locate(config: Path | None) -> Path:
    """The file, as named (a relative name stays relative, for messages).

    Ends the command with exit code 4 and the remedy when there is none.
    """
    named = os.environ.get(VARIABLE)
    if config is not None:
        path, origin = config, "-c"
    elif named:
        path, origin = Path(named), f"${VARIABLE}"
    else:
        path, origin = Path("edge.yaml"), "here"
    if path.is_file():
        return path
    typer.echo(
        f"edge: no file {path} ({origin}); name one with -c FILE or ${VARIABLE}, or make one with: edge init DIR",
        err=True,
    )
    raise typer.Exit(4)
