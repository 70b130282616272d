"""`edge serve`: run the gateway in the foreground until SIGTERM or SIGINT."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edge.cli.locate import locate
from edge.serve.report import LogFormat, Report
from edge.serve.supervisor import Supervisor


def command(
    config: Annotated[
        Path | None, typer.Option("-c", "--config", help="edge.yaml; else $EDGE_CONFIG, else ./edge.yaml.")
    ] = None,
    log_format: Annotated[LogFormat, typer.Option(help="Lines on stderr as plain text or as JSON.")] = LogFormat.PLAIN,
) -> None:
    """Run the gateway in the foreground. `ready …` on stderr says that requests are decided and recorded."""
    raise typer.Exit(Supervisor(locate(config), Report("supervisor", log_format)).run())
