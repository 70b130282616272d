"""`edge reload`: have the running gateway read its files again, and wait for the answer."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from edge.cli.locate import locate
from edge.errors import UnsafeState
from edge.serve.control_socket import ask
from edge.serve.run_state import run_of

_PATIENCE_S = 60.0


def command(
    config: Annotated[
        Path | None, typer.Option("-c", "--config", help="edge.yaml; else $EDGE_CONFIG, else ./edge.yaml.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the answer as one JSON object.")] = False,
) -> None:
    """Reload the configuration. A file that is wrong changes nothing: each fault is one line, and the exit code is 1."""
    try:
        answer = ask(run_of(locate(config)), "reload", _PATIENCE_S)
    except UnsafeState as exc:
        print(exc, file=sys.stderr)
        raise typer.Exit(4) from exc
    if json:
        print(msgspec.json.encode(answer).decode())
    elif answer.ok:
        print(f"{'reloaded' if answer.changed else 'unchanged'}: bundle {answer.bundle_hash}")
    else:
        print("\n".join(answer.faults), file=sys.stderr)
    raise typer.Exit(0 if answer.ok else 1)
