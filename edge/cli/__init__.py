"""The commands. Each file turns its arguments into one call, prints, and gives the exit code; no logic lives here.

Exit codes: 0 done · 1 findings or failed · 2 usage · 3 refused by policy · 4 unsafe, locked or missing state · 70 bug.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Sequence
from importlib import import_module

COMMANDS = ("init", "serve", "attach", "check", "lint", "routes", "services", "status", "reload")
GROUPS = ("audit", "ca")


def run(arguments: Sequence[str]) -> int:
    """Run one command and give its exit code."""
    import typer

    app = typer.Typer(
        help="A zero-trust edge gateway: OAuth2/JWT in, identity-pinned mTLS out, every decision in a signed log.",
        no_args_is_help=True,
        add_completion=True,
        pretty_exceptions_enable=False,
    )
    app.callback()(_no_options)  # keeps the command's name when only one is there
    asked = arguments[0] if arguments else ""
    gc.disable()  # what is loaded stays: to look through it again and again is a fifth of a start
    for name in COMMANDS:
        if asked not in (*COMMANDS, *GROUPS) or asked == name:  # import what was asked for: the rest costs a second
            app.command(name)(import_module(f"edge.cli.{name}").command)
    for name in GROUPS:
        if asked not in (*COMMANDS, *GROUPS) or asked == name:
            app.add_typer(import_module(f"edge.cli.{name}").app, name=name)
    gc.enable()
    try:
        app(list(arguments), prog_name="edge")
    except SystemExit as exc:
        return exc.code if isinstance(exc.code, int) else 1
    except BrokenPipeError:
        # The reader has enough: `edge audit tail | head`.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as exc:  # the end of the command's line: whatever was not foreseen is a bug, and says so
        if os.environ.get("EDGE_DEBUG"):
            raise
        print(f"edge: bug: {type(exc).__name__}: {exc}; set EDGE_DEBUG=1 for the trace and report it", file=sys.stderr)
        return 70
    return 0


def _no_options() -> None:
    """A zero-trust edge gateway: OAuth2/JWT in, identity-pinned mTLS out, every decision in a signed log."""
