"""How a command ends when what it works on is unsafe, locked or missing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import typer

from edge.errors import UnsafeState


@contextmanager
def exit_code_4(prefix: str = "") -> Iterator[None]:
    """What cannot be looked at is neither good nor bad: its sentence, behind `prefix`, on standard error, and exit code 4."""
    try:
        yield
    except UnsafeState as exc:
        typer.echo(f"{prefix}{exc}", err=True)
        raise typer.Exit(4) from exc
