"""What a command works on that judges files: the edge.yaml that `locate` finds, and what became of checking it."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from edge.cli.ending import exit_code_4
from edge.cli.locate import locate
from edge.errors import Fault

if TYPE_CHECKING:
    from edge.config.io_check import Checked, Look


def judged(config: Path | None, look: Look | None = None) -> tuple[Path, Checked]:
    """The file and the judgement of it and all files it names; `look`: and of what is valid in them.

    Ends the command with exit code 4 and the cause when they cannot be read safely.
    """
    from edge.config.io_check import check  # what judges files is heavy; --help and a wrong option need none of it
    from edge.config.io_load import load

    path = locate(config)
    with exit_code_4("edge: "):
        return path, check(load(path, os.environ), look=look)


def from_here(fault: Fault, config: Path) -> Fault:
    """Names in diagnostics are relative to edge.yaml; a terminal opens them relative to where the command runs."""
    return replace(fault, file=str(config.parent / fault.file))
