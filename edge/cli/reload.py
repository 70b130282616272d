"""`edge reload`: have the running gateway read its files again, or also replace its workers, and wait for the answer."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from edge.cli.ending import exit_code_4
from edge.cli.locate import locate
from edge.serve.control_socket import ask
from edge.serve.run_state import run_of

_PATIENCE_S = 60.0
_PATIENCE_WITH_WORKERS_S = 600.0


def command(
    config: Annotated[
        Path | None, typer.Option("-c", "--config", help="edge.yaml; else $EDGE_CONFIG, else ./edge.yaml.")
    ] = None,
    workers: Annotated[
        bool,
        typer.Option("--workers", help="Then replace the worker processes one by one; no request is lost. Or SIGUSR2."),
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the answer as one JSON object.")] = False,
) -> None:
    """Reload the configuration. A file that is wrong changes nothing: each fault is one line, and the exit code is 1."""
    with exit_code_4():
        run = run_of(locate(config))
        if workers:
            answer = ask(run, "reload-workers", _PATIENCE_WITH_WORKERS_S)
        else:
            answer = ask(run, "reload", _PATIENCE_S)
    if json:
        print(msgspec.json.encode(answer).decode())
    elif answer.ok:
        print(f"{'reloaded' if answer.changed else 'unchanged'}: bundle {answer.bundle_hash}")
        if workers:
            print(f"restarted: {answer.restarted} workers")
    else:
        print("\n".join(answer.faults), file=sys.stderr)
    raise typer.Exit(0 if answer.ok else 1)
